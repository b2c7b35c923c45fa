//! What one request may do. Every handler works through a [`Grant`], so that a policy is added in one place.
//! Invariant: what is refused depends on the caller and on the name that was asked for, never on whether anything has that name,
//! so that what is private and what is absent look the same (hazard A11).

use std::sync::Arc;

use http::HeaderMap;
use twinport_access::jwt::TagLimits;
use twinport_access::{Action, Actions, Bindings, Identity, TokenLimit};
use twinport_metadata::{Actor, Incarnation};
use twinport_oci::RepositoryName;

use crate::error::Refusal;

/// A correlation id longer than this is not kept.
const MAX_CORRELATION: usize = 128;

/// What one request may do.
#[derive(Debug, Clone)]
pub struct Grant {
    identity: Identity,
    /// The site whose credential was shown: it names the actor, and takes rights away.
    site: Option<Incarnation>,
    rights: Rights,
    /// How a caller who may not do something is told.
    manner: Manner,
    has_credentials: bool,
    correlation: Option<String>,
}

/// Where the rights of a request come from.
#[derive(Debug, Clone)]
pub(crate) enum Rights {
    Everything,
    PullOnly,
    /// Those of the caller's roles, within what its token is good for.
    Roles(Arc<RoleRights>),
    /// Those that a foreign token states.
    Stated(Arc<dyn StatedRights>),
}

/// What a foreign token says of repositories.
pub(crate) trait StatedRights: std::fmt::Debug + Send + Sync {
    fn actions(&self, repository: &RepositoryName) -> Actions;
    /// Whether it allows to list the repositories of the site.
    fn catalog(&self) -> bool;
    /// What it forbids on tags of a repository; all of it holds.
    fn tag_limits(&self, repository: &RepositoryName) -> Vec<&TagLimits>;
}

/// The rights of a built-in identity.
#[derive(Debug)]
pub(crate) struct RoleRights {
    pub(crate) identity: Identity,
    pub(crate) bindings: Arc<Bindings>,
    /// What the personal token that was shown is good for.
    pub(crate) limit: Option<TokenLimit>,
    /// What the bearer token that was shown allows, a repository at a time; none where the caller showed something else.
    pub(crate) scope: Option<Vec<(RepositoryName, Actions)>>,
    /// Whether a bearer token was issued for the catalog too.
    pub(crate) catalog: bool,
}

impl RoleRights {
    /// Of a bearer token that was issued for `scope`: what the roles are worth there is looked up here, once for all its requests.
    pub(crate) fn within(self, scope: &[(RepositoryName, Actions)], catalog: bool) -> Self {
        let worth =
            |(name, actions): &(RepositoryName, Actions)| (name.clone(), actions.and(self.actions(name)));
        let scope = scope.iter().map(worth).collect();
        Self { scope: Some(scope), catalog, ..self }
    }

    pub(crate) fn actions(&self, repository: &RepositoryName) -> Actions {
        match &self.scope {
            None => self.limited(repository).and(self.bindings.actions(&self.identity, repository)),
            Some(scope) => scope
                .iter()
                .filter(|(name, _)| name == repository)
                .fold(Actions::NONE, |all, (_, actions)| all.or(*actions)),
        }
    }

    fn limited(&self, repository: &RepositoryName) -> Actions {
        match &self.limit {
            None => Actions::ALL,
            Some(limit) if limit.repositories.matches(repository) => limit.actions,
            Some(_) => Actions::NONE,
        }
    }
}

/// How a refusal is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// 403: other credentials would have to be shown, and the client cannot be led to them.
    Denied,
    /// 401 with a challenge: the client showed nothing.
    Challenge,
    /// 401 with a challenge that names what the token is lacking: the client may get another.
    InsufficientScope,
}

impl Grant {
    pub(crate) fn new(identity: Identity, rights: Rights, manner: Manner) -> Self {
        // A token that was issued to nobody in particular is a credential all the same.
        let has_credentials = identity != Identity::Anonymous || manner == Manner::InsufficientScope;
        Self { identity, site: None, rights, manner, has_credentials, correlation: None }
    }

    /// Of the open policy: anyone may do anything, but a site's credential takes rights away and gives none (hazards A9,
    /// R28).
    pub(crate) fn open(identity: Identity, site: Option<Incarnation>, has_credentials: bool) -> Self {
        let rights = if site.is_some() { Rights::PullOnly } else { Rights::Everything };
        Self { identity, site, rights, manner: Manner::Denied, has_credentials, correlation: None }
    }

    /// With the id that the request came with, or that telemetry gave it.
    #[must_use]
    pub(crate) fn with_correlation(self, headers: &HeaderMap) -> Self {
        Self { correlation: correlation(headers), ..self }
    }

    /// What the policy lets this request do in a repository.
    pub(crate) fn actions(&self, repository: &RepositoryName) -> Actions {
        match &self.rights {
            Rights::Everything => Actions::ALL,
            Rights::PullOnly => Actions::NONE.with(Action::Pull),
            Rights::Roles(roles) => roles.actions(repository),
            Rights::Stated(stated) => stated.actions(repository),
        }
    }

    /// Whether the policy lets this request do `action` in a repository.
    pub fn allows(&self, repository: &RepositoryName, action: Action) -> bool {
        self.actions(repository).contains(action)
    }

