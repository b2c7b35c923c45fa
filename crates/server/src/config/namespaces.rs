//! `http.namespaces`: other registries whose repositories are kept here, and below which name (OCI Distribution, "Registry
//! Proxying"). A client that knows this site as a mirror of `docker.io` asks with `ns=docker.io`.

use std::collections::BTreeMap;

use twinport_oci::RepositoryName;

/// By the host that a client's repository name begins with, the repository below which its repositories are here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces(BTreeMap<String, Option<RepositoryName>>);

impl Namespaces {
    /// `below` is a repository name, or nothing where names are the same here as there.
    ///
    /// # Errors
    /// Why the two are no namespace, in words.
    pub fn add(&mut self, host: &str, below: &str) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(format!(
                "`{host}` is no host of a registry, such as docker.io or registry.example.com:5000"
            ));
        }
        let below = match below {
            "" => None,
            below => Some(RepositoryName::parse(below).map_err(|error| error.to_string())?),
        };
        self.0.insert(host.to_ascii_lowercase(), below);
        Ok(())
    }

    /// Where a repository of a host is here. `None`: nothing is known of the host, or the name would be too long.
    pub(crate) fn resolve(&self, host: &str, name: &RepositoryName) -> Option<RepositoryName> {
        match self.0.get(&host.to_ascii_lowercase())? {
            None => Some(name.clone()),
            Some(below) => RepositoryName::parse(&format!("{below}/{name}")).ok(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each host and where its repositories are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(host, below)| (host.as_str(), below.as_ref().map_or("", RepositoryName::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_known_host_is_looked_for_where_its_repositories_are() {
        let mut namespaces = Namespaces::default();
        namespaces.add("docker.io", "mirrors/docker").unwrap();
        namespaces.add("Registry.Example.com:5000", "").unwrap();
        let name: RepositoryName = "library/nginx".parse().unwrap();
        let at = |host: &str| namespaces.resolve(host, &name).map(|name| name.to_string());
        assert_eq!(at("docker.io").as_deref(), Some("mirrors/docker/library/nginx"));
        assert_eq!(at("registry.example.com:5000").as_deref(), Some("library/nginx"));
        assert_eq!(at("quay.io"), None);
        let long: RepositoryName = "a".repeat(250).parse().unwrap();
        assert_eq!(namespaces.resolve("docker.io", &long), None);
        assert!(namespaces.add("docker.io/library", "x").is_err());
        assert!(namespaces.add("docker.io", "Not a name").is_err());
    }
}
