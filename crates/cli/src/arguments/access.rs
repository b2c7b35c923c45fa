//! The commands about who may do what: `user`, `robot`, `token`, `role`, `rule`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use twinport_access::{AccountName, Actions, RepositoryPattern, Role, RuleName, Subject, TagPattern};
use twinport_server::admin::GivenRole;

use super::{PreviewArguments, RestoreArguments, RunArguments, Target, TrashArguments};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account for a person.
    ///
    /// The password is read from a file or from standard input, or made and shown once. It is never an argument: those
    /// can be read by every process of this machine. An account may do nothing until a role is given to it.
    Add(AddUserArguments),
    /// List the accounts of people.
    List(Target),
    /// Show an account, with its roles and tokens.
    Show(UserArguments),
    /// Disable an account: it cannot sign in any more, and its tokens end at once, at every site that this one reaches.
    ///
    /// Its roles stay for when it is enabled again; its tokens do not come back.
    Disable(UserArguments),
    /// Let a disabled account sign in again.
    Enable(UserArguments),
    /// Delete an account with its tokens and its roles.
    Delete(UserArguments),
    /// Give an account another password, on the primary.
    ///
    /// For the person who has lost it, and for the operator who has: it needs no password, only this machine. Sessions
    /// that were signed in with the old one end; personal tokens stay.
    ResetPassword(ResetPasswordArguments),
}

