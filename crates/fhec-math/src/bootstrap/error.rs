//! What a bootstrap does to the values that it refreshes.
//!
//! Values here are in units of the largest that a bootstrap takes: value times scale over
//! [`BootstrapSpec::input_scale`], within [−1, 1].

use std::f64::consts::TAU;

use super::BootstrapSpec;

/// Bits by which rounding errors grow between coefficients-to-slots and the result, for a cosine whose angle is doubled three
/// times: measured, and the same within a quarter of a bit for all rings.
const GROWTH: f64 = 3.2;

impl BootstrapSpec {
    /// Standard deviation of the error that a bootstrap adds, in a ring of degree `2^log_n` with dense ternary secret and a
    /// chain that begins with `q_0`: rounding errors of `√(N(h+1)/12)` in the slots at the scale of the message, grown by
    /// the range `K` of the cosine and by its evaluation.
    pub fn error_std(&self, log_n: u32, q_0: f64) -> f64 {
        let n = f64::from(log_n).exp2();
        let rounding = (n * (2.0 * n / 3.0 + 1.0) / 12.0).sqrt().log2();
        let message = q_0.log2() - f64::from(self.log_message_ratio);
        (rounding + f64::from(self.range).log2() + GROWTH - message).exp2()
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
        assert!((18.5..19.5).contains(&bits), "{bits}");
        let lost = (1.0 - spec.bend(1.0)).log2();
        assert!((-19.4..-19.2).contains(&lost), "{lost}");
        assert_eq!(spec.bend(0.0), 0.0);
        let straight = BootstrapSpec { arcsine: true, log_message_ratio: 8, ..spec };
        assert!((1.0 - straight.bend(1.0)).abs() < 2f64.powi(-24));
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
