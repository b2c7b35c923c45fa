//! The command tree and its help. Names are fixed: scripts and documentation rely on them.

mod access;
mod retention;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::access::{
    AddRobotArguments, AddRuleCommand, AddUserArguments, CreateTokenArguments, DeleteRuleArguments,
    ListRolesArguments, ListTokensArguments, PasswordSource, ResetPasswordArguments, RevokeTokenArguments,
    RobotCommand, RoleArguments, RoleCommand, RotateArguments, RuleBase, RuleCommand, TokenCommand,
    UserArguments, UserCommand,
};
pub(crate) use self::retention::{PreviewArguments, RestoreArguments, RunArguments, TrashArguments};

/// A container registry that lives at several places at once.
///
/// Each site runs its own complete registry. One site is the primary; every push to it reaches every secondary within
/// seconds, is verified there byte for byte, and can be pulled there at local speed.
#[derive(Debug, Parser)]
#[command(
    name = "twinport",
    version,
    after_help = "Start here:\n  twinport demo                 two sites on this machine, one push, replicated and verified\n  \
                  twinport serve                a registry on 127.0.0.1:5000, data in ./twinport-data\n  \
                  twinport site add tokyo --as paris   invite a second site"
)]
pub struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a site: a registry, and its part in replication.
    ///
    /// Works without a configuration file: data in ./twinport-data, listening on 127.0.0.1:5000. SIGTERM drains: requests
    /// under way may end; a second signal ends the process at once.
    Serve(ServeArguments),
    /// Two sites on loopback, one push, replicated, verified, pulled back and compared byte by byte.
    ///
    /// Both sites are processes of their own, with their own data directories, joined as a user would join them. Ends
    /// with status 0 only if every byte held.
    Demo(DemoArguments),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The sites of this federation: invite, join, list, remove.
    #[command(subcommand)]
    Site(SiteCommand),
    /// Replication between sites.
    #[command(subcommand)]
    Geo(GeoCommand),
    /// Let writes rest while pulls go on: pushes are told to come back.
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Look at configuration, storage, database, peers and clocks, and say what to do where something is not well.
    ///
    /// Ends with status 1 when a check failed.
    Doctor(Target),
    /// Repositories and their tags.
    #[command(subcommand)]
    Repo(RepoCommand),
    /// The accounts of people.
    #[command(subcommand)]
    User(UserCommand),
    /// The accounts of programs.
    #[command(subcommand)]
    Robot(RobotCommand),
    /// Personal tokens: what stands for a password where one should not lie around.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who may do what, and where.
    #[command(subcommand)]
    Role(RoleCommand),
    /// What nobody may do in some repositories, whatever their role.
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Stored blobs.
    #[command(subcommand)]
    Blobs(BlobsCommand),
    /// The metadata database.
    #[command(subcommand)]
    Db(DbCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Take no more writes: once this returns, every push is answered 503, with when to try again.
    On(MaintenanceArguments),
    /// Take writes again.
    Off(Target),
    /// Show whether writes rest.
    Status(Target),
}