    /// Whether the caller may list repositories: all of them, or those it may pull from.
    pub(crate) fn catalog(&self) -> Catalog {
        match &self.rights {
            Rights::Everything | Rights::PullOnly => Catalog::All,
            Rights::Roles(roles) if roles.scope.is_none() || roles.catalog => Catalog::Pullable,
            Rights::Stated(stated) if stated.catalog() => Catalog::All,
            Rights::Roles(_) | Rights::Stated(_) => Catalog::None,
        }
    }

    /// What the caller's token forbids on tags of a repository; all of it holds.
    pub(crate) fn tag_limits(&self, repository: &RepositoryName) -> Vec<&TagLimits> {
        match &self.rights {
            Rights::Stated(stated) => stated.tag_limits(repository),
            _ => Vec::new(),
        }
    }

    /// How this caller is told that it may not do `action`. The challenge asks for what the whole request needs.
    pub(crate) fn refusal(&self, repository: &RepositoryName, action: Action) -> Refusal {
        let (verb, actions) = match action {
            Action::Pull => ("pull from", "pull"),
            Action::Create | Action::Push => ("push to", "pull,push"),
            Action::Delete => ("delete from", "delete"),
            Action::Admin => ("administer", "*"),
        };
        match self.manner {
            Manner::Denied => {
                Refusal::denied(format!("this credential does not allow to {verb} {repository}"))
            }
            Manner::Challenge | Manner::InsufficientScope => Refusal::unauthorized(
                format!("sign in as somebody who may {verb} {repository}"),
                Some(format!("repository:{repository}:{actions}")),
                self.manner == Manner::InsufficientScope,
            ),
        }
    }

    /// How this caller is told that it may not list repositories.
    pub(crate) fn catalog_refusal(&self) -> Refusal {
        match self.manner {
            Manner::Denied => Refusal::denied("this credential does not allow to list repositories"),
            Manner::Challenge | Manner::InsufficientScope => Refusal::unauthorized(
                "sign in as somebody who may list repositories",
                Some("registry:catalog:*".to_owned()),
                self.manner == Manner::InsufficientScope,
            ),
        }
    }

    /// Whether the request showed nothing of who it is from, so that anyone would be answered the same.
    pub fn is_anonymous(&self) -> bool {
        !self.has_credentials
    }

    /// Who goes into the event of a change, with the request's correlation id.
    pub fn actor(&self) -> Actor {
        let name = match (self.site, &self.identity) {
            (Some(site), _) => format!("site {site}"),
            (None, Identity::Anonymous) => Actor::anonymous().name,
            (None, identity) => identity.to_string(),
        };
        Actor { name, correlation: self.correlation.clone() }
    }
}

/// Which repositories a caller may list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Catalog {
    All,
    Pullable,
    None,
}

/// The id that the request came with, or that telemetry gave it.
fn correlation(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let sound =
        !id.is_empty() && id.len() <= MAX_CORRELATION && id.bytes().all(|byte| byte.is_ascii_graphic());
    sound.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(texts: &[&str]) -> Arc<Bindings> {
        Arc::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn rights(limit: Option<TokenLimit>, scope: Option<Vec<(RepositoryName, Actions)>>) -> RoleRights {
        let identity =
            Identity::Account { name: "alice".parse().unwrap(), kind: twinport_access::AccountKind::User };
        let bindings = roles(&["user:alice maintainer team/**", "anyone reader public/*"]);
        let rights = RoleRights { identity, bindings, limit, scope: None, catalog: false };
        match scope {
            Some(scope) => rights.within(&scope, false),
            None => rights,
        }
    }

    #[test]
    fn a_token_is_good_for_what_its_owner_may_and_it_was_made_for_and_no_more() {
        let may = |rights: &RoleRights, name: &str| rights.actions(&name.parse().unwrap()).to_string();
        assert_eq!(may(&rights(None, None), "team/app"), "pull,create,push,delete");
        assert_eq!(may(&rights(None, None), "public/x"), "pull");
        assert_eq!(may(&rights(None, None), "other"), "");
        let limit = TokenLimit {
            repositories: "team/app".parse().unwrap(),
            actions: Actions::NONE.with(Action::Pull).with(Action::Admin),
        };
        assert_eq!(may(&rights(Some(limit.clone()), None), "team/app"), "pull");
        assert_eq!(may(&rights(Some(limit), None), "team/other"), "");
        let scope =
            Some(vec![("team/app".parse().unwrap(), Actions::ALL), ("x".parse().unwrap(), Actions::ALL)]);
        assert_eq!(may(&rights(None, scope.clone()), "team/app"), "pull,create,push,delete");
        assert_eq!(may(&rights(None, scope.clone()), "team/other"), "");
        assert_eq!(may(&rights(None, scope), "x"), "");
    }

    #[test]
    fn only_a_sound_correlation_id_is_kept() {
        let with = |id: &str| {
            let headers = HeaderMap::from_iter([("x-request-id".parse().unwrap(), id.parse().unwrap())]);
            Grant::open(Identity::Anonymous, None, false).with_correlation(&headers).actor().correlation
        };
        assert_eq!(with("abc-1"), Some("abc-1".to_owned()));
        assert_eq!(with("a b"), None);
        assert_eq!(with(&"x".repeat(129)), None);
    }
}
