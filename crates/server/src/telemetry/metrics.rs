//! The figures of `/metrics`, by name and label. Label values are a fixed, small set: no name of a repository, no path.
//! Guards: what is not known is absent, never zero (hazard R29).

mod known;
mod tls;

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use self::known::KnownFigures;
pub(crate) use self::tls::TlsCounters;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SiteLabels {
    site: String,
    role: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

type IntGauges<L> = Family<L, Gauge>;
type NewHistogram = fn() -> Histogram;

/// What is read from the site for one scrape.
#[derive(Debug, Default)]
pub(crate) struct SiteFigures {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) log_head_seq: Option<i64>,
    pub(crate) halted: bool,
    /// Why: the database lacks acknowledged writes.
    pub(crate) lost_writes: bool,
    pub(crate) uploads_in_progress: usize,
    /// When the certificate in use expires, where TLS is spoken (seconds since 1970).
    pub(crate) certificate_expires_s: Option<i64>,
    pub(crate) geo: Option<GeoFigures>,
}

/// A secondary's replication, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct GeoFigures {
    pub(crate) connected: bool,
    pub(crate) fresh: bool,
    pub(crate) ingested_seq: Option<i64>,
    pub(crate) applied_seq: Option<i64>,
    pub(crate) lag_events: Option<i64>,
    pub(crate) lag_seconds: Option<f64>,
    /// Repositories by state.
    pub(crate) repositories: Vec<(&'static str, i64)>,
    /// Tags and manifests by state.
    pub(crate) items: Vec<(&'static str, i64)>,
}

/// Every metric of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, NewHistogram>,
    in_flight: Gauge,
    site: IntGauges<SiteLabels>,
    halted: Gauge,
    lost_writes: Gauge,
    uploads: Gauge,
    known: Arc<KnownFigures>,
    repositories: IntGauges<StateLabels>,
    items: IntGauges<StateLabels>,
}

/// A request under way; counted until it is dropped.
pub(crate) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// `tls` are the counters of the main address, where it speaks TLS.
    pub(crate) fn new(backend: &'static str, tls: Option<&TlsCounters>) -> Self {
        let new_histogram: NewHistogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 18));
        let mut metrics = Self {
            registry: Registry::with_prefix("twinport"),
            requests: Family::default(),
            durations: Family::new_with_constructor(new_histogram),
            in_flight: Gauge::<i64, AtomicI64>::default(),
            site: Family::default(),
            halted: Gauge::default(),
            lost_writes: Gauge::default(),
            uploads: Gauge::default(),
            known: Arc::default(),
            repositories: Family::default(),
            items: Family::default(),
        };
        metrics.register(backend);
        if let Some(tls) = tls {
            tls.register(&mut metrics.registry);
        }
        metrics
    }

    fn register(&mut self, backend: &'static str) {
        let Self { registry: r, .. } = self;
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("database", backend)]);
        r.register("build", "The version of this process and its database", build);
        r.register("http_requests", "Requests answered, by what they were for", self.requests.clone());
        r.register_with_unit(
            "http_request_duration",
            "From a request's headers to its answer's headers",
            Unit::Seconds,
            self.durations.clone(),
        );
        r.register("http_requests_in_flight", "Requests without an answer yet", self.in_flight.clone());
        r.register("site_role", "1 for this site's name and role", self.site.clone());
        r.register(
            "writes_halted",
            "1 while writes are stopped because history was rewritten",
            self.halted.clone(),
        );
        r.register(
            "database_lost_writes",
            "1 while writes are stopped because the database lacks some that were acknowledged",
            self.lost_writes.clone(),
        );
        r.register("uploads_in_progress", "Uploads that a request is writing to", self.uploads.clone());
        r.register("geo_repositories", "Repositories by replication state", self.repositories.clone());
        r.register("geo_items", "Tags and manifests by replication state", self.items.clone());
        r.register_collector(Box::new(self.known.clone()));
    }

    pub(crate) fn request_begins(&self) -> UnderWay {
        self.in_flight.inc();
        UnderWay(self.in_flight.clone())
    }

    pub(crate) fn request_ended(
        &self,
        route: &'static str,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let labels = RequestLabels { route, method: known(method), status: u32::from(status.as_u16()) };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    /// The page in OpenMetrics text form.
    pub(crate) fn page(&self, figures: &SiteFigures) -> String {
        self.site.clear();
        let labels = SiteLabels { site: figures.name.clone(), role: figures.role.clone() };
        self.site.get_or_create(&labels).set(1);
        self.halted.set(i64::from(figures.halted));
        self.lost_writes.set(i64::from(figures.lost_writes));
        self.uploads.set(i64::try_from(figures.uploads_in_progress).unwrap_or(i64::MAX));
        self.known.update(figures);
        let geo = figures.geo.as_ref();
        set_states(&self.repositories, geo.map(|geo| geo.repositories.as_slice()));
        set_states(&self.items, geo.map(|geo| geo.items.as_slice()));
        let mut page = String::new();
        if text::encode(&mut page, &self.registry).is_err() {
            tracing::error!("the metrics page could not be written");
        }
        page
    }
}

fn set_states(gauge: &IntGauges<StateLabels>, values: Option<&[(&'static str, i64)]>) {
    gauge.clear();
    for (state, count) in values.unwrap_or_default() {
        gauge.get_or_create(&StateLabels { state }).set(*count);
    }
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every figure that a site can have.
    fn full_page() -> String {
        let tls = TlsCounters::default();
        tls.shaken("ok");
        tls.reloaded("ok");
        let metrics = Metrics::new("sqlite", Some(&tls));
        metrics.request_ended("base", &Method::GET, StatusCode::OK, Duration::from_millis(1));
        metrics.page(&SiteFigures {
            log_head_seq: Some(1),
            certificate_expires_s: Some(1),
            geo: Some(GeoFigures {
                ingested_seq: Some(1),
                applied_seq: Some(1),
                lag_events: Some(1),
                lag_seconds: Some(1.0),
                repositories: vec![("synced", 1)],
                items: vec![("synced", 1)],
                ..GeoFigures::default()
            }),
            ..SiteFigures::default()
        })
    }

    #[test]
    fn every_metric_is_on_the_page_of_metrics_and_no_other() {
        let page = full_page();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let served: BTreeSet<String> = types
            .map(|(name, kind)| match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            })
            .collect();
        let listed: BTreeSet<String> = include_str!("../../../../docs/reference/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `twinport_")?.split('`').next())
            .map(|name| format!("twinport_{name}"))
            .collect();
        assert_eq!(served, listed);
    }

    #[test]
    fn r29_a_lag_that_is_not_known_is_absent_and_not_zero() {
        let metrics = Metrics::new("sqlite", None);
        let page = metrics.page(&SiteFigures { geo: Some(GeoFigures::default()), ..SiteFigures::default() });
        assert!(page.contains("twinport_geo_connected 0"), "{page}");
        assert!(!page.contains("twinport_geo_lag"), "{page}");
        let known = GeoFigures { lag_seconds: Some(1.5), lag_events: Some(3), ..GeoFigures::default() };
        let page = metrics.page(&SiteFigures { geo: Some(known), ..SiteFigures::default() });
        assert!(page.contains("twinport_geo_lag_seconds 1.5"), "{page}");
        let page = metrics.page(&SiteFigures::default());
        assert!(!page.contains("twinport_geo_lag_seconds 1.5"), "{page}");
    }
}
