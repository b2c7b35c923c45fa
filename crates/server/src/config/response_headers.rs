//! `http.headers`: headers of every answer of the registry, in Distribution's shape. Those of CORS are read as a policy:
//! a browser's page of an origin that none of them names is told nothing.
//! Invariant: no header by which an answer is framed or understood can be set from here.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CONNECTION, DATE,
    ETAG, LINK, LOCATION, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What answers carry besides their own headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseHeaders {
    everywhere: Vec<(HeaderName, HeaderValue)>,
    /// `Access-Control-Allow-Origin`.
    pub(crate) origins: Vec<String>,
    /// The other headers of CORS, sent to pages of those origins; several values make one list.
    pub(crate) cross_origin: Vec<(HeaderName, HeaderValue)>,
}

/// What only the server knows, or what would break the form of an answer.
const OWN: [HeaderName; 8] = [CONNECTION, DATE, ETAG, LINK, LOCATION, TRAILER, TRANSFER_ENCODING, UPGRADE];
const CROSS_ORIGIN: [HeaderName; 5] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

impl ResponseHeaders {
    /// Adds one value of one header.
    ///
    /// # Errors
    /// Why it cannot be sent, in words.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let header = HeaderName::try_from(name).map_err(|_| "this is no name of a header".to_owned())?;
        let text = value.trim();
        let value = HeaderValue::try_from(text)
            .map_err(|_| "a value must be one line of visible characters".to_owned())?;
        let own = ["content-", "docker-", "oci-"].iter().any(|kind| header.as_str().starts_with(kind));
        if OWN.contains(&header) || (own && header != http::header::CONTENT_SECURITY_POLICY) {
            return Err("the server sets this header itself: remove it".to_owned());
        }
        if header == ACCESS_CONTROL_ALLOW_ORIGIN {
            if text != "*" && !is_origin(text) {
                return Err(format!("`{text}` is no origin: use `*` or SCHEME://HOST[:PORT] without a path"));
            }
            self.origins.push(text.to_ascii_lowercase());
        } else if CROSS_ORIGIN.contains(&header) {
            self.add_to_list(header, value)?;
        } else {
            self.everywhere.push((header, value));
        }
        Ok(())
    }

    fn add_to_list(&mut self, header: HeaderName, value: HeaderValue) -> Result<(), String> {
        let Some((_, list)) = self.cross_origin.iter_mut().find(|(name, _)| *name == header) else {
            self.cross_origin.push((header, value));
            return Ok(());
        };
        let joined = [list.as_bytes(), b", ", value.as_bytes()].concat();
        *list = HeaderValue::try_from(joined).map_err(|_| "the values are too long together".to_owned())?;
        Ok(())
    }

    /// What is allowed and does not do what it seems to.
    pub(crate) fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        let any = self.origins.iter().any(|origin| origin == "*");
        if any && self.cross_origin.iter().any(|(name, _)| *name == ACCESS_CONTROL_ALLOW_CREDENTIALS) {
            warnings.push(
                "browsers send no credentials where Access-Control-Allow-Origin is `*`: name the origins",
            );
        }
        if self.origins.is_empty() && !self.cross_origin.is_empty() {
            warnings
                .push("without Access-Control-Allow-Origin the other Access-Control headers are not sent");
        }
        warnings
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.everywhere.is_empty() && self.origins.is_empty()
    }

    /// Puts what every answer carries into one, where the server has not set it itself.
    pub(crate) fn insert_into(&self, answer: &mut HeaderMap) {
        if self.everywhere.is_empty() {
            return;
        }
        let own: Vec<HeaderName> = answer.keys().cloned().collect();
        for (name, value) in self.everywhere.iter().filter(|(name, _)| !own.contains(name)) {
            answer.append(name, value.clone());
        }
    }

    /// Each header by its name, with its values, as it is written in a configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let origins =
            self.origins.iter().map(|origin| (ACCESS_CONTROL_ALLOW_ORIGIN.as_str(), origin.as_str()));
        let others = self.cross_origin.iter().chain(&self.everywhere);
        origins.chain(others.map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())))
    }
}

fn is_origin(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    // As a browser writes it: nothing but scheme, host and port.
    url.origin().ascii_serialization() == text.to_ascii_lowercase()
}
