//! The primary's side of two sites: who may call, where a reader stands, and what its stream carries.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod credentials;
mod feed;
mod handshake;
mod joins;
mod listing;
mod site;

/// Runs each scenario on SQLite and, where a server is at hand, on PostgreSQL.
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::site::TestSite::on_sqlite().await)).await;
            })+
        }
        mod on_postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                match crate::site::TestSite::on_postgresql().await {
                    Some(site) => Box::pin(super::$name(site)).await,
                    None => println!("skipped: PostgreSQL is not installed"),
                }
            })+
        }
    };
}
use on_both_databases;
