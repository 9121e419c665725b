//! Splits a chain into the digits of key switching.

/// log2 of the largest digit.
pub(crate) fn largest(log2_q: &[f64], digits: &[usize]) -> f64 {
    let mut start = 0;
    let digit = |&len: &usize| {
        start += len;
        log2_q[start - len..start].iter().sum::<f64>()
    };
    digits.iter().map(digit).fold(0.0, f64::max)
}

/// Splits a chain into the fewest digits of at most `most` bits each, and these as evenly as possible; `None` where a
/// limb alone is larger.
pub(crate) fn fewest(log2_q: &[f64], most: f64) -> Option<Vec<usize>> {
    // No split has fewer digits than one whose digits take as much as they may.
    let (mut count, mut digit) = (1, 0.0);
    for &bits in log2_q {
        if bits > most {
            return None;
        }
        digit += bits;
        if digit > most {
            (count, digit) = (count + 1, bits);
        }
    }
    Some(balanced(log2_q, count))
}

/// Splits a chain into `count` digits whose largest is as small as possible; fewer where `count` exceeds the limbs.
pub(crate) fn balanced(log2_q: &[f64], count: usize) -> Vec<usize> {
    let n = log2_q.len();
    let count = count.clamp(1, n);
    // sums[from][to - from]: bits of the limbs from..to.
    let sums_from = |from: usize| {
        log2_q[from..].iter().scan(0.0, |sum, bits| {
            *sum += bits;
            Some(*sum)
        })
    };
    let sums: Vec<Vec<f64>> = (0..n).map(|from| std::iter::once(0.0).chain(sums_from(from)).collect()).collect();
    // best[k][i]: least possible largest digit when the first i limbs are split into k digits, and the last cut.
    let mut best = vec![vec![(f64::INFINITY, 0); n + 1]; count + 1];
    best[0][0] = (0.0, 0);
    for k in 1..=count {
        for i in k..=n {
            for cut in k - 1..i {
                let largest = best[k - 1][cut].0.max(sums[cut][i - cut]);
                if largest < best[k][i].0 {
                    best[k][i] = (largest, cut);
                }
            }
        }
    }
    let mut digits = Vec::with_capacity(count);
    let mut end = n;
    for k in (1..=count).rev() {
        let cut = best[k][end].1;
        digits.push(end - cut);
        end = cut;
    }
    digits.reverse();
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_balanced_by_bits() {
        assert_eq!(balanced(&[50.0, 30.0, 30.0, 30.0, 30.0], 2), [2, 3]);
        assert_eq!(balanced(&[30.0; 6], 3), [2, 2, 2]);
        assert_eq!(balanced(&[30.0; 3], 9), [1, 1, 1]);
        assert_eq!(balanced(&[30.0; 3], 1), [3]);
        assert_eq!(fewest(&[30.0; 6], 61.0).expect("fits"), [2, 2, 2]);
        assert_eq!(fewest(&[50.0, 30.0, 30.0], 61.0).expect("fits"), [1, 2]);
        assert!(fewest(&[50.0, 30.0, 30.0], 49.0).is_none());
    }

    #[test]
    fn there_are_never_fewer_digits_that_fit() {
        let chain: Vec<f64> = (0..23u32).map(|i| 30.0 + f64::from(i * 7 % 19)).collect();
        for most in [50.0, 61.5, 97.0, 150.0, 333.0, 2000.0] {
            let digits = fewest(&chain, most).expect("every limb fits");
            assert!(largest(&chain, &digits) <= most);
            let fewer = (1..digits.len()).map(|count| balanced(&chain, count));
            assert!(fewer.into_iter().all(|digits| largest(&chain, &digits) > most), "{most}");
        }
    }
}
