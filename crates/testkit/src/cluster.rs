//! One site of several nodes: processes on one database and one store, behind a balancer.
//! Guards: the balancer goes first and every node with it, so that nothing of a cluster outlives it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{Balancer, Probing, SiteBucket, SiteDatabase, SiteProcess};

/// What holds the blobs of a cluster.
#[derive(Clone, Debug)]
pub enum SharedStore {
    /// A directory that every node has mounted.
    Directory(PathBuf),
    Bucket(SiteBucket),
}

/// A site of several nodes.
#[derive(Debug)]
pub struct Cluster {
    pub balancer: Balancer,
    pub nodes: Vec<SiteProcess>,
    pub store: SharedStore,
}

impl Cluster {
    /// Starts `count` nodes at once, called `NAME-1` and so on, with data directories in `folder`, and waits until all
    /// are ready.
    ///
    /// # Errors
    /// When a node does not get ready; the text has its log.
    pub fn start(
        binary: &Path,
        folder: &Path,
        name: &str,
        database: &SiteDatabase,
        store: SharedStore,
        count: usize,
    ) -> anyhow::Result<Self> {
        Self::start_with(binary, folder, name, database, store, count, &[])
    }

    /// [`Self::start`], and every node finds these variables.
    ///
    /// # Errors
    /// When a node does not get ready; the text has its log.
    pub fn start_with(
        binary: &Path,
        folder: &Path,
        name: &str,
        database: &SiteDatabase,
        store: SharedStore,
        count: usize,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        if let SharedStore::Directory(root) = &store {
            std::fs::create_dir_all(root).context("the shared store")?;
        }
        let mut nodes = Vec::with_capacity(count);
        for number in 1..=count {
            let data = folder.join(format!("{name}-{number}"));
            nodes.push(SiteProcess::unstarted(binary, &data, database.clone())?);
        }
        let addresses: Vec<_> = nodes.iter().map(SiteProcess::address).collect();
        let balancer = Balancer::start(&addresses, Probing::Readiness)?;
        let url = balancer.url();
        for (number, node) in (1..).zip(&mut nodes) {
            let name = format!("{name}-{number}");
            let own = [("REGISTRY_HTTP_HOST", url.as_str()), ("TWINPORT_NODE", name.as_str())];
            node.set_environment(own.iter().chain(environment));
            node.set_store(store.clone());
            node.spawn()?;
        }
        let mut cluster = Self { balancer, nodes, store };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Waits until every node is ready, and the balancer knows.
    ///
    /// # Errors
    /// When a node does not get ready; the text has its log.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.wait_ready()?;
        }
        while !self.balancer.ready().iter().all(|ready| *ready) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where clients and other sites reach it.
    #[must_use]
    pub fn url(&self) -> String {
        self.balancer.url()
    }

    /// What all nodes have logged, node after node.
    #[must_use]
    pub fn log(&self) -> String {
        self.nodes.iter().map(SiteProcess::log).collect()
    }

    /// How many nodes have logged a line with `text` in it.
    #[must_use]
    pub fn nodes_that_logged(&self, text: &str) -> usize {
        self.nodes.iter().filter(|node| node.log().contains(text)).count()
    }
}
