//! Counts the work of a server, for monitoring.
//! Stage: registry. Output: Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

/// A number that is counted up, or up and down.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds a number.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// Subtracts one.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, number: u64) {
        self.0.store(number, Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The upper bounds of a histogram's buckets, in seconds: from a manifest in memory to a build.
const BOUNDS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// A histogram: for each bound the number of durations up to it, their total number, and their sum
/// in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Durations {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Durations {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let counts = self.counts.iter_mut().zip(BOUNDS);
        counts.filter(|(_, bound)| seconds <= *bound).for_each(|(count, _)| *count += 1);
        self.count += 1;
        self.sum += seconds;
    }

    /// Returns the samples of the histogram: for each the text after the metric's name, and the
    /// value.
    fn samples(&self, labels: &str) -> Vec<(String, String)> {
        let comma = if labels.is_empty() { "" } else { "," };
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let bucket = |bound: &str, count: u64| {
            (format!("_bucket{{{labels}{comma}le=\"{bound}\"}}"), count.to_string())
        };
        let mut samples: Vec<_> = BOUNDS
            .iter()
            .zip(self.counts)
            .map(|(bound, count)| bucket(&bound.to_string(), count))
            .collect();
        samples.push(bucket("+Inf", self.count));
        samples.push((format!("_sum{braces}"), self.sum.to_string()));
        samples.push((format!("_count{braces}"), self.count.to_string()));
        samples
    }
}

/// The metrics of a server.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    durations: Mutex<BTreeMap<&'static str, Durations>>,
    making: Mutex<Durations>,
    building: Mutex<Durations>,
    certificate_ends: Mutex<Option<OffsetDateTime>>,
    /// Requests whose answers are not sent completely yet.
    pub in_flight: Number,
    /// Connections that are open.
    pub connections: Number,
    /// Connections that were closed since there was no room.
    pub connections_refused: Number,
    /// Passwords that were wrong, or not checked since too many were wrong.
    pub logins_failed: Number,
    /// Bytes of the blobs in the cache.
    pub cache_bytes: Number,
    /// Bytes of all objects in the object storage, as they were when they were last counted.
    pub storage_bytes: Number,
    /// Bytes of blobs that were stored in the object storage.
    pub stored_bytes: Number,
    /// Bytes of answers' bodies.
    pub bytes_sent: Number,
    /// Layers that were made from beginning to end.
    pub layers_made: Number,
    /// Layers that could not be made.
    pub layers_failed: Number,
    /// Blobs that the cache had.
    pub cache_hits: Number,
    /// Blobs that the cache did not have.
    pub cache_misses: Number,
    /// Blobs that were just being written to the cache.
    pub cache_joins: Number,
    /// Times that the catalog was replaced.
    pub reloads: Number,
    /// Images that Nix was told to build.
    pub builds: Number,
    /// Images that were found in the storage.
    pub images_found: Number,
    /// Images that could not be built.
    pub builds_failed: Number,
    /// Builds that were refused, since too many others waited.
    pub builds_refused: Number,
    /// Builds that were ended since no client waited for them.
    pub builds_abandoned: Number,
    /// Requests for an image that was already being built for another request.
    pub build_joins: Number,
}

impl Metrics {
    /// Counts a request's answer. The label is one of a few routes, never a path.
    pub fn answered(&self, route: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
    }

    /// Adds the time that a request took, from its first byte to the last byte of its answer.
    pub fn took(&self, route: &'static str, time: Duration) {
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        durations.entry(route).or_default().add(time);
    }

