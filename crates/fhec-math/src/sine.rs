//! The sine error of bootstrapping, and how a following polynomial undoes it at no cost.
//!
//! EvalMod approximates the reduction modulo `q0` by a sine: with the message ratio `R = q0/Δ`, a slot `m` comes out as
//! `R/2π · sin(2π·m/R)`, about `m − 6.58·m³/R²` (2020/1203 §5). For `|m| ≤ 1` that is an error of 2^-17.3 at `R = 2^10` and of
//! 2^-13.3 at `R = 2^8`. EvalMod can append a polynomial for the arcsine, which takes two levels. But where the bootstrapped value is
//! the argument of a polynomial that approximates some `f` anyway, approximating `f ∘ undo` instead, with [`SineError::undo`],
//! cancels the error with the same degree and depth: `undo` is so close to the identity that `f ∘ undo` is as easy to approximate as `f`.
//!
//! What it gains is bounded by the fit. In a test here SiLU on `[−8, 8]` with degree 63 goes from 13.3 to 36.9 bits at
//! `R = 2^8`, with degree 31 from 13.3 to 19.2. A polynomial for ReLU is much farther off than the sine and gains nothing. In ReLU
//! as `x·(1 + sign(x))/2` the sign is not affected, and the factor `x` can be corrected by [`SineError::cubic`] beside the
//! composite for the sign: two products, no level.

use std::f64::consts::TAU;

/// The distortion `m ↦ R/2π · sin(2π·m/R)` of a message ratio `R`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SineError {
    ratio: f64,
}

impl SineError {
    /// For the message ratio `q0/Δ`; `None` unless it is a number of at least 8, so that `|m| ≤ 1` lies well within the rising part of
    /// the sine.
    pub fn new(ratio: f64) -> Option<Self> {
        (ratio >= 8.0 && ratio.is_finite()).then_some(SineError { ratio })
    }

    /// What becomes of a slot `m`.
    pub fn distort(&self, m: f64) -> f64 {
        self.ratio / TAU * libm::sin(TAU * m / self.ratio)
    }

    /// The slot that became `y`; values beyond what a slot can become are clamped.
    pub fn undo(&self, y: f64) -> f64 {
        self.ratio / TAU * libm::asin((TAU * y / self.ratio).clamp(-1.0, 1.0))
    }

    /// Coefficient `c` of `y + c·y³`, which undoes the distortion up to the fifth power: `(2π/R)²/6`.
    pub fn cubic(&self) -> f64 {
        (TAU / self.ratio).powi(2) / 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chebyshev::clenshaw;
    use std::f64::consts::PI;

    /// Chebyshev coefficients of nearly the best polynomial on [−1, 1].
    fn fit(f: impl Fn(f64) -> f64, degree: usize) -> Vec<f64> {
        let n = 4 * (degree + 1);
        let angle = |i: usize| PI * (i as f64 + 0.5) / n as f64;
        (0..=degree)
            .map(|k| {
                let sum: f64 = (0..n).map(|i| f(angle(i).cos()) * (k as f64 * angle(i)).cos()).sum();
                sum * if k == 0 { 1.0 } else { 2.0 } / n as f64
            })
            .collect()
    }

    /// Bits of f(m), for messages in [−1, 1] that went through a bootstrap: with f fitted, and with f ∘ undo.
    fn bits(sine: SineError, f: impl Fn(f64) -> f64, degree: usize) -> [f64; 2] {
        // The polynomial's interval is that of the distorted messages.
        let edge = sine.distort(1.0);
        let plain = fit(&f, degree);
        let undoing = fit(|t| f(sine.undo(t * edge)), degree);
        let worst = |value: &dyn Fn(f64) -> f64| {
            let messages = (-2000..=2000).map(|i| f64::from(i) / 2000.0);
            -messages.map(|m| (value(m) - f(m)).abs()).fold(0.0, f64::max).log2()
        };
        [worst(&|m| clenshaw(&plain, sine.distort(m))), worst(&|m| clenshaw(&undoing, sine.distort(m) / edge))]
    }

    fn sine(log2: i32) -> SineError {
        SineError::new(2f64.powi(log2)).expect("large enough")
    }

    #[test]
    fn undoing_is_the_inverse_and_the_cubic_most_of_it() {
        for log2 in [8, 10] {
            let s = sine(log2);
            for i in -100..=100 {
                let m = f64::from(i) / 100.0;
                let y = s.distort(m);
                assert!((s.undo(y) - m).abs() < 1e-14);
                // The next term is 3/40·(2π/R)⁴·m⁵.
                let left = (y + s.cubic() * y.powi(3) - m).abs();
                assert!(left <= 1.01 * 3.0 / 40.0 * (TAU / 2f64.powi(log2)).powi(4) + 1e-15);
            }
            let error = -(1.0 - s.distort(1.0)).log2();
            assert!((error - (2.0 * f64::from(log2) - 6.58f64.log2())).abs() < 0.01, "{error}");
        }
        for bad in [0.0, 7.9, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(SineError::new(bad), None);
        }
    }

    #[test]
    fn smooth_activations_lose_the_sine_error() {
        let silu = |x: f64| x / (1.0 + (-8.0 * x).exp());
        let [plain, undone] = bits(sine(8), silu, 63);
        assert!(plain < 13.5 && undone > 36.0, "{plain} {undone}");
        let [plain, undone] = bits(sine(10), silu, 63);
        assert!(plain < 17.5 && undone > 36.0, "{plain} {undone}");
        let [plain, undone] = bits(sine(8), silu, 31);
        assert!(plain < 13.5 && undone > 19.0, "{plain} {undone}");
    }

    #[test]
    fn where_the_fit_is_worse_than_the_sine_nothing_is_gained_or_lost() {
        for degree in [15, 63, 127] {
            let [plain, undone] = bits(sine(8), |x| x.max(0.0), degree);
            assert!((plain - undone).abs() < 0.05, "degree {degree}: {plain} {undone}");
        }
    }
}
