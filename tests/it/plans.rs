use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use stowage::closure::Closure;
use stowage::digest::Digest;
use stowage::layer::{LayerBudget, LayerPlan, Layering};
use stowage::store::StorePath;

use crate::suite::{Change, Suite};

/// The expected digest of a plan for each budget, or a plan in full.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Golden {
    Plan(Vec<Vec<String>>),
    Digests {
        paths: usize,
        /// The number of layers and the first 16 hex digits of the digest, by budget.
        #[serde(flatten)]
        plans: BTreeMap<String, (usize, String)>,
    },
}

fn names(closure: &Closure, budget: &str) -> Vec<Vec<String>> {
    let plan =
        LayerPlan::new(closure, budget.parse::<LayerBudget>().unwrap(), Layering::Runs.into())
            .unwrap();
    let names =
        |layer: &Vec<_>| layer.iter().map(|path: &StorePath| path.name().to_string()).collect();
    plan.layers().iter().map(names).collect()
}

/// Checks that plans never change: with another plan, every image that was made before is sent once
/// more.
#[test]
fn plans_of_real_closures_never_change() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans.json");
    let goldens: BTreeMap<String, Golden> =
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let mut suites: BTreeMap<String, Suite> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (key, golden) in &goldens {
        let (suite, image) = key.trim_start_matches("full:").split_once('/').unwrap();
        let suite = suites.entry(suite.to_owned()).or_insert_with(|| Suite::read(suite));
        match golden {
            Golden::Plan(expected) => {
                let (image, budget) = image.split_once('@').unwrap();
                assert_eq!(
                    &names(&suite.image(image, Change::None).closure(), budget),
                    expected,
                    "{key}"
                );
            }
            Golden::Digests { paths, plans } => {
                let closure = suite.image(image, Change::None).closure();
                assert_eq!(closure.infos().len(), *paths, "{key}");
                for (budget, expected) in plans {
                    let names = names(&closure, budget);
                    let json = serde_json::to_vec(&names).unwrap();
                    let found = (names.len(), Digest::of(&json).hex()[..16].to_owned());
                    if found != *expected {
                        wrong.push(format!("{key} in {budget}: {found:?}, not {expected:?}"));
                    }
                }
            }
        }
    }
    assert_eq!((goldens.len(), wrong), (80, vec![]));
}
