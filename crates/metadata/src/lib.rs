//! What exists and who points at what: repositories, manifests, tags, blob links, uploads, the event log,
//! sites and tracking records, on SQLite and on PostgreSQL behind one façade.
//!
//! **Architecture invariant:** the event of a change commits in the transaction that makes the change.
//! **Architecture invariant:** this crate does not know `blobs`: it names digests, it never touches bytes on disk.

mod apply;
mod blobs;
mod checksum;
mod clock;
mod db;
mod error;
mod event;
mod ingest;
mod join_tokens;
mod listing;
mod log;
mod manifests;
mod metadata;
mod migrations;
mod position;
mod referrers;
mod reports;
mod repositories;
mod sequencer;
mod site;
mod sites;
mod tags;
mod tracking;
mod uploads;

pub use self::{
    clock::Clock,
    db::{Database, PostgresOptions},
    error::{Error, Result},
    event::{EVENT_SCHEMA, Event, EventKind, LoggedEvent},
    metadata::{Metadata, OpenOptions},
    position::{Actor, Epoch, EpochRecord, Federation, Incarnation, LogHead, LogPosition, RepositoryUuid},
    site::{BecomeSecondary, Role, Site},
};
pub use self::{
    checksum::RepositoryChecksum,
    join_tokens::JoinTokenRecord,
    listing::{ListedRepository, ListedRow, ListingCursor, ManifestBytes, Page, RowPage},
    reports::{ReaderState, StoredReport},
    sites::{Admission, NewSite, SiteRecord, SiteState},
};
