//! Requests that `object_store` has no call for: copies of ranges, copies with a storage class, lists of open uploads.
//! Signed with its authorizer and its credentials, sent with its client, tried again as it tries.

use std::ops::Range;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use http::{Method, StatusCode};
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequestBody, HttpResponse};
use object_store::path::Path;
use object_store::signer::Signer;

use super::BucketBlobs;
use super::failure::Attempt;
use crate::{Error, Result};

/// Stays in the process: the URL is only taken for its address.
const UNUSED_EXPIRY: Duration = Duration::from_secs(60);

/// What a request came to.
enum Outcome {
    /// The same request may succeed later.
    Passing(Error),
    Final(Error),
}

impl BucketBlobs {
    /// Has the server copy a whole object.
    pub(super) async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let mut headers = self.settings.copy_headers();
        headers.push(("x-amz-copy-source", self.copy_source(from)));
        self.send("copying to", Method::PUT, to, &[], &headers).await.map(drop)
    }

    /// Has the server copy a range of an object into a part; answers the part's ETag.
    pub(super) async fn copy_part(
        &self,
        from: &Path,
        range: &Range<u64>,
        to: &Path,
        upload: &str,
        number: usize,
    ) -> Result<String> {
        let headers = [
            ("x-amz-copy-source", self.copy_source(from)),
            ("x-amz-copy-source-range", format!("bytes={}-{}", range.start, range.end - 1)),
        ];
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", upload)];
        let body = self.send("copying a part to", Method::PUT, to, &query, &headers).await?;
        element(&body, "ETag").map(|tag| unescaped(&tag)).ok_or_else(|| {
            self.attempt("copying a part to", to).answered(200, "the answer names no ETag of the part")
        })
    }

    /// Uploads in parts that were begun and neither completed nor aborted: key, id and beginning (as the server writes it).
    /// One page of at most 1,000; whoever ends them asks again.
    pub(super) async fn open_uploads(&self, prefix: &Path) -> Result<Vec<(Path, String, String)>> {
        let query = [("uploads", ""), ("prefix", prefix.as_ref())];
        let body = self.send("listing the uploads of", Method::GET, &Path::default(), &query, &[]).await?;
        let uploads = body.split("<Upload>").skip(1).filter_map(|upload| {
            let key = Path::parse(unescaped(&element(upload, "Key")?)).ok()?;
            Some((key, unescaped(&element(upload, "UploadId")?), element(upload, "Initiated")?))
        });
        Ok(uploads.collect())
    }

    fn copy_source(&self, from: &Path) -> String {
        // Keys of ours need no escaping but for what the root holds.
        let key = percent_encoding::utf8_percent_encode(from.as_ref(), KEY);
        format!("{}/{key}", self.settings.bucket)
    }

    async fn send(
        &self,
        doing: &'static str,
        method: Method,
        key: &Path,
        query: &[(&str, &str)],
        headers: &[(&'static str, String)],
    ) -> Result<String> {
        let retries = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(10))
            .with_max_times(self.settings.max_retries)
            .with_jitter();
        let attempt = self.attempt(doing, key);
        let once = || self.send_once(&attempt, method.clone(), key, query, headers);
        let sent = once.retry(retries.build()).when(|outcome| matches!(outcome, Outcome::Passing(_))).await;
        sent.map_err(|(Outcome::Passing(error) | Outcome::Final(error))| error)
    }

    async fn send_once(
        &self,
        attempt: &Attempt<'_>,
        method: Method,
        key: &Path,
        query: &[(&str, &str)],
        headers: &[(&'static str, String)],
    ) -> Result<String, Outcome> {
        let refused = |e: object_store::Error| Outcome::Passing(attempt.failed(&e));
        // The address of an object depends on the endpoint's style, which the signer knows.
        let mut url = self.s3.signed_url(method.clone(), key, UNUSED_EXPIRY).await.map_err(refused)?;
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request =
            http::Request::builder().method(method).uri(url.as_str()).header("content-length", 0);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request =
            request.body(HttpRequestBody::empty()).map_err(|e| Outcome::Final(attempt.unreachable(&e)))?;
        let credential = self.s3.credentials().get_credential().await.map_err(refused)?;
        AwsAuthorizer::new(&credential, "s3", &self.settings.region)
            .try_authorize(&mut request, None)
            .map_err(refused)?;
        let unreachable = |e: object_store::client::HttpError| Outcome::Passing(attempt.unreachable(&e));
        let answer: HttpResponse = self.http.execute(request).await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.into_body().bytes().await.map_err(unreachable)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        // A copy that fails half way is told in the body of a 200.
        if status.is_success() && !body.contains("<Error>") {
            return Ok(body);
        }
        let error = attempt.answered(status.as_u16(), &body);
        let passes = status.is_success()
            || status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        Err(if passes { Outcome::Passing(error) } else { Outcome::Final(error) })
    }
}

/// RFC 3986's unreserved characters and the slash stay as they are.
const KEY: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0.to_owned())
}

/// The five entities that XML knows by itself, and the number that Go writes for a quote.
fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&apos;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_however_its_quotes_are_written() {
        for quote in ["\"", "&quot;", "&#34;"] {
            let xml = format!("<CopyPartResult><ETag>{quote}abc{quote}</ETag></CopyPartResult>");
            assert_eq!(element(&xml, "ETag").map(|tag| unescaped(&tag)).as_deref(), Some("\"abc\""));
        }
    }
}
