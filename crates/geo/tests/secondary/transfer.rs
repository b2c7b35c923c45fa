//! Bytes between sites: once each, and never from the start again.

use std::time::Duration;

use twinport_blobs::SpoolName;
use twinport_oci::Digest;

use crate::{
    on_both_databases,
    pair::{Pair, until},
    transport::BlobFault,
};

on_both_databases!(
    r11_a_layer_that_twenty_repositories_share_crosses_once,
    r11_a_layer_crosses_once_by_backfill_too,
    r12_a_broken_transfer_resumes_where_it_was,
    r12_a_transfer_resumes_after_a_restart,
    bytes_that_prove_false_are_not_resumed_from,
    bytes_in_place_without_a_record_are_taken_over_without_crossing_again,
);

fn layer(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

async fn push_everywhere(pair: &Pair, layer: &[u8]) {
    for number in 0..20 {
        let repository = format!("team/app-{number}");
        let own = format!("own {number}");
        pair.primary.push_image(&repository, &[layer, own.as_bytes()], &["latest"]).await;
    }
}

async fn r11_a_layer_that_twenty_repositories_share_crosses_once(mut pair: Pair) {
    pair.join_and_start().await;
    let layer = layer(3 << 20);
    push_everywhere(&pair, &layer).await;
    pair.converged().await;
    assert_eq!(pair.faults.sent.lock().get(&Digest::sha256(&layer)), Some(&(layer.len() as u64)));
}

async fn r11_a_layer_crosses_once_by_backfill_too(mut pair: Pair) {
    let layer = layer(3 << 20);
    push_everywhere(&pair, &layer).await;
    pair.join_and_start().await;
    pair.converged().await;
    assert_eq!(pair.faults.sent.lock().get(&Digest::sha256(&layer)), Some(&(layer.len() as u64)));
}

async fn r12_a_broken_transfer_resumes_where_it_was(mut pair: Pair) {
    pair.join_and_start().await;
    let layer = layer((5 << 20) + 17);
    let digest = Digest::sha256(&layer);
    // Each connection breaks after a megabyte, and far more often than a fixed number of retries would allow.
    pair.faults.fail_blob(digest, BlobFault::CutAfter(1 << 19));
    pair.primary.push_image("library/large", &[&layer], &["latest"]).await;
    pair.converged().await;
    let offsets = pair.faults.offsets.lock().get(&digest).unwrap().clone();
    assert!(offsets.len() >= 10, "{offsets:?}");
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "it started again: {offsets:?}");
    assert_eq!(pair.faults.sent.lock().get(&digest), Some(&(layer.len() as u64)), "bytes crossed twice");
}

async fn r12_a_transfer_resumes_after_a_restart(mut pair: Pair) {
    pair.join_and_start().await;
    let layer = layer(6 << 20);
    let digest = Digest::sha256(&layer);
    pair.faults.fail_blob(digest, BlobFault::SilentAfter(4 << 20));
    pair.primary.push_image("library/large", &[&layer], &["latest"]).await;
    let spool = SpoolName::Transfer(digest);
    until("some of it is here", async || {
        let held = pair.secondary.blobs.spool_len(&spool).await.unwrap().unwrap_or(0);
        (held < 1 << 20).then(|| format!("{held} bytes"))
    })
    .await;
    pair.stop().await;
    pair.faults.heal();
    pair.faults.sent.lock().clear();
    pair.start().await;
    pair.converged().await;
    let sent = *pair.faults.sent.lock().get(&digest).unwrap();
    assert!(sent <= 5 << 20, "{sent} bytes crossed again, though at least one megabyte was here");
}

async fn bytes_that_prove_false_are_not_resumed_from(mut pair: Pair) {
    pair.join().await;
    let layer = layer(1 << 20);
    let digest = Digest::sha256(&layer);
    let spool = SpoolName::Transfer(digest);
    let lies = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(vec![7; 1 << 19]))]);
    let start = twinport_blobs::Progress::start(digest.algorithm());
    pair.secondary.blobs.append(&spool, start, lies, 1 << 20).await.unwrap();
    pair.start().await;
    pair.primary.push_image("library/app", &[&layer], &["latest"]).await;
    pair.converged().await;
    assert_eq!(*pair.faults.offsets.lock().get(&digest).unwrap(), [1 << 19, 0]);
}

async fn bytes_in_place_without_a_record_are_taken_over_without_crossing_again(mut pair: Pair) {
    pair.join().await;
    // As a crash between publishing and committing leaves them.
    let layer = layer(1 << 18);
    let digest = Digest::sha256(&layer);
    let spool = pair.secondary.blobs.put(&digest, bytes::Bytes::from(layer.clone())).await.unwrap();
    pair.secondary.blobs.discard(&spool).await.unwrap();
    pair.start().await;
    pair.primary.push_image("library/app", &[&layer], &["latest"]).await;
    pair.converged().await;
    assert_eq!(pair.faults.sent.lock().get(&digest), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_silence_breaks_a_transfer_off_and_nothing_else_does() {
    let mut pair = Pair::on_sqlite().await;
    pair.tuning.transfer_idle = Duration::from_millis(300);
    pair.join_and_start().await;
    let layer = layer(1 << 20);
    let digest = Digest::sha256(&layer);
    pair.faults.fail_blob(digest, BlobFault::SilentAfter(0));
    pair.primary.push_image("library/app", &[&layer], &["latest"]).await;
    until("it was asked for again", async || {
        let asked = pair.faults.offsets.lock().get(&digest).map_or(0, Vec::len);
        (asked < 2).then(|| format!("asked {asked} times"))
    })
    .await;
    pair.faults.heal();
    pair.converged().await;
}
