//! Checked against closed forms, and against an independent evaluation in fixed point with 320 fractional bits.

use super::*;
use num_bigint::BigInt;
use num_traits::ToPrimitive;

const BITS: i32 = 320;

/// Exactly `x · 2^BITS`, for numbers of ordinary size.
fn fixed(x: f64) -> BigInt {
    let (mut mantissa, mut shift) = (x, 0);
    while mantissa.fract() != 0.0 {
        mantissa *= 2.0;
        shift += 1;
    }
    assert!(shift <= BITS && mantissa.abs() < 2f64.powi(63));
    BigInt::from(mantissa as i64) << (BITS - shift) as usize
}

fn real(x: &BigInt) -> f64 {
    (x >> (BITS - 100) as usize).to_f64().expect("in range") / 2f64.powi(100)
}

/// `Σ c_k·T_k(x)` by the three-term recurrence.
fn series(coefficients: &[f64], x: &BigInt) -> BigInt {
    let times = |a: &BigInt, b: &BigInt| (a * b) >> BITS as usize;
    let (mut before, mut now) = (fixed(1.0), x.clone());
    let mut sum = fixed(coefficients[0]);
    for &c in &coefficients[1..] {
        sum += times(&fixed(c), &now);
        (before, now) = (now.clone(), (times(x, &now) << 1usize) - before);
    }
    sum
}

fn composite(stages: &[Vec<f64>], x: f64) -> BigInt {
    stages.iter().fold(fixed(x), |y, stage| series(stage, &y))
}

/// Points of `[lo, hi]`, dense at both ends: halves evenly in x, in log x and by their distance from the upper end.
fn dense(lo: f64, hi: f64, count: u32) -> Vec<f64> {
    let share = |i: u32| f64::from(i) / f64::from(count);
    let mut points: Vec<f64> = (0..=count)
        .flat_map(|i| {
            let (even, log) = (lo + (hi - lo) * share(i), lo * (hi / lo).powf(share(i)));
            [even, log, hi - (hi - lo) * share(i).powi(2)]
        })
        .filter(|x| (lo..=hi).contains(x))
        .collect();
    points.sort_by(f64::total_cmp);
    points
}

#[test]
fn degree_one_and_three_have_closed_forms() {
    for (lo, hi) in [(0.5, 1.0), (1e-3, 1.0), (0.9, 1.1), (0.25, 7.0)] {
        let line = SignPolynomial::new(1, lo, hi).expect("exists");
        assert!((line.eval(1.0) - 2.0 / (lo + hi)).abs() < 1e-15 / lo);
        assert!((line.error - (hi - lo) / (hi + lo)).abs() < 1e-15);
        // c1·x + c3·x³ with equal values at both ends and the opposite error at its maximum m.
        let s = lo * lo + lo * hi + hi * hi;
        let m = (s / 3.0).sqrt();
        let c3 = -2.0 / (lo * hi * (lo + hi) + 2.0 / 3.0 * m * s);
        let cubic = SignPolynomial::new(3, lo, hi).expect("exists");
        for x in dense(lo, hi, 50) {
            let expected = c3 * x * (x * x - s);
            assert!((cubic.eval(x) - expected).abs() < 1e-14, "[{lo}, {hi}] at {x}");
        }
        assert!((cubic.error - (1.0 + c3 * lo * lo * hi + c3 * lo * hi * hi)).abs() < 1e-13);
    }
}

