//! Weighted least-squares fits in the Chebyshev basis.

use fhec_ir::nn::Range;
use fhec_math::chebyshev::clenshaw;
use nalgebra::{DMatrix, DVector};

/// A fitted polynomial and how good it is.
#[derive(Clone, Debug)]
pub(crate) struct Fit {
    /// Coefficients of T_0, T_1, … of the interval mapped to [-1, 1].
    pub(crate) chebyshev: Vec<f64>,
    /// Root mean square of the error under the weight.
    pub(crate) rms: f64,
    /// Largest error on the interval.
    pub(crate) max: f64,
}

/// Points at which a fit is made and judged. Chebyshev-spaced, so that the ends are held down.
const POINTS: usize = 1024;

/// Fits `f` on `interval` by a polynomial of `degree`, minimising the squared error under `weight`
/// (OLA's layerwise fit: the distribution of the values, widened so that tails are covered).
/// QR on the Chebyshev basis, so that degree 127 is still well conditioned.
pub(crate) fn fit(f: impl Fn(f64) -> f64, interval: Range, degree: usize, weight: impl Fn(f64) -> f64) -> Fit {
    let (mid, half) = ((interval.lo + interval.hi) / 2.0, (interval.hi - interval.lo) / 2.0);
    let nodes: Vec<f64> =
        (0..POINTS).map(|i| -(std::f64::consts::PI * (i as f64 + 0.5) / POINTS as f64).cos()).collect();
    // The nodes crowd at the ends: dividing by their density makes the weight one per unit length.
    let weights: Vec<f64> = nodes.iter().map(|t| weight(mid + half * t) * (1.0 - t * t).sqrt()).collect();
    let values: Vec<f64> = nodes.iter().map(|t| f(mid + half * t)).collect();
    let mut basis = DMatrix::zeros(POINTS, degree + 1);
    let mut right = DVector::zeros(POINTS);
    for (row, ((&t, &w), &v)) in nodes.iter().zip(&weights).zip(&values).enumerate() {
        let root = w.sqrt();
        let (mut a, mut b) = (1.0, t);
        for k in 0..=degree {
            basis[(row, k)] = root * a;
            (a, b) = (b, 2.0 * t * b - a);
        }
        right[row] = root * v;
    }
    let qr = basis.qr();
    let projected = qr.q().transpose() * right;
    let chebyshev: Vec<f64> = match qr.r().solve_upper_triangular(&projected) {
        Some(c) => c.iter().copied().collect(),
        None => vec![0.0; degree + 1],
    };
    let mut fit = Fit { chebyshev, rms: 0.0, max: 0.0 };
    let total: f64 = weights.iter().sum();
    for ((&t, &w), &v) in nodes.iter().zip(&weights).zip(&values) {
        let e = clenshaw(&fit.chebyshev, t) - v;
        fit.rms += w / total * e * e;
        fit.max = fit.max.max(e.abs());
    }
    fit.rms = fit.rms.sqrt();
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Range = Range { lo: -1.0, hi: 1.0 };

    #[test]
    fn polynomials_are_recovered_exactly() {
        // 4x³ − 3x = T_3 on [-1, 1]; on [-2, 6] the same shape again
        let f = fit(|x| 4.0 * x * x * x - 3.0 * x, UNIT, 5, |_| 1.0);
        for (k, c) in f.chebyshev.iter().enumerate() {
            assert!((c - if k == 3 { 1.0 } else { 0.0 }).abs() < 1e-12, "T_{k}: {c}");
        }
        let wide = Range { lo: -2.0, hi: 6.0 };
        let f = fit(|x| x * x, wide, 2, |x| 1.0 + x.abs());
        for x in [-2.0, 0.0, 1.5, 6.0] {
            assert!((clenshaw(&f.chebyshev, (x - 2.0) / 4.0) - x * x).abs() < 1e-10);
        }
    }

    #[test]
    fn high_degrees_stay_well_conditioned() {
        let f = fit(|x: f64| (5.0 * x).tanh(), UNIT, 127, |_| 1.0);
        assert!(f.max < 1e-10, "{}", f.max);
    }

    #[test]
    fn weight_moves_the_error_to_where_it_matters_less() {
        let relu = |x: f64| x.max(0.0);
        let narrow = |x: f64| (-50.0 * x * x).exp() + 1e-3;
        let (even, weighted) = (fit(relu, UNIT, 7, |_| 1.0), fit(relu, UNIT, 7, narrow));
        let near_zero = |f: &Fit| (clenshaw(&f.chebyshev, 0.02) - 0.02).abs();
        assert!(near_zero(&weighted) < near_zero(&even) / 2.0);
    }
}
