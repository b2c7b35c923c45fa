//! `twinport rule …`.

mod work;

use reqwest::Method;
use twinport_access::{RuleKind, TagPattern};
use twinport_server::admin::{Rule, RuleList};

pub(super) use self::work::{preview, restore, run, trash};
use crate::{
    admin_client::AdminClient,
    arguments::{AddRuleCommand, DeleteRuleArguments, RuleBase, Target},
    output::{bytes, columns, show},
};

pub(super) async fn add(command: AddRuleCommand) -> anyhow::Result<()> {
    let (RuleBase { name, repositories, target }, what) = read(command);
    let client = AdminClient::choose(&target.site)?;
    let rule: Rule = client.post("/api/v1/rules", &Rule { name, repositories, what }).await?;
    show(target.output, &rule, |rule| format!("The rule {} holds on {}.", rule.name, rule.repositories))
}

/// The rule that the arguments describe.
fn read(command: AddRuleCommand) -> (RuleBase, RuleKind) {
    match command {
        AddRuleCommand::ImmutableTags(rule) => {
            (rule.base, RuleKind::ImmutableTags { tags: rule.tags, except: rule.except })
        }
        AddRuleCommand::CreateOnly(rule) => {
            (rule.base, RuleKind::CreateOnly { tags: rule.tags, except: rule.except })
        }
        AddRuleCommand::MaximumSize(rule) => {
            (rule.base, RuleKind::MaximumSize { manifest_bytes: rule.manifest, blob_bytes: rule.blob })
        }
        AddRuleCommand::Quota(rule) => {
            (rule.base, RuleKind::Quota { bytes: rule.size, repositories: rule.count })
        }
        AddRuleCommand::Retention(rule) => (
            rule.base,
            RuleKind::Retention {
                tags: rule.tags,
                except: rule.except,
                keep: rule.keep,
                older_than_s: rule.older_than,
            },
        ),
        AddRuleCommand::ForeignUrls(rule) => (rule.base, RuleKind::ForeignUrls { allow: rule.allow }),
    }
}

pub(super) async fn list(target: &Target) -> anyhow::Result<()> {
    let client = AdminClient::choose(&target.site)?;
    let RuleList { rules } = client.get("/api/v1/rules").await?;
    show(target.output, &rules, |rules| {
        if rules.is_empty() {
            return "No rules: `twinport rule add --help` says what there is.".to_owned();
        }
        let rows = rules.iter().map(|rule| {
            let (kind, says) = described(&rule.what);
            [rule.name.to_string(), rule.repositories.to_string(), kind.to_owned(), says]
        });
        columns(["NAME", "REPOSITORIES", "RULE", "SAYS"], rows)
    })
}

fn described(what: &RuleKind) -> (&'static str, String) {
    match what {
        RuleKind::ImmutableTags { tags, except } => ("immutable-tags", patterns(tags, except)),
        RuleKind::CreateOnly { tags, except } => ("create-only", patterns(tags, except)),
        RuleKind::MaximumSize { manifest_bytes, blob_bytes } => {
            let limits = [("manifest", manifest_bytes), ("blob", blob_bytes)];
            let limits =
                limits.iter().filter_map(|(what, size)| size.map(|size| format!("{what} {}", bytes(size))));
            ("maximum-size", limits.collect::<Vec<_>>().join(", "))
        }
        RuleKind::Quota { bytes: size, repositories } => {
            let limits = [size.map(bytes), repositories.map(|count| format!("{count} repositories"))];
            ("quota", limits.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
        RuleKind::Retention { tags, except, keep, older_than_s } => {
            let kept = [
                keep.map(|keep| format!("keep {keep}")),
                older_than_s.map(|age| format!("older than {:.1} d", age as f64 / 86_400.0)),
            ];
            let kept = kept.into_iter().flatten().collect::<Vec<_>>().join(", ");
            ("retention", format!("{}: {kept}", patterns(tags, except)))
        }
        RuleKind::ForeignUrls { allow } if allow.is_empty() => ("foreign-urls", "none".to_owned()),
        RuleKind::ForeignUrls { allow } => ("foreign-urls", allow.join(", ")),
    }
}

fn patterns(tags: &[TagPattern], except: &[TagPattern]) -> String {
    let joined =
        |patterns: &[TagPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if except.is_empty() { joined(tags) } else { format!("{} but {}", joined(tags), joined(except)) }
}

pub(super) async fn delete(arguments: &DeleteRuleArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let path = format!("/api/v1/rules/{}", arguments.name);
    client.order::<()>(Method::DELETE, &path, None).await?;
    let name = &arguments.name;
    show(arguments.target.output, &serde_json::json!({ "deleted": name }), |_| {
        format!("The rule {name} is deleted.")
    })
}
