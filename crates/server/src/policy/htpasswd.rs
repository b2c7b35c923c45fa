//! The policy of an htpasswd file: whoever it knows may do anything, and nobody else may do anything.
//! The file is looked at again every second that somebody signs in; one that cannot be read leaves the last good one in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request;
use parking_lot::Mutex;
use twinport_access::Htpasswd as Users;
use twinport_access::Identity;
use twinport_metadata::Clock;

use super::credentials::Credentials;
use super::hashing::Hashing;
use super::throttle::Throttle;
use crate::config::HtpasswdConfig;
use crate::error::Refusal;
use crate::grant::{Grant, Manner, Rights};
use crate::listener::Peer;
use crate::start_error::StartError;

const LOOKS: Duration = Duration::from_secs(1);
/// No user of a file has a longer name; what guesses are counted by is bounded with it.
const MAX_USER: usize = 255;

/// The users of a file.
#[derive(Debug)]
pub struct Htpasswd {
    realm: String,
    file: PathBuf,
    clock: Clock,
    hashing: Hashing,
    throttle: Throttle,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Clone)]
struct Loaded {
    users: Arc<Users>,
    version: Option<Version>,
    looked_at: Instant,
}

/// What tells one state of a file from another.
type Version = (SystemTime, u64);

impl Htpasswd {
    /// Reads the file. Blocks.
    pub(crate) fn open(config: &HtpasswdConfig, clock: Clock) -> Result<Self, StartError> {
        let refused = |reason: String| StartError::Htpasswd { file: config.file.clone(), reason };
        let (users, version) = read(&config.file).map_err(refused)?;
        if users.is_empty() {
            tracing::warn!(file = %config.file.display(), "the htpasswd file holds no user: nobody can sign in");
        }
        Ok(Self {
            realm: config.realm.clone(),
            file: config.file.clone(),
            clock,
            hashing: Hashing::start().map_err(|source| StartError::Threads { source })?,
            throttle: Throttle::default(),
            loaded: Mutex::new(Loaded { users: Arc::new(users), version, looked_at: Instant::now() }),
        })
    }

    pub(crate) fn realm(&self) -> &str {
        &self.realm
    }

    pub(crate) async fn grant(&self, request: &request::Parts) -> Result<Grant, Refusal> {
        let basic = match Credentials::read(&request.headers) {
            Credentials::Basic(basic) => basic,
            Credentials::None => return Err(Refusal::unauthorized("sign in", None, false)),
            Credentials::Bearer(_) | Credentials::Unreadable => return Err(Refusal::bad_credentials()),
        };
        if basic.user.len() > MAX_USER {
            return Err(Refusal::bad_credentials());
        }
        let users = self.current().await;
        let now_us = self.clock.now_us();
        if !users.verified_lately(&basic.user, &basic.secret, now_us) {
            let from = request.extensions.get().and_then(Peer::ip);
            self.throttle.check(from, &basic.user)?;
            let shown = basic.clone();
            let right = self.hashing.run(move || users.verify(&shown.user, &shown.secret, now_us)).await?;
            if !right {
                self.throttle.failed(from, &basic.user, Instant::now());
                return Err(Refusal::bad_credentials());
            }
            self.throttle.succeeded(from, &basic.user);
        }
        let identity = Identity::Foreign { issuer: "htpasswd".to_owned(), subject: basic.user };
        Ok(Grant::new(identity, Rights::Everything, Manner::Denied))
    }

    /// The users as the file has them now.
    async fn current(&self) -> Arc<Users> {
        let loaded = {
            let mut loaded = self.loaded.lock();
            if loaded.looked_at.elapsed() < LOOKS {
                return loaded.users.clone();
            }
            // One request looks; the others go on with what is known.
            loaded.looked_at = Instant::now();
            loaded.clone()
        };
        let file = self.file.clone();
        let look = move || {
            let version = version(&file);
            (version != loaded.version).then(|| read(&file))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Some(Ok((users, version)))) => {
                tracing::info!(file = %self.file.display(), users = users.len(), "read the htpasswd file again");
                let users = Arc::new(users);
                *self.loaded.lock() = Loaded { users: users.clone(), version, looked_at: Instant::now() };
                users
            }
            Ok(Some(Err(reason))) => {
                tracing::warn!(file = %self.file.display(), %reason, "the htpasswd file cannot be used: the last good one counts");
                loaded_users(&self.loaded)
            }
            Ok(None) | Err(_) => loaded_users(&self.loaded),
        }
    }
}

fn loaded_users(loaded: &Mutex<Loaded>) -> Arc<Users> {
    loaded.lock().users.clone()
}

fn version(file: &std::path::Path) -> Option<Version> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(file: &std::path::Path) -> Result<(Users, Option<Version>), String> {
    // Before the text: what is written meanwhile is read again.
    let version = version(file);
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let users = Users::parse(&text).map_err(|error| error.to_string())?;
    Ok((users, version))
}
