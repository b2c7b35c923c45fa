//! Structured log lines on standard error, as text for people or as JSON for machines.

use std::{io::IsTerminal as _, sync::Arc};

use parking_lot::Mutex;
use tracing_subscriber::{
    Layer as _, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use super::writer::{LineWriter, Mark, WriterGuard};
use crate::{
    StartError, audit,
    config::{LogConfig, LogFormat},
};

/// Writes out what is still queued when it is dropped; keep it until the process ends.
#[must_use = "log lines still queued are written when the guard is dropped"]
pub struct LogGuard {
    control: LogControl,
    #[expect(dead_code, reason = "held for its drop")]
    writer: WriterGuard,
}

impl LogGuard {
    /// What changes the level while the process runs.
    #[must_use]
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }
}

/// Changes what is logged while the process runs.
#[derive(Debug, Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
    level: Arc<Mutex<String>>,
}

impl LogControl {
    /// Logs by this level or these directives from now on; whether that is a change.
    ///
    /// # Errors
    /// [`StartError::Logging`] for a text that is neither.
    pub fn set_level(&self, level: &str) -> Result<bool, StartError> {
        let failed = |reason| StartError::Logging { filter: level.to_owned(), reason };
        let filter = filter(level).map_err(failed)?;
        let mut current = self.level.lock();
        if *current == level {
            return Ok(false);
        }
        self.filter.reload(filter).map_err(|error| failed(error.to_string()))?;
        level.clone_into(&mut current);
        Ok(true)
    }
}

/// Sends log lines of this process to standard error, from now on; each names the `node`, where there is a name.
///
/// # Errors
/// [`StartError::Logging`] for a filter that cannot be read, or when the process logs already.
pub fn install_logging(config: &LogConfig, node: Option<&str>) -> Result<LogGuard, StartError> {
    let failed = |reason: String| StartError::Logging { filter: config.level.clone(), reason };
    let filter = filter(&config.level).map_err(failed)?;
    let mark = node.map(|node| match config.format {
        LogFormat::Json => Mark::json(node),
        LogFormat::Text => Mark::text(node),
    });
    let (writer, guard) = LineWriter::start(std::io::stderr(), mark);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match config.format {
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
        LogFormat::Text => {
            let colours =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            layer.with_ansi(colours).boxed()
        }
    };
    let (filter, handle) = reload::Layer::new(filter);
    let control = LogControl { filter: handle, level: Arc::new(Mutex::new(config.level.clone())) };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|error| failed(error.to_string()))?;
    Ok(LogGuard { control, writer: guard })
}

/// Reads `info`, or directives such as `info,twinport_geo=debug`; Distribution's `panic` and `fatal` mean `error`.
///
/// Only what needs no lock of its own to be asked: a site asks for every line of every request.
pub(super) fn filter(text: &str) -> Result<Targets, String> {
    let text = match text {
        "panic" | "fatal" => "error",
        "warning" => "warn",
        other => other,
    };
    let level = ["error", "warn", "info", "debug", "trace", "off"].contains(&text);
    if !level && !text.contains('=') {
        return Err("use error, warn, info, debug or trace".to_owned());
    }
    let targets = text.parse::<Targets>().map_err(|error| error.to_string())?;
    // Whoever wants fewer lines does not want to lose who changed what.
    let is_named =
        text.split(',').any(|directive| directive.split('=').next().map(str::trim) == Some(audit::TARGET));
    Ok(if is_named { targets } else { targets.with_target(audit::TARGET, LevelFilter::INFO) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_takes_the_audit_lines_away_but_a_directive_that_names_them() {
        let shows = |text: &str| filter(text).unwrap().would_enable(audit::TARGET, &tracing::Level::INFO);
        for text in ["info", "error", "off", "warn,twinport_geo=debug"] {
            assert!(shows(text), "{text}");
        }
        assert!(!shows("info,audit=off"));
        assert!(!filter("error").unwrap().would_enable("access", &tracing::Level::INFO));
    }

    #[test]
    fn levels_and_directives_are_filters_and_slips_are_not() {
        for good in ["info", "warning", "fatal", "info,twinport_geo=debug"] {
            filter(good).unwrap();
        }
        for bad in ["inof", "", "verbose"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
