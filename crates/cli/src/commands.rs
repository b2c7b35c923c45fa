//! One module a command; this one tells them apart.

mod blobs;
mod config;
mod db;
mod doctor;
pub(crate) mod geo;
mod repo;
mod serve;
pub(crate) mod site;

use std::process::ExitCode;

use crate::{
    arguments::{
        Arguments, BlobsCommand, Command, ConfigCommand, DbCommand, GeoCommand, RepoCommand, SiteCommand,
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
        Command::Doctor(target) => return doctor::doctor(&target).await,
        Command::Repo(RepoCommand::List(target)) => repo::list(&target).await?,
        Command::Repo(RepoCommand::Tags(arguments)) => repo::tags(&arguments).await?,
        Command::Repo(RepoCommand::Rename(arguments)) => repo::rename(arguments).await?,
        Command::Repo(RepoCommand::Delete(arguments)) => repo::delete(&arguments).await?,
        Command::Blobs(BlobsCommand::Scrub(target)) => return blobs::scrub(&target).await,
        Command::Db(DbCommand::Status(target)) => db::status(&target).await?,
    }
    Ok(ExitCode::SUCCESS)
}
