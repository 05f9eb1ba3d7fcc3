//! Counts the work of a server, for monitoring.
//! Stage: registry. Output: Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// All numbers of a server.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    making: Mutex<Duration>,
    building: Mutex<Duration>,
    /// Requests that are not answered completely yet.
    pub in_flight: Number,
    /// Connections that are open.
    pub connections: Number,
    /// Bytes of the answers' bodies.
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
    /// Requests for an image that was already being built for another request.
    pub build_joins: Number,
}

impl Metrics {
    /// Counts a request's answer. The label is one of a few routes, never a path.
    pub fn answered(&self, route: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
    }

    /// Returns whether any request has been answered.
    pub fn has_answered(&self) -> bool {
        !self.requests.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Adds the time that it took to make a layer, or to fail.
    pub fn made_in(&self, time: Duration) {
        *self.making.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }

    /// Adds the time that it took to build an image, or to fail.
    pub fn built_in(&self, time: Duration) {
        *self.building.lock().unwrap_or_else(PoisonError::into_inner) += time;
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
        let seconds = |time: &Mutex<Duration>| {
            time.lock().unwrap_or_else(PoisonError::into_inner).as_secs_f64().to_string()
        };
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
                "image_build_joins_total",
                "counter",
                "Requests for an image that was being built for another one.",
                &self.build_joins,
            ),
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

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.answered("blob", 200);
        metrics.answered("blob", 200);
        metrics.answered("manifest", 404);
        metrics.made_in(Duration::from_millis(1500));
        metrics.in_flight.add(2);
        metrics.in_flight.decrement();
        let text = metrics.to_text();
        for line in [
            "# TYPE stowage_requests_total counter",
            "stowage_requests_total{route=\"blob\",status=\"200\"} 2",
            "stowage_requests_total{route=\"manifest\",status=\"404\"} 1",
            "stowage_layer_making_seconds_total 1.5",
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
