//! The behavioural suite of blob storage, run for every driver.
//! Guards: what `Blobs` promises holds whichever driver is behind it.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "suite/reading.rs"]
mod reading;
#[path = "suite/spooling.rs"]
mod spooling;
#[path = "suite/stage.rs"]
mod stage;
#[path = "suite/storing.rs"]
mod storing;

/// One test per behaviour and driver: `local::a_blob_...`.
macro_rules! suite {
    ($driver:ident: $($module:ident :: { $($behaviour:ident),* $(,)? }),* $(,)?) => {
        mod $driver {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    if let Some(stage) = crate::stage::$driver().await {
                        crate::$module::$behaviour(stage).await;
                    }
                }
            )*)*
        }
    };
}

macro_rules! every_behaviour {
    ($($driver:ident),*) => {
        $(suite! { $driver:
            reading::{
                a_blob_is_read_back_whole_and_by_range,
                an_absent_blob_is_not_found,
                a_range_outside_the_blob_is_refused,
                a_blob_of_another_length_is_refused_at_open,
                a_reader_keeps_its_bytes_when_the_blob_is_removed,
                a_scan_finds_every_blob_in_order_and_nothing_else,
                s6_whole_and_missing_blobs_are_told_apart,
            },
            spooling::{
                a_body_gathers_hashed_and_in_order,
                an_empty_body_makes_an_empty_spool,
                s9_an_upload_goes_on_after_a_restart,
                s9_an_append_at_an_earlier_offset_cuts_what_lies_beyond,
                s9_an_append_beyond_the_end_is_refused,
                s9_a_second_writer_is_refused_until_the_first_has_ended,
                s9_a_dropped_append_leaves_nothing_the_next_does_not_cut,
                a_broken_body_keeps_what_came,
                a_body_over_the_limit_is_refused_and_cut_back,
                a_hash_made_anew_equals_the_one_made_on_the_way,
                an_upload_goes_on_in_another_algorithm,
                spools_are_listed_by_name_until_discarded,
            },
            storing::{
                a_spool_is_published_and_keeps_its_name,
                a_published_spool_is_never_written_again,
                publishing_is_idempotent,
                many_publishers_of_one_digest_all_succeed,
                small_blobs_that_come_at_once_are_all_stored,
                a_spool_of_another_size_is_not_published,
                a_small_blob_of_another_digest_is_not_stored,
                s5_retries_of_a_put_that_was_never_committed_leave_one_spool,
                an_unpublished_blob_is_gone_and_can_come_back,
                publishing_while_the_same_digest_is_removed_ends_whole_or_absent,
                the_incarnation_is_kept,
                s14_of_many_sites_that_claim_a_store_at_once_one_has_it,
            },
        })*
    };
}

every_behaviour!(local, minio, versitygw);
