//! What exists and who points at what: repositories, manifests, tags, blob links, uploads, the event log,
//! sites and tracking records, on SQLite and on PostgreSQL behind one façade.
//!
//! **Architecture invariant:** the event of a change commits in the transaction that makes the change.
//! **Architecture invariant:** this crate does not know `blobs`: it names digests, it never touches bytes on disk.

mod access;
mod apply;
mod blobs;
mod checksum;
mod clock;
mod db;
mod deletions;
mod error;
mod event;
mod fresh_sessions;
mod join_tokens;
mod leases;
mod listing;
mod log;
mod log_cursor;
mod manifests;
mod metadata;
mod migrations;
mod nodes;
mod position;
#[cfg(test)]
mod query_plans;
mod referrers;
mod refresh_tokens;
mod reports;
mod repositories;
mod retention;
mod sequencer;
mod server_facts;
mod site;
mod sites;
mod stored_blobs;
mod tag_page;
mod tags;
mod token_keys;
mod tracking;
mod upload_ids;
mod uploads;
mod usage;

pub use self::{
    access::{
        AccessRecord, BOOTSTRAP_ACTOR, Ended, ListedRecord, NewAccount, PendingAccess, PendingRecord,
        RecordCursor, RecordKind, RecordName, RecordSecret, ReplicatedRecord, StoredAccount, StoredToken,
    },
    refresh_tokens::{RefreshToken, Refreshed},
    token_keys::TokenKey,
};
pub use self::{
    apply::{
        Applied, ApplyChunk, ItemKind, LinkRow, Listing, ManifestRow, Removal, Removed, TagRow, Unsettled,
    },
    log_cursor::{Ingested, Lease, needs_upgrade},
    tracking::{
        Backfill, CheckOutcome, DueCheck, HeldManifest, LinkedBlob, TrackedItem, TrackedRepository,
        TrackingCounts, TrackingSummary,
    },
};
pub use self::{
    blobs::{BlobRow, CommitBlob},
    manifests::{ManifestHead, PutManifest, PutOutcome, StoredManifest},
    referrers::Referrer,
    repositories::Repository,
    retention::{AgedTag, Emptied, Restored, RetentionRun, TrashRow},
    tag_page::TagPage,
    uploads::UploadSession,
    usage::{Counted, QuotaUsage},
};
pub use self::{
    checksum::RepositoryChecksum,
    join_tokens::JoinTokenRecord,
    listing::{ListedRepository, ListedRow, ListingCursor, ManifestBytes, Page, RowPage},
    reports::{ReaderState, StoredReport},
    sites::{Admission, NewSite, SiteRecord, SiteState},
};
pub use self::{
    clock::Clock,
    db::{Database, LEAST_OPEN, PoolLimits, PostgresHost, PostgresOptions, PostgresTls, SslMode},
    error::{Error, Result},
    event::{EVENT_SCHEMA, Event, EventKind, LoggedEvent, chain},
    leases::{Job, JobLease, LeaseNote, LeaseRecord},
    metadata::{Metadata, OpenOptions},
    migrations::SchemaChange,
    nodes::{NODE_SILENCE_US, NodeRecord},
    position::{Actor, Epoch, EpochRecord, Federation, Incarnation, LogHead, LogPosition, RepositoryUuid},
    server_facts::ServerFacts,
    site::{BecomeSecondary, Role, Site},
    stored_blobs::StoredBlob,
};
