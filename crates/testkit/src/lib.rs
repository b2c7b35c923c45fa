//! What tests run against: databases, file systems that lose power. Never linked into the product.

mod certificates;
mod growth;
mod image;
mod inventory;
mod ledger;
mod load;
mod memory;
mod pair;
mod postgres;
mod postgres_disk;
mod postgres_server;
mod power_cut;
mod proxy;
mod records;
mod settings;
mod site;
mod small_disk;
mod strace;

pub use certificates::{Authority, KeyedCertificate};
pub use growth::{Filled, Growth};
pub use image::{Image, MANIFEST, pull_whole, push_blob};
pub use inventory::{Inventory, take_inventory};
pub use ledger::{Ledger, ManifestName, Removal, Scope, TagName};
pub use load::Load;
pub use memory::MemoryWatch;
pub use pair::{BINARY_VARIABLE, Pair, program, site_database};
pub use postgres::{POSTGRES_VARIABLE, TemporaryPostgres, postgres_database, postgres_url};
pub use postgres_disk::{drop_moved_database, move_postgres_database};
pub use postgres_server::{BaseBackup, PostgresServer, Stop};
pub use power_cut::{Faults, PowerCut, Stage};
pub use proxy::{TcpProxy, Traffic};
pub use records::Field;
pub use settings::{SEED_VARIABLE, number, seed};
pub use site::{SiteDatabase, SiteProcess};
pub use small_disk::SmallDisk;
pub use strace::{Call, Strace, postgres_processes};
