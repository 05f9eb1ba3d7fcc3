//! Shows the progress of a copy.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar};
use serde_json::{Value, json};

use super::arguments::ProgressArgument;
use super::interrupt;
use super::output::say;
use super::progress::{Bytes, bar, is_narrow, is_watched, style_of};
use crate::digest::BlobDigest;
use crate::outgoing::{ImageLayer, LayerStep, Watch};

/// The size in bytes from which on a layer has a bar: smaller ones are finished before a bar is
/// seen.
const SEEN: u64 = 4 << 20;

/// Shows the progress of a copy, and ends the copy when a signal asks for that.
pub enum Watching {
    /// Bars, for people at a terminal.
    Bars(Bars),
    /// A line for each layer that is sent, for logs.
    Plain,
    /// A JSON object a line, for programs.
    Json(Mutex<Total>),
    /// Only the errors after which the copy tries again.
    Notes,
    /// Nothing.
    Quiet,
}

impl Watching {
    /// Chooses the way to show progress. `doing` is shown beside the bar for the whole copy.
    pub fn new(doing: &'static str, wanted: Option<ProgressArgument>, quiet: bool) -> Self {
        match wanted {
            _ if quiet => Self::Quiet,
            Some(ProgressArgument::Bars) => Self::Bars(Bars::new(doing)),
            Some(ProgressArgument::Plain) => Self::Plain,
            Some(ProgressArgument::Json) => Self::Json(Mutex::default()),
            Some(ProgressArgument::None) => Self::Notes,
            None if io::stderr().is_terminal() && is_watched() => Self::Bars(Bars::new(doing)),
            // GitHub, GitLab and most other CI systems set this.
            None if std::env::var_os("CI").is_some_and(|ci| ci != "false") => Self::Plain,
            None => Self::Notes,
        }
    }

    /// Removes the bars from the terminal.
    pub fn end(&self) {
        if let Self::Bars(bars) = self {
            bars.total.finish_and_clear();
        }
    }

    fn note(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.all.suspend(|| say(text)),
            Self::Plain | Self::Notes => say(text),
            Self::Json(_) | Self::Quiet => {}
        }
    }

    fn event(&self, event: &Value) {
        if let Self::Json(_) = self {
            say(event);
        }
    }
}

impl Watch for Watching {
    fn expect(&self, bytes: u64) {
        match self {
            Self::Bars(bars) => {
                bars.total.reset();
                bars.total.set_length(bytes);
            }
            Self::Json(total) => {
                *locked(total) = Total { expected: bytes, ..Total::default() };
                self.event(&json!({ "event": "expect", "bytes": bytes }));
            }
            Self::Plain | Self::Notes | Self::Quiet => {}
        }
    }

    fn expect_more(&self, bytes: u64) {
        match self {
            Self::Bars(bars) => bars.total.inc_length(bytes),
            Self::Json(total) => {
                let mut total = locked(total);
                total.expected += bytes;
                self.event(&json!({ "event": "expect", "bytes": total.expected }));
            }
            Self::Plain | Self::Notes | Self::Quiet => {}
        }
    }

    fn advance(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Bars(bars) => bars.total.inc(bytes),
            Self::Json(total) => {
                let mut total = locked(total);
                if total.advance(bytes) {
                    let Total { written, expected, .. } = *total;
                    self.event(&json!({ "event": "progress", "bytes": written, "of": expected }));
                }
            }
            Self::Plain | Self::Notes | Self::Quiet => {}
        }
        match interrupt::received() {
            Some(_) => Err(io::Error::other("interrupted")),
            None => Ok(()),
        }
    }

    fn layer(&self, layer: ImageLayer, step: LayerStep) {
        match self {
            Self::Bars(bars) => bars.layer(layer, step),
            Self::Plain => {
                if let LayerStep::Sent | LayerStep::Mounted = step {
                    let (number, count) = (layer.index + 1, layer.spec.layers.len());
                    let (done, size) = (done(step), Bytes(layer.blob().size));
                    let names = layer.names();
                    say(format_args!("{done} layer {number} of {count} ({size}): {names}"));
                }
            }
            Self::Json(_) => {
                if step != LayerStep::Begun && !matches!(step, LayerStep::Advanced(_)) {
                    let blob = layer.blob();
                    self.event(&json!({
                        "event": done(step),
                        "layer": layer.index + 1,
                        "of": layer.spec.layers.len(),
                        "digest": blob.digest.to_string(),
                        "bytes": blob.size,
                        "names": layer.names(),
                    }));
                }
            }
            Self::Notes | Self::Quiet => {}
        }
    }

    fn hold(&self) {
        interrupt::hold();
    }

    fn retry(&self, reason: &str, wait: Duration) {
        let seconds = wait.as_secs_f64();
        self.note(&format!("{reason}; trying again in {seconds:.1} s"));
        self.event(&json!({ "event": "retry", "reason": reason, "seconds": seconds }));
    }

    fn wait(&self, directory: &Path) {
        self.note(&format!("waiting for another copy to {}", directory.display()));
        self.event(&json!({ "event": "wait", "directory": directory }));
    }
}

