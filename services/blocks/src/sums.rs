//! Sums by stack, dense and exact: an error is reported only where a final sum does not fit 64 bits.
//!
//! The common case is a plain wrapping addition: a bound on every possible partial sum is kept beside (one OR per
//! value), and only when that bound passes 63 bits do the sums move to 128.

use crate::tree::MEAN_SCALE;

/// A sample that points outside the stacks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownStack(pub(crate) u32);

/// A sum that does not fit 64 bits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SumOverflow;

/// What a scan adds samples to: one cell per stack.
#[derive(Debug)]
pub(crate) enum Accumulator {
    /// Every value counts as it is.
    Sum(Sums),
    /// Every series' values are divided by a count of its own.
    Mean(Means),
}

impl Accumulator {
    pub(crate) fn sum(stacks: usize) -> Self {
        Self::Sum(Sums::new(stacks))
    }

    pub(crate) fn mean(stacks: usize) -> Self {
        Self::Mean(Means { series: Sums::new(stacks), touched: Vec::new(), total: vec![0; stacks] })
    }

    /// Adds samples: stacks and values of equal length.
    #[inline]
    pub(crate) fn add<S: AsStack>(&mut self, stacks: &[S], values: &[i64]) -> Result<(), UnknownStack> {
        match self {
            Self::Sum(sums) => sums.add(stacks, values),
            Self::Mean(means) => means.add(stacks, values),
        }
    }

    /// The samples added since the last call were all of one series' and are divided by `count`; 0 leaves them out.
    /// Without effect on plain sums.
    pub(crate) fn end_series(&mut self, count: u32) {
        if let Self::Mean(means) = self {
            means.end_series(count);
        }
    }

    /// The sums, one per stack.
    pub(crate) fn finish(self) -> Result<Vec<i64>, SumOverflow> {
        match self {
            Self::Sum(Sums { cells: Cells::Narrow(cells), .. }) => Ok(cells),
            Self::Sum(Sums { cells: Cells::Wide(cells), .. }) => narrow(cells),
            Self::Mean(means) => narrow(means.total),
        }
    }
}

/// How columns hold stack ids: a head's as they are, Parquet's reinterpreted.
pub(crate) trait AsStack: Copy {
    fn as_stack(self) -> u32;
}

impl AsStack for u32 {
    #[inline]
    fn as_stack(self) -> u32 {
        self
    }
}

impl AsStack for i32 {
    #[inline]
    fn as_stack(self) -> u32 {
        self as u32
    }
}

#[derive(Debug)]
enum Cells {
    Narrow(Vec<i64>),
    Wide(Vec<i128>),
}

#[derive(Debug)]
pub(crate) struct Sums {
    cells: Cells,
    /// No partial sum's magnitude can have passed this.
    bound: u128,
}

impl Sums {
    fn new(stacks: usize) -> Self {
        Self { cells: Cells::Narrow(vec![0; stacks]), bound: 0 }
    }

    #[inline]
    fn add<S: AsStack>(&mut self, stacks: &[S], values: &[i64]) -> Result<(), UnknownStack> {
        debug_assert_eq!(stacks.len(), values.len());
        self.expect_magnitudes(values, values.len());
        match &mut self.cells {
            Cells::Narrow(cells) => {
                for (stack, value) in stacks.iter().zip(values) {
                    let stack = stack.as_stack();
                    let cell = cells.get_mut(stack as usize).ok_or(UnknownStack(stack))?;
                    *cell = cell.wrapping_add(*value);
                }
            }
            Cells::Wide(cells) => {
                for (stack, value) in stacks.iter().zip(values) {
                    let stack = stack.as_stack();
                    let cell = cells.get_mut(stack as usize).ok_or(UnknownStack(stack))?;
                    *cell += i128::from(*value);
                }
            }
        }
        Ok(())
    }

    /// The sum of a stack, which starts again from 0.
    #[inline]
    fn take(&mut self, stack: u32) -> i128 {
        match &mut self.cells {
            Cells::Narrow(cells) => i128::from(std::mem::take(&mut cells[stack as usize])),
            Cells::Wide(cells) => std::mem::take(&mut cells[stack as usize]),
        }
    }

