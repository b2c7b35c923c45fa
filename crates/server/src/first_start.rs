//! The first start with accounts: somebody must be able to make the others.
//! Invariant: there is no default password. It is the operator's, or random and printed once, to standard error and to no log
//! (hazard A14).

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use http::HeaderMap;
use twinport_access::{
    Account, AccountKind, AccountName, Binding, RepositoryPattern, Role as AccessRole, Subject,
};
use twinport_metadata::{Actor, BOOTSTRAP_ACTOR, Metadata, NewAccount, Role};

use crate::{
    audit::{self, Change},
    new_password,
    start_error::StartError,
};

/// What the first account is called.
const FIRST: &str = "admin";

/// Makes the first account, where there never was one; other sites get theirs from the primary.
///
/// # Errors
/// [`StartError::AdminPassword`] for a file that holds no usable password.
pub(crate) async fn first_account(metadata: &Metadata, file: Option<&Path>) -> Result<(), StartError> {
    if metadata.site().await?.role != Role::Primary || metadata.had_accounts().await? {
        return Ok(());
    }
    let (password, made) = match file {
        Some(file) => (read(file)?, false),
        None => (new_password::generate(), true),
    };
    let unusable = |error: twinport_access::Error| StartError::AdminPassword {
        file: file.map(Path::to_owned).unwrap_or_default(),
        reason: error.to_string(),
    };
    let hash = new_password::hash(password.clone()).await.map_err(unusable)?;
    let name = AccountName::parse(FIRST).map_err(unusable)?;
    let everything = Binding {
        subject: Subject::User(name.clone()),
        role: AccessRole::Admin,
        repositories: RepositoryPattern::everything(),
    };
    let account = Account {
        name,
        kind: AccountKind::User,
        disabled: false,
        description: "made at the first start".to_owned(),
        created_at_us: metadata.clock().now_us(),
    };
    let new = NewAccount { account, password: Some(hash), roles: vec![everything], token: None };
    let bootstrap = Actor { name: BOOTSTRAP_ACTOR.to_owned(), correlation: None };
    // Another node may have made it meanwhile, and has shown its password.
    if metadata.create_first_account(new, &bootstrap).await? {
        audit::site_change(
            Change::AccountAdd,
            BOOTSTRAP_ACTOR,
            &HeaderMap::new(),
            None,
            format_args!("user {FIRST}"),
        );
        if made {
            show(&password);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, StartError> {
    let unusable = |reason: String| StartError::AdminPassword { file: PathBuf::from(file), reason };
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(unusable("its first line is empty".to_owned())),
    }
}

/// Straight to standard error: the log is kept, and read by others.
fn show(password: &str) {
    let text = format!(
        "\nThe first account of this registry is {FIRST}. Its password, shown this once:\n\n    {password}\n\n\
         `twinport user reset-password {FIRST}` sets another.\n\n"
    );
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}
