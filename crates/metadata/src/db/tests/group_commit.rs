//! Hazard S15: what one closure does, its neighbours in the same COMMIT do not feel.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use super::on_sqlite;
use crate::{Error, EventKind, Metadata, Result};

/// Holds the writer until everything given is queued behind it, so that it shares one batch.
async fn in_one_batch<T: Send + 'static>(
    metadata: &Metadata,
    jobs: Vec<impl Future<Output = Result<T>> + Send + 'static>,
) -> Vec<Result<T>> {
    let (release, held) = mpsc::channel::<()>();
    let (started, running) = mpsc::channel::<()>();
    let db = metadata.db.clone();
    let held = parking_lot::Mutex::new(Some(held));
    let blocker = tokio::spawn(async move {
        db.write(move |_| {
            if let Some(held) = held.lock().take() {
                started.send(()).unwrap();
                held.recv().unwrap();
            }
            Box::pin(async { Ok(()) })
        })
        .await
    });
    tokio::task::spawn_blocking(move || running.recv().unwrap()).await.unwrap();
    let mut jobs: Vec<_> = jobs.into_iter().map(|job| Box::pin(job)).collect();
    // Polled once, each has put its closure into the queue.
    for job in &mut jobs {
        assert!(futures_util::poll!(job.as_mut()).is_pending());
    }
    release.send(()).unwrap();
    blocker.await.unwrap().unwrap();
    futures_util::future::join_all(jobs).await
}

async fn store(metadata: Metadata, key: i64, bytes: usize, then: fn() -> Result<()>) -> Result<()> {
    metadata
        .db
        .write(move |tx| {
            Box::pin(async move {
                let nonce = vec![0_u8; bytes];
                tx.execute(
                    "INSERT INTO site_reports (incarnation, nonce, report, reported_at_us) VALUES ($1, $2, '', 0)",
                    vec![key.to_be_bytes().to_vec().into(), nonce.into()],
                )
                .await?;
                then()
            })
        })
        .await
}

async fn stored(metadata: &Metadata) -> Vec<i64> {
    let rows =
        metadata.db.query("SELECT incarnation FROM site_reports ORDER BY incarnation", vec![]).await.unwrap();
    rows.iter().map(|row| i64::from_be_bytes(row.blob(0).unwrap().as_ref().try_into().unwrap())).collect()
}

fn fails() -> Result<()> {
    Err(Error::ManifestUnknown)
}

fn panics() -> Result<()> {
    panic!("on purpose")
}

#[tokio::test]
async fn s15_a_failing_closure_takes_no_neighbour_along() {
    let site = on_sqlite().await;
    let endings: [fn() -> Result<()>; 5] = [|| Ok(()), fails, || Ok(()), panics, || Ok(())];
    let jobs = (0..).zip(endings).map(|(key, then)| store(site.metadata.clone(), key, 10, then)).collect();

    let answers = in_one_batch(&site.metadata, jobs).await;

    assert!(matches!(answers[..], [Ok(()), Err(Error::ManifestUnknown), Ok(()), Err(Error::Bug(_)), Ok(())]));
    assert_eq!(stored(&site.metadata).await, [0, 2, 4]);
}

#[tokio::test]
async fn s15_closures_run_again_only_where_one_that_failed_left_something() {
    let site = on_sqlite().await;
    for (before_failing, runs_of_a_neighbour) in
        [("SELECT 1", 1), ("UPDATE site SET name = 'x' WHERE id = 1", 2)]
    {
        let runs = Arc::new(AtomicUsize::new(0));
        let job = |fails: bool| {
            let (runs, db) = (Arc::clone(&runs), site.metadata.db.clone());
            async move {
                db.write(move |tx| {
                    let runs = Arc::clone(&runs);
                    Box::pin(async move {
                        if fails {
                            tx.script(before_failing).await?;
                            return Err(Error::ManifestUnknown);
                        }
                        runs.fetch_add(1, Ordering::Relaxed);
                        tx.execute("UPDATE site SET external_url = 'y' WHERE id = 1", vec![]).await.map(drop)
                    })
                })
                .await
            }
        };
        let answers = in_one_batch(&site.metadata, vec![job(false), job(true), job(false)]).await;
        assert!(matches!(answers[..], [Ok(()), Err(Error::ManifestUnknown), Ok(())]), "{answers:?}");
        assert_eq!(runs.load(Ordering::Relaxed), 1 + runs_of_a_neighbour, "{before_failing}");
        assert_eq!(site.metadata.site().await.unwrap().name, None);
    }
}

