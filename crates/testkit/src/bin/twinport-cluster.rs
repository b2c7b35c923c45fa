//! `twinport-cluster BINARY FOLDER NAME COUNT DATABASE-URL directory|bucket|redirecting-bucket`: a site of several nodes behind
//! a balancer, for scripts. Its blobs are in a directory of all nodes, or in a bucket of a server of its own, to which
//! clients may be sent for them.
//! Prints one line of JSON once all nodes are ready, and ends with its standard input, nodes and all.
#![expect(clippy::print_stdout, reason = "the line is what it is for")]

use std::{
    io::{Read as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use serde_json::json;
use twinport_testkit::{Cluster, ObjectServerKind, SharedStore, SiteBucket, SiteDatabase, object_server};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [binary, folder, name, count, database, store] = arguments.as_slice() else {
        bail!(
            "use: twinport-cluster BINARY FOLDER NAME COUNT DATABASE-URL directory|bucket|redirecting-bucket"
        );
    };
    let folder = Path::new(folder);
    let count = count.parse().context("COUNT is a number of nodes")?;
    let store = match store.as_str() {
        "directory" => SharedStore::Directory(folder.join(format!("{name}-store"))),
        "bucket" | "redirecting-bucket" => {
            let server = object_server(ObjectServerKind::MinIo).context("no server for the bucket")?;
            let redirect = store == "redirecting-bucket";
            SharedStore::Bucket(SiteBucket { redirect, ..SiteBucket::at(server.url()) })
        }
        other => bail!("{other} is neither directory, bucket nor redirecting-bucket"),
    };
    let database = SiteDatabase::Postgres(database.clone());
    let cluster = Cluster::start(Path::new(binary), folder, name, &database, store, count)?;
    let nodes: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| json!({"url": node.url(), "pid": node.pid(), "data": node.data()}))
        .collect();
    println!("{}", json!({"url": cluster.url(), "nodes": nodes}));
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!("{}", json!({"requests": cluster.balancer.counts()}));
    Ok(())
}
