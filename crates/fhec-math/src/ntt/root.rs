//! The root of unity that defines the order of values.

use crate::{MathError, Modulus, is_prime};

/// The primitive `2N`-th root of unity of a prime `p ≡ 1 (mod 2N)`.
///
/// Part of every file format that holds polynomials in evaluation form, so the rule is fixed: starting from −1,
/// take `log_n` times the Tonelli–Shanks square root with the smallest quadratic non-residue. It is
/// also the root of `tfhe-ntt` 0.7, so that both kernels give the same values.
pub(super) fn primitive_root(m: &Modulus, log_n: u32) -> Result<u64, MathError> {
    let p = m.value();
    if !is_prime(p) || (p - 1) & ((2 << log_n) - 1) != 0 {
        return Err(MathError::NotNttFriendly { value: p, log_n });
    }
    // Half of all residues are non-residues and the smallest is tiny, so this ends at once.
    let non_residue = (2..p).find(|&z| m.pow(z, (p - 1) / 2) == p - 1).unwrap_or(p - 1);
    Ok((0..log_n).fold(p - 1, |root, _| square_root(m, non_residue, root)))
}

/// A square root of the residue `a` (Shanks 1973), given a non-residue `z`.
fn square_root(m: &Modulus, z: u64, a: u64) -> u64 {
    let s = (m.value() - 1).trailing_zeros();
    let q = (m.value() - 1) >> s;
    let mut order = s;
    let mut c = m.pow(z, q);
    let mut t = m.pow(a, q);
    let mut root = m.pow(a, q.div_ceil(2));
    while t != 1 {
        // 2^i is the order of t; it is below 2^order because `a` is a square.
        let mut i = 0;
        let mut power = t;
        while power != 1 {
            power = m.mul(power, power);
            i += 1;
        }
        let b = m.pow(c, 1 << (order - i - 1));
        order = i;
        c = m.mul(b, b);
        t = m.mul(t, c);
        root = m.mul(root, b);
    }
    root
}
