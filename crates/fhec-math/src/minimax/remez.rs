//! Remez' algorithm for odd polynomials that approximate the sign function.
//!
//! On `[lo, hi]` with `0 < lo` the odd powers `x, x³, …` are a Chebyshev system, so the best approximation of the
//! constant 1 by `n` of them is the one whose error takes its maximum with alternating signs at `n + 1` points; by
//! oddness it is the best approximation of the sign on both sides of zero (2020/834 §2). Its derivative, an even
//! polynomial, has at most `n − 1` positive zeros, so the points are `lo`, one zero of the derivative between
//! each pair of neighbouring zeros of the error, and `hi`. That makes the exchange step of the algorithm unambiguous.
//!
//! Work is done in double-double arithmetic (about 106 bits) in the basis `T_1, T_3, …` of the interval divided by `hi`:
//! for a first stage `1 − error` is as small as 2^-12, for a last one the error itself may be.

use super::MinimaxError;
use super::double::Double;

/// Rounds of the exchange that are more than enough: convergence is quadratic, in practice fewer than twelve.
const ROUNDS: usize = 60;
/// How far apart the largest and the smallest extremum may stay, relative to them.
const LEVELLED: f64 = 1e-12;
/// …or absolutely: below this, differences vanish in coefficients of type f64.
const NEGLIGIBLE: f64 = 1.0 / (1u64 << 58) as f64;

/// The odd polynomial of least error, in extended precision.
pub(super) struct OddMinimax {
    /// Coefficients of `T_1, T_3, …` as functions of `x / hi`.
    pub(super) odd: Vec<Double>,
    /// Largest distance from 1 on `[lo, hi]`.
    pub(super) error: f64,
}

/// Best approximation of the sign on `[−hi, −lo] ∪ [lo, hi]` by odd polynomials of the given odd degree; `ratio` is
/// `lo / hi`.
pub(super) fn minimax_sign(degree: usize, ratio: f64) -> Result<OddMinimax, MinimaxError> {
    let n = degree.div_ceil(2);
    // Chebyshev's points of [ratio, 1]; cosines from `libm`, so that every platform starts from the same bits.
    let mut points: Vec<f64> = (0..=n)
        .map(|i| {
            let cosine = libm::cos(std::f64::consts::PI * i as f64 / n as f64);
            ((1.0 + ratio) - (1.0 - ratio) * cosine) / 2.0
        })
        .collect();
    (points[0], points[n]) = (ratio, 1.0);
    for _ in 0..ROUNDS {
        let odd = levelled(&points);
        let error = |x: f64| (value(&odd, x) - Double::from(1.0)).to_f64();
        let zeros: Vec<f64> = points.windows(2).map(|w| zero(error, w[0], w[1])).collect();
        let inner = zeros.windows(2).map(|w| zero(|x| derivative(&odd, x).to_f64(), w[0], w[1]));
        points = std::iter::once(ratio).chain(inner).chain([1.0]).collect();
        let extrema = points.iter().map(|&x| error(x).abs());
        let (least, most) = extrema.fold((f64::INFINITY, 0.0f64), |(l, m), e| (l.min(e), m.max(e)));
        if most - least <= LEVELLED * most + NEGLIGIBLE {
            return Ok(OddMinimax { odd, error: most });
        }
    }
    Err(MinimaxError::NoConvergence { degree, ratio })
}

/// The polynomial whose error is the same at all `points`, with alternating signs.
fn levelled(points: &[f64]) -> Vec<Double> {
    let unknowns = points.len();
    let rows = points.iter().enumerate().map(|(i, &x)| {
        let x = Double::from(x);
        let twice_t2 = (x * x * 2.0 - Double::from(1.0)) * 2.0;
        // T_{k+2} = 2·T_2·T_k − T_{k−2}, and T_{−1} = T_1.
        let (mut before, mut now) = (x, x);
        let mut row = Vec::with_capacity(unknowns + 1);
        for _ in 1..unknowns {
            row.push(now);
            (before, now) = (now, twice_t2 * now - before);
        }
        row.push(Double::from(if i % 2 == 0 { 1.0 } else { -1.0 }));
        row.push(Double::from(1.0));
        row
    });
    let mut solution = solve(rows.collect());
    solution.truncate(unknowns - 1);
    solution
}

/// Solves a system given as rows with their right-hand sides at the end: elimination with pivots by column.
fn solve(mut rows: Vec<Vec<Double>>) -> Vec<Double> {
    let n = rows.len();
    for k in 0..n {
        let size = |row: &Vec<Double>| row[k].to_f64().abs();
        let pivot = (k..n).max_by(|&i, &j| size(&rows[i]).total_cmp(&size(&rows[j]))).unwrap_or(k);
        rows.swap(k, pivot);
        let (above, below) = rows.split_at_mut(k + 1);
        let above = &above[k];
        for row in below {
            let factor = row[k] / above[k];
            for (a, &b) in row[k..].iter_mut().zip(&above[k..]) {
                *a = *a - factor * b;
            }
        }
    }
    let mut solution = vec![Double::from(0.0); n];
    for k in (0..n).rev() {
        let known = (k + 1..n).fold(rows[k][n], |sum, j| sum - rows[k][j] * solution[j]);
        solution[k] = known / rows[k][k];
    }
    solution
}

/// `Σ odd[j]·T_{2j+1}(x)`, by Clenshaw's recurrence in steps of two.
fn value(odd: &[Double], x: f64) -> Double {
    let (b0, b1) = recurrence(odd, x, |_, c| c);
    (b0 - b1) * x
}

/// The derivative, `Σ (2j + 1)·odd[j]·U_{2j}(x)`.
fn derivative(odd: &[Double], x: f64) -> Double {
    let (b0, b1) = recurrence(odd, x, |j, c| c * (2 * j + 1) as f64);
    b0 + b1
}

fn recurrence(odd: &[Double], x: f64, scaled: impl Fn(usize, Double) -> Double) -> (Double, Double) {
    let x = Double::from(x);
    let twice_t2 = (x * x * 2.0 - Double::from(1.0)) * 2.0;
    let (mut b0, mut b1) = (Double::from(0.0), Double::from(0.0));
    for (j, &c) in odd.iter().enumerate().rev() {
        (b0, b1) = (scaled(j, c) + twice_t2 * b0 - b1, b0);
    }
    (b0, b1)
}

/// A zero between `a < b`, where `f` has different signs, to within 1e-10 of the interval: false position, halving the end that
/// stays. At an extremum such a distance changes the value by 1e-20 of itself.
fn zero(f: impl Fn(f64) -> f64, mut a: f64, mut b: f64) -> f64 {
    let (mut fa, mut fb) = (f(a), f(b));
    let tolerance = (b - a) * 1e-10;
    let mut stayed = 0;
    for _ in 0..100 {
        if b - a <= tolerance {
            break;
        }
        let straight = (a * fb - b * fa) / (fb - fa);
        let middle = if straight > a && straight < b { straight } else { a.midpoint(b) };
        let fm = f(middle);
        if fm == 0.0 {
            return middle;
        }
        if (fm > 0.0) == (fb > 0.0) {
            (b, fb) = (middle, fm);
            fa *= if stayed == -1 { 0.5 } else { 1.0 };
            stayed = -1;
        } else {
            (a, fa) = (middle, fm);
            fb *= if stayed == 1 { 0.5 } else { 1.0 };
            stayed = 1;
        }
    }
    a.midpoint(b)
}
