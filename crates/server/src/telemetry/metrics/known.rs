//! Figures that a scrape may lack: each is on the page while it is known, and gone while it is not.

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use super::SiteFigures;

/// What the last scrape found.
#[derive(Debug, Default)]
pub(super) struct KnownFigures(Mutex<Vec<Figure>>);

#[derive(Debug)]
struct Figure {
    name: &'static str,
    help: &'static str,
    value: Value,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    Count(i64),
    Seconds(f64),
}

impl KnownFigures {
    pub(super) fn update(&self, figures: &SiteFigures) {
        let mut known = Vec::new();
        let mut count = |name, help, value: Option<i64>| {
            known.extend(value.map(|value| Figure { name, help, value: Value::Count(value) }));
        };
        count("log_head_seq", "Last event ID of this site's log", figures.log_head_seq);
        count(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, since 1970",
            figures.certificate_expires_s,
        );
        if let Some(geo) = &figures.geo {
            let flag = |flag: bool| Some(i64::from(flag));
            count("geo_connected", "1 while the primary's log stream is open", flag(geo.connected));
            count("geo_fresh", "1 while reads here are at most 5 s behind the primary", flag(geo.fresh));
            count("geo_ingested_seq", "Last event ID from primary", geo.ingested_seq);
            count("geo_applied_seq", "Last event ID processed", geo.applied_seq);
            count("geo_lag_events", "Events known and not applied", geo.lag_events);
            known.extend(geo.lag_seconds.map(|seconds| Figure {
                name: "geo_lag",
                help: "Age of the newest state of the primary that is here in full",
                value: Value::Seconds(seconds),
            }));
        }
        *self.0.lock() = known;
    }
}

impl Collector for KnownFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for Figure { name, help, value } in self.0.lock().iter() {
            match value {
                Value::Count(count) => {
                    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    ConstGauge::new(*count).encode(metric)?;
                }
                Value::Seconds(seconds) => {
                    let metric =
                        encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
                    ConstGauge::new(*seconds).encode(metric)?;
                }
            }
        }
        Ok(())
    }
}
