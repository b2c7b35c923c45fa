//! Audit events: one log line of the target `audit` for every change that somebody asked for and got: who, what, where,
//! and by which request. docs/reference/logs.md lists them.
//! Invariant: a line is written once the change is durable, or once nobody is left to be told, from values that were parsed;
//! no credential is among them.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, StatusCode, request};
use twinport_oci::Reference;

use crate::answer::{Answer, CONTENT_DIGEST, OCI_TAG};
use crate::error::Refusal;
use crate::grant::Grant;
use crate::listener::Peer;
use crate::path::Route;
use crate::query::Query;

/// The target of audit lines: a filter of the log may name it, and nothing else switches it off.
pub(crate) const TARGET: &str = "audit";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

macro_rules! changes {
    ($($name:ident = $word:literal,)*) => {
        /// What was changed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Change {
            $($name,)*
        }

        impl Change {
            /// Every change, for the page that lists them.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

changes! {
    BlobPush = "blob_push",
    BlobMount = "blob_mount",
    BlobDelete = "blob_delete",
    UploadCancel = "upload_cancel",
    ManifestPush = "manifest_push",
    ManifestDelete = "manifest_delete",
    TagDelete = "tag_delete",
    RepositoryRename = "repository_rename",
    RepositoryDelete = "repository_delete",
    SiteAdd = "site_add",
    SiteAdmit = "site_admit",
    SiteJoin = "site_join",
    SiteRemove = "site_remove",
    MaintenanceOn = "maintenance_on",
    MaintenanceOff = "maintenance_off",
    LossAccept = "loss_accept",
    AccountAdd = "account_add",
    AccountDisable = "account_disable",
    AccountEnable = "account_enable",
    AccountDelete = "account_delete",
    PasswordReset = "password_reset",
    TokenAdd = "token_add",
    TokenRevoke = "token_revoke",
    RoleGrant = "role_grant",
    RoleRevoke = "role_revoke",
    RuleAdd = "rule_add",
    RuleDelete = "rule_delete",
    RuleRun = "rule_run",
    TagRestore = "tag_restore",
}

impl Change {
    /// The status of an answer to a request of the registry that made it.
    const fn success(self) -> StatusCode {
        match self {
            Self::BlobDelete | Self::ManifestDelete | Self::TagDelete => StatusCode::ACCEPTED,
            Self::UploadCancel => StatusCode::NO_CONTENT,
            _ => StatusCode::CREATED,
        }
    }
}

/// Where a change was asked from.
#[derive(Debug, Clone, Copy)]
enum Client {
    Ip(IpAddr),
    /// The socket file, of the registry or of the admin API.
    Socket,
    Unknown,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Socket => f.write_str("socket"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl From<Option<&Peer>> for Client {
    fn from(peer: Option<&Peer>) -> Self {
        match peer {
            None => Self::Unknown,
            Some(peer) => peer.ip().map_or(Self::Socket, Self::Ip),
        }
    }
}

/// A request to the registry that may change something. It is watched until its answer is known, because a change goes on
/// when its client goes away.
pub(crate) struct Watched<'a> {
    request: &'a request::Parts,
    route: &'a Route,
    grant: &'a Grant,
    /// None once there is nothing more to record.
    change: Option<Change>,
}

impl<'a> Watched<'a> {
    pub(crate) fn begin(
        request: &'a request::Parts,
        route: &'a Route,
        query: &Query,
        grant: &'a Grant,
    ) -> Self {
        Self { request, route, grant, change: change(request, route, query) }
    }

    /// Records the change, if the request was met, or that it was denied.
    pub(crate) fn ended(mut self, result: &Result<Answer, Refusal>) {
        let change = self.change.take();
        match (result, change) {
            (Ok(answer), Some(change)) if answer.status() == change.success() => {
                self.record(change, "done", answer.headers());
            }
            (Err(refusal), _) => refused(self.request, self.route, Some(self.grant), refusal),
            _ => {}
        }
    }

    fn record(&self, change: Change, outcome: &str, answer: &HeaderMap) {
        let Some(repository) = self.route.repository() else { return };
        let digest = text(answer, &CONTENT_DIGEST);
        let reference = match self.route {
            Route::Manifest(_, reference) => reference.to_string(),
            Route::Blob(_, digest) => digest.to_string(),
            Route::Upload(_, id) if digest.is_empty() => id.to_string(),
            _ => digest.to_owned(),
        };
        let tags: Vec<&str> = answer.get_all(OCI_TAG).iter().filter_map(|tag| tag.to_str().ok()).collect();
        let actor = self.grant.actor();
        // As text, not as it displays itself: a name out of a certificate must not make a line of its own.
        tracing::info!(
            target: TARGET,
            event = change.as_str(),
            outcome,
            actor = actor.name.as_str(),
            client = %Client::from(self.request.extensions.get()),
            request_id = text(&self.request.headers, &REQUEST_ID),
            repository = %repository,
            reference,
            digest,
            tags = %tags.join(","),
            "change"
        );
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(change) = self.change.take() {
            self.record(change, "unknown", &HeaderMap::new());
        }
    }
}

/// Records a request to the registry that was denied: credentials that do not hold, an action that is not allowed, a client that
/// has to wait. The first step of signing in, a request that shows nothing, is no denial.
pub(crate) fn refused(request: &request::Parts, route: &Route, grant: Option<&Grant>, refusal: &Refusal) {
    let status = refusal.status();
    let denied = match status {
        StatusCode::UNAUTHORIZED => grant.is_none_or(|grant| !grant.is_anonymous()),
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => true,
        _ => false,
    };
    if !denied {
        return;
    }
    let actor = grant.map(|grant| grant.actor().name);
    tracing::info!(
        target: TARGET,
        event = "denied",
        outcome = status.as_str(),
        actor = actor.as_deref().unwrap_or("unknown"),
        client = %Client::from(request.extensions.get()),
        request_id = text(&request.headers, &REQUEST_ID),
        repository = route.repository().map(ToString::to_string).unwrap_or_default(),
        method = request.method.as_str(),
        "denied"
    );
}

/// Records a sign-in that was refused at the token service.
pub(crate) fn sign_in_refused(request: &request::Parts, refusal: &Refusal) {
    let status = refusal.status();
    if ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
        return;
    }
    tracing::info!(
        target: TARGET,
        event = "sign_in_denied",
        outcome = status.as_str(),
        actor = "unknown",
        client = %Client::from(request.extensions.get()),
        request_id = text(&request.headers, &REQUEST_ID),
        "denied"
    );
}

/// Records a change by an operator or by another site. `subject` is what was changed: a repository, a site, an account.
pub(crate) fn site_change(
    change: Change,
    actor: &str,
    headers: &HeaderMap,
    peer: Option<&Peer>,
    subject: impl fmt::Display,
) {
    tracing::info!(
        target: TARGET,
        event = change.as_str(),
        outcome = "done",
        actor,
        client = %Client::from(peer),
        request_id = text(headers, &REQUEST_ID),
        subject = subject.to_string(),
        "change"
    );
}

/// What a request would change.
fn change(request: &request::Parts, route: &Route, query: &Query) -> Option<Change> {
    Some(match (route, &request.method) {
        (Route::Uploads(_), &Method::POST) => {
            match (query.get("mount"), query.get("digest")) {
                (Some(_), _) => Change::BlobMount,
                (None, Some(_)) => Change::BlobPush,
                // An upload that begins has changed nothing yet.
                (None, None) => return None,
            }
        }
        (Route::Upload(..), &Method::PUT) => Change::BlobPush,
        (Route::Upload(..), &Method::DELETE) => Change::UploadCancel,
        (Route::Blob(..), &Method::DELETE) => Change::BlobDelete,
        (Route::Manifest(..), &Method::PUT) => Change::ManifestPush,
        (Route::Manifest(_, Reference::Tag(_)), &Method::DELETE) => Change::TagDelete,
        (Route::Manifest(..), &Method::DELETE) => Change::ManifestDelete,
        _ => return None,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that `work` logs.
    fn logged(work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    #[test]
    fn a_change_is_recorded_when_it_is_made_and_when_nobody_waited_for_it() {
        let request = http::Request::put("/v2/a/manifests/latest").header("x-request-id", "seven");
        let (request, ()) = request.body(()).unwrap().into_parts();
        let route = Route::Manifest("a".parse().unwrap(), Reference::Tag("latest".parse().unwrap()));
        let grant = Grant::open(twinport_access::Identity::Anonymous, None, false);
        let query = Query::default();
        let watched = || Watched::begin(&request, &route, &query, &grant);
        let made = logged(|| watched().ended(&Ok(crate::answer::empty(StatusCode::CREATED))));
        assert!(made.contains("audit: change event=\"manifest_push\" outcome=\"done\""), "{made}");
        assert!(made.contains("request_id=\"seven\"") && made.contains("reference=\"latest\""), "{made}");
        // The client went away: its request is dropped where it stands.
        let left = logged(|| drop(watched()));
        assert!(left.contains("event=\"manifest_push\" outcome=\"unknown\""), "{left}");
        let refused = Refusal::not_found(twinport_oci::ErrorCode::NameUnknown);
        assert_eq!(logged(|| watched().ended(&Err(refused))), "");
    }

    #[test]
    fn a_name_makes_no_line_and_no_field_of_its_own() {
        let forged = "tokyo\n2026-01-01 INFO audit: change event=\"site_remove\"";
        let line = logged(|| site_change(Change::SiteAdmit, forged, &HeaderMap::new(), None, forged));
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.contains("event=\"site_remove\""), "{line}");
    }

    #[test]
    fn every_change_is_on_the_page_and_no_other() {
        let page = include_str!("../../../docs/reference/logs.md");
        let listed: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("| event"))
            .skip(2)
            .take_while(|line| line.starts_with("| `"))
            .filter_map(|line| line.split('`').nth(1))
            .collect();
        let known: Vec<&str> = Change::ALL.iter().map(|change| change.as_str()).collect();
        assert_eq!(listed, known);
    }
}
