//! Counts of several isolates side by side, merged without ever losing one. Pure.
//!
//! Each isolate counts only in its own cell and its counts only grow, so of two versions of
//! a cell the larger is the later one: merging by maximum is commutative, associative and
//! idempotent, and it does not matter who passes a cell on, how often, or in what order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::window::Counts;

/// Most isolates whose cells are kept; beyond that the emptiest are not seen.
pub const CELLS_MAX: usize = 64;

/// Names one isolate for as long as it lives: 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IsolateId(String);

impl IsolateId {
    /// An id from eight random bytes.
    pub fn of(random: [u8; 8]) -> Self {
        Self(crate::seal::hex(&random))
    }
}

/// Admissions by number of bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cell(BTreeMap<u64, u32>);

impl Cell {
    /// Counts an admission of this weight.
    pub fn count(&mut self, bucket: u64, cost: u32) {
        let count = self.0.entry(bucket).or_default();
        *count = count.saturating_add(cost);
    }

    /// The counts of `bucket` and the one before.
    pub fn counts(&self, bucket: u64) -> Counts {
        let of = |bucket: Option<u64>| {
            bucket
                .and_then(|bucket| self.0.get(&bucket))
                .copied()
                .unwrap_or_default()
        };
        Counts {
            current: of(Some(bucket)).into(),
            previous: of(bucket.checked_sub(1)).into(),
        }
    }

    /// How many admissions of one bucket `self` has that `other` does not, at most.
    pub fn ahead_of(&self, other: &Self) -> u64 {
        let ahead = |(bucket, count): (&u64, &u32)| {
            count.saturating_sub(other.0.get(bucket).copied().unwrap_or(0))
        };
        self.0.iter().map(ahead).max().unwrap_or(0).into()
    }

    /// Takes over whatever `other` has more of.
    pub fn raise(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            let ours = self.0.entry(*bucket).or_default();
            *ours = (*ours).max(*count);
        }
    }

    /// Forgets what no window that ends at about `bucket` covers. One bucket ahead is
    /// kept: another isolate's clock may be early.
    pub fn forget(&mut self, bucket: u64) {
        let kept = bucket.saturating_sub(1)..=bucket.saturating_add(1);
        self.0
            .retain(|bucket, count| kept.contains(bucket) && *count > 0);
    }
}

/// The cells of several isolates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cells(BTreeMap<IsolateId, Cell>);

impl Cells {
    /// Takes over whatever `other` knows more of.
    pub fn merge(&mut self, other: &Self) {
        for (isolate, cell) in &other.0 {
            self.raise(isolate, cell);
        }
    }

    /// Takes over whatever `cell` knows more of one isolate.
    pub fn raise(&mut self, isolate: &IsolateId, cell: &Cell) {
        match self.0.get_mut(isolate) {
            Some(ours) => ours.raise(cell),
            None => drop(self.0.insert(isolate.clone(), cell.clone())),
        }
    }

    /// The cell of one isolate.
    pub fn get(&self, isolate: &IsolateId) -> Option<&Cell> {
        self.0.get(isolate)
    }

    /// How many isolates have a cell here, `except` one.
    pub fn others(&self, except: &IsolateId) -> usize {
        self.0.keys().filter(|isolate| *isolate != except).count()
    }

    /// The sum of all cells `except` one isolate's.
    pub fn counts(&self, bucket: u64, except: &IsolateId) -> Counts {
        let mut sum = Counts::default();
        for (_, cell) in self.0.iter().filter(|(isolate, _)| *isolate != except) {
            let counts = cell.counts(bucket);
            sum.current += counts.current;
            sum.previous += counts.previous;
        }
        sum
    }

    /// All cells `except` one isolate's as if they were one.
    pub fn sum(&self, except: &IsolateId) -> Cell {
        let mut sum = Cell::default();
        for (_, cell) in self.0.iter().filter(|(isolate, _)| *isolate != except) {
            for (bucket, count) in &cell.0 {
                let all = sum.0.entry(*bucket).or_default();
                *all = all.saturating_add(*count);
            }
        }
        sum
    }