/// Errors of alternating sign at as many points as there are unknowns, and one more, prove that no polynomial of the degree is better than
/// the least of them (de la Vallée-Poussin).
#[test]
fn the_error_alternates_often_enough_and_is_nowhere_larger() {
    let cases = [
        (5, 0.34, 1.0),
        (7, 0.01, 1.0),
        (15, 2f64.powi(-9), 1.0),
        (29, 2f64.powi(-14), 1.0),
        (27, 0.3, 1.7),
        (13, 0.6, 1.4),
        (63, 1e-3, 1.0),
    ];
    for (degree, lo, hi) in cases {
        let p = SignPolynomial::new(degree, lo, hi).expect("exists");
        assert_eq!(p.coefficients.len(), degree + 1);
        let (mut largest, mut alternations, mut last) = (0.0f64, 0, 0.0);
        for x in dense(lo, hi, 3000) {
            let e = real(&(series(&p.coefficients, &fixed(x / hi)) - fixed(1.0)));
            largest = largest.max(e.abs());
            if e.abs() > p.error * (1.0 - 1e-3) && e.signum() != last {
                (alternations, last) = (alternations + 1, e.signum());
            }
        }
        assert!(largest <= p.error * (1.0 + 1e-9) + 1e-14, "degree {degree}: {largest} > {}", p.error);
        assert_eq!(alternations, degree.div_ceil(2) + 1, "degree {degree} on [{lo}, {hi}]");
    }
}

/// The published property: with these degrees ReLU is within 2^-α on [−1, 1].
#[test]
fn published_degrees_reach_their_precision() {
    for alpha in PRECISIONS {
        let sign = sign_composite(alpha).expect("published");
        let relu = relu_composite(alpha, 1.0).expect("published");
        let bound = 2f64.powi(-(alpha as i32));
        let (mut worst_sign, mut worst_relu) = (0.0f64, 0.0f64);
        for x in dense(sign.gap(), 1.0, 600) {
            let value = real(&(composite(sign.stages(), x) - fixed(1.0)));
            worst_sign = worst_sign.max(value.abs());
            worst_relu = worst_relu.max(x * value.abs() / 2.0);
        }
        for x in dense(sign.gap() / 1e6, sign.gap(), 600) {
            let value = real(&(composite(relu.half_sign().stages(), x) - fixed(0.5)));
            worst_relu = worst_relu.max(x * value.abs());
        }
        assert!(worst_sign <= sign.error() * (1.0 + 1e-9) && sign.error() < 2.0 * bound, "α = {alpha}");
        assert!(worst_relu <= relu.error() && relu.error() <= bound, "α = {alpha}: {} > {bound}", relu.error());
        // The bounds are no larger than they need to be.
        assert!(worst_relu > 0.99 * relu.error() && worst_sign > 0.99 * sign.error(), "α = {alpha}");
    }
}

#[test]
fn precision_costs_depth_and_improves_the_error() {
    let all: Vec<ReluComposite> = PRECISIONS.map(|a| relu_composite(a, 1.0).expect("published")).collect();
    for pair in all.windows(2) {
        assert!(pair[1].error() < pair[0].error() && pair[1].depth() >= pair[0].depth());
        assert!(pair[1].half_sign().gap() < pair[0].half_sign().gap());
    }
    let depths: Vec<usize> = all.iter().map(|r| r.half_sign().depth()).collect();
    assert_eq!(depths, [3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14]);
    let thirteen = sign_composite(13).expect("published");
    assert_eq!((thirteen.degrees(), thirteen.depth()), (vec![15, 15, 27], 13));
}

/// The gap moves the error between |x| < gap, where it grows with the gap, and |x| > gap, where it falls: the best one has both equal.
#[test]
fn gaps_of_the_table_are_the_best_ones() {
    for (alpha, (degrees, log2)) in PRECISIONS.zip(TABLE) {
        let excess = |log2: f64| {
            let half = Composite::sign(degrees, 2f64.powf(-log2), MARGIN).expect("exists").scaled(0.5);
            error_near_zero(&half) - half.error()
        };
        let (mut large, mut small) = (0.5 * log2, 1.5 * log2);
        assert!(excess(large) > 0.0 && excess(small) < 0.0);
        while small - large > 2e-4 {
            let middle = large.midpoint(small);
            if excess(middle) > 0.0 {
                large = middle;
            } else {
                small = middle;
            }
        }
        assert!((large.midpoint(small) - log2).abs() < 2e-3, "α = {alpha}: {large:.4} found, {log2} in the table");
    }
}

