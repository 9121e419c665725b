//! How likely a bootstrap leaves the range of its polynomial.
//!
//! After the switch to the sparse key, `c_0 + c_1·s` over the integers is `m + q_0·I`. Its quotient by `q_0` is a sum of
//! `h + 1` terms, one for `c_0` and one for each coefficient of `c_1` that meets a ±1 of the key, all uniform in [−½, ½]
//! (2022/024 §4.2): its distribution is that of Irwin and Hall.

/// `P(U_1 + … + U_n ≤ x)` for independent uniform variables in [0, 1].
///
/// Exact up to rounding in the lower tail, where it is wanted: there the alternating sum has few terms. `x` above `n/2` is
/// mirrored by the callers.
fn irwin_hall(n: u32, x: f64) -> f64 {
    let mut sum = 0.0;
    let mut binomial = 1.0;
    for k in 0..=n {
        let base = x - f64::from(k);
        if base <= 0.0 {
            break;
        }
        // base^n / n!, factor by factor so that nothing overflows.
        let power = (1..=n).fold(1.0, |acc, i| acc * base / f64::from(i));
        sum += if k % 2 == 0 { binomial * power } else { -binomial * power };
        binomial *= f64::from(n - k) / f64::from(k + 1);
    }
    sum
}

/// log2 of the probability that one coefficient of `(c_0 + c_1·s)/q_0` exceeds `range` in magnitude, for a key of
/// `weight` non-zero coefficients; −∞ where that is impossible.
pub fn log2_overflow_of_coefficient(weight: u32, range: f64) -> f64 {
    let n = weight + 1;
    (2.0 * irwin_hall(n, f64::from(n) / 2.0 - range)).log2()
}

/// log2 of (an upper bound on) the probability that any of `2^log_coefficients` coefficients exceeds `range`.
///
/// With `h = 32`, `K = 16` and `N = 2^16` coefficients this is −138.7.
pub fn log2_failure(log_coefficients: u32, weight: u32, range: f64) -> f64 {
    log2_overflow_of_coefficient(weight, range) + f64::from(log_coefficients)
}

/// Probability that a coefficient rounds to the integer `i` or to `−i`.
pub(crate) fn probability(weight: u32, i: u32) -> f64 {
    let n = weight + 1;
    let below = |x: f64| irwin_hall(n, f64::from(n) / 2.0 - x);
    let i = f64::from(i);
    if i == 0.0 { 1.0 - 2.0 * below(0.5) } else { 2.0 * (below(i - 0.5) - below(i + 0.5)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // One and two variables by hand.
        assert!((irwin_hall(1, 0.25) - 0.25).abs() < 1e-15);
        assert!((irwin_hall(2, 0.5) - 0.125).abs() < 1e-15);
        assert!((irwin_hall(3, 1.5) - 0.5).abs() < 1e-15);
        // P(|T| > 16) for 33 variables is 2·(1/2)^33/33!.
        let factorial: f64 = (1..=33).map(|i| f64::from(i).log2()).sum();
        let expected = 1.0 - 33.0 - factorial;
        assert!((log2_overflow_of_coefficient(32, 16.0) - expected).abs() < 1e-9);
        assert!((log2_failure(16, 32, 16.0) + 138.7).abs() < 0.1);
        assert_eq!(log2_overflow_of_coefficient(32, 16.5), f64::NEG_INFINITY);
    }

    #[test]
    fn probabilities_sum_to_one_with_the_right_variance() {
        let all: Vec<f64> = (0..=16).map(|i| probability(32, i)).collect();
        assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        // Rounding adds 1/12 to the variance 33/12.
        let variance: f64 = all.iter().enumerate().map(|(i, p)| p * (i * i) as f64).sum();
        assert!((variance - 34.0 / 12.0).abs() < 1e-6, "{variance}");
    }
}
