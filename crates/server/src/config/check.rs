//! Holds a configuration tree against the schema: what is unknown, not built, or needless.
//! Nothing that guards access or data passes unread.

use super::{
    Problem,
    schema::{self, Match, Standing},
    tree::{Entry, Node, Value},
};

/// What a check found: problems stop the start, warnings are logged.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl Findings {
    /// A problem that `--lenient` turns into a warning.
    fn soft(&mut self, lenient: bool, problem: Problem) {
        if lenient { self.warnings.push(problem) } else { self.problems.push(problem) }
    }
}

/// Walks the whole tree.
pub(crate) fn check(tree: &Node, lenient: bool, findings: &mut Findings) {
    section(tree, "", lenient, findings);
}

fn section(node: &Node, path: &str, lenient: bool, findings: &mut Findings) {
    match &node.value {
        Value::Null => {}
        Value::Map(entries) => {
            for entry in entries {
                key(entry, path, lenient, findings);
            }
        }
        Value::Scalar(driver) if path == "storage" || path == "auth" => {
            let named = Entry {
                key: driver.clone(),
                origin: node.origin.clone(),
                node: Node { origin: node.origin.clone(), value: Value::Null },
            };
            key(&named, path, lenient, findings);
        }
        Value::Scalar(_) | Value::List(_) => {
            let what = if path.is_empty() { "the configuration" } else { path };
            findings.problems.push(Problem::new(
                &node.origin,
                format!("{what} must be a map of settings, as in `name: value`"),
            ));
        }
    }
}

fn key(entry: &Entry, section_path: &str, lenient: bool, findings: &mut Findings) {
    let path =
        if section_path.is_empty() { entry.key.clone() } else { format!("{section_path}.{}", entry.key) };
    let rule = match schema::find(&path) {
        Match::Section => return section(&entry.node, &path, lenient, findings),
        Match::Unknown => {
            return findings.soft(lenient, Problem::new(&entry.origin, unknown(entry, section_path)));
        }
        Match::Rule(rule) => rule,
    };
    match rule.standing {
        Standing::Used | Standing::Names => {}
        Standing::Needless(why) => {
            findings.warnings.push(Problem::new(&entry.origin, format!("{path} is not needed: {why}")));
        }
        Standing::Unbuilt(what) if !empty(&entry.node.value, &[]) => {
            let message =
                format!("{path} is not built in this version ({what}): remove it, or start with --lenient");
            findings.soft(lenient, Problem::new(&entry.origin, message));
        }
        Standing::Guard { harmless, why } if !empty(&entry.node.value, harmless) => {
            findings.problems.push(Problem::new(&entry.origin, format!("{path}: {why}")));
        }
        Standing::Refused(why) => {
            findings.problems.push(Problem::new(&entry.origin, format!("{path}: {why}")));
        }
        Standing::Unbuilt(_) | Standing::Guard { .. } => {}
    }
}

fn unknown(entry: &Entry, section: &str) -> String {
    let place = if section.is_empty() { String::new() } else { format!(" in {section}") };
    let hint = schema::nearest(section, &entry.key)
        .map_or_else(String::new, |name| format!(", did you mean `{name}`?"));
    format!("unknown key `{}`{place}{hint}", entry.key)
}

/// Whether a value asks for nothing.
fn empty(value: &Value, harmless: &[&str]) -> bool {
    match value {
        Value::Null => true,
        Value::Scalar(text) => text.is_empty() || harmless.contains(&text.as_str()),
        Value::List(items) => items.iter().all(|item| empty(&item.value, harmless)),
        Value::Map(entries) => entries.iter().all(|entry| empty(&entry.node.value, harmless)),
    }
}
