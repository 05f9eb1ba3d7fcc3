//! The graph of references between the paths of a closure.
//! Stage: closure (pure). Input: records. Output: [`ReferencesGraph`].

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

/// References, without those of a path to itself; acyclic.
#[derive(Clone, Debug)]
pub struct ReferencesGraph {
    references: Edges,
    refers_to_itself: Vec<bool>,
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
    fn nodes(&self) -> impl Iterator<Item = NodeIdx> + use<> {
        (0..self.offsets.len() - 1).map(NodeIdx::new)
    }

    fn of(&self, node: NodeIdx) -> &[NodeIdx] {
        let range = self.offsets[node.index()] as usize..self.offsets[node.index() + 1] as usize;
        &self.targets[range]
    }

    /// The same edges from their targets to their sources, which are sorted.
    fn reversed(&self) -> Self {
        let mut offsets = vec![0; self.offsets.len()];
        for target in &self.targets {
            offsets[target.index() + 1] += 1;
        }
        for node in 1..offsets.len() {
            offsets[node] += offsets[node - 1];
        }
        let mut next = offsets.clone();
        let mut targets = vec![NodeIdx(0); self.targets.len()];
        for source in self.nodes() {
            for target in self.of(source) {
                targets[next[target.index()] as usize] = source;
                next[target.index()] += 1;
            }
        }
        Self { offsets, targets }
    }
}

impl ReferencesGraph {
    /// Of each node in turn what it refers to, sorted, itself perhaps among them.
    ///
    /// # Errors
    /// The nodes of a cycle, the first one repeated at the end.
    pub(super) fn new<R: Iterator<Item = NodeIdx>>(
        rows: impl Iterator<Item = R>,
    ) -> Result<Self, Vec<NodeIdx>> {
        let mut references = Edges { offsets: vec![0], targets: Vec::new() };
        let mut refers_to_itself = Vec::new();
        for (node, row) in rows.enumerate() {
            refers_to_itself.push(false);
            for target in row {
                match target.index() == node {
                    true => refers_to_itself[node] = true,
                    false => references.targets.push(target),
                }
            }
            let end = u32::try_from(references.targets.len());
            references.offsets.push(end.expect("a closure has fewer than 2^32 references"));
        }
        references.targets.shrink_to_fit();
        let topological = topological(&references, &references.reversed())?;
        Ok(Self { references, refers_to_itself, topological })
    }

    /// The other paths that this one refers to, sorted.
    pub fn references(&self, node: NodeIdx) -> &[NodeIdx] {
        self.references.of(node)
    }

    /// [`ReferencesGraph::references`], and the path itself if it is one of its references.
    pub fn references_and_itself(&self, node: NodeIdx) -> impl Iterator<Item = NodeIdx> {
        let others = self.references(node);
        let (before, after) = others.split_at(others.partition_point(|other| *other < node));
        let itself = Some(node).filter(|node| self.refers_to_itself[node.index()]);
        before.iter().copied().chain(itself).chain(after.iter().copied())
    }

    /// Every node, references before their referrers.
    pub fn topological(&self) -> &[NodeIdx] {
        &self.topological
    }
}

/// Kahn's algorithm. What it can't reach holds a cycle.
fn topological(references: &Edges, referrers: &Edges) -> Result<Vec<NodeIdx>, Vec<NodeIdx>> {
    let mut open: Vec<usize> = references.nodes().map(|node| references.of(node).len()).collect();
    let mut order = Vec::with_capacity(open.len());
    order.extend(references.nodes().filter(|node| open[node.index()] == 0));
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
    if order.len() == open.len() { Ok(order) } else { Err(cycle(references, &open)) }
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
    use crate::closure::ValidPathInfo;

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
            let referrers = graph.references.reversed();
            for node in graph.topological() {
                prop_assert!(referrers.of(*node).is_sorted());
                for reference in graph.references(*node) {
                    prop_assert!(position[reference.index()] < position[node.index()]);
                    prop_assert!(referrers.of(*reference).contains(node));
                }
            }
        }
    }
}
