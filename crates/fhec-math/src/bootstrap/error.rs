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

    /// What a value becomes: the sine bends it.
    pub fn bend(&self, value: f64) -> f64 {
        let angle = TAU * (-f64::from(self.log_message_ratio)).exp2();
        (angle * value).sin() / angle
    }

    /// Root mean square of what the sine does to values with the given mean square, taken as normally distributed:
    /// `(2π)²/6 · m³ · 2^(−2·ratio)`, where the sixth power of `m` has the mean `15·σ⁶`.
    pub fn bend_rms(&self, mean_square: f64) -> f64 {
        let ratio = (-2.0 * f64::from(self.log_message_ratio)).exp2();
        TAU * TAU / 6.0 * ratio * (15.0 * mean_square.powi(3)).sqrt()
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
        assert!((1.0 - spec.bend(1.0)).log2() < -17.2 && (1.0 - spec.bend(1.0)).log2() > -17.4);
        assert_eq!(spec.bend(0.0), 0.0);
        // Constant values of ±1 have fifteen times less than normal ones.
        assert!((spec.bend_rms(1.0) / (1.0 - spec.bend(1.0)) - 15f64.sqrt()).abs() < 0.01);
    }
}
