//! Which bucket, by which keys, and how requests to it are made.
//! Guards: secrets are shown nowhere; every request has a bound on how long it may be silent, none on how long it takes.

use std::fmt;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::part_plan::{LARGEST_COPY, SMALLEST_PART};
use crate::{Error, Result};

const CONNECT: Duration = Duration::from_secs(10);
/// Silence that ends a request. The upload of one part has to fit in it: 8 MiB at 1.2 Mbit/s.
const SILENCE: Duration = Duration::from_secs(60);
/// How long one request is tried again, all its attempts together.
const RETRYING: Duration = Duration::from_secs(120);
const BACKOFF: BackoffConfig = BackoffConfig {
    init_backoff: Duration::from_millis(100),
    max_backoff: Duration::from_secs(10),
    base: 2.0,
};

/// Variables that tell credentials, or where they are had.
const CREDENTIALS: [&str; 12] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
    "AWS_IMDSV1_FALLBACK",
];

/// What is kept of a secret in memory; it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How objects are encrypted by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With keys of the storage's own (SSE-S3).
    Managed,
    /// With a key of the key management service (SSE-KMS).
    Kms(String),
}

/// A bucket that speaks S3, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    pub bucket: String,
    /// What all keys begin with, as Distribution's `rootdirectory`.
    pub root: String,
    pub region: String,
    /// `https://host`; none for AWS by its region.
    pub endpoint: Option<String>,
    /// The bucket as part of the path instead of the host's name.
    pub path_style: bool,
    pub dual_stack: bool,
    pub accelerate: bool,
    pub skip_verify: bool,
    /// Both or neither; without them, by the environment, a web identity or the machine's role.
    pub keys: Option<(String, Hidden)>,
    pub session_token: Option<Hidden>,
    pub encryption: Option<Encryption>,
    pub storage_class: Option<String>,
    pub user_agent: Option<String>,
    /// Bytes of one part, and of what is gathered before the first.
    pub chunk: u64,
    /// Above this many bytes the server copies in parts.
    pub copy_threshold: u64,
    /// Bytes of one such part.
    pub copy_chunk: u64,
    /// Such parts that are under way at one time.
    pub copy_concurrency: usize,
    /// Tries of one request after its first.
    pub max_retries: usize,
}

impl S3Settings {
    /// Distribution's defaults.
    pub fn new(bucket: impl Into<String>, region: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            root: String::new(),
            region: region.into(),
            endpoint: None,
            path_style: false,
            dual_stack: false,
            accelerate: false,
            skip_verify: false,
            keys: None,
            session_token: None,
            encryption: None,
            storage_class: None,
            user_agent: None,
            chunk: 8 << 20,
            copy_threshold: 32 << 20,
            copy_chunk: 32 << 20,
            copy_concurrency: 16,
            max_retries: 10,
        }
    }

    pub(crate) fn place(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    /// Where requests go, for messages.
    pub fn shown_endpoint(&self) -> String {
        self.endpoint.clone().unwrap_or_else(|| format!("AWS, {}", self.region))
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Settings(message));
        if self.bucket.is_empty() {
            return wrong("storage.s3.bucket is missing".to_owned());
        }
        if self.chunk < SMALLEST_PART {
            return wrong(format!(
                "storage.s3.chunksize is {}, and S3 takes no part below 5 MiB",
                self.chunk
            ));
        }
        if self.copy_threshold > LARGEST_COPY {
            let most =
                "storage.s3.multipartcopythresholdsize is above 5 GiB, the most that S3 copies at once";
            return wrong(most.to_owned());
        }
        Ok(())
    }

    pub(super) fn retries(&self) -> RetryConfig {
        RetryConfig { backoff: BACKOFF, max_retries: self.max_retries, retry_timeout: RETRYING }
    }

    fn client(&self) -> Result<ClientOptions> {
        let agent = self.user_agent.as_deref().unwrap_or(concat!("twinport/", env!("CARGO_PKG_VERSION")));
        let agent = agent.parse().map_err(|_| {
            Error::Settings("storage.s3.useragent holds what no header may: use plain text".to_owned())
        })?;
        Ok(ClientOptions::new()
            .with_allow_http(true)
            .with_allow_invalid_certificates(self.skip_verify)
            .with_connect_timeout(CONNECT)
            .with_timeout_disabled()
            .with_read_timeout(SILENCE)
            .with_user_agent(agent))
    }

    pub(super) fn connect(&self) -> Result<(AmazonS3, HttpClient)> {
        let options = self.client()?;
        let unusable = |e: object_store::Error| Error::Settings(format!("{}: {e}", self.place()));
        let http = ReqwestConnector::default().connect(&options).map_err(unusable)?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_client_options(options)
            .with_disable_bulk_delete(true)
            .with_retry(self.retries());
        if let Some((key, secret)) = &self.keys {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret.reveal());
            if let Some(token) = &self.session_token {
                builder = builder.with_token(token.reveal());
            }
        } else {
            builder = with_credentials(builder, std::env::vars());
        }
        let (endpoint, virtual_hosted) = self.address()?;
        if let Some(endpoint) = endpoint {
            // TLS guards the bytes on their way; without it, their hash is part of the signature.
            builder = builder.with_unsigned_payload(endpoint.starts_with("https")).with_endpoint(endpoint);
        } else {
            builder = builder.with_unsigned_payload(true);
        }
        builder = builder.with_virtual_hosted_style_request(virtual_hosted);
        builder = match &self.encryption {
            None => builder,
            Some(Encryption::Managed) => {
                let key = "aws_server_side_encryption".parse::<AmazonS3ConfigKey>().map_err(unusable)?;
                builder.with_config(key, "AES256")
            }
            Some(Encryption::Kms(key)) => builder.with_sse_kms_encryption(key),
        };
        Ok((builder.build().map_err(unusable)?, http))
    }

    /// The endpoint as `object_store` wants it, which is with the bucket where the bucket is part of the host's name.
    fn address(&self) -> Result<(Option<String>, bool)> {
        let Self { bucket, region, .. } = self;
        let hosted = !self.path_style && !bucket.contains('.');
        if let Some(endpoint) = &self.endpoint {
            let Some((scheme, host)) = endpoint.split_once("://") else {
                let message =
                    format!("storage.s3.regionendpoint `{endpoint}` must begin with http:// or https://");
                return Err(Error::Settings(message));
            };
            let host = host.trim_end_matches('/');
            let address =
                if hosted { format!("{scheme}://{bucket}.{host}") } else { format!("{scheme}://{host}") };
            return Ok((Some(address), hosted));
        }
        if self.accelerate {
            let stack = if self.dual_stack { ".dualstack" } else { "" };
            return Ok((Some(format!("https://{bucket}.s3-accelerate{stack}.amazonaws.com")), true));
        }
        if self.dual_stack {
            let host = format!("s3.dualstack.{region}.amazonaws.com");
            let address = if hosted { format!("https://{bucket}.{host}") } else { format!("https://{host}") };
            return Ok((Some(address), hosted));
        }
        Ok((None, hosted))
    }

    /// What a copy has to be told again, as it inherits neither from its source.
    pub(super) fn copy_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if let Some(class) = &self.storage_class {
            headers.push(("x-amz-storage-class", class.clone()));
        }
        match &self.encryption {
            None => {}
            Some(Encryption::Managed) => headers.push(("x-amz-server-side-encryption", "AES256".to_owned())),
            Some(Encryption::Kms(key)) => {
                headers.push(("x-amz-server-side-encryption", "aws:kms".to_owned()));
                headers.push(("x-amz-server-side-encryption-aws-kms-key-id", key.clone()));
            }
        }
        headers
    }
}