/// Where a password comes from; where neither is said, one is made.
#[derive(Debug, Args)]
pub(crate) struct PasswordSource {
    /// Read the password from this file: its first line.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the password from standard input: its first line.
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  twinport user add alice --role writer:team/**\n  \
                        twinport user add bob --password-file bob.txt --description \"Bob, on call\"")]
pub(crate) struct AddUserArguments {
    /// What the account is called: lower-case letters, digits, `.`, `_` and `-`.
    pub(crate) name: AccountName,
    #[command(flatten)]
    pub(crate) password: PasswordSource,
    /// Who that is, in a line.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// Give a role from the start, such as reader:** or writer:team/**; may be repeated.
    #[arg(long = "role", value_name = "ROLE:REPOSITORIES")]
    pub(crate) roles: Vec<GivenRole>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct UserArguments {
    /// The account.
    pub(crate) name: AccountName,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct ResetPasswordArguments {
    /// The account.
    pub(crate) name: AccountName,
    #[command(flatten)]
    pub(crate) password: PasswordSource,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RobotCommand {
    /// Make an account for a program, and show its secret once.
    ///
    /// The program signs in with the robot's name and the secret as its password. A robot may do nothing until a role is
    /// given to it.
    Add(AddRobotArguments),
    /// List the accounts of programs.
    List(Target),
    /// Make another secret for a robot, and end those before it.
    Rotate(RotateArguments),
    /// Delete a robot with its secret and its roles.
    Delete(UserArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  twinport robot add ci --role creator:team/**\n  \
                        twinport robot add deploy --role reader:** --expires 90d")]
pub(crate) struct AddRobotArguments {
    /// What the robot is called: lower-case letters, digits, `.`, `_` and `-`; users and robots share names.
    pub(crate) name: AccountName,
    /// What it does, in a line.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// Give a role from the start, such as creator:team/**; may be repeated.
    #[arg(long = "role", value_name = "ROLE:REPOSITORIES")]
    pub(crate) roles: Vec<GivenRole>,
    /// How long the secret is good for, such as 12h, 90d or 1y [default: until it is replaced].
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) expires: Option<u64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    /// The robot.
    pub(crate) name: AccountName,
    /// How long the secret is good for, such as 12h, 90d or 1y [default: until it is replaced].
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) expires: Option<u64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a personal token for an account, and show it once.
    ///
    /// It stands for the account's password where one should not lie around: on a laptop, in a script. It may do what the
    /// account may, or less.
    Create(CreateTokenArguments),
    /// List tokens, without their secrets.
    List(ListTokensArguments),
    /// End a token at once, at every site that this one reaches.
    Revoke(RevokeTokenArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  twinport token create alice --label laptop --expires 90d\n  \
                        twinport token create alice --repositories team/app --actions pull")]
pub(crate) struct CreateTokenArguments {
    /// The account that it stands for.
    pub(crate) account: AccountName,
    /// What it is made for, to know it again by.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) label: String,
    /// How long it is good for, such as 12h, 90d or 1y [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) expires: Option<u64>,
    /// Only these repositories, such as team/app, team/* or team/** [default: all that the account has].
    #[arg(long, value_name = "PATTERN")]
    pub(crate) repositories: Option<RepositoryPattern>,
    /// Only these actions, of pull, create, push, delete and admin [default: all that the account has].
    #[arg(long, value_name = "ACTIONS")]
    pub(crate) actions: Option<Actions>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct ListTokensArguments {
    /// Only those of this account.
    pub(crate) account: Option<AccountName>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeTokenArguments {
    /// The token's id, as `twinport token list` shows it.
    pub(crate) id: uuid::Uuid,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// The words that `role grant` and `role revoke` end with.
const SUBJECTS: &str = "Subjects:\n  anyone              also without signing in\n  signed-in           whoever signed in\n  \
     user:alice          one account\n  robot:ci            one robot\n  certificate:build   the holder of a client certificate\n  \
     workload:github,repository=acme/app   a job of a platform that vouches for it, by its claims\n\n\
     Roles:\n  reader      pulls\n  creator     pulls, and pushes what is new: tags that are there stay\n  \
     writer      pulls and pushes\n  maintainer  deletes too\n  admin       everything, and the rules\n\n\
     Repositories:\n  team/app    that one\n  team/*      those directly below team\n  team/**     everything below team\n  \
     **          all";

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Give a role on repositories. Roles add up; none takes anything away.
    #[command(after_help = SUBJECTS)]
    Grant(RoleArguments),
    /// Take a role away that was given, named as it was given.
    #[command(after_help = SUBJECTS)]
    Revoke(RoleArguments),
    /// List the roles that were given.
    List(ListRolesArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RoleArguments {
    /// Who, such as user:alice or anyone.
    pub(crate) subject: Subject,
    /// What they may do: reader, creator, writer, maintainer or admin.
    pub(crate) role: Role,
    /// Where, such as team/app, team/* or **.
    pub(crate) repositories: RepositoryPattern,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct ListRolesArguments {
    /// Only those of this subject, such as user:alice.
    pub(crate) subject: Option<Subject>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// Make a rule on repositories. It holds for everybody, whatever their role.
    #[command(subcommand)]
    Add(AddRuleCommand),
    /// List the rules.
    List(Target),
    /// Delete a rule.
    Delete(DeleteRuleArguments),
    /// What a rule of retention would take, or what a quota counts. Changes nothing.
    Preview(PreviewArguments),
    /// Run a rule of retention now, on the primary.
    Run(RunArguments),
    /// The tags of a repository that retention took and that can be brought back.
    Trash(TrashArguments),
    /// Bring back a tag that retention took.
    Restore(RestoreArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AddRuleCommand {
    /// Tags that are set once and for all: they are neither moved nor deleted.
    ImmutableTags(TagRuleArguments),
    /// Tags that are not moved; they may be deleted.
    CreateOnly(TagRuleArguments),
    /// The largest manifest and blob that may be pushed.
    MaximumSize(MaximumSizeArguments),
    /// What all repositories of the pattern may hold together.
    Quota(QuotaArguments),
    /// Tags that go by themselves: those beyond the newest, or older than a time. What is pinned or referred to stays.
    Retention(RetentionArguments),
    /// The hosts that manifests may send clients to for their layers.
    ForeignUrls(ForeignUrlsArguments),
}

/// What every rule has.
#[derive(Debug, Args)]
pub(crate) struct RuleBase {
    /// What the rule is called: lower-case letters, digits, `.`, `_` and `-`.
    pub(crate) name: RuleName,
    /// The repositories that it is about, such as team/app, team/* or **.
    pub(crate) repositories: RepositoryPattern,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  twinport rule add immutable-tags releases team/** --tags 'v*' --except 'v0.*'"
)]
pub(crate) struct TagRuleArguments {
    #[command(flatten)]
    pub(crate) base: RuleBase,
    /// The tags, such as latest or v*; may be repeated.
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    pub(crate) tags: Vec<TagPattern>,
    /// Tags that are left out of them; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) except: Vec<TagPattern>,
}

#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("sizes").required(true).multiple(true)),
    after_help = "Example:\n  twinport rule add maximum-size small team/** --blob 5GiB"
)]
pub(crate) struct MaximumSizeArguments {
    #[command(flatten)]
    pub(crate) base: RuleBase,
    /// The largest manifest, such as 1MiB.
    #[arg(long, value_name = "SIZE", group = "sizes", value_parser = bytes)]
    pub(crate) manifest: Option<u64>,
    /// The largest blob, such as 5GiB.
    #[arg(long, value_name = "SIZE", group = "sizes", value_parser = bytes)]
    pub(crate) blob: Option<u64>,
}

#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("quotas").required(true).multiple(true)),
    after_help = "Example:\n  twinport rule add quota team team/** --size 500GiB --count 200"
)]
pub(crate) struct QuotaArguments {
    #[command(flatten)]
    pub(crate) base: RuleBase,
    /// What they may hold together, such as 500GiB.
    #[arg(long, value_name = "SIZE", group = "quotas", value_parser = bytes)]
    pub(crate) size: Option<u64>,
    /// How many repositories there may be.
    #[arg(long, value_name = "N", group = "quotas")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("keeping").required(true).multiple(true)),
    after_help = "Example:\n  twinport rule add retention nightly team/** --tags 'nightly-*' --keep 14 --older-than 30d"
)]
pub(crate) struct RetentionArguments {
    #[command(flatten)]
    pub(crate) base: RuleBase,
    /// The tags, such as nightly-*; may be repeated.
    #[arg(long, value_name = "PATTERN", required = true)]
    pub(crate) tags: Vec<TagPattern>,
    /// Tags that are left out of them; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) except: Vec<TagPattern>,
    /// Keep this many of the newest.
    #[arg(long, value_name = "N", group = "keeping")]
    pub(crate) keep: Option<u32>,
    /// Keep what is not older than this, such as 12h, 30d or 1y.
    #[arg(long, value_name = "TIME", group = "keeping", value_parser = seconds)]
    pub(crate) older_than: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  twinport rule add foreign-urls windows team/** --allow mcr.example.com")]
pub(crate) struct ForeignUrlsArguments {
    #[command(flatten)]
    pub(crate) base: RuleBase,
    /// A host that layers may come from; may be repeated, and left out to allow none.
    #[arg(long, value_name = "HOST")]
    pub(crate) allow: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteRuleArguments {
    /// The rule.
    pub(crate) name: RuleName,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// A time such as 90s, 15m, 12h, 30d, 8w or 1y, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] =
        [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800), ("y", 31_536_000)];
    measured(text, &UNITS)
        .ok_or_else(|| "write a number and its unit: 90s, 15m, 12h, 30d, 8w or 1y".to_owned())
}

/// A size such as 512KiB, 20MiB, 5GiB or 2TiB, in bytes.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] =
        [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];
    measured(text, &UNITS)
        .ok_or_else(|| "write a number and its unit: 512KiB, 20MiB, 5GiB or 2TiB".to_owned())
}

fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(seconds("90d"), Ok(7_776_000));
        assert_eq!(bytes("5GiB"), Ok(5 << 30));
        assert_eq!(bytes("7B"), Ok(7));
        for bad in ["", "90", "d", "0d", "-1d", "1.5d", "1 d", "99999999999999999999d", "9999999999999y"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        for bad in ["5", "5GB", "5gib", "0GiB", "99999999999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
