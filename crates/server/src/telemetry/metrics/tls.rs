//! What is counted of TLS; the counters belong to whoever speaks it.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsCounters {
    handshakes: Family<ResultLabels, Counter>,
    reloads: Family<ResultLabels, Counter>,
}

impl TlsCounters {
    /// A handshake ended: `ok`, `failed` or `timeout`.
    pub(crate) fn shaken(&self, result: &'static str) {
        self.handshakes.get_or_create(&ResultLabels { result }).inc();
    }

    /// Changed files were taken (`ok`) or not (`failed`).
    pub(crate) fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    #[cfg(test)]
    pub(crate) fn reloads(&self, result: &'static str) -> u64 {
        self.reloads.get_or_create(&ResultLabels { result }).get()
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("tls_handshakes", "TLS handshakes, by how they ended", self.handshakes.clone());
        registry.register(
            "tls_certificate_reloads",
            "Changed certificate files, by whether they were taken",
            self.reloads.clone(),
        );
    }
}
