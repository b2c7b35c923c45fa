//! Two sites in one process: a real primary, a real engine, and a transport that breaks on demand.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod access;
mod apply;
mod backfill;
mod history;
mod names;
mod pair;
mod progress;
mod registry;
mod simulation;
mod transfer;
mod transport;
mod verification;

/// Runs each scenario on SQLite and, where a server is at hand, on PostgreSQL.
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::pair::Pair::on_sqlite().await)).await;
            })+
        }
        mod on_postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                match crate::pair::Pair::on_postgresql().await {
                    Some(pair) => Box::pin(super::$name(pair)).await,
                    None => println!("skipped: PostgreSQL is not installed"),
                }
            })+
        }
    };
}
use on_both_databases;