#[test]
fn composites_are_odd_and_scale() {
    let sign = sign_composite(10).expect("published");
    let half = sign.clone().scaled(0.5);
    let relu = relu_composite(10, 40.0).expect("published");
    for i in 0..=200 {
        let x = f64::from(i) / 200.0;
        assert_eq!(sign.eval(-x), -sign.eval(x));
        assert!((half.eval(x) - sign.eval(x) / 2.0).abs() < 1e-15);
        // ReLU(x) − ReLU(−x) = x, whatever the sign's polynomial is.
        let x = 40.0 * x;
        assert!((relu.eval(x) - relu.eval(-x) - x).abs() < 1e-13);
        assert!((relu.eval(x) - x).abs() <= relu.error());
    }
    assert_eq!((half.factor(), half.error() * 2.0), (0.5, sign.error()));
    assert!((relu.error() / relu_composite(10, 1.0).expect("published").error() - 40.0).abs() < 1e-12);
}

#[test]
fn noise_below_the_margin_keeps_the_bound() {
    let (margin, degrees, gap) = (1e-3, [7, 7, 13], 0.0125);
    let noisy = |sign: &Composite, x: f64, offsets: [f64; 2]| {
        let last = sign.stages().len() - 1;
        sign.stages().iter().enumerate().fold(x, |y, (i, stage)| {
            // An intermediate value is divided by the width of its interval, which is below 2.
            clenshaw(stage, y) + if i < last { offsets[i] * margin / 2.0 } else { 0.0 }
        })
    };
    let (with, without) =
        (Composite::sign(&degrees, gap, margin).expect("exists"), Composite::sign(&degrees, gap, 0.0).expect("exists"));
    let worst = |sign: &Composite| {
        let signs = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]];
        let all = dense(gap, 1.0, 400).into_iter().flat_map(|x| signs.map(|s| (x, s)));
        all.map(|(x, s)| (noisy(sign, x, s) - 1.0).abs()).fold(0.0, f64::max)
    };
    assert!(worst(&with) <= with.error(), "{} > {}", worst(&with), with.error());
    assert!(worst(&without) > without.error());
    // What the margin costs.
    assert!(without.error() < with.error() && with.error() < 1.2 * without.error());
}

#[test]
fn stages_can_be_planned_at_their_depth() {
    for stage in sign_composite(14).expect("published").stages() {
        let plan = crate::chebyshev::ChebyshevPlan::new(stage).expect("plans");
        assert_eq!(plan.depth(), depth_of_degree(stage.len() - 1));
        for i in -20..=20 {
            let x = f64::from(i) / 20.0;
            assert!((plan.eval(x) - clenshaw(stage, x)).abs() < 1e-13);
        }
    }
}

#[test]
fn senseless_requests_are_refused() {
    assert_eq!(sign_composite(3), Err(MinimaxError::Precision { alpha: 3 }));
    assert_eq!(relu_composite(15, 1.0), Err(MinimaxError::Precision { alpha: 15 }));
    for range in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(relu_composite(5, range).is_err(), "{range}");
    }
    for degree in [0, 2, 64, 65] {
        assert_eq!(SignPolynomial::new(degree, 0.5, 1.0), Err(MinimaxError::Degree { degree }));
    }
    for (lo, hi) in [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.5, f64::INFINITY), (f64::NAN, 1.0)] {
        assert!(matches!(SignPolynomial::new(5, lo, hi), Err(MinimaxError::Interval { .. })), "{lo} {hi}");
    }
    assert_eq!(Composite::sign(&[], 0.1, 0.0), Err(MinimaxError::NoStages));
    for margin in [-1.0, f64::NAN] {
        assert!(matches!(Composite::sign(&[3, 3], 0.1, margin), Err(MinimaxError::Size { .. })));
    }
    assert!(matches!(Composite::sign(&[3, 3], 0.1, 0.9), Err(MinimaxError::Interval { .. })));
    // Beyond what extended precision resolves: refused, or as good as it can be, but never an endless loop.
    let tiny = SignPolynomial::new(15, 1e-300, 1.0);
    assert!(tiny.is_err() || tiny.as_ref().is_ok_and(|p| (p.error - 1.0).abs() < 1e-12), "{tiny:?}");
}
