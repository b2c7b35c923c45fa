//! Scopes of Docker's token protocol: `repository:team/app:pull,push`, `registry:catalog:*`.
//!
//! What a client asks a token service for, and what an entry of a token's access list names.
//! Source: Distribution, docs/content/spec/auth/scope.md.

use std::fmt;
use std::str::FromStr;

use twinport_oci::RepositoryName;

use crate::action::{Action, Actions};
use crate::error::{Error, Result, shown};

/// The most scopes that one request may name.
pub const MAX_SCOPES: usize = 100;
/// The longest scope in bytes: a name of 255, and room for its class and actions.
const MAX_LEN: usize = 512;

/// What kind of thing a repository holds, where the client says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Class {
    #[default]
    Image,
    Plugin,
}

impl Class {
    /// None for a class that nobody has defined.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "image" => Some(Self::Image),
            "plugin" => Some(Self::Plugin),
            _ => None,
        }
    }
}

/// What a scope is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    Repository {
        name: RepositoryName,
        class: Class,
    },
    /// The list of all repositories.
    Catalog,
}

impl Resource {
    /// The actions that these words name. `push` is moving tags too, `create` is not; words that mean nothing for the
    /// resource are left out, as the protocol has it. No word gives [`Action::Admin`].
    pub fn actions<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Actions {
        words.into_iter().fold(Actions::NONE, |actions, word| actions.or(self.action(word)))
    }

    fn action(&self, word: &str) -> Actions {
        let writing = Actions::NONE.with(Action::Create).with(Action::Push);
        match (self, word) {
            // Distribution asks for `*` alone when the catalog is read.
            (Self::Catalog, "*") => Actions::NONE.with(Action::Pull),
            (Self::Catalog, _) => Actions::NONE,
            (Self::Repository { .. }, "pull") => Actions::NONE.with(Action::Pull),
            (Self::Repository { .. }, "create") => Actions::NONE.with(Action::Create),
            (Self::Repository { .. }, "push") => writing,
            (Self::Repository { .. }, "delete") => Actions::NONE.with(Action::Delete),
            (Self::Repository { .. }, "*") => Actions::ALL.without(Action::Admin),
            (Self::Repository { .. }, _) => Actions::NONE,
        }
    }

    /// The words for these actions: what [`Resource::actions`] reads back.
    pub fn words(&self, actions: Actions) -> Vec<&'static str> {
        if *self == Self::Catalog {
            return if actions.contains(Action::Pull) { vec!["*"] } else { Vec::new() };
        }
        let create_alone = actions.contains(Action::Create) && !actions.contains(Action::Push);
        [
            (actions.contains(Action::Pull), "pull"),
            (create_alone, "create"),
            (actions.contains(Action::Push), "push"),
            (actions.contains(Action::Delete), "delete"),
        ]
        .into_iter()
        .filter_map(|(held, word)| held.then_some(word))
        .collect()
    }
}

/// Actions on one resource; as text `repository:team/app:pull,push`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    pub resource: Resource,
    pub actions: Actions,
}

