//! Specification, "Listing Tags"; Docker's catalog.

use http::StatusCode;
use serde_json::json;

use crate::harness::{OCI_MANIFEST, Site};
use crate::on_both_databases;

on_both_databases!(
    tags_are_listed_in_byte_order,
    n_limits_the_tags_and_link_leads_to_the_rest,
    last_begins_after_a_tag,
    n_of_zero_lists_nothing_and_links_nowhere,
    a_repository_without_tags_has_an_empty_list,
    the_catalog_is_paged,
);

const TAGS: [&str; 6] = ["1.0", "B", "_x", "a", "latest", "v1"];

async fn tagged(site: &Site) {
    let (manifest, digest) = site.push_image("library/x", "latest", "one").await;
    let query: Vec<String> = TAGS.iter().map(|tag| format!("tag={tag}")).collect();
    let reference = format!("{digest}?{}", query.join("&"));
    site.put_manifest("library/x", reference, OCI_MANIFEST, manifest).await.is(StatusCode::CREATED);
}

async fn tags_are_listed_in_byte_order(site: Site) {
    tagged(&site).await;
    let seen = site.get("/v2/library/x/tags/list").await;
    seen.is(StatusCode::OK);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.json(), json!({"name": "library/x", "tags": TAGS}));
    assert_eq!(seen.next(), None);
    site.get("/v2/unknown/tags/list").await.refused(404, "NAME_UNKNOWN");
}

async fn n_limits_the_tags_and_link_leads_to_the_rest(site: Site) {
    tagged(&site).await;
    for n in [1, 2, 3, 4, 5, 6, 7] {
        let mut found = Vec::new();
        let mut path = format!("/v2/library/x/tags/list?n={n}&unknown=parameter");
        loop {
            let seen = site.get(&path).await;
            let tags = seen.json()["tags"].as_array().unwrap().clone();
            found.extend(tags.iter().map(|tag| tag.as_str().unwrap().to_owned()));
            let Some(next) = seen.next() else { break };
            assert_eq!(tags.len(), n);
            path = next;
        }
        assert_eq!(found, TAGS, "n={n}");
    }
}

async fn last_begins_after_a_tag(site: Site) {
    tagged(&site).await;
    let list = async |query: &str| {
        site.get(&format!("/v2/library/x/tags/list?{query}")).await.json()["tags"].clone()
    };
    assert_eq!(list("last=B").await, json!(["_x", "a", "latest", "v1"]));
    assert_eq!(list("n=2&last=B").await, json!(["_x", "a"]));
    // A tag that does not exist marks its place all the same.
    assert_eq!(list("n=2&last=b").await, json!(["latest", "v1"]));
    assert_eq!(list("last=v1").await, json!([]));
}

async fn n_of_zero_lists_nothing_and_links_nowhere(site: Site) {
    tagged(&site).await;
    let seen = site.get("/v2/library/x/tags/list?n=0").await;
    assert_eq!(seen.json(), json!({"name": "library/x", "tags": []}));
    assert_eq!(seen.next(), None);
}

async fn a_repository_without_tags_has_an_empty_list(site: Site) {
    site.push_blob("x", b"only a blob").await;
    assert_eq!(site.get("/v2/x/tags/list").await.json(), json!({"name": "x", "tags": []}));
}

async fn the_catalog_is_paged(site: Site) {
    assert_eq!(site.get("/v2/_catalog").await.json(), json!({"repositories": []}));
    let names = ["a", "a-b", "a/b", "library/x", "z"];
    for name in names {
        site.push_blob(name, b"x").await;
    }
    assert_eq!(site.get("/v2/_catalog").await.json(), json!({"repositories": names}));
    let first = site.get("/v2/_catalog?n=3").await;
    assert_eq!(first.json(), json!({"repositories": ["a", "a-b", "a/b"]}));
    let second = site.get(&first.next().unwrap()).await;
    assert_eq!(second.json(), json!({"repositories": ["library/x", "z"]}));
    assert_eq!(second.next(), None);
}
