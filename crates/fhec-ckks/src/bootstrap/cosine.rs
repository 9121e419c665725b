//! The polynomial of EvalMod: a cosine that double angles turn into a sine of period 1.
//!
//! With `t = I + ε`, `|I| ≤ K`, and `w = (t − ¼)/K'` the bootstrap needs `sin(2πt) = cos(2π·K'·w)`, which forgets `I`. A
//! polynomial approximates only `cos(2π·K'·w / 2^r)`, and `y ← 2y² − 1` applied `r` times does the rest (Han, Ki, 2019/688
//! §4.3). It is even in `w`, so half of its coefficients vanish.
//!
//! `t` lies near integers only, and near large ones hardly ever. The fit uses both: least squares at the points `I ± ε`,
//! weighted with how much the double angles magnify an error there and with the fourth root of how likely `I` is. The square
//! root would give the least error on average, but an integer that few slots meet is the worst slot's: with the fourth root errors
//! there are small too, and those of likely integers still far below all others. At degree 28 and `K = 16` this is 8 bits
//! better on average than a Chebyshev approximation on the whole interval.

use std::f64::consts::{PI, TAU};

use fhec_math::bootstrap::{BootstrapSpec, probability};

/// Least probability of an integer in its weight: how much better likely ones may be treated than those that never occur, 2^-40.
const LEAST_PROBABILITY: f64 = 1.0 / (1u64 << 40) as f64;
/// Weight of points between the integers, which only keep the polynomial from running away there.
const BETWEEN: f64 = 1e-9;

/// `K'`: half the length of the interval that `t − ¼` lies in.
pub(super) fn half_range(spec: &BootstrapSpec) -> f64 {
    f64::from(spec.range) + 0.25 + (-f64::from(spec.log_message_ratio)).exp2()
}

/// Chebyshev coefficients of the even polynomial near `cos(2π·K'·w / 2^r)`.
pub(super) fn coefficients(spec: &BootstrapSpec) -> Vec<f64> {
    let half_range = half_range(spec);
    let angles = f64::from(spec.double_angles).exp2();
    let terms = spec.cosine_degree as usize / 2 + 1;
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    let mut sample = |t: f64, weight: f64| {
        let w = (t - 0.25) / half_range;
        // T_2j(w) = cos(2j·acos w).
        let angle = w.clamp(-1.0, 1.0).acos();
        rows.push((0..terms).map(|j| weight * (2.0 * j as f64 * angle).cos()).collect::<Vec<f64>>());
        values.push(weight * (TAU * half_range * w / angles).cos());
    };
    let range = i64::from(spec.range);
    let width = (-f64::from(spec.log_message_ratio)).exp2();
    for i in -range..=range {
        let likely = probability(spec.sparse_weight, i.unsigned_abs() as u32).max(LEAST_PROBABILITY);
        // The derivative of y → cos(2^r·acos y).
        let magnified = angles / (TAU * (i as f64 - 0.25) / angles).sin().abs();
        for step in -1..=1 {
            sample(i as f64 + f64::from(step) * width, likely.powf(0.25) * magnified);
        }
    }
    let between = 8 * terms;
    for k in 0..between {
        let w = (PI * (k as f64 + 0.5) / (2 * between) as f64).cos();
        sample(w * half_range + 0.25, BETWEEN);
    }
    let even = least_squares(rows, values, terms);
    even.into_iter().flat_map(|c| [c, 0.0]).take(2 * terms - 1).collect()
}

