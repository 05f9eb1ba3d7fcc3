//! Plans an image, and counts the bytes that an update sends.

use std::collections::{BTreeMap, BTreeSet};

use stowage::layer::{LayerBudget, LayerPlan, PlanOptions};
use stowage::store::StorePath;

use crate::suite::Image;

/// The layers of a plan from the bottom up: members of the image, by their index.
pub struct Planned<'i> {
    pub image: &'i Image,
    pub layers: Vec<Vec<usize>>,
    paths: Vec<StorePath>,
}

/// The bytes that an update sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// The bytes if every path had a layer of its own.
    pub ideal: f64,
    /// The bytes of the layers that changed.
    pub layers: f64,
    /// The bytes of the lowest changed layer and all layers above it, for a client that keys a
    /// layer by all layers below it.
    pub chain: f64,
}

impl<'i> Planned<'i> {
    pub fn new(image: &'i Image, budget: u64, options: &PlanOptions) -> (Self, LayerPlan) {
        let closure = image.closure();
        let plan =
            LayerPlan::new(&closure, LayerBudget::new(budget).unwrap(), options.clone()).unwrap();
        let paths = image.store_paths();
        let place: BTreeMap<_, _> = paths.iter().zip(0..).collect();
        let places = |layer: &Vec<_>| layer.iter().map(|path| place[path]).collect();
        let layers = plan.layers().iter().map(places).collect();
        (Self { image, layers, paths }, plan)
    }

    fn bytes(&self, members: &[usize]) -> f64 {
        members.iter().map(|member| self.image.members[*member].size as f64).sum()
    }

    /// Returns the number of bytes of each layer.
    pub fn sizes(&self) -> impl Iterator<Item = f64> {
        self.layers.iter().map(|layer| self.bytes(layer))
    }

    /// Returns the bytes of an update that changes these members, without adding or removing any.
    pub fn sent_for(&self, is_changed: &[bool]) -> Sent {
        self.sent(
            |member| is_changed[member],
            |layer| layer.iter().any(|member| is_changed[*member]),
        )
    }

    /// Returns the bytes of an update from an image that was planned as `old`: its layers are not
    /// sent again.
    pub fn sent_after(&self, old: &Planned) -> Sent {
        let known: BTreeSet<_> = old.store_path_sets().collect();
        let paths: BTreeSet<_> = old.paths.iter().collect();
        self.sent(
            |member| !paths.contains(&self.paths[member]),
            |layer| !known.contains(&self.store_paths(layer)),
        )
    }

    fn sent(&self, is_new: impl Fn(usize) -> bool, is_sent: impl Fn(&[usize]) -> bool) -> Sent {
        let mut sent = Sent::default();
        for (member, row) in self.image.members.iter().enumerate() {
            sent.ideal += if is_new(member) { row.size as f64 } else { 0.0 };
        }
        for layer in &self.layers {
            let bytes = self.bytes(layer);
            let is_sent = is_sent(layer);
            sent.layers += if is_sent { bytes } else { 0.0 };
            sent.chain += if is_sent || sent.chain > 0.0 { bytes } else { 0.0 };
        }
        sent
    }

    /// Returns the expected bytes of a month's update, in which each source package changes at its
    /// own rate. A layer changes unless nothing changes that can change it.
    pub fn sent_in_a_month(&self) -> Sent {
        const MONTHS: f64 = 41.0;
        let below = self.image.below();
        let mut rates = BTreeMap::<&str, f64>::new();
        for member in &self.image.members {
            let rate = rates.entry(&member.source).or_default();
            *rate = rate.max(member.updates / MONTHS);
        }
        let changes = |members: &BTreeSet<usize>| {
            let sources: BTreeSet<_> =
                members.iter().map(|member| &self.image.members[*member].source[..]).collect();
            1.0 - (-sources.iter().map(|source| rates[source]).sum::<f64>()).exp()
        };
        let mut sent = Sent::default();
        for (member, row) in self.image.members.iter().enumerate() {
            sent.ideal += row.size as f64 * changes(&below[member]);
        }
        let mut so_far = BTreeSet::new();
        for layer in &self.layers {
            let reach: BTreeSet<_> =
                layer.iter().flat_map(|member| &below[*member]).copied().collect();
            sent.layers += self.bytes(layer) * changes(&reach);
            so_far.extend(reach);
            sent.chain += self.bytes(layer) * changes(&so_far);
        }
        sent
    }

    fn store_paths(&self, layer: &[usize]) -> BTreeSet<&StorePath> {
        layer.iter().map(|member| &self.paths[*member]).collect()
    }

    /// Returns the store paths of each layer. Layers with equal sets are equal.
    pub fn store_path_sets(&self) -> impl Iterator<Item = BTreeSet<&StorePath>> {
        self.layers.iter().map(|layer| self.store_paths(layer))
    }
}

/// Returns how much images share when a registry or a machine keeps all of them, in per cent: the
/// bytes that sharing layers saves, of the bytes that it would save if every path had a layer of
/// its own.
pub fn shared(plans: &[Planned]) -> f64 {
    let mut layers = BTreeMap::new();
    let mut paths = BTreeMap::new();
    let mut total = 0.0;
    for plan in plans {
        total += plan.image.size() as f64;
        for (layer, set) in plan.layers.iter().zip(plan.store_path_sets()) {
            layers.insert(set, plan.bytes(layer));
        }
        for (member, path) in plan.paths.iter().enumerate() {
            paths.insert(path, plan.bytes(&[member]));
        }
    }
    100.0 * (total - layers.values().sum::<f64>()) / (total - paths.values().sum::<f64>())
}
