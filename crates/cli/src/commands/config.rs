//! `twinport config check` and `show`.

use crate::{admin_client::load, arguments::ConfigArguments, output};

pub(super) fn check(arguments: &ConfigArguments) -> anyhow::Result<()> {
    let config = load(&arguments.site, None, arguments.lenient)?;
    for warning in &config.warnings {
        output::complain(&format!("warning: {warning}"));
    }
    let place =
        config.file.as_ref().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    output::say(&format!("{place}: good to serve from, with {} warnings", config.warnings.len()));
    Ok(())
}

pub(super) fn show(arguments: &ConfigArguments) -> anyhow::Result<()> {
    let config = load(&arguments.site, None, arguments.lenient)?;
    for warning in &config.warnings {
        output::complain(&format!("warning: {warning}"));
    }
    output::say(config.show().trim_end());
    Ok(())
}