impl Scope {
    /// One scope; None when it is of a type that this registry does not have, which grants nothing.
    ///
    /// # Errors
    /// [`Error::Scope`] when it is no scope, or names a repository that cannot be.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let invalid = |reason| Error::Scope { scope: shown(text), reason };
        if text.len() > MAX_LEN {
            return Err(invalid("it is longer than 512 bytes"));
        }
        let parts = text.split_once(':').and_then(|(kind, rest)| Some((kind, rest.rsplit_once(':')?)));
        let Some((kind, (name, words))) = parts else {
            return Err(invalid("write TYPE:NAME:ACTIONS, as in repository:team/app:pull,push"));
        };
        let (kind, class) = match kind.split_once('(') {
            None => (kind, Class::Image),
            Some((kind, class)) => {
                let class = class.strip_suffix(')').and_then(Class::parse);
                (kind, class.ok_or_else(|| invalid("its class is neither image nor plugin"))?)
            }
        };
        let resource = match (kind, name) {
            ("repository", _) => {
                let name =
                    name.parse().map_err(|_| invalid("its repository name is none of OCI Distribution"))?;
                Resource::Repository { name, class }
            }
            ("registry", "catalog") => Resource::Catalog,
            _ => return Ok(None),
        };
        let actions = resource.actions(words.split(','));
        Ok(Some(Self { resource, actions }))
    }

    /// All scopes of a request: the parameter may be repeated, and each may hold several between spaces. Scopes of one
    /// resource become one, at the place of the first.
    ///
    /// # Errors
    /// As [`Scope::parse`], and [`Error::TooManyScopes`] for more than [`MAX_SCOPES`].
    pub fn parse_all<'a>(parameters: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>> {
        let mut scopes: Vec<Self> = Vec::new();
        let words = parameters.into_iter().flat_map(|parameter| parameter.split(' '));
        for (number, text) in words.filter(|text| !text.is_empty()).enumerate() {
            if number == MAX_SCOPES {
                return Err(Error::TooManyScopes { limit: MAX_SCOPES });
            }
            let Some(scope) = Self::parse(text)? else { continue };
            match scopes.iter_mut().find(|known| known.resource == scope.resource) {
                Some(known) => known.actions = known.actions.or(scope.actions),
                None => scopes.push(scope),
            }
        }
        Ok(scopes)
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown =
            Error::Scope { scope: shown(text), reason: "its type is neither repository nor registry" };
        Self::parse(text)?.ok_or(unknown)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.resource {
            Resource::Repository { name, class: Class::Image } => write!(f, "repository:{name}:")?,
            Resource::Repository { name, class: Class::Plugin } => write!(f, "repository(plugin):{name}:")?,
            Resource::Catalog => f.write_str("registry:catalog:")?,
        }
        f.write_str(&self.resource.words(self.actions).join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_as_it_is_written() {
        for text in [
            "repository:team/app:pull",
            "repository:team/app:pull,push",
            "repository:team/app:pull,create",
            "repository:team/app:pull,push,delete",
            "repository:a:",
            "repository(plugin):team/app:push",
            "registry:catalog:*",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        let written = |text: &str| text.parse::<Scope>().unwrap().to_string();
        assert_eq!(written("repository:a:*"), "repository:a:pull,push,delete");
        assert_eq!(written("repository(image):a:push,pull,fly"), "repository:a:pull,push");
        assert_eq!(written("registry:catalog:pull"), "registry:catalog:");
    }

    #[test]
    fn no_word_makes_an_administrator_and_create_moves_no_tag() {
        let actions = |text: &str| text.parse::<Scope>().unwrap().actions;
        assert!(!actions("repository:a:*,admin").contains(Action::Admin));
        assert!(!actions("repository:a:create").contains(Action::Push));
        assert!(actions("repository:a:push").contains(Action::Create));
    }

    #[test]
    fn what_is_no_scope_is_refused_and_what_is_of_another_type_is_nothing() {
        let long = format!("repository:{}:pull", "a".repeat(600));
        for text in [
            "",
            "repository",
            "repository:a",
            "repository:A:pull",
            "repository:../a:pull",
            "repository::pull",
            "repository(evil):a:pull",
            "repository(plugin:a:pull",
            "repository:host:5000/a:pull",
            &long,
        ] {
            assert!(Scope::parse(text).is_err(), "{text:?}");
        }
        for text in ["artifact-repository:a:pull", "registry:everything:*", "aws:foo:bar:baz"] {
            assert_eq!(Scope::parse(text).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn scopes_come_repeated_and_between_spaces_and_add_up() {
        let scopes = Scope::parse_all([
            "repository:a:pull repository:b:pull",
            "",
            "samalba:c:pull  repository:a:push",
        ]);
        let shown: Vec<String> = scopes.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["repository:a:pull,push", "repository:b:pull"]);
        let many = "repository:a:pull ".repeat(MAX_SCOPES);
        assert_eq!(Scope::parse_all([&*many]).unwrap().len(), 1);
        assert!(Scope::parse_all([&*many, "repository:a:pull"]).is_err());
    }
}
