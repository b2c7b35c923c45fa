//! A site that may not write refuses every change before it makes any part of it.

use twinport_access::TagGuard;
use twinport_metadata::{Error, PutManifest};

use crate::{
    on_both_databases,
    site::{TestSite, actor, blob, manifest, name, tag},
};

on_both_databases!(r26_a_halted_site_refuses_every_change_and_still_answers);

async fn r26_a_halted_site_refuses_every_change_and_still_answers(site: TestSite) {
    let digest = site.push_image("app", "image", "v1").await;
    let layer = site.push_blob("app", "layer").await;
    let before = site.log().await.len();
    site.metadata.halt("history was rewritten").await.unwrap();

    let (metadata, app, other) = (&site.metadata, name("app"), name("other"));
    let put = PutManifest { tags: vec![tag("v2")], ..manifest("app", "another image") };
    let refusals = [
        metadata.commit_blob(blob("app", "another layer")).await,
        metadata.mount_blob(&app, &other, &layer, &actor()).await.map(drop),
        metadata.unlink_blob(&app, &layer, &TagGuard::default(), &actor()).await.map(drop),
        metadata.put_manifest(put).await.map(drop),
        metadata.delete_manifest(&app, &digest, &TagGuard::default(), &actor()).await.map(drop),
        metadata.delete_tag(&app, &tag("v1"), &TagGuard::default(), &actor()).await.map(drop),
        metadata.rename_repository(&app, &other, &actor()).await.map(drop),
        metadata.delete_repository(&app, &TagGuard::default(), &actor()).await.map(drop),
    ];
    for (number, refusal) in refusals.iter().enumerate() {
        assert!(matches!(refusal, Err(Error::Halted(_))), "change {number}: {refusal:?}");
    }
    assert_eq!(site.log().await.len(), before);
    assert_eq!(site.resolve("app", "v1").await, Some(digest));
    assert!(site.has_blob("app", &layer).await);
    assert_eq!(metadata.repository(&other).await.unwrap(), None);
}
