//! Packed tensors as plain numbers.

use std::borrow::Cow;

/// The slots of one or more ciphertexts, each `period` slots long and repeated with that period.
///
/// A slot holds one value or, where several evaluations run side by side, one for each of them (its *lanes*).
#[derive(Clone, Debug, PartialEq)]
pub struct Slots {
    period: usize,
    lanes: usize,
    /// Ciphertext after ciphertext, slot after slot, lane after lane.
    values: Vec<f64>,
}

impl Slots {
    /// Slots of `values.len() / period` ciphertexts, with one lane.
    ///
    /// # Panics
    /// When `values` is not a positive multiple of `period`.
    pub fn new(period: usize, values: Vec<f64>) -> Self {
        Slots::interleave(period, &[values])
    }

    /// Slots with one lane for each entry of `lanes`.
    ///
    /// # Panics
    /// When there is no lane, or when one is not a positive multiple of `period` or as long as the first.
    pub fn interleave(period: usize, lanes: &[Vec<f64>]) -> Self {
        let len = lanes.first().map_or(0, Vec::len);
        assert!(len > 0 && len.is_multiple_of(period), "values do not fill whole periods");
        assert!(lanes.iter().all(|l| l.len() == len), "lanes of different lengths");
        let values = match lanes {
            [only] => only.clone(),
            _ => (0..len).flat_map(|i| lanes.iter().map(move |l| l[i])).collect(),
        };
        Slots { period, lanes: lanes.len(), values }
    }

    /// Zeros.
    pub fn zero(period: usize, ciphertexts: usize, lanes: usize) -> Self {
        Slots { period, lanes, values: vec![0.0; period * ciphertexts * lanes] }
    }

    /// Period of the contents.
    pub fn period(&self) -> usize {
        self.period
    }

    /// Values of a slot.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Values held, one period a ciphertext.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, ciphertext after ciphertext, slot after slot, lane after lane.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Value in global slot `at` of a lane, for ciphertexts of `slots` slots.
    pub fn global(&self, at: usize, slots: usize, lane: usize) -> f64 {
        self.values[(at / slots * self.period + at % slots % self.period) * self.lanes + lane]
    }

    /// The same contents written down with a longer period.
    pub(crate) fn extended(&self, period: usize) -> Cow<'_, [f64]> {
        if period == self.period {
            return (&self.values).into();
        }
        let times = (period / self.period).max(1);
        self.values
            .chunks_exact(self.period * self.lanes)
            .flat_map(|block| block.repeat(times))
            .collect::<Vec<_>>()
            .into()
    }

    /// The same contents with that many lanes, all alike where there was one.
    fn widened(&self, lanes: usize) -> Cow<'_, Self> {
        if lanes == self.lanes {
            return Cow::Borrowed(self);
        }
        let values = self.values.iter().flat_map(|&v| std::iter::repeat_n(v, lanes / self.lanes)).collect();
        Cow::Owned(Slots { period: self.period, lanes, values })
    }

    /// `f` of every value.
    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Slots { values: self.values.iter().map(|&v| f(v)).collect(), ..*self }
    }

    /// `f` of the values of both, slot by slot. One lane serves all lanes of the other.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let (period, lanes) = (self.period.max(other.period), self.lanes.max(other.lanes));
        let (a, b) = (self.widened(lanes), other.widened(lanes));
        let (a, b) = (a.extended(period), b.extended(period));
        Slots { period, lanes, values: a.iter().zip(b.iter()).map(|(&x, &y)| f(x, y)).collect() }
    }

    /// Slot `i + steps` in slot `i`.
    pub(crate) fn rotated(&self, steps: i64) -> Self {
        let mut out = self.clone();
        let left = steps.rem_euclid(self.period as i64) as usize * self.lanes;
        out.values.chunks_exact_mut(self.period * self.lanes).for_each(|block| block.rotate_left(left));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_periods_repeat() {
        let a = Slots::new(2, vec![1.0, 2.0]);
        let b = Slots::new(4, vec![10.0, 20.0, 30.0, 40.0]);
        assert_eq!(a.zip(&b, |x, y| x + y).values(), [11.0, 22.0, 31.0, 42.0]);
        assert_eq!(b.rotated(1).values(), [20.0, 30.0, 40.0, 10.0]);
        assert_eq!(b.rotated(-1).values(), [40.0, 10.0, 20.0, 30.0]);
        assert_eq!(a.global(5, 8, 0), 2.0);
    }

    #[test]
    fn lanes_stay_apart() {
        let wide = Slots::interleave(4, &[vec![1.0, 2.0, 3.0, 4.0], vec![10.0, 20.0, 30.0, 40.0]]);
        let one = Slots::new(2, vec![0.5, 0.25]);
        let sum = wide.zip(&one, |x, y| x + y);
        let lane = |s: &Slots, lane: usize| (0..4).map(|i| s.global(i, 4, lane)).collect::<Vec<_>>();
        assert_eq!(lane(&sum, 0), [1.5, 2.25, 3.5, 4.25]);
        assert_eq!(lane(&sum, 1), [10.5, 20.25, 30.5, 40.25]);
        assert_eq!(lane(&wide.rotated(-1), 1), [40.0, 10.0, 20.0, 30.0]);
    }
}