    /// Forgets what no window that ends at about `bucket` covers; of what remains, keeps
    /// the fullest [`CELLS_MAX`] cells, and in any case the one of `own`.
    pub fn forget(&mut self, bucket: u64, own: &IsolateId) {
        self.0.retain(|_, cell| {
            cell.forget(bucket);
            !cell.0.is_empty()
        });
        while self.0.len() > CELLS_MAX {
            let weight = |cell: &Cell| cell.0.values().copied().map(u64::from).sum::<u64>();
            let others = self.0.iter().filter(|(isolate, _)| *isolate != own);
            let Some(least) = others
                .min_by_key(|(_, cell)| weight(cell))
                .map(|(isolate, _)| isolate.clone())
            else {
                return;
            };
            self.0.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_is_commutative_associative_and_idempotent() {
        let mut random = 3_u64;
        let mut some = || {
            let mut cells = Cells::default();
            for _ in 0..6 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let number = random >> 33;
                cells.raise(
                    &isolate(number % 4),
                    &cell(&[(number % 3, (number % 17) as u32)]),
                );
            }
            cells
        };
        for _ in 0..500 {
            let (a, b, c) = (some(), some(), some());
            assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
            assert_eq!(
                merged(&[&merged(&[&a, &b]), &c]),
                merged(&[&a, &merged(&[&b, &c])])
            );
            assert_eq!(merged(&[&a, &a]), a);
        }
    }

    #[test]
    fn a_cell_never_shrinks_whatever_is_merged_into_it() {
        let (ours, stale) = (cell(&[(7, 5), (8, 2)]), cell(&[(7, 5), (8, 1)]));
        let mut cells = Cells::default();
        cells.raise(&isolate(1), &ours);
        cells.raise(&isolate(1), &stale);
        assert_eq!(cells.get(&isolate(1)), Some(&ours));
        assert_eq!(ours.ahead_of(&stale), 1);
        assert_eq!(stale.ahead_of(&ours), 0);
    }

    #[test]
    fn counts_are_summed_without_ones_own() {
        let mut cells = Cells::default();
        cells.raise(&isolate(1), &cell(&[(7, 5), (8, 2)]));
        cells.raise(&isolate(2), &cell(&[(6, 9), (8, 3)]));
        cells.raise(&isolate(3), &cell(&[(7, 1), (8, 1)]));
        assert_eq!(
            cells.counts(8, &isolate(1)),
            Counts {
                current: 4,
                previous: 1
            }
        );
        assert_eq!(
            cells.counts(7, &isolate(1)),
            Counts {
                current: 1,
                previous: 9
            }
        );
        assert_eq!(cells.others(&isolate(1)), 2);
    }

    #[test]
    fn old_cells_go_first_then_the_emptiest_and_never_ones_own() {
        let mut cells = Cells::default();
        cells.raise(&isolate(0), &cell(&[(8, 1)]));
        for number in 1..=CELLS_MAX as u64 + 10 {
            let bucket = if number <= 5 { 6 } else { 8 };
            cells.raise(&isolate(number), &cell(&[(bucket, number as u32)]));
        }
        cells.forget(8, &isolate(0));
        assert_eq!(cells.0.len(), CELLS_MAX);
        assert!(cells.get(&isolate(0)).is_some() && cells.get(&isolate(5)).is_none());
        assert!(cells.get(&isolate(11)).is_none() && cells.get(&isolate(12)).is_some());
    }

    fn merged(all: &[&Cells]) -> Cells {
        let mut sum = Cells::default();
        all.iter().for_each(|cells| sum.merge(cells));
        sum
    }

    fn cell(counts: &[(u64, u32)]) -> Cell {
        Cell(
            counts
                .iter()
                .copied()
                .filter(|(_, count)| *count > 0)
                .collect(),
        )
    }

    fn isolate(number: u64) -> IsolateId {
        IsolateId::of(number.to_be_bytes())
    }
}
