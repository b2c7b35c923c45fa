//! The access list of a token: what its bearer may do with what (Distribution, docs/content/spec/auth/jwt.md), with what
//! GitLab adds to an entry.

use serde::Serialize;
use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::tag_limits::TagLimits;
use crate::action::Actions;
use crate::error::shown;
use crate::scope::{Class, Resource, Scope};

/// The most entries of a list.
const MAX_ENTRIES: usize = 1_000;

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessEntry {
    pub resource: Resource,
    pub actions: Actions,
    /// The GitLab project that the repository belongs to.
    pub project: Option<Project>,
    /// What the token forbids on some tags, whatever the actions.
    pub tags: TagLimits,
}

/// A GitLab project, as an entry's `meta` names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    pub path: Option<String>,
    pub id: Option<i64>,
    pub root_namespace_id: Option<i64>,
}

/// The entries that mean something here. Those of other types and with names that no repository can have give nothing.
pub(super) fn entries(claims: &Map<String, Value>) -> Result<Vec<AccessEntry>, Refusal> {
    let list = match claims.get("access") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Refusal::Claim("access")),
    };
    if list.len() > MAX_ENTRIES {
        return Err(Refusal::TooManyEntries);
    }
    list.iter().filter_map(|value| entry(value).transpose()).collect()
}

fn entry(value: &Value) -> Result<Option<AccessEntry>, Refusal> {
    const SHAPE: Refusal = Refusal::Claim("access");
    let Value::Object(fields) = value else { return Err(SHAPE) };
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(SHAPE),
    };
    let (kind, name, class) = (text("type")?, text("name")?, text("class")?);
    let words: Vec<&str> = match fields.get("actions") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(words)) => words.iter().map(Value::as_str).collect::<Option<_>>().ok_or(SHAPE)?,
        Some(_) => return Err(SHAPE),
    };
    let meta = match fields.get("meta") {
        None | Some(Value::Null) => None,
        Some(Value::Object(meta)) => Some(meta),
        Some(_) => return Err(SHAPE),
    };
    let class = Class::parse(class).ok_or_else(|| Refusal::Class(shown(class)))?;
    let resource = match kind {
        "repository" => match name.parse() {
            Ok(name) => Resource::Repository { name, class },
            // GitLab names `group/project/*` for calls about sizes.
            Err(_) => return Ok(None),
        },
        "registry" if name == "catalog" => Resource::Catalog,
        _ => return Ok(None),
    };
    Ok(Some(AccessEntry {
        actions: resource.actions(words),
        resource,
        project: meta.map(project).transpose()?,
        tags: meta.map(TagLimits::read).transpose()?.unwrap_or_default(),
    }))
}

fn project(meta: &Map<String, Value>) -> Result<Project, Refusal> {
    let number = |name: &str| match meta.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or(Refusal::Claim("access")),
    };
    Ok(Project {
        path: super::claims::text(meta, "project_path")?,
        id: number("project_id")?,
        root_namespace_id: number("root_namespace_id")?,
    })
}

/// An entry as the built-in token service writes it.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    name: &'a str,
    actions: Vec<&'static str>,
}

impl<'a> From<&'a Scope> for Written<'a> {
    fn from(scope: &'a Scope) -> Self {
        let (kind, class, name) = match &scope.resource {
            Resource::Repository { name, class: Class::Image } => ("repository", None, name.as_str()),
            Resource::Repository { name, class: Class::Plugin } => {
                ("repository", Some("plugin"), name.as_str())
            }
            Resource::Catalog => ("registry", None, "catalog"),
        };
        Self { kind, class, name, actions: scope.resource.words(scope.actions) }
    }
}
