//! Roles that were given: subject, role, repositories.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use twinport_oci::RepositoryName;

use crate::account::{AccountKind, AccountName};
use crate::action::Actions;
use crate::error::{Error, Result, shown};
use crate::identity::Identity;
use crate::pattern::RepositoryPattern;
use crate::role::Role;
use crate::subject::Subject;

/// One role that was given; as text `user:alice writer team/**`, which is also its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    pub subject: Subject,
    pub role: Role,
    pub repositories: RepositoryPattern,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.subject, self.role, self.repositories)
    }
}

impl FromStr for Binding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [subject, role, repositories] = words[..] else { return Err(Error::Subject(shown(text))) };
        Ok(Self { subject: subject.parse()?, role: role.parse()?, repositories: repositories.parse()? })
    }
}

/// All roles of a site, for decisions: however many there are, one asks after those of its caller alone.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    /// By a subject that one identity has, or a class of them.
    exact: HashMap<Subject, Vec<Binding>>,
    /// By issuer; the claims are looked at.
    workloads: HashMap<AccountName, Vec<Binding>>,
}

impl Bindings {
    /// What an identity may do with a repository.
    pub fn actions(&self, identity: &Identity, repository: &RepositoryName) -> Actions {
        self.of(identity)
            .filter(|binding| binding.repositories.matches(repository))
            .fold(Actions::NONE, |actions, binding| actions.or(binding.role.actions()))
    }

    /// The roles that an identity has.
    pub fn of(&self, identity: &Identity) -> impl Iterator<Item = &Binding> {
        let own = match identity {
            Identity::Account { name, kind: AccountKind::User } => Some(Subject::User(name.clone())),
            Identity::Account { name, kind: AccountKind::Robot } => Some(Subject::Robot(name.clone())),
            Identity::Certificate { name } => Some(Subject::Certificate(name.clone())),
            Identity::Anonymous | Identity::Workload { .. } | Identity::Foreign { .. } => None,
        };
        let signed_in = Subject::SignedIn.covers(identity).then_some(Subject::SignedIn);
        let subjects = [Some(Subject::Anyone), signed_in, own];
        let exact = subjects.into_iter().flatten().filter_map(|subject| self.exact.get(&subject)).flatten();
        let workloads = match identity {
            Identity::Workload { issuer, .. } => self.workloads.get(issuer),
            _ => None,
        };
        let claimed = workloads.into_iter().flatten().filter(|binding| binding.subject.covers(identity));
        exact.chain(claimed)
    }
}

impl FromIterator<Binding> for Bindings {
    fn from_iter<I: IntoIterator<Item = Binding>>(bindings: I) -> Self {
        let mut all = Self::default();
        for binding in bindings {
            let of_subject = match &binding.subject {
                Subject::Workload { issuer, .. } => all.workloads.entry(issuer.clone()).or_default(),
                subject => all.exact.entry(subject.clone()).or_default(),
            };
            of_subject.push(binding);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_add_up_and_none_takes_away() {
        let bindings: Bindings =
            ["anyone reader public/**", "user:alice writer team/*", "user:alice maintainer team/app"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        let alice = Identity::Account { name: "alice".parse().unwrap(), kind: AccountKind::User };
        let may =
            |identity: &Identity, name: &str| bindings.actions(identity, &name.parse().unwrap()).to_string();
        assert_eq!(may(&alice, "team/app"), "pull,create,push,delete");
        assert_eq!(may(&alice, "team/other"), "pull,create,push");
        assert_eq!(may(&alice, "team/app/x"), "");
        assert_eq!(may(&alice, "public/x"), "pull");
        assert_eq!(may(&Identity::Anonymous, "public/x"), "pull");
        assert_eq!(may(&Identity::Anonymous, "team/app"), "");
    }

    #[test]
    fn a_binding_reads_as_it_is_written() {
        let text = "robot:ci creator team/**";
        assert_eq!(text.parse::<Binding>().unwrap().to_string(), text);
        assert!("robot:ci creator".parse::<Binding>().is_err());
        assert!("robot:ci creator a b".parse::<Binding>().is_err());
    }
}
