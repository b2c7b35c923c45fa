//! The registry half of metadata: one behavioural suite, run on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/replay.rs"]
mod replay;
#[path = "support/site.rs"]
mod site;

#[path = "registry/access.rs"]
mod access;
#[path = "registry/access_replicated.rs"]
mod access_replicated;
#[path = "registry/blobs.rs"]
mod blobs;
#[path = "registry/deletions.rs"]
mod deletions;
#[path = "registry/held_tags.rs"]
mod held_tags;
#[path = "registry/leases.rs"]
mod leases;
#[path = "registry/manifests.rs"]
mod manifests;
#[path = "registry/paging.rs"]
mod paging;
#[path = "registry/refusals.rs"]
mod refusals;
#[path = "registry/replaying.rs"]
mod replaying;
#[path = "registry/repositories.rs"]
mod repositories;
#[path = "registry/retention.rs"]
mod retention;
#[path = "registry/token_service.rs"]
mod token_service;
#[path = "registry/uploads.rs"]
mod uploads;
#[path = "registry/usage.rs"]
mod usage;
