//! Rules of retention from plan to emptied trash, on a real database with a clock that the test steps.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use twinport_access::{Rule, Rules};
use twinport_metadata::{Actor, Clock, Database, Metadata, OpenOptions, PutManifest, Restored};
use twinport_oci::{Digest, RepositoryName, Tag};
use twinport_upkeep::{RetentionLimits, RetentionPlan, empty_trash, plan_retention, run_retention};

const NOON_US: i64 = 1_800_000_000_000_000;
const HOUR_US: i64 = 3_600_000_000;
const LIMITS: RetentionLimits = RetentionLimits { trash: Duration::from_secs(24 * 3600), most_percent: 50 };

struct Site {
    metadata: Metadata,
    clock: Arc<AtomicI64>,
    _directory: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(NOON_US));
        let options = OpenOptions {
            database: Database::Sqlite { path: directory.path().join("metadata.db") },
            clock: Clock::Manual(Arc::clone(&clock)),
        };
        Self { metadata: Metadata::open(options).await.unwrap(), clock, _directory: directory }
    }

    fn pass(&self, us: i64) {
        self.clock.fetch_add(us, Ordering::SeqCst);
    }

    async fn push(&self, repository: &str, tag: &str, content: &str) -> Digest {
        let digest = Digest::sha256(content.as_bytes());
        let put = PutManifest {
            repository: name(repository),
            digest,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            artifact_type: None,
            subject: None,
            annotations: String::new(),
            body: Bytes::copy_from_slice(content.as_bytes()),
            blobs: vec![],
            manifests: vec![],
            tags: vec![Tag::parse(tag).unwrap()],
            guard: Default::default(),
            actor: Actor::anonymous(),
        };
        self.metadata.put_manifest(put).await.unwrap();
        digest
    }

    /// A tag an hour, the oldest first.
    async fn push_hourly(&self, repository: &str, prefix: &str, count: usize) {
        for number in 0..count {
            self.push(repository, &format!("{prefix}{number:03}"), &format!("{repository} {prefix}{number}"))
                .await;
            self.pass(HOUR_US);
        }
    }

    async fn tags(&self, repository: &str) -> Vec<String> {
        let tags = self.metadata.tags(&name(repository), None, 2000).await.unwrap().unwrap();
        tags.iter().map(ToString::to_string).collect()
    }

    async fn run(&self, rules: &Rules, confirmed: bool) -> RetentionPlan {
        run_retention(&self.metadata, rules, &rules.retentions()[0], LIMITS, confirmed).await.unwrap()
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn rules(texts: &[&str]) -> Rules {
    let rule = |(number, text): (usize, &&str)| -> Rule {
        serde_json::from_str(&format!(r#"{{"name":"rule-{number}",{text}}}"#)).unwrap()
    };
    Rules::new(texts.iter().enumerate().map(rule))
}

#[tokio::test]
async fn the_newest_stay_in_each_repository_and_other_tags_are_not_looked_at() {
    let site = Site::new().await;
    site.push_hourly("team/a", "b", 8).await;
    site.push_hourly("team/b", "b", 3).await;
    site.push_hourly("other", "b", 8).await;
    site.push("team/a", "release", "release").await;
    let rules =
        rules(&[r#""repositories":"team/*","rule":"retention","tags":["b*"],"except":["b001"],"keep":3"#]);

    let plan = plan_retention(&site.metadata, &rules, &rules.retentions()[0]).await.unwrap();
    assert_eq!((plan.considered, plan.planned, plan.taken), (9, 4, 0));
    let named: Vec<_> = plan.tags.iter().map(|tag| (tag.repository.as_str(), tag.tag.as_str())).collect();
    assert_eq!(named, ["b000", "b002", "b003", "b004"].map(|tag| ("team/a", tag)));
    assert_eq!(site.tags("team/a").await.len(), 9, "a plan takes nothing");

    assert_eq!(site.run(&rules, false).await.taken, 4);
    assert_eq!(site.tags("team/a").await, ["b001", "b005", "b006", "b007", "release"]);
    assert_eq!((site.tags("team/b").await.len(), site.tags("other").await.len()), (3, 8));
    assert_eq!(site.run(&rules, false).await.planned, 0);
}

#[tokio::test]
async fn with_a_number_and_an_age_a_tag_goes_only_when_both_say_so() {
    let site = Site::new().await;
    site.push_hourly("app", "b", 10).await;
    let both =
        rules(&[r#""repositories":"**","rule":"retention","tags":["*"],"keep":3,"older_than_s":18000"#]);
    // Beyond the newest three there are seven; the younger of them are not five hours old.
    assert_eq!(site.run(&both, true).await.taken, 5);
    assert_eq!(site.tags("app").await, ["b005", "b006", "b007", "b008", "b009"]);
    let age = rules(&[r#""repositories":"**","rule":"retention","tags":["*"],"older_than_s":10800"#]);
    assert_eq!(site.run(&age, true).await.taken, 2);
    // A tag is as young as its last move.
    site.push("app", "b007", "another").await;
    site.pass(2 * HOUR_US);
    site.run(&age, true).await;
    assert_eq!(site.tags("app").await, ["b007", "b009"]);
}

#[tokio::test]
async fn r30_a_rule_that_would_take_too_much_takes_nothing_until_somebody_confirms_it() {
    let site = Site::new().await;
    site.push_hourly("app", "b", 30).await;
    let rules = rules(&[r#""repositories":"**","rule":"retention","tags":["*"],"keep":2"#]);
    let refused = site.run(&rules, false).await;
    assert_eq!((refused.considered, refused.planned, refused.taken), (30, 28, 0));
    assert!(refused.refused.unwrap().contains("28 of 30 tags, more than 50 %"));
    assert_eq!(site.tags("app").await.len(), 30);
    let runs = site.metadata.retention_runs().await.unwrap();
    assert_eq!((runs[0].planned, runs[0].taken), (28, 0));

    assert_eq!(site.run(&rules, true).await.taken, 28);
    assert_eq!(site.tags("app").await, ["b028", "b029"]);
    let runs = site.metadata.retention_runs().await.unwrap();
    assert_eq!((runs[0].taken, runs[0].outcome.as_str()), (28, "done"));
    // Everything can come back.
    for number in 0..28 {
        let tag = Tag::parse(&format!("b{number:03}")).unwrap();
        let restored = site.metadata.restore_tag(&name("app"), &tag, &Actor::anonymous()).await.unwrap();
        assert!(matches!(restored, Restored::To(_)));
    }
    assert_eq!(site.tags("app").await.len(), 30);
}

#[tokio::test]
async fn r30_immutable_tags_are_neither_counted_nor_taken_and_keep_their_manifests() {
    let site = Site::new().await;
    site.push_hourly("app", "v", 4).await;
    let shared = site.push("app", "b1", "shared").await;
    site.push("app", "v9", "shared").await;
    site.pass(HOUR_US);
    site.push_hourly("app", "c", 2).await;
    let rules = rules(&[
        r#""repositories":"**","rule":"retention","tags":["*"],"keep":2"#,
        r#""repositories":"**","rule":"immutable_tags","tags":["v*"]"#,
    ]);
    let plan = site.run(&rules, false).await;
    assert_eq!((plan.considered, plan.taken), (3, 1));
    assert_eq!(site.tags("app").await, ["c000", "c001", "v000", "v001", "v002", "v003", "v9"]);
    site.pass(48 * HOUR_US);
    assert_eq!(empty_trash(&site.metadata, &rules).await.unwrap(), 0);
    let reference = twinport_oci::Reference::Digest(shared);
    assert!(site.metadata.manifest_head(&name("app"), &reference).await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_taken_is_readable_for_its_time_and_gone_after_it() {
    let site = Site::new().await;
    site.push_hourly("app", "b", 700).await;
    let rules = rules(&[r#""repositories":"**","rule":"retention","tags":["*"],"keep":600"#]);
    assert_eq!(site.run(&rules, false).await.taken, 100);
    assert_eq!(empty_trash(&site.metadata, &rules).await.unwrap(), 0);
    site.pass(25 * HOUR_US);
    assert_eq!(empty_trash(&site.metadata, &rules).await.unwrap(), 100);
    assert_eq!(site.tags("app").await.len(), 600);
}

#[tokio::test]
async fn tags_that_belong_to_a_manifest_by_their_name_stay_as_long_as_it_does() {
    let site = Site::new().await;
    let image = site.push("app", "v1", "image").await;
    let of = |digest: &Digest, suffix: &str| format!("{}{suffix}", digest.to_string().replace(':', "-"));
    site.push("app", &of(&image, ".sig"), "signature").await;
    site.push("app", &of(&image, ""), "referrers").await;
    site.push("app", &of(&Digest::sha256(b"gone"), ".sig"), "signature of nothing").await;
    site.pass(HOUR_US);
    let rules =
        rules(&[r#""repositories":"**","rule":"retention","tags":["*"],"except":["v*"],"older_than_s":60"#]);
    assert_eq!(site.run(&rules, false).await.taken, 1);
    let mut kept = vec![of(&image, ""), of(&image, ".sig"), "v1".to_owned()];
    kept.sort();
    assert_eq!(site.tags("app").await, kept);
}
