//! What the object storage answered, in words that an operator can act on.
//! Guards: no secret gets into an error: of an answer only its code and its message are told, never a URL's query.

use object_store::Error as Refusal;

use crate::Error;

/// Codes of answers that no permission would change; the last is versitygw's own.
const CREDENTIALS: [&str; 5] =
    ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "XAdminUserNotFound"];

/// What was being done, and with which object.
#[derive(Debug, Clone)]
pub(crate) struct Attempt<'a> {
    pub(crate) doing: &'static str,
    /// `s3://bucket`
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
}

impl Attempt<'_> {
    fn place(&self) -> String {
        format!("{}/{}", self.bucket, self.key)
    }

    /// The failure of one request, after all its retries.
    pub(crate) fn failed(&self, refusal: &Refusal) -> Error {
        let told = chain(refusal);
        let denied = matches!(refusal, Refusal::PermissionDenied { .. } | Refusal::Unauthenticated { .. });
        self.explain(&told, denied)
    }

    /// An answer that was not successful, of a request that this crate signs itself.
    pub(crate) fn answered(&self, status: u16, body: &str) -> Error {
        self.explain(&format!("status {status}: {body}"), matches!(status, 401 | 403))
    }

    /// A failure of the connection.
    pub(crate) fn unreachable(&self, error: &dyn std::error::Error) -> Error {
        self.explain(&chain(error), false)
    }

    fn explain(&self, told: &str, denied: bool) -> Error {
        let (doing, place) = (self.doing, self.place());
        match element(told, "Code").as_deref() {
            Some("NoSuchBucket") => Error::NoBucket { bucket: self.bucket.to_owned() },
            Some("RequestTimeTooSkewed") => Error::ClockSkewed { doing, place },
            Some(code) if CREDENTIALS.contains(&code) => {
                Error::BucketCredentials { bucket: self.bucket.to_owned(), code: code.to_owned() }
            }
            code if denied || code == Some("AccessDenied") => {
                let code = code.unwrap_or("no reason given").to_owned();
                Error::BucketDenied { doing, place, code }
            }
            Some(code) => {
                let message = element(told, "Message").unwrap_or_default();
                Error::Bucket { doing, place, reason: format!("{code} {message}").trim_end().to_owned() }
            }
            None => Error::Bucket { doing, place, reason: without_queries(told) },
        }
    }
}

/// An error with everything that caused it, each told once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !told.contains(&text) {
            told.push_str(": ");
            told.push_str(&text);
        }
        source = error.source();
    }
    told
}

/// The text of an element of S3's XML error.
fn element(told: &str, name: &str) -> Option<String> {
    let (_, rest) = told.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0.to_owned())
}

/// Cuts what follows a question mark in a word: a signed URL carries its signature there.
fn without_queries(told: &str) -> String {
    const LONGEST: usize = 500;
    let words = told.split_whitespace().map(|word| match word.split_once('?') {
        Some((before, _)) if before.contains("://") => before,
        _ => word,
    });
    let text = words.collect::<Vec<_>>().join(" ");
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Attempt<'static> = Attempt { doing: "writing", bucket: "s3://layers", key: "a/b" };

    fn told(status: u16, code: &str) -> String {
        let body = format!("<Error><Code>{code}</Code><Message>words</Message></Error>");
        ATTEMPT.answered(status, &body).to_string()
    }

    #[test]
    fn s7_a_skewed_clock_a_missing_bucket_and_a_wrong_key_are_told_apart() {
        assert!(told(403, "RequestTimeTooSkewed").contains("clock"));
        assert!(told(404, "NoSuchBucket").contains("storage.s3.bucket"));
        assert!(told(403, "InvalidAccessKeyId").contains("storage.s3.accesskey"));
        let denied = told(403, "AccessDenied");
        assert!(denied.contains("s3://layers/a/b") && denied.contains("AccessDenied"), "{denied}");
        assert!(told(503, "SlowDown").contains("SlowDown words"));
    }

    #[test]
    fn a13_the_query_of_a_signed_url_is_told_nobody() {
        let error = std::io::Error::other("GET http://s3/a/b?X-Amz-Signature=abc failed");
        let told = ATTEMPT.unreachable(&error).to_string();
        assert!(!told.contains("Signature") && told.contains("http://s3/a/b failed"), "{told}");
    }
}
