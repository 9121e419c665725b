//! How many special primes a key switch takes.

/// Bits by which the special primes in use exceed the largest digit, where there are enough of them: `σN√(D²/12)/P` is then
/// below a sixteenth of the rounding of a division by `P`, and disappears beside it.
const MARGIN: f64 = 6.0;

/// How many of the special primes with these log2, first ones first, a key switch takes whose largest digit is below
/// `2^log2_digit`.
///
/// At low levels the last digits are missing and the first one is cut, so that fewer special primes do: limbs that are not
/// there are neither made nor divided away, and keys that reach no higher do not have them.
pub fn special_primes(log2_digit: f64, log2_p: &[f64]) -> usize {
    let mut sum = 0.0;
    let enough = log2_p.iter().position(|bits| {
        sum += bits;
        sum >= log2_digit + MARGIN
    });
    enough.map_or(log2_p.len(), |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_as_exceed_the_digit_by_the_margin() {
        let p = [50.0; 9];
        let needed = |digit: f64| special_primes(digit, &p);
        assert_eq!([50.0, 100.0, 150.0, 194.0, 194.1, 430.0].map(needed), [2, 3, 4, 4, 5, 9]);
        // Never more than there are.
        assert_eq!([448.0, 500.0].map(needed), [9, 9]);
        assert_eq!(special_primes(1.0, &[]), 0);
    }
}
