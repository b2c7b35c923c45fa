//! What tests run against: databases, file systems that lose power. Never linked into the product.

mod image;
mod postgres;
mod power_cut;
mod proxy;
mod records;
mod site;

pub use image::{Image, MANIFEST, pull_whole, push_blob};
pub use postgres::{POSTGRES_VARIABLE, TemporaryPostgres, postgres_database, postgres_url};
pub use power_cut::{Faults, PowerCut};
pub use proxy::{TcpProxy, Traffic};
pub use records::Field;
pub use site::{SiteDatabase, SiteProcess};
