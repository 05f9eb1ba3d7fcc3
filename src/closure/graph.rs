//! The graph of references between the paths of a closure.
//! Stage: closure (pure). Input: records. Output: [`ReferencesGraph`].

use super::rows::Rows;

/// A path's place in its closure. Only valid for the closure that produced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIdx(u32);

impl NodeIdx {
    pub(super) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a closure has fewer than 2^32 paths"))
    }

    /// Returns the index into [`super::Closure::infos`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// References, without those of a path to itself; acyclic.
#[derive(Clone, Debug)]
pub struct ReferencesGraph {
    references: Rows,
    refers_to_itself: Vec<bool>,
    /// References come before their referrers.
    topological: Vec<NodeIdx>,
}

impl ReferencesGraph {
    /// Builds the graph. `rows` has, for each node in turn, the nodes that it refers to, sorted;
    /// the node itself may be among them.
    ///
    /// # Errors
    /// Fails with the nodes of a cycle, the first one repeated at the end, if the references form
    /// one.
    pub(super) fn new<R: Iterator<Item = NodeIdx>>(
        rows: impl Iterator<Item = R>,
    ) -> Result<Self, Vec<NodeIdx>> {
        let mut references = Rows::default();
        let mut refers_to_itself = Vec::new();
        for (node, row) in rows.enumerate() {
            let mut to_itself = false;
            references.push(row.map(NodeIdx::index).filter(|target| {
                to_itself |= *target == node;
                *target != node
            }));
            refers_to_itself.push(to_itself);
        }
        references.shrink_to_fit();
        let topological = topological(&references, &references.reversed())?;
        Ok(Self { references, refers_to_itself, topological })
    }

    /// Returns the other paths that a path refers to, sorted.
    pub fn references(
        &self,
        node: NodeIdx,
    ) -> impl ExactSizeIterator<Item = NodeIdx> + Clone + use<'_> {
        self.references.of(node.index()).map(NodeIdx::new)
    }

    /// Returns what [`ReferencesGraph::references`] returns, and the path itself if it refers to
    /// itself.
    pub fn references_and_itself(&self, node: NodeIdx) -> impl Iterator<Item = NodeIdx> {
        let before = self.references(node).take_while(move |other| *other < node);
        let itself = Some(node).filter(|node| self.refers_to_itself[node.index()]);
        let after = self.references(node).skip_while(move |other| *other < node);
        before.chain(itself).chain(after)
    }

    /// Returns every node, references before their referrers.
    pub fn topological(&self) -> &[NodeIdx] {
        &self.topological
    }
}

/// Sorts nodes by Kahn's algorithm, references first. If some nodes can't be reached, they hold a
/// cycle, which is returned.
fn topological(references: &Rows, referrers: &Rows) -> Result<Vec<NodeIdx>, Vec<NodeIdx>> {
    let nodes = 0..references.len();
    let mut open: Vec<usize> = nodes.clone().map(|node| references.of(node).len()).collect();
    let mut order = Vec::with_capacity(open.len());
    order.extend(nodes.filter(|node| open[*node] == 0).map(NodeIdx::new));
    let mut next = 0;
    while let Some(node) = order.get(next).copied() {
        next += 1;
        for referrer in referrers.of(node.index()) {
            open[referrer] -= 1;
            if open[referrer] == 0 {
                order.push(NodeIdx::new(referrer));
            }
        }
    }
    if order.len() == open.len() { Ok(order) } else { Err(cycle(references, &open)) }
}

/// Finds a cycle. Every node that is still open refers to an open node, so following such
/// references must come back to a node that was passed.
fn cycle(references: &Rows, open: &[usize]) -> Vec<NodeIdx> {
    let mut passed = Vec::new();
    let mut node = open.iter().position(|open| *open > 0);
    while let Some(here) = node {
        let start = passed.iter().position(|node| *node == NodeIdx::new(here));
        passed.push(NodeIdx::new(here));
        if let Some(start) = start {
            return passed.split_off(start);
        }
        node = references.of(here).find(|next| open[*next] > 0);
    }
    passed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Closure;
    use super::super::tests::{info, path};
    use crate::closure::ValidPathInfo;

    /// Returns a random acyclic closure: path `i` refers to some of the paths before it.
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
                prop_assert!(referrers.of(node.index()).is_sorted());
                for reference in graph.references(*node) {
                    prop_assert!(position[reference.index()] < position[node.index()]);
                    prop_assert!(referrers.of(reference.index()).any(|it| it == node.index()));
                }
            }
        }
    }
}