/// Credentials as they are told everywhere on AWS. Of the environment nothing else counts: where a bucket is, and how it is
/// asked, is for the configuration to say.
fn with_credentials(
    mut builder: AmazonS3Builder,
    environment: impl Iterator<Item = (String, String)>,
) -> AmazonS3Builder {
    for (name, value) in
        environment.filter(|(name, value)| CREDENTIALS.contains(&name.as_str()) && !value.is_empty())
    {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_tells_credentials_and_nothing_else() {
        let variables = CREDENTIALS.map(|name| (name.to_owned(), "true".to_owned()));
        let strangers = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_BUCKET", "AWS_SKIP_SIGNATURE", "PATH"];
        let strangers = strangers.map(|name| (name.to_owned(), "stranger".to_owned()));
        let builder = with_credentials(AmazonS3Builder::new(), variables.into_iter().chain(strangers));
        for name in CREDENTIALS {
            let key = name.to_ascii_lowercase().parse().unwrap();
            assert_eq!(builder.get_config_value(&key).as_deref(), Some("true"), "{name}");
        }
        for name in ["aws_endpoint_url_s3", "aws_endpoint", "aws_bucket"] {
            assert_eq!(builder.get_config_value(&name.parse().unwrap()), None, "{name}");
        }
    }

    #[test]
    fn an_endpoint_is_what_the_settings_make_of_it() {
        let plain = S3Settings::new("layers", "eu-west-1");
        assert_eq!(plain.address().unwrap(), (None, true));
        let own = S3Settings { endpoint: Some("http://minio:9000/".to_owned()), ..plain.clone() };
        assert_eq!(own.address().unwrap(), (Some("http://layers.minio:9000".to_owned()), true));
        let path = S3Settings { path_style: true, ..own };
        assert_eq!(path.address().unwrap(), (Some("http://minio:9000".to_owned()), false));
        let fast = S3Settings { accelerate: true, dual_stack: true, ..plain.clone() };
        let (address, _) = fast.address().unwrap();
        assert_eq!(address.unwrap(), "https://layers.s3-accelerate.dualstack.amazonaws.com");
        // A certificate of *.s3.amazonaws.com covers no name with a dot in it.
        assert_eq!(S3Settings::new("lay.ers", "eu-west-1").address().unwrap(), (None, false));
    }

    #[test]
    fn a13_settings_show_no_secret() {
        let keys = Some(("id".to_owned(), Hidden::new("sesame")));
        let settings =
            S3Settings { keys, session_token: Some(Hidden::new("sesame")), ..S3Settings::new("b", "r") };
        assert!(!format!("{settings:?}").contains("sesame"));
    }
}