fn done(step: LayerStep) -> &'static str {
    match step {
        LayerStep::Begun | LayerStep::Advanced(_) => "sending",
        LayerStep::Sent => "sent",
        LayerStep::Skipped => "skipped",
        LayerStep::Mounted => "mounted",
    }
}

/// Counts the bytes of a copy, and decides when to report them.
#[derive(Clone, Copy, Default)]
pub struct Total {
    expected: u64,
    written: u64,
    /// The hundredths that were reported.
    told: u64,
}

impl Total {
    /// Adds written bytes. Returns whether another hundredth is done: an event for each write would
    /// be too many.
    fn advance(&mut self, bytes: u64) -> bool {
        self.written += bytes;
        let done = (self.written.min(self.expected) * 100).checked_div(self.expected);
        let told = std::mem::replace(&mut self.told, done.unwrap_or_default());
        self.told > told
    }
}

/// A bar for each layer that is being sent, and one for all of them below.
pub struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    layers: Mutex<BTreeMap<BlobDigest, ProgressBar>>,
    skipped: Mutex<u64>,
}

impl Bars {
    fn new(doing: &'static str) -> Self {
        let all = MultiProgress::new();
        let total = all.add(bar(doing, 0));
        Self { all, total, layers: Mutex::default(), skipped: Mutex::default() }
    }

    fn layer(&self, layer: ImageLayer, step: LayerStep) {
        let blob = layer.blob();
        match step {
            LayerStep::Begun if blob.size < SEEN => {}
            LayerStep::Begun => {
                let style = if is_narrow() {
                    "{prefix:>9} {bar:8} {sent:>8} {wide_msg:.dim}"
                } else {
                    "{prefix:>9} {bar:24} {sent:>8} {wide_msg:.dim}"
                };
                let number = format!("{} of {}", layer.index + 1, layer.spec.layers.len());
                let bar = ProgressBar::new(blob.size).with_style(style_of(style));
                let bar = bar.with_prefix(number).with_message(layer.names());
                let bar = self.all.insert_before(&self.total, bar);
                if let Some(broken) = locked(&self.layers).insert(blob.digest, bar) {
                    broken.finish_and_clear();
                }
            }
            LayerStep::Advanced(bytes) => {
                if let Some(bar) = locked(&self.layers).get(&blob.digest) {
                    bar.inc(bytes);
                }
            }
            LayerStep::Sent => {
                if let Some(bar) = locked(&self.layers).remove(&blob.digest) {
                    bar.finish_and_clear();
                }
            }
            LayerStep::Skipped | LayerStep::Mounted => {
                let mut skipped = locked(&self.skipped);
                *skipped += blob.size;
                self.total.set_message(format!("sending, {} skipped,", Bytes(*skipped)));
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hundredth_is_told_of_once() {
        let mut total = Total { expected: 1000, ..Total::default() };
        let told: Vec<bool> = [0, 9, 1, 1, 25, 964, 500].map(|bytes| total.advance(bytes)).into();
        assert_eq!(told, [false, false, true, false, true, true, false]);
        assert!(!Total::default().advance(5), "nothing was expected");
    }
}
