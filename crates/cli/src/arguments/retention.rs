//! The commands about what rules do by themselves: `rule preview`, `run`, `trash`, `restore`.

use clap::Args;
use twinport_access::RuleName;
use twinport_oci::{RepositoryName, Tag};

use super::Target;

#[derive(Debug, Args)]
pub(crate) struct PreviewArguments {
    /// The rule of retention, or the quota.
    pub(crate) name: RuleName,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  twinport rule run nightly --confirm")]
pub(crate) struct RunArguments {
    /// The rule of retention.
    pub(crate) name: RuleName,
    /// Take a large share of the tags too, which otherwise takes nothing: look at the preview first.
    #[arg(long)]
    pub(crate) confirm: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct TrashArguments {
    /// The repository, such as team/app.
    pub(crate) repository: RepositoryName,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  twinport rule restore team/app nightly-2026-11-02")]
pub(crate) struct RestoreArguments {
    /// The repository, such as team/app.
    pub(crate) repository: RepositoryName,
    /// The tag that was taken.
    pub(crate) tag: Tag,
    #[command(flatten)]
    pub(crate) target: Target,
}
