//! Counts the work of a server, for monitoring.
//! Stage: registry. Output: Prometheus' text format, version 0.0.4.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Counter, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};
use time::OffsetDateTime;

/// The upper bounds of a histogram's buckets, in seconds: from a manifest in memory to a build.
const BOUNDS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// The metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    making: Histogram,
    making_seconds: Counter,
    building: Histogram,
    building_seconds: Counter,
    /// Registered only while there is a certificate.
    certificate_ends: IntGauge,
    /// Requests whose answers are not sent completely yet.
    pub in_flight: IntGauge,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that were closed because the server had as many as it may have.
    pub connections_refused: IntCounter,
    /// Passwords that were wrong, or not checked since too many were wrong.
    pub logins_failed: IntCounter,
    /// Bytes of the blobs in the cache.
    pub cache_bytes: IntGauge,
    /// Bytes of all objects in the object storage, as they were when they were last counted.
    pub storage_bytes: IntGauge,
    /// Bytes of blobs that were stored in the object storage.
    pub stored_bytes: IntCounter,
    /// Bytes of answers' bodies.
    pub bytes_sent: IntCounter,
    /// Layers that were made from beginning to end.
    pub layers_made: IntCounter,
    /// Layers that could not be made.
    pub layers_failed: IntCounter,
    /// Blobs that the cache had.
    pub cache_hits: IntCounter,
    /// Blobs that the cache did not have.
    pub cache_misses: IntCounter,
    /// Blobs that were just being written to the cache.
    pub cache_joins: IntCounter,
    /// Times that the catalog was replaced.
    pub reloads: IntCounter,
    /// Images that Nix was told to build.
    pub builds: IntCounter,
    /// Images that were found in the storage.
    pub images_found: IntCounter,
    /// Images that could not be built.
    pub builds_failed: IntCounter,
    /// Builds that were refused, since too many others waited.
    pub builds_refused: IntCounter,
    /// Builds that were ended since no client waited for them.
    pub builds_abandoned: IntCounter,
    /// Requests for an image that was already being built for another request.
    pub build_joins: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new_custom(Some("stowage".to_owned()), None).expect(VALID);
        let counter = |name, help| register(&registry, IntCounter::new(name, help));
        let gauge = |name, help| register(&registry, IntGauge::new(name, help));
        let seconds = |name, help| register(&registry, Counter::new(name, help));
        let histogram = |name, help| HistogramOpts::new(name, help).buckets(BOUNDS.to_vec());
        let program = Opts::new("build_info", "The program.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(&registry, IntGauge::with_opts(program)).set(1);
        Self {
            requests: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("requests_total", "Requests by what they asked for and the answer."),
                    &["route", "status"],
                ),
            ),
            durations: register(
                &registry,
                HistogramVec::new(
                    histogram(
                        "request_duration_seconds",
                        "Time from a request's first byte to the last one of its answer.",
                    ),
                    &["route"],
                ),
            ),
            making: register(
                &registry,
                Histogram::with_opts(histogram(
                    "layer_making_duration_seconds",
                    "Time that it took to make a layer, without that of waiting for clients.",
                )),
            ),
            making_seconds: seconds(
                "layer_making_seconds_total",
                "Time spent on making layers, without that of waiting for clients: the sum of stowage_layer_making_duration_seconds, kept for older dashboards.",
            ),
            building: register(
                &registry,
                Histogram::with_opts(histogram(
                    "image_building_duration_seconds",
                    "Time that Nix took to build an image, or to fail.",
                )),
            ),
            building_seconds: seconds(
                "image_building_seconds_total",
                "Time that Nix took to build images, or to fail: the sum of stowage_image_building_duration_seconds, kept for older dashboards.",
            ),
            certificate_ends: IntGauge::new(
                "certificate_end_timestamp_seconds",
                "When the certificate ends that is in use, in seconds since 1970.",
            )
            .expect(VALID),
            in_flight: gauge("requests_in_flight", "Requests being answered."),
            connections: gauge("connections", "Connections that are open."),
            connections_refused: counter(
                "connections_refused_total",
                "Connections that found no room.",
            ),
            logins_failed: counter(
                "logins_failed_total",
                "Passwords that were wrong, or not tried since too many were.",
            ),
            cache_bytes: gauge("cache_bytes", "Bytes of the blobs in the cache."),
            storage_bytes: gauge(
                "storage_bytes",
                "Bytes of all objects in the object storage, counted every hour.",
            ),
            stored_bytes: counter(
                "storage_stored_bytes_total",
                "Bytes of blobs that were sent to the object storage.",
            ),
            bytes_sent: counter("sent_bytes_total", "Bytes of answers' bodies."),
            layers_made: counter("layers_made_total", "Layers made to their end."),
            layers_failed: counter("layers_failed_total", "Layers that could not be made."),
            cache_hits: counter("cache_hits_total", "Blobs that were in the cache."),
            cache_misses: counter("cache_misses_total", "Blobs that were not in the cache."),
            cache_joins: counter(
                "cache_joins_total",
                "Blobs that were being made for another request.",
            ),
            reloads: counter("reloads_total", "Times that the catalog was replaced."),
            builds: counter("image_builds_total", "Images that Nix was told to build."),
            images_found: counter("images_found_total", "Images that were found in the storage."),
            builds_failed: counter("image_builds_failed_total", "Images that could not be built."),
            builds_refused: counter(
                "image_builds_refused_total",
                "Images that were not built since too many others waited.",
            ),
            builds_abandoned: counter(
                "image_builds_abandoned_total",
                "Builds that were ended since no client waited for them.",
            ),
            build_joins: counter(
                "image_build_joins_total",
                "Requests for an image that was being built for another one.",
            ),
            registry,
        }
    }
}