/// The right to originate events is found out once in a batch, and anew after whatever may have taken it.
#[tokio::test]
async fn s15_no_closure_originates_events_by_a_right_that_its_neighbours_took_or_never_gave() {
    const HALT: &str = "UPDATE site SET halted = 'by a neighbour' WHERE id = 1";
    const GO_ON: &str = "UPDATE site SET halted = NULL WHERE id = 1";
    let site = on_sqlite().await;
    let job = |change: Option<&'static str>, then: fn() -> Result<()>| {
        let db = site.metadata.db.clone();
        async move {
            db.write(move |tx| {
                Box::pin(async move {
                    if let Some(change) = change {
                        tx.execute(change, vec![]).await?;
                        // Within what is rolled back, this finds the changed row.
                        let _found = tx.guard_origin().await;
                        return then();
                    }
                    tx.guard_origin().await.map(drop)
                })
            })
            .await
        }
    };
    let ok: fn() -> Result<()> = || Ok(());
    let asks = || job(None, ok);

    let answers = in_one_batch(&site.metadata, vec![asks(), job(Some(HALT), ok), asks()]).await;
    assert!(matches!(answers[..], [Ok(()), Ok(()), Err(Error::Halted(_))]), "{answers:?}");
    assert!(matches!(site.metadata.check_writable().await, Err(Error::Halted(_))));

    let answers = in_one_batch(&site.metadata, vec![asks(), job(Some(GO_ON), fails), asks()]).await;
    let [Err(Error::Halted(_)), Err(Error::ManifestUnknown), Err(Error::Halted(_))] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(matches!(site.metadata.check_writable().await, Err(Error::Halted(_))));

    let answers = in_one_batch(&site.metadata, vec![job(Some(GO_ON), ok), asks()]).await;
    assert!(matches!(answers[..], [Ok(()), Ok(())]), "{answers:?}");
    site.metadata.check_writable().await.unwrap();
}

/// The head's row is written once for all closures of a batch, and before any of them looks at it.
#[tokio::test]
async fn s15_the_head_of_the_log_is_where_the_events_that_stayed_end() {
    const SEQ: &str = "SELECT seq FROM log_head WHERE id = 1";
    let site = on_sqlite().await;
    let job = |looks: bool, then: fn() -> Result<()>| {
        let db = site.metadata.db.clone();
        async move {
            db.write(move |tx| {
                Box::pin(async move {
                    let origin = tx.guard_origin().await?;
                    let change = tx.append(&origin.event(EventKind::SiteChanged)).await?;
                    let appended = change.position.map(|position| position.seq).unwrap();
                    let seen = if looks { tx.query(SEQ, vec![]).await?[0].int(0)? } else { appended };
                    then().map(|()| (appended, seen))
                })
            })
            .await
        }
    };
    let ok: fn() -> Result<()> = || Ok(());
    for looks in [false, true] {
        let before = site.metadata.log_head().await.unwrap().position.seq;
        let jobs = vec![job(false, ok), job(looks, ok), job(looks, fails), job(false, ok), job(true, fails)];
        let answers = in_one_batch(&site.metadata, jobs).await;
        let seqs = [before + 1, before + 2, before + 3];
        let stayed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(stayed, seqs.each_ref().map(|seq| (*seq, *seq)).iter().collect::<Vec<_>>());

        let head = site.metadata.log_head().await.unwrap();
        let last = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1";
        let last = &site.metadata.db.query(last, vec![]).await.unwrap()[0];
        assert_eq!((head.position.seq, head.hash), (before + 3, last.hash(1).unwrap()));
        assert_eq!(last.int(0).unwrap(), before + 3);
    }
}

#[tokio::test]
async fn s15_no_closure_escapes_a_batch_that_a_full_disk_rolled_back() {
    let site = on_sqlite().await;
    let limit = |text: &'static str| site.metadata.db.script(text);
    // The database may grow by a little: one closure wants more than that.
    let pages = site.metadata.db.query("PRAGMA page_count", vec![]).await.unwrap()[0].int(0).unwrap();
    assert!(pages < 200);
    limit("PRAGMA max_page_count = 220").await.unwrap();
    let sizes = [10, 10, 8_000_000, 10];
    let jobs =
        (0..).zip(sizes).map(|(key, bytes)| store(site.metadata.clone(), key, bytes, || Ok(()))).collect();

    let answers = in_one_batch(&site.metadata, jobs).await;

    assert!(matches!(answers[..], [Ok(()), Ok(()), Err(Error::NoSpace), Ok(())]), "{answers:?}");
    assert_eq!(stored(&site.metadata).await, [0, 1, 3]);
    limit("PRAGMA max_page_count = 100000").await.unwrap();
    store(site.metadata.clone(), 2, 8_000_000, || Ok(())).await.unwrap();
    assert_eq!(stored(&site.metadata).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_closure_that_waits_on_something_else_is_reported_and_stores_nothing() {
    let site = on_sqlite().await;
    let answer = site
        .metadata
        .db
        .write(|tx| {
            Box::pin(async move {
                tx.execute("UPDATE site SET name = 'x' WHERE id = 1", vec![]).await?;
                std::future::pending::<Result<()>>().await
            })
        })
        .await;
    assert!(matches!(answer, Err(Error::Bug(_))));
    assert_eq!(site.metadata.site().await.unwrap().name, None);
}
