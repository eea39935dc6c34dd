//! Which stack is drawn how often.

/// Ranks drawn by Zipf's law with s = 1.0: the second is drawn half as often as the first, the third a third.
#[derive(Debug)]
pub(crate) struct Popularity {
    /// For each rank the largest draw, of all 2^64, that still means it.
    bounds: Vec<u64>,
}

impl Popularity {
    /// Popularity of so many ranks; at least 1.
    pub(crate) fn zipf(ranks: usize) -> Self {
        let total: f64 = (1..=ranks).map(|rank| 1.0 / rank as f64).sum();
        let mut sum = 0.0;
        let bounds = (1..=ranks).map(|rank| {
            sum += 1.0 / rank as f64;
            (sum / total * 2f64.powi(64)) as u64
        });
        Self { bounds: bounds.collect() }
    }

    /// The rank, from 0, that an evenly distributed number means.
    pub(crate) fn rank(&self, draw: u64) -> u32 {
        let rank = self.bounds.partition_point(|bound| *bound < draw);
        // Rounding may leave a gap above the last bound.
        rank.min(self.bounds.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::mix;

    #[test]
    fn ranks_are_drawn_in_inverse_proportion() {
        let popularity = Popularity::zipf(4);
        let mut drawn = [0_f64; 4];
        (0..100_000).for_each(|draw| drawn[popularity.rank(mix(draw)) as usize] += 1.0);
        for (rank, count) in (1..).zip(drawn) {
            let expected = drawn[0] / f64::from(rank);
            assert!((count - expected).abs() < expected / 20.0, "{drawn:?}");
        }
        assert_eq!((popularity.rank(0), popularity.rank(u64::MAX)), (0, 3));
    }
}
