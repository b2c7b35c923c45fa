//! OCI Distribution 1.1.1 and what its main branch has added: a named test for each MUST and SHOULD on a registry, and
//! the hazards of `/v2`, over real connections. On SQLite, and on PostgreSQL where it is installed.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "v2/harness.rs"]
mod harness;

#[path = "v2/answers.rs"]
mod answers;
#[path = "v2/blob_pushes.rs"]
mod blob_pushes;
#[path = "v2/browsers.rs"]
mod browsers;
#[path = "v2/chunked_uploads.rs"]
mod chunked_uploads;
#[path = "v2/connections.rs"]
mod connections;
#[path = "v2/deletions.rs"]
mod deletions;
#[path = "v2/hazards.rs"]
mod hazards;
#[path = "v2/listings.rs"]
mod listings;
#[path = "v2/manifest_pushes.rs"]
mod manifest_pushes;
#[path = "v2/namespaces.rs"]
mod namespaces;
#[path = "v2/pulls.rs"]
mod pulls;
#[path = "v2/referrers.rs"]
mod referrers;
#[path = "v2/rules.rs"]
mod rules;
#[path = "v2/schema1.rs"]
mod schema1;
#[path = "v2/secondaries.rs"]
mod secondaries;
#[path = "v2/tls.rs"]
mod tls;
