//! One module a command; this one tells them apart.

mod blobs;
mod config;
mod db;
mod doctor;
pub(crate) mod geo;
mod maintenance;
mod repo;
mod robot;
mod role;
mod rule;
mod serve;
pub(crate) mod site;
mod token;
mod user;

use std::process::ExitCode;

use twinport_server::admin::AccountKind;

use crate::{
    arguments::{
        Arguments, BlobsCommand, Command, ConfigCommand, DbCommand, GeoCommand, RepoCommand, RobotCommand,
        RoleCommand, RuleCommand, SiteCommand, TokenCommand, UserCommand,
    },
    demo,
};

/// Does what the arguments say. An error is printed by the caller and ends with status 1.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve(arguments) => serve::serve(arguments).await?,
        Command::Demo(arguments) => return demo::demo(arguments).await,
        Command::Config(ConfigCommand::Check(arguments)) => config::check(&arguments)?,
        Command::Config(ConfigCommand::Show(arguments)) => config::show(&arguments)?,
        Command::Site(SiteCommand::Add(arguments)) => site::add(arguments).await?,
        Command::Site(SiteCommand::Join(arguments)) => site::join(arguments).await?,
        Command::Site(SiteCommand::List(target)) => site::list(&target).await?,
        Command::Site(SiteCommand::Show(arguments)) => site::show(arguments).await?,
        Command::Site(SiteCommand::Remove(arguments)) => site::remove(arguments).await?,
        Command::Geo(GeoCommand::Status(target)) => geo::status(&target).await?,
        Command::Maintenance(command) => maintenance::run(command).await?,
        Command::Doctor(target) => return doctor::doctor(&target).await,
        Command::Repo(RepoCommand::List(target)) => repo::list(&target).await?,
        Command::Repo(RepoCommand::Tags(arguments)) => repo::tags(&arguments).await?,
        Command::Repo(RepoCommand::Rename(arguments)) => repo::rename(arguments).await?,
        Command::Repo(RepoCommand::Delete(arguments)) => repo::delete(&arguments).await?,
        Command::User(command) => user(command).await?,
        Command::Robot(RobotCommand::Add(arguments)) => robot::add(arguments).await?,
        Command::Robot(RobotCommand::List(target)) => robot::list(&target).await?,
        Command::Robot(RobotCommand::Rotate(arguments)) => robot::rotate(&arguments).await?,
        Command::Robot(RobotCommand::Delete(arguments)) => robot::delete(&arguments).await?,
        Command::Token(TokenCommand::Create(arguments)) => token::create(arguments).await?,
        Command::Token(TokenCommand::List(arguments)) => token::list(&arguments).await?,
        Command::Token(TokenCommand::Revoke(arguments)) => token::revoke(&arguments).await?,
        Command::Role(RoleCommand::Grant(arguments)) => role::grant(arguments).await?,
        Command::Role(RoleCommand::Revoke(arguments)) => role::revoke(arguments).await?,
        Command::Role(RoleCommand::List(arguments)) => role::list(&arguments).await?,
        Command::Rule(RuleCommand::Add(command)) => rule::add(command).await?,
        Command::Rule(RuleCommand::List(target)) => rule::list(&target).await?,
        Command::Rule(RuleCommand::Delete(arguments)) => rule::delete(&arguments).await?,
        Command::Rule(RuleCommand::Preview(arguments)) => rule::preview(&arguments).await?,
        Command::Rule(RuleCommand::Run(arguments)) => rule::run(&arguments).await?,
        Command::Rule(RuleCommand::Trash(arguments)) => rule::trash(&arguments).await?,
        Command::Rule(RuleCommand::Restore(arguments)) => rule::restore(&arguments).await?,
        Command::Blobs(BlobsCommand::Scrub(target)) => return blobs::scrub(&target).await,
        Command::Db(DbCommand::Status(target)) => db::status(&target).await?,
        Command::Db(DbCommand::Migrate(arguments)) => db::migrate(&arguments).await?,
        Command::Db(DbCommand::AcceptLoss(arguments)) => db::accept_loss(&arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn user(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Add(arguments) => user::add(arguments).await,
        UserCommand::List(target) => user::list(&target).await,
        UserCommand::Show(arguments) => user::show(&arguments).await,
        UserCommand::Disable(arguments) => user::disable(&arguments).await,
        UserCommand::Enable(arguments) => user::enable(&arguments).await,
        UserCommand::Delete(arguments) => user::delete(&arguments, AccountKind::User).await,
        UserCommand::ResetPassword(arguments) => user::reset_password(&arguments).await,
    }
}
