//! `twinport rule preview`, `run`, `trash`, `restore`.

use anyhow::bail;
use twinport_server::admin::{
    LastRun, RestoreRequest, RestoredTag, RetentionPlan, RulePreview, RunRequest, Trash, TrashedTag,
};

use crate::{
    admin_client::AdminClient,
    arguments::{PreviewArguments, RestoreArguments, RunArguments, TrashArguments},
    output::{bytes, columns, short, show},
    time::moment,
};

pub(crate) async fn preview(arguments: &PreviewArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let preview: RulePreview = client.get(&format!("/api/v1/rules/{}/preview", arguments.name)).await?;
    show(arguments.target.output, &preview, |preview| match preview {
        RulePreview::Retention { plan, last_run } => retention(plan, last_run.as_ref()),
        RulePreview::Quota { bytes: held, repositories, most_bytes, most_repositories, complete, .. } => {
            let of = |most: Option<String>| most.map(|most| format!(" of {most}")).unwrap_or_default();
            let bytes_of = of(most_bytes.map(bytes));
            let count_of = of(most_repositories.map(|most| most.to_string()));
            let state = if *complete { "" } else { ", still being counted: nothing is refused yet" };
            format!("{}{bytes_of} in {repositories}{count_of} repositories{state}", bytes(*held))
        }
    })
}

fn retention(plan: &RetentionPlan, last_run: Option<&LastRun>) -> String {
    let mut lines = Vec::new();
    if !plan.tags.is_empty() {
        let rows = plan.tags.iter().map(|tag| {
            [tag.repository.clone(), tag.tag.clone(), short(&tag.digest), moment(tag.tagged_at_us)]
        });
        lines.push(columns(["REPOSITORY", "TAG", "DIGEST", "TAGGED"], rows));
    }
    lines.push(format!("{} of {} tags would go.", plan.planned, plan.considered));
    if let Some(run) = last_run {
        let LastRun { ran_at_us, taken, outcome, .. } = run;
        lines.push(format!("The last run, {}, took {taken}: {outcome}.", moment(*ran_at_us)));
    }
    lines.join("\n")
}

pub(crate) async fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let request = RunRequest { confirm: arguments.confirm };
    let plan: RetentionPlan = client.post(&format!("/api/v1/rules/{}/run", arguments.name), &request).await?;
    if let Some(reason) = &plan.refused {
        bail!("{}: {reason}", arguments.name);
    }
    show(arguments.target.output, &plan, |plan| {
        format!(
            "The rule {} took {} of {} tags; `twinport rule restore` brings one back.",
            plan.rule, plan.taken, plan.considered
        )
    })
}

pub(crate) async fn trash(arguments: &TrashArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let mut tags: Vec<TrashedTag> = Vec::new();
    let mut after = String::new();
    loop {
        // Neither a repository's name nor a tag holds anything that a query would have to escape.
        let path = format!("/api/v1/trash?repository={}{after}", arguments.repository);
        let page: Trash = client.get(&path).await?;
        tags.extend(page.tags);
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    show(arguments.target.output, &tags, |tags| {
        if tags.is_empty() {
            return "The trash holds nothing of this repository.".to_owned();
        }
        let rows = tags.iter().map(|tag| {
            [
                tag.tag.clone(),
                short(&tag.digest),
                tag.rule.clone(),
                moment(tag.taken_at_us),
                moment(tag.due_at_us),
            ]
        });
        columns(["TAG", "DIGEST", "RULE", "TAKEN", "DELETED AT"], rows)
    })
}

pub(crate) async fn restore(arguments: &RestoreArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let RestoreArguments { repository, tag, target } = arguments;
    let request = RestoreRequest { repository: repository.to_string(), tag: tag.to_string() };
    let restored: RestoredTag = client.post("/api/v1/trash/restore", &request).await?;
    show(target.output, &restored, |restored| format!("{repository}:{tag} names {} again.", restored.digest))
}
