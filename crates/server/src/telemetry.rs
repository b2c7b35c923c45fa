//! What the process tells about itself: log lines on standard error, metrics, and a request id for every request.

mod logging;
mod metrics;
mod request;
mod writer;

pub use self::logging::{LogControl, LogGuard, install_logging};
pub(crate) use self::{
    metrics::{GeoFigures, Metrics, SiteFigures, TlsCounters},
    request::Observer,
};

/// Whether a text can be used as `log.level`.
pub(crate) fn is_filter(text: &str) -> bool {
    logging::filter(text).is_ok()
}
