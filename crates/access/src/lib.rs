//! Who may do what, as values and decisions: identities, roles on repository patterns, rules, credentials.
//! Invariant: no I/O and no clock. Whoever asks brings the time and the records, and gets an answer that depends on nothing else.

mod account;
mod action;
mod binding;
mod error;
mod foreign_urls;
mod htpasswd;
mod identity;
pub mod jwt;
pub mod password;
mod pattern;
mod role;
mod rule;
mod rules;
mod scope;
mod secret;
mod signing_key;
mod subject;
mod tag_guard;

pub use account::{AccessToken, Account, AccountKind, AccountName, TokenLimit};
pub use action::{Action, Actions};
pub use binding::{Binding, Bindings};
pub use error::{Error, Result};
pub use htpasswd::Htpasswd;
pub use identity::Identity;
pub use pattern::{Glob, RepositoryPattern, TagPattern};
pub use role::Role;
pub use rule::{Rule, RuleKind, RuleName};
pub use rules::{ForeignUrlRefusal, Limit, Quota, Retention, Rules};
pub use scope::{Class, MAX_SCOPES, Resource, Scope};
pub use secret::Secret;
pub use signing_key::SigningKey;
pub use subject::Subject;
pub use tag_guard::{Holder, TagChange, TagGuard, TagRefusal};
