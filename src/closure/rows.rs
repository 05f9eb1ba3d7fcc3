//! Lists of paths, one list for each path.
//! Stage: closure (pure). Vocabulary of all graphs, also those of plans.

/// Compressed sparse rows, of numbers as small as possible: the references are most of what a large
/// closure keeps in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// The end of each row, where the next row begins.
    ends: Vec<u32>,
    items: Vec<u32>,
}

impl Rows {
    /// Adds a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = usize>) {
        self.items.extend(row.into_iter().map(short));
        self.ends.push(short(self.items.len()));
    }

    /// Frees the memory that is reserved for further items.
    pub fn shrink_to_fit(&mut self) {
        self.items.shrink_to_fit();
    }

    /// Sorts the row that was added last.
    pub fn sort_last(&mut self) {
        let start = self.start(self.ends.len().saturating_sub(1));
        self.items[start..].sort_unstable();
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns the items of a row.
    pub fn of(&self, row: usize) -> impl ExactSizeIterator<Item = usize> + Clone + use<'_> {
        let range = self.start(row)..self.ends[row] as usize;
        self.items[range].iter().map(|item| *item as usize)
    }

    fn start(&self, row: usize) -> usize {
        row.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    /// Returns, for each path, the rows that it is in, ascending.
    pub fn reversed(&self) -> Self {
        let mut ends = vec![0; self.ends.len()];
        for item in &self.items {
            ends[*item as usize] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            // `end` is now the beginning of the row, and moves on to its end as the row is filled.
            sum += std::mem::replace(end, sum);
        }
        let mut items = vec![0; self.items.len()];
        for row in 0..self.ends.len() {
            for item in self.of(row) {
                items[ends[item] as usize] = short(row);
                ends[item] += 1;
            }
        }
        Self { ends, items }
    }

    /// Returns, for each path, the number of rows that it is in.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.ends.len()];
        self.items.iter().for_each(|item| counts[*item as usize] += 1);
        counts
    }
}

impl<R: IntoIterator<Item = usize>> FromIterator<R> for Rows {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let mut collected = Self::default();
        rows.into_iter().for_each(|row| collected.push(row));
        collected.shrink_to_fit();
        collected
    }
}

fn short(number: usize) -> u32 {
    u32::try_from(number).expect("a closure has fewer than 2^32 references")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_was_added() {
        let rows = Rows::from_iter([vec![], vec![2, 0], vec![], vec![2]]);
        let lists = |rows: &Rows| (0..4).map(|row| rows.of(row).collect()).collect::<Vec<Vec<_>>>();
        assert_eq!(lists(&rows), [vec![], vec![2, 0], vec![], vec![2]]);
        assert_eq!(lists(&rows.reversed()), [vec![1], vec![], vec![1, 3], vec![]]);
        assert_eq!(rows.counts(), [1, 0, 2, 0]);
    }
}
