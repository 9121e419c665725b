//! Weighted least-squares fits of one function by polynomials of many degrees at once.
//!
//! In the basis of polynomials that are orthogonal under the weight, the best polynomial of degree d is the beginning of the
//! best one of any higher degree. The basis comes from its three-term recurrence (Stieltjes' procedure; Gautschi, *Orthogonal
//! Polynomials*, 2004, §2.2), which is stable on points and under weights as they are here.

use fhec_ir::nn::Range;

/// A fitted polynomial and how good it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fit {
    /// Coefficients of T_0, T_1, … of the interval mapped to [-1, 1], one more than the degree.
    pub(crate) chebyshev: Vec<f64>,
    /// Root mean square of the error under the weight.
    pub(crate) rms: f64,
    /// Largest error on the interval.
    pub(crate) max: f64,
}

/// Points at which a fit is made and judged, at least. Chebyshev-spaced, so that the ends are held down.
const POINTS: usize = 1024;

/// Points for each coefficient, at least: where there are fewer, what a polynomial does between them stays unseen.
const POINTS_EACH: usize = 4;

/// A member of the orthogonal basis: at the points, and its Chebyshev coefficients.
struct Member {
    at: Vec<f64>,
    chebyshev: Vec<f64>,
}

/// Fits `f` on `interval` by polynomials of the given ascending degrees, minimising the squared error under `weight`
/// (OLA's layerwise fit: the distribution of the values, widened so that tails are covered).
pub(crate) fn fits(
    f: impl Fn(f64) -> f64,
    interval: Range,
    degrees: &[usize],
    weight: impl Fn(f64) -> f64,
) -> Vec<Fit> {
    let (mid, half) = ((interval.lo + interval.hi) / 2.0, (interval.hi - interval.lo) / 2.0);
    let coefficients = degrees.last().map_or(0, |d| d + 1);
    let count = POINTS.max(POINTS_EACH * coefficients);
    let points: Vec<f64> =
        (0..count).map(|i| -(std::f64::consts::PI * (i as f64 + 0.5) / count as f64).cos()).collect();
    // The points crowd at the ends: dividing by their density makes the weight one per unit length.
    let weights: Vec<f64> = points.iter().map(|t| weight(mid + half * t) * (1.0 - t * t).sqrt()).collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|w| w / total).collect();
    let dot = |a: &[f64], b: &[f64]| -> f64 { weights.iter().zip(a).zip(b).map(|((w, a), b)| w * a * b).sum() };
    // What is left of the function; the next coefficient comes from it, so that rounding errors do not add up.
    let mut rest: Vec<f64> = points.iter().map(|t| f(mid + half * t)).collect();
    let mut sum = vec![0.0; coefficients];
    let mut before = Member { at: vec![0.0; count], chebyshev: vec![0.0; sum.len() + 1] };
    let mut member = Member { at: vec![1.0; count], chebyshev: vec![0.0; sum.len() + 1] };
    member.chebyshev[0] = 1.0;
    let mut norm = 0.0;
    let mut found = Vec::with_capacity(degrees.len());
    for degree in 0..sum.len() {
        let coefficient = dot(&rest, &member.at);
        rest.iter_mut().zip(&member.at).for_each(|(r, p)| *r -= coefficient * p);
        sum.iter_mut().zip(&member.chebyshev).for_each(|(s, c)| *s += coefficient * c);
        if degrees.contains(&degree) {
            let max = rest.iter().fold(0.0, |m: f64, r| if r.is_nan() { f64::NAN } else { m.max(r.abs()) });
            found.push(Fit { chebyshev: sum[..=degree].to_vec(), rms: dot(&rest, &rest).sqrt(), max });
        }
        (before, member, norm) = next(&points, before, member, norm, dot);
    }
    found
}

