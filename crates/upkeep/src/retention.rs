//! Retention: tags that a rule no longer keeps are taken, and what nothing names goes when its time in the trash is over.
//! Guards: a run takes no more than it planned, and nothing at all where the plan is suspiciously large (hazard R30).

mod choice;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinport_access::{Retention, Rules};
use twinport_metadata::{Actor, AgedTag, Emptied, Metadata, RetentionRun};
use twinport_oci::RepositoryName;

use self::choice::Choice;
use crate::Result;

/// Tags, or repositories, read at a time; tags that one transaction takes.
const PAGE: u32 = 500;
/// Tags that a plan names; beyond them only the count grows.
const MAX_NAMED: usize = 1_000;
/// So few may always go: a share says nothing about them.
const ALWAYS: u64 = 10;

/// What bounds every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionLimits {
    /// How long what was taken can be brought back.
    pub trash: Duration,
    /// Of the tags that a rule is about, the most that one run takes unless somebody confirms it.
    pub most_percent: u8,
}

/// What a rule would take now, and what a run of it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPlan {
    pub rule: String,
    /// Tags that the rule is about and that nothing holds.
    pub considered: u64,
    /// Those of them that it would take.
    pub planned: u64,
    /// Some of those, by repository.
    pub tags: Vec<PlannedTag>,
    pub taken: u64,
    /// Why a run took nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A tag that would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTag {
    pub repository: String,
    pub tag: String,
    pub digest: String,
    /// µs since the epoch, UTC.
    pub tagged_at_us: i64,
}

/// What a rule would take now. Changes nothing.
///
/// # Errors
/// What the database says.
pub async fn plan_retention(metadata: &Metadata, rules: &Rules, rule: &Retention) -> Result<RetentionPlan> {
    let mut plan = RetentionPlan { rule: rule.name.to_string(), ..RetentionPlan::default() };
    let mut repositories = Repositories::default();
    while let Some(repository) = repositories.next(metadata, rule).await? {
        let mut choice = Choice::begin(metadata, rules, rule, repository.clone()).await?;
        plan.considered += choice.considered();
        while let Some(page) = choice.next(metadata).await? {
            plan.planned += page.len() as u64;
            let room = MAX_NAMED - plan.tags.len();
            plan.tags.extend(page.into_iter().take(room).map(|aged| planned(&repository, aged)));
        }
    }
    Ok(plan)
}

/// Plans, and takes what was planned, unless that is too large a share and nobody confirmed it.
///
/// # Errors
/// What the database says; tags taken so far stay in the trash.
pub async fn run_retention(
    metadata: &Metadata,
    rules: &Rules,
    rule: &Retention,
    limits: RetentionLimits,
    confirmed: bool,
) -> Result<RetentionPlan> {
    let mut plan = plan_retention(metadata, rules, rule).await?;
    if !confirmed && is_suspicious(&plan, limits.most_percent) {
        plan.refused = Some(format!(
            "it would take {} of {} tags, more than {} % in one run: look at `twinport rule preview {}`, \
             then confirm with `twinport rule run {} --confirm`",
            plan.planned, plan.considered, limits.most_percent, plan.rule, plan.rule
        ));
        tracing::warn!(
            rule = plan.rule,
            planned = plan.planned,
            considered = plan.considered,
            "retention took nothing: it would take too large a share"
        );
    } else if plan.planned > 0 {
        plan.taken = take(metadata, rules, rule, limits, plan.planned).await?;
        tracing::info!(
            rule = plan.rule,
            taken = plan.taken,
            considered = plan.considered,
            "retention took tags"
        );
    }
    let run = RetentionRun {
        rule: plan.rule.clone(),
        ran_at_us: metadata.clock().now_us(),
        considered: plan.considered,
        planned: plan.planned,
        taken: plan.taken,
        outcome: plan.refused.clone().unwrap_or_else(|| "done".to_owned()),
    };
    metadata.record_retention_run(run).await?;
    Ok(plan)
}

fn is_suspicious(plan: &RetentionPlan, most_percent: u8) -> bool {
    plan.planned > ALWAYS
        && u128::from(plan.planned) * 100 > u128::from(plan.considered) * u128::from(most_percent)
}

/// Takes what a rule does not keep, at most `most` tags: what a plan has counted, and no more.
async fn take(
    metadata: &Metadata,
    rules: &Rules,
    rule: &Retention,
    limits: RetentionLimits,
    most: u64,
) -> Result<u64> {
    let trash_us = i64::try_from(limits.trash.as_micros()).unwrap_or(i64::MAX);
    let actor = actor(rule.name.as_str());
    let mut taken = 0;
    let mut repositories = Repositories::default();
    while let Some(repository) = repositories.next(metadata, rule).await? {
        let guard = rules.tag_guard(&repository);
        let mut choice = Choice::begin(metadata, rules, rule, repository.clone()).await?;
        while let Some(mut page) = choice.next(metadata).await? {
            page.truncate(usize::try_from(most - taken).unwrap_or(usize::MAX));
            let due_at_us = metadata.clock().now_us().saturating_add(trash_us);
            taken += metadata.take_tags(&repository, &rule.name, page, due_at_us, &guard, &actor).await?;
            if taken >= most {
                return Ok(taken);
            }
        }
    }
    Ok(taken)
}

/// Deletes what has been in the trash for its time and is needed by nothing; how many manifests.
///
/// # Errors
/// What the database says; running it again goes on.
pub async fn empty_trash(metadata: &Metadata, rules: &Rules) -> Result<u64> {
    let mut deleted = 0;
    loop {
        let due = metadata.due_trash(metadata.clock().now_us(), PAGE).await?;
        let mut progressed = false;
        for row in &due {
            let guard = rules.tag_guard(&row.repository);
            if metadata.empty_trash(row, &guard, &actor(&row.rule)).await? == Emptied::Deleted {
                deleted += 1;
                progressed = true;
            }
        }
        // What follows a deleted manifest is due at once.
        if !progressed && due.len() < PAGE as usize {
            return Ok(deleted);
        }
    }
}

/// Who goes into the events of a rule's work.
fn actor(rule: &str) -> Actor {
    Actor { name: format!("rule {rule}"), correlation: None }
}

fn planned(repository: &RepositoryName, aged: AgedTag) -> PlannedTag {
    PlannedTag {
        repository: repository.to_string(),
        tag: aged.tag.to_string(),
        digest: aged.digest.to_string(),
        tagged_at_us: aged.tagged_at_us,
    }
}

/// The repositories of a rule's pattern, by name.
#[derive(Default)]
struct Repositories {
    page: std::vec::IntoIter<RepositoryName>,
    last: Option<RepositoryName>,
    ended: bool,
}

impl Repositories {
    async fn next(&mut self, metadata: &Metadata, rule: &Retention) -> Result<Option<RepositoryName>> {
        loop {
            for repository in self.page.by_ref() {
                if rule.repositories.matches(&repository) {
                    return Ok(Some(repository));
                }
            }
            if self.ended {
                return Ok(None);
            }
            let after = self.last.as_ref().map(RepositoryName::as_str);
            let page = metadata.repositories(after, PAGE).await?;
            self.ended = page.len() < PAGE as usize;
            self.last = page.last().cloned();
            self.page = page.into_iter();
        }
    }
}