    /// Raises the bound by what `per_cell` additions of the largest of these values could do to one cell.
    #[inline]
    fn expect_magnitudes(&mut self, values: &[i64], per_cell: usize) {
        // The OR of all v (or of -v - 1 where negative) has at least the highest bit of the largest.
        let bits = values.iter().fold(0u64, |bits, v| bits | (v ^ (v >> 63)) as u64);
        self.bound += (u128::from(bits) + 1) * per_cell as u128;
        if self.bound > i64::MAX as u128
            && let Cells::Narrow(cells) = &self.cells
        {
            self.cells = Cells::Wide(cells.iter().map(|cell| i128::from(*cell)).collect());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Means {
    /// Sums of the series at hand.
    series: Sums,
    /// Its stacks, repeated ones included.
    touched: Vec<u32>,
    total: Vec<i128>,
}

impl Means {
    fn add<S: AsStack>(&mut self, stacks: &[S], values: &[i64]) -> Result<(), UnknownStack> {
        self.series.add(stacks, values)?;
        self.touched.extend(stacks.iter().map(|stack| stack.as_stack()));
        Ok(())
    }

    fn end_series(&mut self, count: u32) {
        for stack in self.touched.drain(..) {
            let sum = self.series.take(stack);
            if sum != 0 && count != 0 {
                self.total[stack as usize] += scaled_mean(sum, count);
            }
        }
        self.series.bound = 0;
    }
}

/// `sum / count` in units of 1/[`MEAN_SCALE`], the nearest whole number, halves away from zero.
fn scaled_mean(sum: i128, count: u32) -> i128 {
    const NARROW_MAX: i128 = i64::MAX as i128 / (4 * MEAN_SCALE as i128);
    if sum.abs() <= NARROW_MAX {
        // Nearly always: a division of 128 bits takes ten times as long.
        let (sum, count) = (sum as i64, i64::from(count));
        return i128::from((2 * sum * MEAN_SCALE + sum.signum() * count) / (2 * count));
    }
    let count = i128::from(count);
    (2 * sum * i128::from(MEAN_SCALE) + sum.signum() * count) / (2 * count)
}

fn narrow(cells: Vec<i128>) -> Result<Vec<i64>, SumOverflow> {
    cells.into_iter().map(|cell| i64::try_from(cell).map_err(|_| SumOverflow)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = i64> {
        prop_oneof![Just(i64::MAX), Just(i64::MIN), any::<i64>(), -5..5i64]
    }

    proptest! {
        #[test]
        fn sums_are_those_of_wide_integers(
            batches in prop::collection::vec(prop::collection::vec((0..4u32, values()), 0..6), 0..6),
        ) {
            let mut sums = Sums::new(4);
            let mut expected = [0i128; 4];
            for batch in &batches {
                let (stacks, values): (Vec<u32>, Vec<i64>) = batch.iter().copied().unzip();
                sums.add(&stacks, &values).unwrap();
                batch.iter().for_each(|(stack, value)| expected[*stack as usize] += i128::from(*value));
            }
            let expected: Option<Vec<i64>> = expected.iter().map(|sum| i64::try_from(*sum).ok()).collect();
            prop_assert_eq!(Accumulator::Sum(sums).finish().ok(), expected);
        }
    }

    #[test]
    fn means_round_each_series_sum_once() {
        let mut means = Accumulator::mean(2);
        means.add(&[0u32, 0, 1], &[1, 1, -1]).unwrap();
        means.end_series(3);
        means.add(&[0u32], &[5]).unwrap();
        means.end_series(0);
        means.add(&[1u32], &[1]).unwrap();
        means.end_series(8_192);
        let third = |n: i64| (n * MEAN_SCALE + n.signum()) / 3;
        assert_eq!(means.finish().unwrap(), [third(2), third(-1) + 1]);
    }

    #[test]
    fn means_of_large_sums_are_exact() {
        let narrow_max = i64::MAX / (4 * MEAN_SCALE);
        for sum in [narrow_max, narrow_max + 1, -narrow_max, -narrow_max - 1] {
            for count in [1, 3, u32::MAX] {
                let twice = 2 * i128::from(sum) * i128::from(MEAN_SCALE)
                    + i128::from(sum.signum()) * i128::from(count);
                assert_eq!(scaled_mean(i128::from(sum), count), twice / (2 * i128::from(count)));
            }
        }
        let mut means = Accumulator::mean(1);
        means.add(&[0u32, 0], &[i64::MAX, i64::MAX]).unwrap();
        means.end_series(2 * MEAN_SCALE as u32);
        means.add(&[0u32], &[5]).unwrap();
        means.end_series(5);
        assert_eq!(means.finish(), Err(SumOverflow), "i64::MAX and 4096 more");
    }

    #[test]
    fn a_stack_out_of_range_is_named() {
        assert_eq!(Accumulator::sum(3).add(&[2u32, 3], &[1, 1]), Err(UnknownStack(3)));
        assert_eq!(Accumulator::mean(3).add(&[-1i32], &[1]), Err(UnknownStack(u32::MAX)));
    }
}
