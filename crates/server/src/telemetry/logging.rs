//! Structured log lines on standard error, as text for people or as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::writer::{LineWriter, WriterGuard};
use crate::{
    StartError,
    config::{LogConfig, LogFormat},
};

/// Writes out what is still queued when it is dropped; keep it until the process ends.
#[must_use = "log lines still queued are written when the guard is dropped"]
pub struct LogGuard(#[expect(dead_code, reason = "held for its drop")] WriterGuard);

/// Sends log lines of this process to standard error, from now on.
///
/// # Errors
/// [`StartError::Logging`] for a filter that cannot be read, or when the process logs already.
pub fn install_logging(config: &LogConfig) -> Result<LogGuard, StartError> {
    let failed = |reason: String| StartError::Logging { filter: config.level.clone(), reason };
    let filter = filter(&config.level).map_err(failed)?;
    let (writer, guard) = LineWriter::start(std::io::stderr());
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
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|error| failed(error.to_string()))?;
    Ok(LogGuard(guard))
}

/// Reads `info`, or directives such as `info,twinport_geo=debug`; Distribution's `panic` and `fatal` mean `error`.
pub(super) fn filter(text: &str) -> Result<EnvFilter, String> {
    let text = match text {
        "panic" | "fatal" => "error",
        "warning" => "warn",
        other => other,
    };
    let level = ["error", "warn", "info", "debug", "trace", "off"].contains(&text);
    if !level && !text.contains('=') {
        return Err("use error, warn, info, debug or trace".to_owned());
    }
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
