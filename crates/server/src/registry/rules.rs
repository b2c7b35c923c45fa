//! The site's rules as this process holds them, and what they ask of a request.
//! Invariant: a rule holds for every request that begins a second after it was made, at every node.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use http::StatusCode;
use parking_lot::RwLock;
use twinport_access::{Action, Limit, Rules, TagGuard};
use twinport_metadata::Metadata;
use twinport_oci::{ErrorCode, Manifest, RepositoryName};

use super::Registry;
use crate::error::Refusal;
use crate::grant::Grant;

/// How long a copy is believed without looking whether it still holds (µs).
const BELIEVED_US: i64 = 1_000_000;
const NEVER: i64 = i64::MIN;

/// The copy, and when it was last found to hold.
#[derive(Debug)]
pub(super) struct HeldRules {
    copy: RwLock<Copy>,
    looked_at_us: AtomicI64,
}

#[derive(Debug, Default)]
struct Copy {
    generation: Option<i64>,
    rules: Arc<Rules>,
}

impl Default for HeldRules {
    fn default() -> Self {
        Self { copy: RwLock::default(), looked_at_us: AtomicI64::new(NEVER) }
    }
}

impl HeldRules {
    async fn get(&self, metadata: &Metadata) -> twinport_metadata::Result<Arc<Rules>> {
        let now_us = metadata.clock().now_us();
        // A clock that was set back makes the copy look as if it came from the future.
        let looked_at_us = self.looked_at_us.load(Ordering::Acquire);
        let age_us = now_us.checked_sub(looked_at_us);
        if age_us.is_some_and(|age| (0..BELIEVED_US).contains(&age)) {
            return Ok(self.copy.read().rules.clone());
        }
        // Read before the rules: a change in between is then seen by the next look.
        let generation = metadata.access_generation().await?;
        if self.copy.read().generation != Some(generation) {
            let rules = Arc::new(Rules::new(metadata.rules().await?));
            let mut copy = self.copy.write();
            // Another request may have read a later one meanwhile.
            if copy.generation.is_none_or(|held| held < generation) {
                *copy = Copy { generation: Some(generation), rules };
            }
        }
        // Unless somebody asked for another look meanwhile.
        self.looked_at_us.compare_exchange(looked_at_us, now_us, Ordering::AcqRel, Ordering::Relaxed).ok();
        Ok(self.copy.read().rules.clone())
    }
}

impl Registry {
    /// The rules, at most a second old.
    ///
    /// # Errors
    /// When they cannot be read: nothing that a rule may forbid is done then.
    pub async fn rules(&self) -> twinport_metadata::Result<Arc<Rules>> {
        self.rules.get(&self.metadata).await
    }

    /// Looks at the rules again with the next request: whoever has just changed them is not to wait.
    pub fn look_at_rules_again(&self) {
        self.rules.looked_at_us.store(NEVER, Ordering::Release);
    }

    /// What holds the tags of a repository for this caller.
    pub(super) async fn tag_guard(
        &self,
        grant: &Grant,
        repository: &RepositoryName,
    ) -> Result<TagGuard, Refusal> {
        let mut guard = self.rules().await?.tag_guard(repository);
        if !grant.allows(repository, Action::Push) {
            guard = guard.creating_only();
        }
        Ok(grant.tag_limits(repository).into_iter().fold(guard, TagGuard::with_token))
    }
}

/// The largest content that is taken, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Most {
    /// Bytes.
    pub(super) bytes: u64,
    /// None: the site's own setting.
    rule: Option<twinport_access::RuleName>,
    what: &'static str,
}

impl Most {
    /// The smaller of the site's own setting and a rule.
    fn of(what: &'static str, setting: u64, limit: Option<Limit>) -> Self {
        match limit {
            Some(limit) if limit.bytes < setting => Self { bytes: limit.bytes, rule: Some(limit.rule), what },
            _ => Self { bytes: setting, rule: None, what },
        }
    }

    pub(super) fn manifest(registry: &Registry, rules: &Rules, repository: &RepositoryName) -> Self {
        Self::of("manifest", registry.settings.max_manifest_bytes as u64, rules.largest_manifest(repository))
    }

    pub(super) fn blob(registry: &Registry, rules: &Rules, repository: &RepositoryName) -> Self {
        let setting = registry.settings.max_blob_bytes.unwrap_or(i64::MAX as u64);
        Self::of("blob", setting, rules.largest_blob(repository))
    }

    pub(super) fn is_of_a_rule(&self) -> bool {
        self.rule.is_some()
    }

    pub(super) fn check(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.bytes { Ok(()) } else { Err(self.exceeded()) }
    }

    /// 413, naming the limit and where it comes from.
    pub(super) fn exceeded(&self) -> Refusal {
        let Self { bytes, what, .. } = self;
        let by = match &self.rule {
            Some(rule) => format!("the rule {rule} allows in this repository"),
            None => "this registry takes".to_owned(),
        };
        let message = format!("the {what} is larger than {bytes} bytes, the most that {by}");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, message)
    }
}

/// Refuses a manifest that would send clients to hosts that a rule does not allow.
pub(super) fn check_foreign_urls(
    rules: &Rules,
    repository: &RepositoryName,
    manifest: &Manifest,
) -> Result<(), Refusal> {
    let descriptors = || manifest.blobs().chain(manifest.children());
    let urls: Vec<&str> = descriptors().flat_map(|descriptor| &descriptor.urls).map(String::as_str).collect();
    rules
        .check_foreign_urls(repository, urls.into_iter())
        .map_err(|refusal| Refusal::denied(refusal.to_string()))
}
