//! The graph of references between the paths of a closure.
//! Stage: closure (pure). Input: records. Output: [`ReferencesGraph`].

use super::ValidPathInfo;

/// A path's place in its closure. Only valid for the closure that produced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIdx(u32);

impl NodeIdx {
    pub(super) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a closure has fewer than 2^32 paths"))
    }

    /// The index into [`super::Closure::infos`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// References and referrers, without those of a path to itself; acyclic.
#[derive(Clone, Debug)]
pub struct ReferencesGraph {
    references: Edges,
    referrers: Edges,
    /// References come before their referrers.
    topological: Vec<NodeIdx>,
}

/// Compressed sparse rows: the targets of node `n` are
/// `targets[offsets[n]..offsets[n + 1]]`. Two allocations whatever the graph's size.
#[derive(Clone, Debug)]
struct Edges {
    offsets: Vec<u32>,
    targets: Vec<NodeIdx>,
}

impl Edges {
    /// `pairs` must be sorted by source.
    fn new(nodes: usize, pairs: &[(NodeIdx, NodeIdx)]) -> Self {
        let mut offsets = vec![0; nodes + 1];
        for (source, _) in pairs {
            offsets[source.index() + 1] += 1;
        }
        for node in 0..nodes {
            offsets[node + 1] += offsets[node];
        }
        Self { offsets, targets: pairs.iter().map(|(_, target)| *target).collect() }
    }

    fn of(&self, node: NodeIdx) -> &[NodeIdx] {
        let range = self.offsets[node.index()] as usize..self.offsets[node.index() + 1] as usize;
        &self.targets[range]
    }
}

impl ReferencesGraph {
    /// `infos` must be sorted by path and complete; references outside are left out.
    ///
    /// # Errors
    /// The nodes of a cycle, the first one repeated at the end.
    pub(super) fn new(infos: &[ValidPathInfo]) -> Result<Self, Vec<NodeIdx>> {
        let mut pairs = Vec::new();
        for (source, info) in infos.iter().enumerate() {
            for reference in &info.references {
                let target = infos.binary_search_by(|info| info.path.cmp(reference));
                if let Some(target) = target.ok().filter(|target| *target != source) {
                    pairs.push((NodeIdx::new(source), NodeIdx::new(target)));
                }
            }
        }
        let references = Edges::new(infos.len(), &pairs);
        for pair in &mut pairs {
            *pair = (pair.1, pair.0);
        }
        pairs.sort_unstable();
        let referrers = Edges::new(infos.len(), &pairs);
        let topological = topological(&references, &referrers)?;
        Ok(Self { references, referrers, topological })
    }

    /// The other paths that this one refers to, sorted.
    pub fn references(&self, node: NodeIdx) -> &[NodeIdx] {
        self.references.of(node)
    }

    /// The other paths that refer to this one, sorted.
    pub fn referrers(&self, node: NodeIdx) -> &[NodeIdx] {
        self.referrers.of(node)
    }

    /// Every node, references before their referrers.
    pub fn topological(&self) -> &[NodeIdx] {
        &self.topological
    }
}

/// Kahn's algorithm. What it can't reach holds a cycle.
fn topological(references: &Edges, referrers: &Edges) -> Result<Vec<NodeIdx>, Vec<NodeIdx>> {
    let nodes = references.offsets.len() - 1;
    let mut open: Vec<usize> =
        (0..nodes).map(|node| references.of(NodeIdx::new(node)).len()).collect();
    let mut order: Vec<_> =
        (0..nodes).map(NodeIdx::new).filter(|node| open[node.index()] == 0).collect();
    let mut next = 0;
    while let Some(node) = order.get(next).copied() {
        next += 1;
        for referrer in referrers.of(node) {
            open[referrer.index()] -= 1;
            if open[referrer.index()] == 0 {
                order.push(*referrer);
            }
        }
    }
    if order.len() == nodes { Ok(order) } else { Err(cycle(references, &open)) }
}

/// Every node that is still open refers to one that is: following such references
/// must come back to a node that was passed.
fn cycle(references: &Edges, open: &[usize]) -> Vec<NodeIdx> {
    let mut passed = Vec::new();
    let mut node = open.iter().position(|open| *open > 0).map(NodeIdx::new);
    while let Some(here) = node {
        if let Some(start) = passed.iter().position(|node| *node == here) {
            passed.push(here);
            return passed.split_off(start);
        }
        passed.push(here);
        node = references.of(here).iter().copied().find(|next| open[next.index()] > 0);
    }
    passed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Closure;
    use super::super::tests::{info, path};
    use super::*;

    /// A random acyclic closure: path `i` refers to some of the paths before it.
    pub(crate) fn arbitrary_infos() -> impl Strategy<Value = Vec<ValidPathInfo>> {
        let digits = "0123456789abcdfghijklmnpqrsvwxyz";
        prop::collection::vec((prop::collection::vec(any::<bool>(), 32), 0u64..1000), 0..32)
            .prop_map(move |rows| {
                let paths: Vec<_> =
                    digits.chars().take(rows.len()).map(|digit| path(digit, "p")).collect();
                rows.iter()
                    .enumerate()
                    .map(|(node, (row, size))| {
                        let references: Vec<_> = (0..=node)
                            .filter(|other| row[*other])
                            .map(|other| paths[other].clone())
                            .collect();
                        info(paths[node].clone(), *size, &references)
                    })
                    .collect()
            })
    }

    proptest! {
        #[test]
        fn order_is_topological_and_edges_agree(infos in arbitrary_infos()) {
            let closure = Closure::new(infos).unwrap();
            let graph = closure.graph();
            let mut position = vec![usize::MAX; closure.infos().len()];
            for (place, node) in graph.topological().iter().enumerate() {
                position[node.index()] = place;
            }
            prop_assert!(!position.contains(&usize::MAX));
            for node in graph.topological() {
                for reference in graph.references(*node) {
                    prop_assert!(position[reference.index()] < position[node.index()]);
                    prop_assert!(graph.referrers(*reference).contains(node));
                }
            }
        }
    }
}