/// The next member of the basis and its norm before it was made one: `β·p_{k+1} = (t − α)·p_k − β'·p_{k−1}`.
fn next(
    points: &[f64],
    before: Member,
    member: Member,
    norm: f64,
    dot: impl Fn(&[f64], &[f64]) -> f64,
) -> (Member, Member, f64) {
    let shifted: Vec<f64> = points.iter().zip(&member.at).map(|(t, p)| t * p).collect();
    let middle = dot(&shifted, &member.at);
    let at: Vec<f64> =
        shifted.iter().zip(&member.at).zip(&before.at).map(|((s, p), b)| s - middle * p - norm * b).collect();
    // t·T_j = (T_{j+1} + T_{j−1}) / 2, and t·T_0 = T_1.
    let c = &member.chebyshev;
    let times_t = |j: usize| {
        let below = if j == 0 { 0.0 } else { c[j - 1] };
        let above = c.get(j + 1).copied().unwrap_or(0.0);
        (above + if j == 1 { 2.0 * below } else { below }) / 2.0
    };
    let chebyshev: Vec<f64> = (0..c.len()).map(|j| times_t(j) - middle * c[j] - norm * before.chebyshev[j]).collect();
    let length = dot(&at, &at).sqrt();
    let one = |v: Vec<f64>| v.into_iter().map(|x| x / length).collect();
    (member, Member { at: one(at), chebyshev: one(chebyshev) }, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_math::chebyshev::clenshaw;

    const UNIT: Range = Range { lo: -1.0, hi: 1.0 };

    fn fit(f: impl Fn(f64) -> f64, interval: Range, degree: usize, weight: impl Fn(f64) -> f64) -> Fit {
        fits(f, interval, &[degree], weight).remove(0)
    }

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
        let bumpy = |x: f64| if x.abs() < 0.1 { 1.0 } else { 1e-2 };
        for weight in [&(|_: f64| 1.0) as &dyn Fn(f64) -> f64, &bumpy] {
            for degree in [127, 511] {
                let f = fit(|x: f64| (5.0 * x).tanh(), UNIT, degree, weight);
                assert!(f.max < 1e-10, "{degree}: {}", f.max);
                for i in 0..=1000 {
                    let x = f64::from(i) / 500.0 - 1.0;
                    assert!((clenshaw(&f.chebyshev, x) - (5.0 * x).tanh()).abs() < 1e-10, "{degree}: {x}");
                }
            }
        }
    }

    #[test]
    fn no_polynomial_of_the_degree_is_better() {
        // The normal equations: what is left is orthogonal to every T_k up to the degree.
        let (relu, weight) = (|x: f64| x.max(0.0), |x: f64| (-20.0 * x * x).exp() + 0.01);
        for found in fits(relu, UNIT, &[1, 4, 15], weight) {
            for k in 0..found.chebyshev.len() {
                let (mut product, mut size) = (0.0, 0.0);
                for i in 0..POINTS {
                    let angle = std::f64::consts::PI * (i as f64 + 0.5) / POINTS as f64;
                    let x = -angle.cos();
                    let w = weight(x) * angle.sin();
                    product += w * (relu(x) - clenshaw(&found.chebyshev, x)) * (k as f64 * x.acos()).cos();
                    size += w;
                }
                assert!((product / size).abs() < 1e-13, "T_{k} of {}: {}", found.chebyshev.len() - 1, product / size);
            }
        }
    }

    #[test]
    fn the_error_falls_with_the_degree() {
        let all: Vec<usize> = (0..128).collect();
        let found = fits(|x: f64| x.max(0.0), Range { lo: -3.0, hi: 5.0 }, &all, |x| (-x * x).exp() + 0.01);
        assert_eq!(found.len(), 128);
        for (degree, pair) in found.windows(2).enumerate() {
            assert!(pair[1].rms <= pair[0].rms, "degree {}: {} after {}", degree + 1, pair[1].rms, pair[0].rms);
        }
        assert!(found[127].rms < found[3].rms / 50.0);
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
