//! Listings page by key, in byte order, whatever language the database sorts by.

use twinport_metadata::PutManifest;
use twinport_oci::Digest;

use crate::{
    on_both_databases,
    site::{TestSite, manifest, name, tag},
};

on_both_databases!(
    tags_page_by_key_in_byte_order,
    tags_of_an_absent_repository_are_not_an_empty_list,
    repositories_page_by_key_in_byte_order,
    referrers_are_filtered_and_paged,
    referrers_of_an_absent_subject_are_listed,
);

async fn tags_page_by_key_in_byte_order(site: TestSite) {
    let texts = ["b", "a", "B", "_x", "1.0", "1.0-rc1", "a-b", "a.b", "A", "10", "2"];
    let put = PutManifest { tags: texts.map(tag).to_vec(), ..manifest("app", "image") };
    site.metadata.put_manifest(put).await.unwrap();
    let mut sorted = texts.to_vec();
    sorted.sort_unstable();
    let mut seen: Vec<String> = Vec::new();
    loop {
        let after = seen.last().cloned();
        let page = site.metadata.tags(&name("app"), after.as_deref(), 3).await.unwrap().unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(ToString::to_string));
    }
    assert_eq!(seen, sorted);
    // The same as one text, as the registry lists them.
    let mut listed: Vec<String> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = site.metadata.tag_page(&name("app"), after.as_deref(), 3).await.unwrap().unwrap();
        listed.extend(page.names().map(str::to_owned));
        assert_eq!(page.next_after.is_some(), listed.len() < sorted.len());
        let Some(next) = page.next_after else { break };
        after = Some(next.to_string());
    }
    assert_eq!(listed, sorted);
    // A page may start after a tag that does not exist.
    let page = site.metadata.tags(&name("app"), Some("1.0-"), 1).await.unwrap().unwrap();
    assert_eq!(page, [tag("1.0-rc1")]);
}

async fn tags_of_an_absent_repository_are_not_an_empty_list(site: TestSite) {
    site.push_blob("app", "layer").await;
    assert_eq!(site.metadata.tags(&name("app"), None, 10).await.unwrap(), Some(vec![]));
    assert_eq!(site.metadata.tags(&name("none"), None, 10).await.unwrap(), None);
    assert_eq!(site.metadata.tag_page(&name("none"), None, 10).await.unwrap(), None);
    let empty = site.metadata.tag_page(&name("app"), None, 10).await.unwrap().unwrap();
    assert_eq!((empty.names().count(), empty.next_after), (0, None));
    assert_eq!(site.metadata.tags(&name("app"), Some("zzz"), 10).await.unwrap(), Some(vec![]));
}

async fn repositories_page_by_key_in_byte_order(site: TestSite) {
    let mut texts = vec!["b/a", "a-b", "a/b", "a", "a.b", "a_b", "b", "1"];
    for text in &texts {
        site.push_blob(text, "layer").await;
    }
    texts.sort_unstable();
    let mut seen: Vec<String> = Vec::new();
    loop {
        let after = seen.last().cloned();
        let page = site.metadata.repositories(after.as_deref(), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(ToString::to_string));
    }
    assert_eq!(seen, texts);
}

async fn referrers_are_filtered_and_paged(site: TestSite) {
    let subject = site.push_image("app", "image", "v1").await;
    let mut expected = Vec::new();
    for number in 0..7 {
        let put = PutManifest {
            subject: Some(subject),
            artifact_type: Some(["text/sbom", "text/signature"][number % 2].to_owned()),
            annotations: format!("{{\"number\":\"{number}\"}}"),
            ..manifest("app", &format!("referrer {number}"))
        };
        expected.push((put.digest, put.artifact_type.clone(), put.annotations.clone()));
        site.metadata.put_manifest(put).await.unwrap();
    }
    // Of another repository, and of another subject.
    let elsewhere = PutManifest { subject: Some(subject), ..manifest("other", "referrer 0") };
    site.metadata.put_manifest(elsewhere).await.unwrap();
    let stranger = PutManifest { subject: Some(Digest::sha256(b"x")), ..manifest("app", "stranger") };
    site.metadata.put_manifest(stranger).await.unwrap();
    expected.sort_unstable();

    let mut seen = Vec::new();
    loop {
        let after = seen.last().map(|(digest, _, _)| *digest);
        let page = site.metadata.referrers(&name("app"), &subject, None, after.as_ref(), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 3);
        assert!(page.iter().all(|referrer| referrer.size == 10));
        seen.extend(
            page.into_iter().map(|referrer| (referrer.digest, referrer.artifact_type, referrer.annotations)),
        );
    }
    assert_eq!(seen, expected);

    let signatures =
        site.metadata.referrers(&name("app"), &subject, Some("text/signature"), None, 100).await.unwrap();
    assert_eq!(signatures.len(), 3);
    assert!(signatures.iter().all(|referrer| referrer.artifact_type.as_deref() == Some("text/signature")));
    let after = signatures[0].digest;
    let rest = site
        .metadata
        .referrers(&name("app"), &subject, Some("text/signature"), Some(&after), 100)
        .await
        .unwrap();
    assert_eq!(rest, signatures[1..]);
    assert!(site.metadata.referrers(&name("app"), &subject, Some("none"), None, 9).await.unwrap().is_empty());
}

async fn referrers_of_an_absent_subject_are_listed(site: TestSite) {
    let subject = Digest::sha256(b"comes later");
    let put = PutManifest { subject: Some(subject), ..manifest("app", "signature") };
    site.metadata.put_manifest(put.clone()).await.unwrap();
    let referrers = site.metadata.referrers(&name("app"), &subject, None, None, 10).await.unwrap();
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0].digest, put.digest);
    assert!(site.metadata.referrers(&name("none"), &subject, None, None, 10).await.unwrap().is_empty());
}
