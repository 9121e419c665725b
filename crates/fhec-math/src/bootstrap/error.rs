//! What a bootstrap does to the values that it refreshes.
//!
//! Values here are in units of the largest that a bootstrap takes: value times scale over
//! [`BootstrapSpec::input_scale`], within [−1, 1].

use std::f64::consts::TAU;

use super::BootstrapSpec;

/// Bits by which rounding errors grow between coefficients-to-slots and the result, for a cosine whose angle is doubled three
/// times. Measured at `N = 2^15` and `2^16`, where it is 1.8 to 2.6.
const GROWTH: f64 = 2.4;

/// Rounding of both parts of a ciphertext in the slots: `√(N(h+1)/12)`, `h = 2N/3` for a dense ternary secret.
fn rounding(log_n: u32) -> f64 {
    let n = f64::from(log_n).exp2();
    (n * (2.0 * n / 3.0 + 1.0) / 12.0).sqrt()
}

impl BootstrapSpec {
    /// Standard deviation of the error that a bootstrap adds, in a ring of degree `2^log_n` with dense ternary secret and a
    /// chain that begins with `q_0`: rounding errors of `√(N(h+1)/12)` in the slots at the scale of the message, grown by
    /// the range `K` of the cosine and by its evaluation.
    pub fn error_std(&self, log_n: u32, q_0: f64) -> f64 {
        let message = q_0.log2() - f64::from(self.log_message_ratio);
        (rounding(log_n).log2() + f64::from(self.range).log2() + GROWTH - message).exp2()
    }

    /// Standard deviation of the error of slots-to-coefficients, relative to the root mean square of the values: the diagonals of its
    /// `m` matrices are rounded to scales `σ`, which [share](Self::down) the bits of `q_0` and of the primes of its levels, about as large.
    /// Diagonals of period `n` err by `√(2n/12)/σ`; each matrix has as much more for its period.
    pub fn transform_error(&self, log_slots: u32, q_0: f64) -> f64 {
        let matrices = self.down(log_slots);
        let (count, levels) = (matrices.len() as f64, self.input_level(log_slots) as f64);
        let end = q_0.log2() - f64::from(self.log_message_ratio);
        let layers: f64 = matrices.iter().map(|matrix| f64::from(matrix.group.last) / 2.0).sum();
        let bits = (levels * q_0.log2() + end - self.input_scale.log2() - layers) / count;
        (count / 6.0).sqrt() * (-bits).exp2()
    }

    /// The factor at the sine, a little above 1 where no arcsine follows. The sine falls behind by `(2πε)²/6` of its argument;
    /// three quarters of what that is at the end of the range, added everywhere, leave a quarter of the error at worst.
    pub fn slope(&self) -> f64 {
        if self.arcsine { 1.0 } else { 1.0 + 0.75 * self.bend_at_end() }
    }

    /// How far the sine falls behind its argument at the end of the range.
    fn bend_at_end(&self) -> f64 {
        let angle = TAU * (-f64::from(self.log_message_ratio)).exp2();
        angle * angle / 6.0
    }

    /// What a value becomes: the sine bends it.
    pub fn bend(&self, value: f64) -> f64 {
        let angle = TAU * (-f64::from(self.log_message_ratio)).exp2();
        let sine = (angle * value).sin();
        let straightened = if self.arcsine { sine + sine.powi(3) / 6.0 } else { self.slope() * sine };
        straightened / angle
    }

    /// The value that [`bend`](Self::bend) took to `y`; beyond what a value can become, the nearest.
    ///
    /// Where a polynomial that stands for some `f` follows the bootstrap, one that stands for `f ∘ unbend` has the same degree and
    /// depth and gives `f` of the values before the bend: the arcsine at no cost. That lets a bootstrap have a smaller message
    /// ratio, whose rounding errors are smaller and whose bend would be too large otherwise.
    pub fn unbend(&self, y: f64) -> f64 {
        let angle = TAU * (-f64::from(self.log_message_ratio)).exp2();
        let straightened = y * angle;
        let sine = if self.arcsine {
            // s + s³/6 = v, from s = v on by Newton's method: it rises steadily and hardly bends.
            (0..6).fold(straightened, |s, _| s - (s + s.powi(3) / 6.0 - straightened) / (1.0 + s * s / 2.0))
        } else {
            straightened / self.slope()
        };
        sine.clamp(-1.0, 1.0).asin() / angle
    }

    /// Standard deviations of the errors of slots with different `I`, relative to that of all; all classes are equally likely.
    ///
    /// An error of the cosine of `φ = 2π(I − ¼)/2^r` is magnified like `1/sin φ` when the angle is doubled `r` times, so
    /// the remainder of `I` modulo `2^(r−1)` decides.
    pub fn error_classes(&self) -> Vec<f64> {
        let classes = 1u32 << (self.double_angles - 1).min(16);
        let magnified = |i: u32| 1.0 / (TAU * (f64::from(i) - 0.25) / f64::from(2 * classes)).sin().abs();
        let square = (0..classes).map(|i| magnified(i).powi(2)).sum::<f64>() / f64::from(classes);
        (0..classes).map(|i| magnified(i) / square.sqrt()).collect()
    }