/// Minimises `|A·x − b|` by Householder reflections; `rows` are those of `A`, which has full rank.
fn least_squares(mut rows: Vec<Vec<f64>>, mut b: Vec<f64>, columns: usize) -> Vec<f64> {
    for j in 0..columns {
        let norm = rows[j..].iter().map(|row| row[j] * row[j]).sum::<f64>().sqrt();
        let pivot = rows[j][j];
        let image = if pivot > 0.0 { -norm } else { norm };
        let mut v: Vec<f64> = rows[j..].iter().map(|row| row[j]).collect();
        v[0] = pivot - image;
        let square: f64 = v.iter().map(|x| x * x).sum();
        if square == 0.0 {
            continue;
        }
        for c in j..columns {
            let dot: f64 = v.iter().zip(&rows[j..]).map(|(v, row)| v * row[c]).sum();
            let factor = 2.0 * dot / square;
            for (v, row) in v.iter().zip(&mut rows[j..]) {
                row[c] -= factor * v;
            }
        }
        let dot: f64 = v.iter().zip(&b[j..]).map(|(v, b)| v * b).sum();
        let factor = 2.0 * dot / square;
        for (v, b) in v.iter().zip(&mut b[j..]) {
            *b -= factor * v;
        }
    }
    let mut x = vec![0.0; columns];
    for j in (0..columns).rev() {
        let known: f64 = (j + 1..columns).map(|c| rows[j][c] * x[c]).sum();
        x[j] = (b[j] - known) / rows[j][j];
    }
    x
}

/// Chebyshev coefficients of `asin(s)/2π` up to the third power: `(s + s³/6)/2π`.
pub(super) fn arcsine() -> [f64; 4] {
    [0.0, 1.125 / TAU, 0.0, 1.0 / (24.0 * TAU)]
}

#[cfg(test)]
mod tests {
    use fhec_math::chebyshev::clenshaw;

    use super::*;

    /// What EvalMod makes of `t`, relative to the message ratio.
    fn eval_mod(spec: &BootstrapSpec, coefficients: &[f64], t: f64) -> f64 {
        let mut y = clenshaw(coefficients, (t - 0.25) / half_range(spec));
        for _ in 0..spec.double_angles {
            y = 2.0 * y * y - 1.0;
        }
        y / TAU * spec.slope() * f64::from(spec.log_message_ratio).exp2()
    }

    #[test]
    fn cosine_is_precise_where_it_is_likely_and_sound_everywhere() {
        let spec = BootstrapSpec::default();
        let coefficients = coefficients(&spec);
        assert_eq!(coefficients.len(), 29);
        assert!(coefficients.iter().skip(1).step_by(2).all(|&c| c == 0.0));
        let (mut mean, mut likely, mut worst) = (0.0, 0.0f64, 0.0f64);
        for i in -16i32..=16 {
            for step in -8..=8 {
                let x = f64::from(step) / 8.0;
                let found = eval_mod(&spec, &coefficients, f64::from(i) + x / 1024.0);
                let sine = (TAU * x / 1024.0).sin() / TAU * 1024.0 * spec.slope();
                let error = found - sine;
                let both = if i == 0 { 1.0 } else { 0.5 };
                mean += both * probability(32, i.unsigned_abs()) / 17.0 * error * error;
                worst = worst.max(error.abs());
                if i.abs() <= 9 {
                    likely = likely.max(error.abs());
                }
            }
        }
        // Rounding errors are 2^-19.5 on average. Integers beyond 9 are met once in tens of thousands of bootstraps.
        assert!(mean.sqrt() < 2f64.powf(-24.0), "2^{}", mean.sqrt().log2());
        assert!(likely < 2f64.powf(-19.5), "2^{}", likely.log2());
        assert!(worst < 2f64.powi(-14), "2^{}", worst.log2());
    }

    #[test]
    fn arcsine_straightens_the_sine() {
        for x in [-1.0, -0.5, 0.25, 1.0] {
            let angle: f64 = x / 256.0;
            let found = clenshaw(&arcsine(), (TAU * angle).sin()) * 256.0;
            assert!((found - x).abs() < 2f64.powi(-24), "{x}: {found}");
        }
    }

    #[test]
    fn sine_error_is_balanced() {
        let spec = BootstrapSpec::default();
        let worst = (-100..=100)
            .map(|k| f64::from(k) / 100.0)
            .fold(0.0f64, |worst, x| worst.max(((TAU * x / 1024.0).sin() / TAU * 1024.0 * spec.slope() - x).abs()));
        let plain = TAU.powi(2) / 6.0 * 2f64.powi(-20);
        assert!((worst / plain - 0.25).abs() < 1e-3, "{}", worst / plain);
    }
}
