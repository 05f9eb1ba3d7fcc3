//! Reads what the author of an image knows about the image's packages.
//! Stage: layer (pure). Input: JSON and a [`Graph`]. Output: layers that are decided.

use serde::Deserialize;

use super::graph::Graph;
use super::package::is_meant;
use super::path_idx::PathIdx;

/// Rules by package name: `openssl` means all outputs in any version, `openssl-bin` one output; the
/// whole name in a store path also works. A name that no path has is ignored, so that several
/// images can share their rules. Of several rules for one path the first counts, in the order of
/// the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayeringHints {
    /// Packages that get a layer each, such as one that is in every image of a team.
    pub pin: Vec<String>,
    /// Sets of packages that get a layer for each set.
    pub together: Vec<Vec<String>>,
    /// Packages in the topmost layer, such as what changes with every build.
    pub last: Vec<String>,
}

/// Layers that the hints decide, none of them empty.
#[derive(Debug, Default)]
pub(super) struct Hinted {
    /// The layers that are decided, in no particular order.
    pub layers: Vec<Vec<PathIdx>>,
    /// The topmost layer, if there is one.
    pub last: Option<Vec<PathIdx>>,
}

impl LayeringHints {
    pub(super) fn layers(&self, graph: &Graph) -> Hinted {
        let pins = self.pin.iter().map(std::slice::from_ref);
        let rules: Vec<_> =
            pins.chain(self.together.iter().map(Vec::as_slice)).chain([&self.last[..]]).collect();
        let mut layers = vec![Vec::new(); rules.len()];
        for path in graph.paths() {
            let name = graph.name(path);
            let rule =
                rules.iter().position(|rule| rule.iter().any(|package| is_meant(name, package)));
            if let Some(rule) = rule {
                layers[rule].push(path);
            }
        }
        let last = layers.pop().filter(|last| !last.is_empty());
        layers.retain(|layer| !layer.is_empty());
        Hinted { layers, last }
    }
}

impl Hinted {
    pub fn count(&self) -> usize {
        self.layers.len() + usize::from(self.last.is_some())
    }

    /// Returns every path that is in one of the decided layers.
    pub fn paths(&self) -> Vec<PathIdx> {
        self.layers.iter().chain(&self.last).flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::layer::plan::tests::{named, names};
    use crate::layer::plan::{LayerBudget, LayerPlan, PlanError, PlanOptions};

    const MIB: u64 = 1 << 20;

    fn plan(hints: &str, budget: u64) -> Result<Vec<Vec<String>>, PlanError> {
        let closure = named(&[
            ("libc-2.40", 30 * MIB, &[]),
            ("openssl-3.1", 6 * MIB, &["libc-2.40"]),
            ("openssl-3.1-bin", 1000, &["openssl-3.1"]),
            ("app", 9 * MIB, &["openssl-3.1", "plugin"]),
            ("plugin", 2000, &["libc-2.40"]),
        ]);
        let hints = serde_json::from_str(hints).unwrap();
        let options = PlanOptions { hints, ..PlanOptions::default() };
        LayerPlan::new(&closure, LayerBudget::new(budget).unwrap(), options)
            .map(|plan| names(&plan))
    }

    #[test]
    fn rules_decide_layers() {
        for (hints, budget, expected) in [
            (
                r#"{"pin": ["openssl"]}"#,
                2,
                vec![&["openssl-3.1", "openssl-3.1-bin"][..], &["app", "libc-2.40", "plugin"]],
            ),
            (
                r#"{"last": ["plugin", "app"]}"#,
                3,
                vec![&["libc-2.40"], &["openssl-3.1", "openssl-3.1-bin"], &["app", "plugin"]],
            ),
            (
                r#"{"together": [["openssl-bin", "plugin"], ["app", "openssl"]], "pin": ["unknown"]}"#,
                3,
                vec![&["libc-2.40"], &["app", "openssl-3.1"], &["openssl-3.1-bin", "plugin"]],
            ),
            // The first rule counts.
            (
                r#"{"pin": ["plugin"], "last": ["plugin", "libc", "openssl", "app"]}"#,
                2,
                vec![&["plugin"], &["app", "libc-2.40", "openssl-3.1", "openssl-3.1-bin"]],
            ),
        ] {
            let mut found = plan(hints, budget).unwrap();
            if hints.contains("last") {
                assert_eq!(found.last().unwrap(), expected.last().unwrap(), "{hints}");
            }
            found.sort();
            let mut expected: Vec<_> = expected.iter().map(|layer| layer.to_vec()).collect();
            expected.sort();
            assert_eq!(found, expected, "{hints}");
        }
    }

    #[test]
    fn the_rest_needs_a_layer() {
        let hints = r#"{"pin": ["app", "plugin"]}"#;
        assert!(plan(hints, 3).is_ok());
        let error = plan(hints, 2).unwrap_err().to_string();
        assert_eq!(error, "`layeringHints` ask for 2 layers, which leaves none for the rest of 2");
    }
}