    /// How far the largest error in `2^log_slots` slots lies above the standard deviation, as a factor: that of as many
    /// normal numbers as the [class](Self::error_classes) with the largest errors has.
    pub fn worst_factor(&self, log_slots: u32) -> f64 {
        let classes = self.error_classes();
        let among = (2.0 * f64::from(log_slots).exp2() / classes.len() as f64).max(2.0);
        classes.iter().fold(0.0f64, |m, &c| m.max(c)) * (2.0 * among.ln()).sqrt()
    }

    /// Standard deviation of the error that two bootstraps add, the second for what the first one got wrong, `2^log_gain` times:
    /// that of the second, as much smaller, and the rounding of the result at `out_scale`. What the sine does to
    /// the error of the first is less than either.
    pub fn error_std_twice(&self, log_n: u32, q_0: f64, out_scale: f64, log_gain: u32) -> f64 {
        let second = self.error_std(log_n, q_0) * (-f64::from(log_gain)).exp2();
        second.hypot(rounding(log_n) / std::f64::consts::SQRT_2 / out_scale)
    }

    /// Root mean square of what the sine does to values with the given mean square, taken as normally distributed. The error
    /// `b·(m³ − ¾m)` has the mean square `b²·(15σ⁶ − 4.5σ⁴ + 9/16·σ²)`.
    pub fn bend_rms(&self, mean_square: f64) -> f64 {
        if self.arcsine {
            // The next term of the series, (2πε)⁵·3/40, where the tenth power of m has the mean 945·σ¹⁰.
            return 2.7 * self.bend_at_end().powi(2) * (945.0 * mean_square.powi(5)).sqrt();
        }
        let square = mean_square;
        self.bend_at_end() * (15.0 * square.powi(3) - 4.5 * square.powi(2) + 0.5625 * square).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deep_circuit_has_nineteen_bits() {
        let spec = BootstrapSpec::default();
        let bits = -spec.error_std(16, 50f64.exp2()).log2();
        assert!((19.0..20.0).contains(&bits), "{bits}");
        // Four matrices with a hundred bits between them.
        let transform = -spec.transform_error(15, 50f64.exp2()).log2();
        assert!((20.3..20.5).contains(&transform), "{transform}");
        let lost = (1.0 - spec.bend(1.0)).log2();
        assert!((-19.4..-19.2).contains(&lost), "{lost}");
        assert_eq!(spec.bend(0.0), 0.0);
        let straight = BootstrapSpec { arcsine: true, log_message_ratio: 8, ..spec };
        assert!((1.0 - straight.bend(1.0)).abs() < 2f64.powi(-24));
    }

    #[test]
    fn unbending_is_the_inverse() {
        for (log_message_ratio, arcsine) in [(10, false), (8, false), (5, false), (8, true)] {
            let spec = BootstrapSpec { log_message_ratio, arcsine, ..BootstrapSpec::default() };
            for k in -150..=150 {
                let value = f64::from(k) / 100.0;
                assert!((spec.unbend(spec.bend(value)) - value).abs() < 1e-13, "{log_message_ratio} {arcsine} {value}");
            }
            assert!(spec.unbend(1e9).is_finite());
        }
    }

    #[test]
    fn the_worst_slot_lies_three_bits_above_the_deviation() {
        let spec = BootstrapSpec::default();
        let classes = spec.error_classes();
        assert_eq!(classes.len(), 4);
        assert!((classes.iter().map(|c| c * c).sum::<f64>() - 4.0).abs() < 1e-12);
        let bits = spec.worst_factor(15).log2();
        assert!((2.8..3.2).contains(&bits), "{bits}");
        assert!(spec.worst_factor(10) < spec.worst_factor(15));
        // Without doubled angles all integers are alike.
        let alike = BootstrapSpec { double_angles: 1, ..spec };
        assert!((alike.worst_factor(15) - (2.0 * 2f64.powi(16).ln()).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn bends_of_normal_values_have_the_predicted_size() {
        for spec in [
            BootstrapSpec::default(),
            BootstrapSpec { arcsine: true, log_message_ratio: 8, ..BootstrapSpec::default() },
        ] {
            for sigma in [0.3, 1.0] {
                // The integral over the density, by sums.
                let density = |x: f64| (-0.5 * x * x).exp() / TAU.sqrt() * 0.01;
                let points = (-800..=800).map(|k| f64::from(k) / 100.0);
                let square: f64 = points.map(|x| density(x) * (spec.bend(sigma * x) - sigma * x).powi(2)).sum();
                let ratio = square.sqrt() / spec.bend_rms(sigma * sigma);
                assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
            }
        }
    }
}
