//! Listings: every row once whatever the page, and `complete` only at the end (hazard R3).

use twinport_access::TagGuard;
use twinport_metadata::{Actor, ListedRow, ListingCursor, PutManifest, RowPage};
use twinport_oci::Digest;

use crate::{on_both_databases, site::TestSite};

on_both_databases! {
    r3_pages_of_any_size_give_every_row_once_and_say_when_they_end,
    r3_a_repository_that_went_away_is_unknown_not_empty,
}

async fn push(site: &TestSite, n: u32) {
    let body = format!("{{\"n\":{n}}}");
    let put = PutManifest {
        repository: "library/alpine".parse().unwrap(),
        digest: Digest::sha256(body.as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        artifact_type: None,
        subject: (n == 2).then(|| Digest::sha256(b"subject")),
        annotations: String::new(),
        body: body.into(),
        blobs: Vec::new(),
        manifests: Vec::new(),
        tags: vec![format!("v{n}").parse().unwrap(), format!("V-{n}").parse().unwrap()],
        guard: TagGuard::default(),
        actor: Actor::anonymous(),
    };
    site.metadata.put_manifest(put).await.unwrap();
}

/// The rows without their positions, which PostgreSQL's stamper sets while the test reads.
fn unplaced(mut rows: Vec<ListedRow>) -> Vec<ListedRow> {
    for row in &mut rows {
        match row {
            ListedRow::BlobLink { position_seq, .. }
            | ListedRow::Manifest { position_seq, .. }
            | ListedRow::Tag { position_seq, .. } => *position_seq = None,
        }
    }
    rows
}

async fn r3_pages_of_any_size_give_every_row_once_and_say_when_they_end(site: TestSite) {
    for n in 0..4 {
        site.write(&n.to_string()).await.unwrap();
        push(&site, n).await;
    }
    let repositories = site.metadata.repository_rows("", 10).await.unwrap();
    assert!(repositories.complete);
    let uuid = repositories.rows[0].uuid;
    let whole = site.metadata.repository_listing(uuid, ListingCursor::start(), 1_000).await.unwrap().unwrap();
    let whole = RowPage { rows: unplaced(whole.rows), next: whole.next };
    assert_eq!(whole.next, None);
    assert_eq!(whole.rows.len(), 4 + 4 + 8);
    let tags = whole.rows.iter().filter_map(|row| match row {
        ListedRow::Tag { name, .. } => Some(name.as_str()),
        _ => None,
    });
    assert!(tags.collect::<Vec<_>>().is_sorted(), "tags sort as bytes");

    for limit in 1..=17 {
        let (mut rows, mut cursor) = (Vec::new(), Some(ListingCursor::start()));
        while let Some(at) = cursor {
            // What goes over the wire is the cursor's text.
            let at = at.to_string().parse().unwrap();
            let page = site.metadata.repository_listing(uuid, at, limit).await.unwrap().unwrap();
            assert!(page.rows.len() <= limit as usize);
            rows.extend(page.rows);
            cursor = page.next;
        }
        assert_eq!(unplaced(rows), whole.rows, "pages of {limit}");
    }
}

async fn r3_a_repository_that_went_away_is_unknown_not_empty(site: TestSite) {
    site.write("a").await.unwrap();
    let uuid = site.metadata.repository_rows("", 10).await.unwrap().rows[0].uuid;
    let name = "library/alpine".parse().unwrap();
    assert!(site.metadata.delete_repository(&name, &TagGuard::default(), &Actor::anonymous()).await.unwrap());
    assert_eq!(site.metadata.repository_listing(uuid, ListingCursor::start(), 10).await.unwrap(), None);
    assert_eq!(site.metadata.repository_checksum(uuid).await.unwrap(), None);
    let page = site.metadata.repository_rows("", 10).await.unwrap();
    assert!(page.complete && page.rows.is_empty());
}
