//! The section `storage.s3`: Distribution's keys of a bucket that speaks S3 (`s3_v2` is GitLab's name of the same).
//! Guards: each key is acted on here, or `schema` says what it is.

use twinport_blobs::{Encryption, Hidden, S3Settings};

use super::resolve::Reader;
use super::{DatabaseConfig, Secret};

pub(super) const SECTION: &str = "storage.s3";

impl Reader<'_> {
    /// The bucket, where the section is there; problems are gathered, and then the answer is only good for going on.
    pub(super) fn s3(&mut self) -> Option<S3Settings> {
        if !self.is_set(SECTION) {
            return None;
        }
        if self.is_set("storage.filesystem") {
            let message = "blobs are kept in one place: keep one of storage.filesystem and storage.s3";
            self.problem(SECTION, message.to_owned());
        }
        let bucket = self.s3_text("bucket").unwrap_or_default();
        if bucket.is_empty() {
            self.problem(SECTION, "storage.s3.bucket is missing: the name of the bucket".to_owned());
        }
        let endpoint = self.endpoint();
        let region = match self.s3_text("region") {
            Some(region) => region,
            // Other storages name a region only for the signature's sake.
            None if endpoint.is_some() => "us-east-1".to_owned(),
            None => {
                let message = "storage.s3.region is missing: the bucket's region, such as eu-west-1";
                self.problem(SECTION, message.to_owned());
                String::new()
            }
        };
        let defaults = S3Settings::new(bucket, region);
        Some(S3Settings {
            root: self.s3_text("rootdirectory").unwrap_or_default(),
            path_style: self
                .s3_boolean("forcepathstyle")
                .or_else(|| self.s3_boolean("pathstyle"))
                .unwrap_or(false),
            dual_stack: self.s3_boolean("usedualstack").unwrap_or(false),
            accelerate: self.s3_boolean("accelerate").unwrap_or(false),
            skip_verify: self.s3_boolean("skipverify").unwrap_or(false),
            keys: self.keys(),
            session_token: self.secret("sessiontoken").map(|token| Hidden::new(token.reveal())),
            encryption: self.encryption(),
            // Distribution's word for not naming one.
            storage_class: self
                .s3_text("storageclass")
                .filter(|class| class != "NONE" && class != "STANDARD"),
            user_agent: self.s3_text("useragent"),
            chunk: self.s3_bytes("chunksize", 5 << 20, 5 << 30).unwrap_or(defaults.chunk),
            copy_threshold: self
                .s3_bytes("multipartcopythresholdsize", 0, 5 << 30)
                .unwrap_or(defaults.copy_threshold),
            copy_chunk: self
                .s3_bytes("multipartcopychunksize", 5 << 20, 5 << 30)
                .unwrap_or(defaults.copy_chunk),
            copy_concurrency: self
                .s3_number("multipartcopymaxconcurrency", 1..=1_000)
                .unwrap_or(defaults.copy_concurrency),
            max_retries: self.s3_number("maxretries", 0..=100).unwrap_or(defaults.max_retries),
            endpoint,
            ..defaults
        })
    }

    /// A database of each node's own would take the others' blobs for nobody's.
    pub(super) fn refuse_unshared_database(&mut self, database: &DatabaseConfig) {
        if self.is_set(SECTION) && *database == DatabaseConfig::Embedded {
            let message = "a bucket is shared by nodes, and the embedded database is not: set database.enabled and where \
                           PostgreSQL is, or keep blobs in storage.filesystem";
            self.problem(SECTION, message.to_owned());
        }
    }

    fn s3_text(&mut self, key: &str) -> Option<String> {
        self.text(&format!("{SECTION}.{key}")).filter(|text| !text.is_empty())
    }

    fn s3_boolean(&mut self, key: &str) -> Option<bool> {
        self.boolean(&format!("{SECTION}.{key}"))
    }

    fn s3_bytes(&mut self, key: &str, least: u64, most: u64) -> Option<u64> {
        let wanted = format!("a number of bytes from {least} to {most}");
        self.parsed(&format!("{SECTION}.{key}"), &wanted, |text| {
            text.parse::<u64>().ok().filter(|bytes| (least..=most).contains(bytes))
        })
    }

    fn s3_number(&mut self, key: &str, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.parsed(&format!("{SECTION}.{key}"), &wanted, |text| {
            text.parse::<usize>().ok().filter(|number| range.contains(number))
        })
    }

    /// `secure` says what an endpoint without a scheme speaks.
    fn endpoint(&mut self) -> Option<String> {
        let secure = self.s3_boolean("secure").unwrap_or(true);
        let endpoint = self.s3_text("regionendpoint");
        let path = format!("{SECTION}.regionendpoint");
        let Some(endpoint) = endpoint else {
            if !secure {
                let message = "AWS is not asked in clear: remove it, or name a regionendpoint";
                self.problem(&format!("{SECTION}.secure"), format!("storage.s3.secure is false: {message}"));
            }
            return None;
        };
        let endpoint = match endpoint.split_once("://") {
            Some(_) => endpoint,
            None => format!("{}://{endpoint}", if secure { "https" } else { "http" }),
        };
        let url = url::Url::parse(&endpoint).ok();
        let plain = url.is_some_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && matches!(url.path(), "" | "/")
        });
        if !plain {
            let message =
                format!("{path} is `{endpoint}`, and must be a host, or a URL such as https://minio:9000");
            self.problem(&path, message);
        }
        Some(endpoint)
    }

    fn keys(&mut self) -> Option<(String, Hidden)> {
        match (self.secret("accesskey"), self.secret("secretkey")) {
            (Some(key), Some(secret)) => Some((key.reveal().to_owned(), Hidden::new(secret.reveal()))),
            (None, None) => None,
            _ => {
                let message = "storage.s3.accesskey and secretkey go together: set both, or neither to have the environment \
                               (AWS_ACCESS_KEY_ID), a web identity or the machine's role tell them";
                self.problem(SECTION, message.to_owned());
                None
            }
        }
    }

    /// A value that may also come from the file that `<key>_file` names.
    fn secret(&mut self, key: &str) -> Option<Secret> {
        let path = format!("{SECTION}.{key}");
        self.secret_or_file(&path, &format!("{path}_file")).filter(|secret| !secret.reveal().is_empty())
    }

    fn encryption(&mut self) -> Option<Encryption> {
        let encrypt = self.s3_boolean("encrypt").unwrap_or(false);
        match self.s3_text("keyid") {
            Some(key) if encrypt => Some(Encryption::Kms(key)),
            None if encrypt => Some(Encryption::Managed),
            Some(_) => {
                let message = "storage.s3.keyid is set and encrypt is not: say `encrypt: true`, or remove it";
                self.problem(&format!("{SECTION}.keyid"), message.to_owned());
                None
            }
            None => None,
        }
    }
}