    /// Sets the time when the certificate in use expires.
    pub fn certificate_ends(&self, ends: Option<OffsetDateTime>) {
        *self.certificate_ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Returns whether any request has been answered.
    pub fn has_answered(&self) -> bool {
        !self.requests.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Adds the time that it took to make a layer, or to fail.
    pub fn made_in(&self, time: Duration) {
        self.making.lock().unwrap_or_else(PoisonError::into_inner).add(time);
    }

    /// Adds the time that it took to build an image, or to fail.
    pub fn built_in(&self, time: Duration) {
        self.building.lock().unwrap_or_else(PoisonError::into_inner).add(time);
    }

    /// Returns all numbers in Prometheus' text format.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "# HELP stowage_{name} {help}\n# TYPE stowage_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "stowage_{name}{labels} {value}");
            }
        };
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests: Vec<_> = requests
            .into_iter()
            .map(|((route, status), count)| {
                (format!("{{route=\"{route}\",status=\"{status}\"}}"), count.to_string())
            })
            .collect();
        family(
            "requests_total",
            "counter",
            "Requests by what they asked for and the answer.",
            &requests,
        );
        let durations =
            |times: &Mutex<Durations>| *times.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |times: &Mutex<Durations>| durations(times).sum.to_string();
        let by_route = self.durations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let by_route =
            by_route.iter().flat_map(|(route, times)| times.samples(&format!("route=\"{route}\"")));
        family(
            "request_duration_seconds",
            "histogram",
            "Time from a request's first byte to the last one of its answer.",
            &by_route.collect::<Vec<_>>(),
        );
        family(
            "layer_making_duration_seconds",
            "histogram",
            "Time that it took to make a layer, without that of waiting for clients.",
            &durations(&self.making).samples(""),
        );
        family(
            "image_building_duration_seconds",
            "histogram",
            "Time that Nix took to build an image, or to fail.",
            &durations(&self.building).samples(""),
        );
        let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        family("build_info", "gauge", "The program.", &[(version.to_owned(), "1".to_owned())]);
        let ends = *self.certificate_ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ends) = ends {
            family(
                "certificate_end_timestamp_seconds",
                "gauge",
                "When the certificate ends that is in use, in seconds since 1970.",
                &[(String::new(), ends.unix_timestamp().to_string())],
            );
        }
        let one = |value: String| [(String::new(), value)];
        family(
            "layer_making_seconds_total",
            "counter",
            "Time spent on making layers, without that of waiting for clients.",
            &one(seconds(&self.making)),
        );
        family(
            "image_building_seconds_total",
            "counter",
            "Time that Nix took to build images, or to fail.",
            &one(seconds(&self.building)),
        );
        for (name, kind, help, number) in [
            ("sent_bytes_total", "counter", "Bytes of answers' bodies.", &self.bytes_sent),
            ("layers_made_total", "counter", "Layers made to their end.", &self.layers_made),
            (
                "layers_failed_total",
                "counter",
                "Layers that could not be made.",
                &self.layers_failed,
            ),
            ("cache_hits_total", "counter", "Blobs that were in the cache.", &self.cache_hits),
            (
                "cache_misses_total",
                "counter",
                "Blobs that were not in the cache.",
                &self.cache_misses,
            ),
            (
                "cache_joins_total",
                "counter",
                "Blobs that were being made for another request.",
                &self.cache_joins,
            ),
            ("reloads_total", "counter", "Times that the catalog was replaced.", &self.reloads),
            ("image_builds_total", "counter", "Images that Nix was told to build.", &self.builds),
            (
                "images_found_total",
                "counter",
                "Images that were found in the storage.",
                &self.images_found,
            ),
            (
                "image_builds_failed_total",
                "counter",
                "Images that could not be built.",
                &self.builds_failed,
            ),
            (
                "image_builds_refused_total",
                "counter",
                "Images that were not built since too many others waited.",
                &self.builds_refused,
            ),
            (
                "image_builds_abandoned_total",
                "counter",
                "Builds that were ended since no client waited for them.",
                &self.builds_abandoned,
            ),
            (
                "image_build_joins_total",
                "counter",
                "Requests for an image that was being built for another one.",
                &self.build_joins,
            ),
            (
                "connections_refused_total",
                "counter",
                "Connections that found no room.",
                &self.connections_refused,
            ),
            (
                "logins_failed_total",
                "counter",
                "Passwords that were wrong, or not tried since too many were.",
                &self.logins_failed,
            ),
            (
                "storage_stored_bytes_total",
                "counter",
                "Bytes of blobs that were sent to the object storage.",
                &self.stored_bytes,
            ),
            (
                "storage_bytes",
                "gauge",
                "Bytes of all objects in the object storage, counted every hour.",
                &self.storage_bytes,
            ),
            ("cache_bytes", "gauge", "Bytes of the blobs in the cache.", &self.cache_bytes),
            ("requests_in_flight", "gauge", "Requests being answered.", &self.in_flight),
            ("connections", "gauge", "Connections that are open.", &self.connections),
        ] {
            family(name, kind, help, &one(number.get().to_string()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the manual's page on metrics with what a server prints; writes it if `UPDATE_GOLDEN`
    /// is set.
    #[test]
    fn the_manual_has_every_metric() {
        let metrics = Metrics::default();
        metrics.certificate_ends(Some(OffsetDateTime::UNIX_EPOCH));
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
        metrics.in_flight.decrement();
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