#[derive(Debug, Args)]
pub(crate) struct MaintenanceArguments {
    /// Why, in a line that clients are shown.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Which site, and how to answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) site: SiteChoice,
    /// How to show the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// A site on this machine, by its configuration file or its data directory.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SiteChoice {
    /// The site's configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The site's data directory [default: what the configuration says, else ./twinport-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: one JSON document.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) site: SiteChoice,
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Option<String>,
    /// Unknown configuration keys are warnings instead of errors.
    #[arg(long)]
    pub(crate) lenient: bool,
    /// What this node is called among the nodes of its site, in `db status` and in log lines [default: the host's name, which
    /// log lines leave out].
    #[arg(long, value_name = "NAME", env = "TWINPORT_NODE")]
    pub(crate) node: Option<String>,
    /// Where the first start with accounts finds the password of the account `admin`: the file's first line.
    ///
    /// Without it, one is made and printed once. Later starts do not read it.
    #[arg(long, value_name = "FILE", env = "TWINPORT_ADMIN_PASSWORD_FILE")]
    pub(crate) admin_password_file: Option<PathBuf>,
    /// Stop when standard input ends: whoever started this process is gone.
    #[arg(long, hide = true)]
    pub(crate) exit_with_parent: bool,
    /// Write one line of JSON with the bound address to standard output once the site serves.
    #[arg(long, hide = true)]
    pub(crate) announce: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "--pause-before-compare waits, once the secondary's record says verified, for a line on standard input or \
                  for SIGUSR1. Change a byte in the secondary's data directory meanwhile, and the demo must fail."
)]
pub(crate) struct DemoArguments {
    /// Push this image instead of one made of this program: an OCI layout directory, an oci-archive or a
    /// docker-archive.
    #[arg(long, value_name = "PATH")]
    pub(crate) image: Option<PathBuf>,
    /// Keep both sites' data in this directory, which must be empty [default: a temporary one, removed at the end].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// End once everything was compared, instead of serving until Ctrl-C.
    #[arg(long)]
    pub(crate) exit: bool,
    /// Hold before the secondary's bytes are compared, for tests that tamper with them.
    #[arg(long)]
    pub(crate) pause_before_compare: bool,
    /// `json` writes one line once all of it held, and serves on.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read the configuration as `serve` would, and report every problem with its line.
    Check(ConfigArguments),
    /// Show what `serve` would run with: file, REGISTRY_* variables and defaults together, secrets redacted.
    Show(ConfigArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    #[command(flatten)]
    pub(crate) site: SiteChoice,
    /// Unknown configuration keys are warnings instead of errors.
    #[arg(long)]
    pub(crate) lenient: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// On the primary: make a join token for a new site, and print it.
    ///
    /// The token is good for one join within an hour. It carries this site's address, so that the new site needs nothing
    /// else: `twinport site join --token TOKEN`.
    Add(AddArguments),
    /// On a new, empty site: become a secondary of the site that made the token.
    ///
    /// What the primary holds is copied from now on; pushes to this site are refused and name the primary.
    Join(JoinArguments),
    /// List every site, with what it last reported.
    List(Target),
    /// Show this site, or another one by its name.
    Show(ShowArguments),
    /// On the primary: remove a site for good. Its credentials are refused at once, everywhere, for ever.
    Remove(RemoveArguments),
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// The new site's name: its location, such as tokyo.
    pub(crate) name: String,
    /// This site's own name, where it has none yet.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) own_name: Option<String>,
    /// Leave the key of this site's certificate out of the token: a proxy ends TLS in front of it.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Where the new site reaches this one [default: geo.internal_url, http.host, or the address it listens on].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How long the token is good for, in minutes.
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub(crate) expires: Option<u64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// The line that `twinport site add` printed; `-` reads it from standard input.
    #[arg(long)]
    pub(crate) token: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The site [default: this one].
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// The site to remove.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GeoCommand {
    /// Show how far each site is: last event from the primary, last event processed, lag in events and seconds.
    Status(Target),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// List repositories.
    List(Target),
    /// List a repository's tags and what they name.
    Tags(RepositoryArguments),
    /// Rename a repository. Other sites follow; nothing is copied.
    Rename(RenameArguments),
    /// Delete a repository with everything in it, here and on every site that follows this one.
    Delete(DeleteArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RepositoryArguments {
    /// The repository's name, such as team/app.
    pub(crate) repository: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct RenameArguments {
    /// The name it has.
    pub(crate) from: String,
    /// The name it will have.
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    /// The repository's name.
    pub(crate) repository: String,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobsCommand {
    /// Hash every stored blob again, and report what was altered or is missing.
    ///
    /// Ends with status 1 when something was found.
    Scrub(Target),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Show the database, its schema and the head of the event log.
    Status(Target),
    /// Bring the schema up to this version's, before nodes of this version start.
    ///
    /// Sites do so by themselves when they start; this is for a database user who may change the schema where the sites' own
    /// may not. A site on PostgreSQL may be running, also one of the version before.
    Migrate(MigrateArguments),
    /// Take writes again although the database lacks some that were acknowledged.
    ///
    /// A site stops writes when its database went back: restored from an older backup, or failed over to a standby that had
    /// not received everything. Bring back the server that has it all, if there is one; this command is for when there is
    /// none.
    AcceptLoss(AcceptLossArguments),
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArguments {
    /// Only show what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct AcceptLossArguments {
    /// What is lost may be given up.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_tree_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_documented_line_is_understood() {
        for line in [
            "twinport serve",
            "twinport serve --config config.yml --data d --addr 127.0.0.1:0 --lenient",
            "twinport serve --admin-password-file f",
            "twinport demo --image ./layout --dir d --exit --output json --pause-before-compare",
            "twinport config check --config config.yml",
            "twinport config show --data d",
            "twinport site add tokyo --as paris --data d",
            "twinport site add tokyo --url https://paris.example.com --no-pin",
            "twinport site join --token twinport-join-v1.abc --data d",
            "twinport site list --output json",
            "twinport site show tokyo",
            "twinport site remove tokyo --config config.yml",
            "twinport geo status --data d --output json",
            "twinport doctor",
            "twinport repo list",
            "twinport repo tags team/app",
            "twinport repo rename team/app team/api",
            "twinport repo delete team/app --yes",
            "twinport user add alice --role writer:team/** --role reader:** --password-stdin",
            "twinport user add bob --password-file f --description Bob --output json",
            "twinport user list",
            "twinport user show alice",
            "twinport user disable alice",
            "twinport user enable alice",
            "twinport user delete alice",
            "twinport user reset-password alice --data d",
            "twinport robot add ci --role creator:team/** --expires 90d",
            "twinport robot list --output json",
            "twinport robot rotate ci",
            "twinport robot delete ci",
            "twinport token create alice --label laptop --expires 12h --repositories team/* --actions pull,push",
            "twinport token list alice",
            "twinport token revoke 6b3c9a93-af5d-473f-a4ff-9710022185cd",
            "twinport role grant user:alice writer team/**",
            "twinport role grant workload:github,repository=acme/app creator team/app",
            "twinport role revoke anyone reader public/**",
            "twinport role list user:alice",
            "twinport rule add immutable-tags releases team/** --tags v* --except v0.*",
            "twinport rule add create-only all **",
            "twinport rule add maximum-size small team/** --blob 5GiB --manifest 1MiB",
            "twinport rule add quota team team/** --size 500GiB --count 20",
            "twinport rule add retention nightly team/** --tags nightly-* --keep 14 --older-than 30d",
            "twinport rule add foreign-urls windows ** --allow mcr.example.com",
            "twinport rule list",
            "twinport rule delete nightly",
            "twinport rule preview nightly --output json",
            "twinport rule run nightly --confirm",
            "twinport rule trash team/app",
            "twinport rule restore team/app nightly-1",
            "twinport blobs scrub --output json",
            "twinport db status",
            "twinport db migrate --dry-run --config config.yml",
            "twinport db accept-loss --yes",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_a_site_is_asked() {
        for line in [
            "twinport user add Alice",
            "twinport user add alice hunter2-hunter2",
            "twinport user add alice --password hunter2-hunter2",
            "twinport user add alice --role owner:**",
            "twinport user add alice --role writer",
            "twinport user add alice --password-stdin --password-file f",
            "twinport token create alice --actions fly",
            "twinport token create alice --expires 12",
            "twinport role grant alice writer **",
            "twinport role grant user:alice writer Team",
            "twinport rule add quota q **",
            "twinport rule add maximum-size m **",
            "twinport rule add retention r ** --tags x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn commands_that_are_not_built_are_not_named() {
        let help = Arguments::command().render_long_help().to_string();
        for absent in ["mirror", "promote", "switchover", "notifications"] {
            assert!(!help.contains(absent), "{absent} is in the help:\n{help}");
            assert!(parse(&format!("twinport {absent}")).is_err());
        }
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let told = argument.get_help().is_some();
                assert!(told, "{} {} has no help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Arguments::command());
    }
}
