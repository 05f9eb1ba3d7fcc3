//! The numbers of paths in a plan's graph, and values by these numbers.
//! Stage: layer (pure). Vocabulary of the plan.

use std::ops::{Index, IndexMut};

/// A path's number in a [`Graph`](super::graph::Graph). Only valid for the graph that produced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathIdx(u32);

impl PathIdx {
    /// Returns the number for an index in the order of the graph's paths.
    pub fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a closure has fewer than 2^32 paths"))
    }

    /// Returns the index in the order of the graph's paths.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A value for each path of a graph.
#[derive(Clone, Debug)]
pub(super) struct PerPath<T>(Vec<T>);

impl<T> PerPath<T> {
    /// Returns the number of paths.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the values of all paths, in the order of the paths' numbers.
    pub fn into_values(self) -> Vec<T> {
        self.0
    }

    /// Returns every path with its value, in the order of the paths' numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PathIdx, &T)> {
        self.0.iter().enumerate().map(|(index, value)| (PathIdx::new(index), value))
    }

    /// Returns every path with its value, to change the values.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (PathIdx, &mut T)> {
        self.0.iter_mut().enumerate().map(|(index, value)| (PathIdx::new(index), value))
    }
}

impl<T: Clone> PerPath<T> {
    /// Returns the same value for each of `paths` paths.
    pub fn filled(value: T, paths: usize) -> Self {
        Self(vec![value; paths])
    }
}

/// Collects the values of all paths, in the order of the paths' numbers.
impl<T> FromIterator<T> for PerPath<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> Index<PathIdx> for PerPath<T> {
    type Output = T;

    fn index(&self, path: PathIdx) -> &T {
        &self.0[path.index()]
    }
}

impl<T> IndexMut<PathIdx> for PerPath<T> {
    fn index_mut(&mut self, path: PathIdx) -> &mut T {
        &mut self.0[path.index()]
    }
}
