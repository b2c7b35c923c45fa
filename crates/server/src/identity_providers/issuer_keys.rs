//! One issuer's keys, as they were last fetched.
//! Guards: an unknown key id asks the issuer again at most once in ten seconds, whoever sends how many, and whose key is known
//! does not wait for that. A key that the issuer takes away stops counting within the hour, if the issuer answers.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Mutex;
use tracing::{info, warn};
use twinport_access::jwt::KeySet;

use super::fetch::{FetchError, Fetcher};
use super::{KeySource, WorkloadIssuer};

const SECOND_US: i64 = 1_000_000;
/// Between two questions to an issuer.
const PAUSE_US: i64 = 10 * SECOND_US;
/// After which keys are looked at again.
const FRESH_US: i64 = 3_600 * SECOND_US;
/// How long the last known keys count while the issuer does not answer.
const KEPT_US: i64 = 24 * 3_600 * SECOND_US;

pub(super) struct IssuerKeys {
    name: String,
    fetcher: Fetcher,
    /// What was fetched, and when.
    held: RwLock<Option<(Arc<KeySet>, i64)>>,
    /// Whoever has it asks the issuer; when it was asked last, and why that failed.
    asking: Mutex<Option<(i64, Option<FetchError>)>>,
}

impl IssuerKeys {
    pub(super) fn new(settings: &WorkloadIssuer) -> Result<Self, FetchError> {
        let fetcher = match &settings.keys {
            KeySource::Discovery => {
                Fetcher::discovery(&settings.issuer, settings.certificate_authorities.as_deref())?
            }
            KeySource::Url(url) => Fetcher::jwks(url.clone(), settings.certificate_authorities.as_deref())?,
            KeySource::File(path) => Fetcher::file(path.clone()),
        };
        Ok(Self {
            name: settings.name.to_string(),
            fetcher,
            held: RwLock::default(),
            asking: Mutex::default(),
        })
    }

    /// The issuer's keys, fetched anew where `key_id` is not among those at hand or they are old. The id may still not be
    /// among them.
    ///
    /// # Errors
    /// [`FetchError`] when no keys are at hand and none can be had.
    pub(super) async fn with(&self, key_id: &str, now_us: i64) -> Result<Arc<KeySet>, FetchError> {
        if let Some(keys) = self.at_hand(now_us, |keys, age_us| keys.knows(key_id) && age_us < FRESH_US) {
            return Ok(keys);
        }
        let known = self.at_hand(now_us, |keys, age_us| keys.knows(key_id) && age_us < KEPT_US);
        let mut asked = match (known, self.asking.try_lock()) {
            (_, Ok(turn)) => turn,
            (Some(keys), Err(_)) => return Ok(keys),
            (None, Err(_)) => self.asking.lock().await,
        };
        // Another caller may have asked meanwhile.
        if let Some(keys) = self.at_hand(now_us, |keys, age_us| keys.knows(key_id) && age_us < FRESH_US) {
            return Ok(keys);
        }
        let lately = asked.as_ref().is_some_and(|(at_us, _)| (0..PAUSE_US).contains(&(now_us - at_us)));
        if !lately {
            let failure = self.ask(now_us).await.err();
            *asked = Some((now_us, failure));
        }
        match self.at_hand(now_us, |_, age_us| age_us < KEPT_US) {
            Some(keys) => Ok(keys),
            None => {
                let failure = asked.as_ref().and_then(|(_, failure)| failure.clone());
                Err(failure.unwrap_or(FetchError::Old))
            }
        }
    }

    async fn ask(&self, now_us: i64) -> Result<(), FetchError> {
        match self.fetcher.fetch().await {
            Ok(keys) => {
                info!(issuer = %self.name, keys = keys.len(), "fetched the keys of an issuer");
                *self.held.write() = Some((Arc::new(keys), now_us));
                Ok(())
            }
            Err(error) => {
                warn!(issuer = %self.name, %error, "the keys of an issuer cannot be had; those at hand count for a day");
                Err(error)
            }
        }
    }

    fn at_hand(&self, now_us: i64, good: impl FnOnce(&KeySet, i64) -> bool) -> Option<Arc<KeySet>> {
        let held = self.held.read();
        let (keys, at_us) = held.as_ref()?;
        good(keys, now_us - at_us).then(|| Arc::clone(keys))
    }
}

impl std::fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerKeys").field("name", &self.name).finish_non_exhaustive()
    }
}