const VALID: &str = "names of metrics are valid, and each is used once";

/// Adds a metric to a registry.
fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect(VALID);
    registry.register(Box::new(metric.clone())).expect(VALID);
    metric
}

impl Metrics {
    /// Counts a request's answer. The label is one of a few routes, never a path.
    pub fn answered(&self, route: &'static str, status: u16) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
    }

    /// Adds the time that a request took, from its first byte to the last byte of its answer.
    pub fn took(&self, route: &'static str, time: Duration) {
        self.durations.with_label_values(&[route]).observe(time.as_secs_f64());
    }

    /// Sets the time when the certificate in use expires; `None` if there is no certificate.
    pub fn certificate_ends(&self, ends: Option<OffsetDateTime>) {
        let metric = Box::new(self.certificate_ends.clone());
        // Registering fails if the metric is registered already, and unregistering if it is not.
        let _ = match ends {
            Some(ends) => {
                self.certificate_ends.set(ends.unix_timestamp());
                self.registry.register(metric)
            }
            None => self.registry.unregister(metric),
        };
    }

    /// Returns whether any request has been answered.
    pub fn has_answered(&self) -> bool {
        self.requests.collect().iter().any(|family| !family.get_metric().is_empty())
    }

    /// Adds the time that it took to make a layer, or to fail.
    pub fn made_in(&self, time: Duration) {
        self.making.observe(time.as_secs_f64());
        self.making_seconds.inc_by(time.as_secs_f64());
    }

    /// Adds the time that it took to build an image, or to fail.
    pub fn built_in(&self, time: Duration) {
        self.building.observe(time.as_secs_f64());
        self.building_seconds.inc_by(time.as_secs_f64());
    }

    /// Returns all numbers in Prometheus' text format, sorted by the metrics' names.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        TextEncoder
            .encode_utf8(&self.registry.gather(), &mut text)
            .expect("a string takes all text, and each family has a metric");
        text
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// Compares the manual's page on metrics with what a server prints; writes it if `UPDATE_GOLDEN`
    /// is set.
    #[test]
    fn the_manual_has_every_metric() {
        let metrics = Metrics::default();
        metrics.certificate_ends(Some(OffsetDateTime::UNIX_EPOCH));
        // Metrics with labels are there once they have a value.
        metrics.answered("blob", 200);
        metrics.took("blob", Duration::ZERO);
        let text = metrics.to_text();
        let mut page =
            "# Metrics\n\nWhat `stowage serve` prints at `/metrics`, in Prometheus' format. \
                        This page is made from the program. [How to use them](../serving.md).\n\n\
                        | metric | kind | |\n| --- | --- | --- |\n"
                .to_owned();
        let lines: Vec<_> = text.lines().collect();
        for two in lines.windows(2) {
            let Some((name, help)) =
                two[0].strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let kind = two[1].rsplit(' ').next().unwrap();
            let _ = writeln!(page, "| `{name}` | {kind} | {help} |");
        }
        let bounds = BOUNDS.map(|bound| bound.to_string()).join(", ");
        let _ = writeln!(page, "\nThe buckets of histograms end at {bounds} seconds.");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/metrics.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(file, &page).unwrap();
        }
        let found = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            found == page,
            "{file} is not what the program says: UPDATE_GOLDEN=1 cargo test --lib metrics"
        );
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.answered("blob", 200);
        metrics.answered("blob", 200);
        metrics.answered("manifest", 404);
        metrics.made_in(Duration::from_millis(1500));
        metrics.took("blob", Duration::from_millis(20));
        metrics.took("blob", Duration::from_secs(7));
        metrics.certificate_ends(Some(OffsetDateTime::UNIX_EPOCH));
        metrics.in_flight.add(2);
        metrics.in_flight.dec();
        let text = metrics.to_text();
        for line in [
            "# TYPE stowage_requests_total counter",
            "stowage_requests_total{route=\"blob\",status=\"200\"} 2",
            "stowage_requests_total{route=\"manifest\",status=\"404\"} 1",
            "stowage_layer_making_seconds_total 1.5",
            "# TYPE stowage_request_duration_seconds histogram",
            "stowage_request_duration_seconds_bucket{route=\"blob\",le=\"0.005\"} 0",
            "stowage_request_duration_seconds_bucket{route=\"blob\",le=\"0.025\"} 1",
            "stowage_request_duration_seconds_bucket{route=\"blob\",le=\"+Inf\"} 2",
            "stowage_request_duration_seconds_count{route=\"blob\"} 2",
            "stowage_layer_making_duration_seconds_bucket{le=\"5\"} 1",
            "stowage_certificate_end_timestamp_seconds 0",
            "stowage_requests_in_flight 1",
            "stowage_cache_hits_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
