//! Shows progress to people: a bar on a terminal, nothing in a pipe.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::environment::is_utf8;
use crate::outgoing::{ImageLayer, LayerStep, Watch};

/// Returns whether a person may be reading standard error. Nix gives builders a terminal too, and
/// stores what they write to it as the log.
pub fn is_watched() -> bool {
    std::env::var_os("HOME").is_none_or(|home| home != "/homeless-shelter")
}

/// Returns whether text on standard error has colours: by clap's rules for `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`
/// and `TERM`, of which an empty `NO_COLOR` is none. Nix's logs have no colours.
pub fn has_colours() -> bool {
    is_watched() && AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Creates a bar on standard error, which is hidden unless a person may be reading it.
pub fn bar(doing: &'static str, bytes: u64) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let style = if is_narrow() {
        "{wide_msg} {sent}/{total}"
    } else {
        "{msg} {wide_bar} {sent}/{total} {rate} {eta}"
    };
    ProgressBar::new(bytes).with_style(style_of(style)).with_message(doing)
}

/// Returns whether the terminal has too few columns for a complete line of progress.
pub fn is_narrow() -> bool {
    terminal_size::terminal_size_of(io::stderr()).is_some_and(|(columns, _)| columns.0 < 72)
}

/// Parses a template. `{sent}`, `{total}` and `{rate}` have the same units as the summaries, unlike
/// indicatif's own values.
pub fn style_of(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    // indicatif's own blocks are no ASCII.
    let style = if is_utf8() { style } else { style.progress_chars("#>-") };
    style
        .with_key("sent", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{}", Bytes(state.pos()));
        })
        .with_key("total", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{}", Bytes(state.len().unwrap_or_default()));
        })
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{}/s", Bytes(state.per_sec() as u64));
        })
}

/// A bar for a copy that is a single stream.
pub struct StreamBar(ProgressBar);

impl StreamBar {
    /// Creates a bar for `bytes` bytes of layers.
    pub fn new(doing: &'static str, bytes: u64) -> Self {
        Self(bar(doing, bytes))
    }

    /// Removes the bar from the terminal.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Watch for StreamBar {
    fn expect(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn expect_more(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    fn advance(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn layer(&self, _: ImageLayer, step: LayerStep) {
        if let LayerStep::Advanced(bytes) = step {
            self.0.inc(bytes);
        }
    }

    fn hold(&self) {}

    fn retry(&self, _: &str, _: Duration) {}

    fn wait(&self, _: &Path) {}
}

/// A number of bytes, printed in the unit that suits it, by powers of ten as is usual for disks and
/// networks.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{} B", self.0),
            1_000..1_000_000 => (1e3, "kB"),
            1_000_000..1_000_000_000 => (1e6, "MB"),
            _ => (1e9, "GB"),
        };
        write!(f, "{:.1} {name}", self.0 as f64 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20.5 kB"),
            (312_000_000, "312.0 MB"),
            (2_500_000_000, "2.5 GB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
