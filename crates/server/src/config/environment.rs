//! The `REGISTRY_A_B` variables of Distribution: each overrides the key `a.b` of the file.
//! A variable that names no known key only warns: Kubernetes injects `REGISTRY_PORT` and its like.

use super::{
    Problem,
    check::Findings,
    schema::{RULES, Standing},
    tree::{Node, Origin, Value},
};

/// The variable that names the configuration file, as in Distribution's image.
pub(crate) const CONFIGURATION_PATH: &str = "REGISTRY_CONFIGURATION_PATH";

/// Lays the variables over the tree. Values are YAML, as in Distribution.
pub(crate) fn overlay(
    tree: &mut Node,
    variables: impl IntoIterator<Item = (String, String)>,
    findings: &mut Findings,
) {
    let mut ours: Vec<(String, String)> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with("REGISTRY_") && name != CONFIGURATION_PATH)
        .collect();
    // Shorter names first: a section is replaced before its keys are set.
    ours.sort_by_key(|(name, _)| (name.len(), name.clone()));
    for (name, text) in ours {
        let origin = Origin::Variable(name.clone());
        // GitLab's name of the same section.
        let tail = name["REGISTRY_".len()..].replacen("STORAGE_S3_V2", "STORAGE_S3", 1);
        let Some(path) = path_of(&tail) else {
            let message = "names no setting and is ignored".to_owned();
            findings.warnings.push(Problem::new(&origin, message));
            continue;
        };
        match Node::parse(&text) {
            Ok(parsed) => tree.put(&words(&path), with_origin(parsed, &origin)),
            // `:5000` is text to Distribution, whatever YAML makes of it.
            Err(_) => tree.put(&words(&path), Node::scalar(&text, origin)),
        }
    }
}

/// The words of a path; a name of the operator's own is one word, whatever it holds.
fn words(path: &str) -> Vec<&str> {
    let own = RULES.iter().filter(|rule| rule.standing == Standing::Names).find_map(|rule| {
        let name = path.strip_prefix(rule.path)?.strip_prefix('.')?;
        Some((rule.path, name))
    });
    match own {
        Some((section, name)) => section.split('.').chain([name]).collect(),
        None => path.split('.').collect(),
    }
}

/// The dotted path a variable's tail names: a key, a section, or something below a key that stands for a subtree.
fn path_of(tail: &str) -> Option<String> {
    let shout = |path: &str| path.to_ascii_uppercase().replace('.', "_");
    if let Some(rule) = RULES.iter().find(|rule| shout(rule.path) == tail) {
        return Some(rule.path.to_owned());
    }
    for rule in RULES {
        let mut section = rule.path;
        while let Some((parent, _)) = section.rsplit_once('.') {
            if shout(parent) == tail {
                return Some(parent.to_owned());
            }
            section = parent;
        }
    }
    RULES
        .iter()
        .filter(|rule| rule.standing != Standing::Used)
        .filter_map(|rule| {
            let below = tail.strip_prefix(&shout(rule.path))?.strip_prefix('_')?.to_ascii_lowercase();
            // Neither headers nor hosts have underscores in their names.
            let between = if rule.standing == Standing::Names { "-" } else { "." };
            Some((rule.path.len(), format!("{}.{}", rule.path, below.replace('_', between))))
        })
        .max()
        .map(|(_, path)| path)
}

fn with_origin(mut node: Node, origin: &Origin) -> Node {
    node.origin = origin.clone();
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => {
            for item in items {
                *item = with_origin(std::mem::replace(item, Node::empty()), origin);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                entry.origin = origin.clone();
                entry.node = with_origin(std::mem::replace(&mut entry.node, Node::empty()), origin);
            }
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_underscores_find_their_key() {
        assert_eq!(path_of("DATABASE_PASSWORD_FILE").unwrap(), "database.password_file");
        assert_eq!(path_of("STORAGE").unwrap(), "storage");
        assert_eq!(path_of("AUTH_TOKEN_REALM").unwrap(), "auth.token.realm");
        assert_eq!(path_of("HTTP_HEADERS_X_FRAME_OPTIONS").unwrap(), "http.headers.x-frame-options");
        assert_eq!(words("http.namespaces.docker.io"), ["http", "namespaces", "docker.io"]);
        assert_eq!(path_of("PORT"), None);
        assert_eq!(path_of("SERVICE_HOST"), None);
    }

    #[test]
    fn a_variable_overrides_the_file() {
        let mut tree = Node::parse("http:\n  addr: :5000\n").unwrap();
        let variables = [("REGISTRY_HTTP_ADDR".to_owned(), "127.0.0.1:7000".to_owned())];
        overlay(&mut tree, variables, &mut Findings::default());
        let node = tree.at("http.addr").unwrap();
        assert_eq!(node.value, Value::Scalar("127.0.0.1:7000".into()));
        assert_eq!(node.origin, Origin::Variable("REGISTRY_HTTP_ADDR".into()));
    }
}
