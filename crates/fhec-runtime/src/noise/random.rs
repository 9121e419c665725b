//! Reproducible Gaussian noise for simulations. Not for cryptography.

/// Standard normal numbers by the Box–Muller transform of SplitMix64.
pub(crate) struct Gaussian {
    state: u64,
    spare: Option<f64>,
}

impl Gaussian {
    /// The stream of a pair of numbers.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Gaussian { state: seed, spare: None };
        let state = mixed.word() ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        Gaussian { state, spare: None }
    }

    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1].
    fn uniform(&mut self) -> f64 {
        ((self.word() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// A number below `n`, from 1 to 2^32 of them.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_independence() {
        let mut g = Gaussian::new(1, 2);
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|_| g.next()).collect();
        let moment = |k: i32| values.iter().map(|v| v.powi(k)).sum::<f64>() / f64::from(n);
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.1);
        let share = (0..n).filter(|_| g.below(3) == 2).count() as f64 / f64::from(n);
        assert!((share - 1.0 / 3.0).abs() < 0.01, "{share}");
        let mut other = Gaussian::new(1, 3);
        let correlation = values.iter().map(|v| v * other.next()).sum::<f64>() / f64::from(n);
        assert!(correlation.abs() < 0.02);
        let mut same = Gaussian::new(1, 2);
        assert_eq!(values[0].to_bits(), same.next().to_bits());
    }
}
