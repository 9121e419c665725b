//! Packed tensors as plain numbers.

/// The slots of one or more ciphertexts, each `period` values long and repeated with that period.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots {
    period: usize,
    /// Ciphertext after ciphertext.
    values: Vec<f64>,
}

impl Slots {
    /// Slots of `values.len() / period` ciphertexts.
    ///
    /// # Panics
    /// When `values` is not a positive multiple of `period`.
    pub fn new(period: usize, values: Vec<f64>) -> Self {
        assert!(!values.is_empty() && values.len().is_multiple_of(period), "values do not fill whole periods");
        Slots { period, values }
    }

    /// Zeros.
    pub fn zero(period: usize, ciphertexts: usize) -> Self {
        Slots { period, values: vec![0.0; period * ciphertexts] }
    }

    /// Period of the contents.
    pub fn period(&self) -> usize {
        self.period
    }

    /// Values held, one period a ciphertext.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, ciphertext after ciphertext.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Value in global slot `at`, for ciphertexts of `slots` slots.
    pub fn global(&self, at: usize, slots: usize) -> f64 {
        self.values[at / slots * self.period + at % slots % self.period]
    }

    /// The same contents written down with a longer period.
    pub(crate) fn extended(&self, period: usize) -> std::borrow::Cow<'_, [f64]> {
        if period == self.period {
            return (&self.values).into();
        }
        let times = (period / self.period).max(1);
        self.values.chunks_exact(self.period).flat_map(|block| block.repeat(times)).collect::<Vec<_>>().into()
    }

    /// `f` of every value.
    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Slots { period: self.period, values: self.values.iter().map(|&v| f(v)).collect() }
    }

    /// `f` of the values of both, slot by slot.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let period = self.period.max(other.period);
        let (a, b) = (self.extended(period), other.extended(period));
        Slots { period, values: a.iter().zip(b.iter()).map(|(&x, &y)| f(x, y)).collect() }
    }

    /// Slot `i + steps` in slot `i`.
    pub(crate) fn rotated(&self, steps: i64) -> Self {
        let mut out = self.clone();
        let left = steps.rem_euclid(self.period as i64) as usize;
        out.values.chunks_exact_mut(self.period).for_each(|block| block.rotate_left(left));
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
        assert_eq!(a.global(5, 8), 2.0);
    }
}
