//! Element-wise arithmetic on one limb.
//!
//! All slices of a call have the same length (checked) and hold canonical residues (checked in
//! debug builds), and so do the results.

mod portable;

use crate::Modulus;
use crate::cpu::dispatch;

fn check(m: &Modulus, dst: &[u64], operands: &[&[u64]]) {
    for operand in operands {
        assert_eq!(operand.len(), dst.len(), "limbs of different lengths");
        debug_assert!(operand.iter().all(|&x| x < m.value()), "limb is not reduced");
    }
}

/// `dst += a`.
pub fn add_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    check(m, dst, &[dst, a]);
    dispatch!(pointwise::add_assign(m, dst, a));
}

/// `dst −= a`.
pub fn sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    check(m, dst, &[dst, a]);
    dispatch!(pointwise::sub_assign(m, dst, a));
}

/// `dst = a − dst`.
pub fn rsub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    check(m, dst, &[dst, a]);
    dispatch!(pointwise::rsub_assign(m, dst, a));
}

/// `dst = −dst`.
pub fn neg_assign(m: &Modulus, dst: &mut [u64]) {
    check(m, dst, &[dst]);
    dispatch!(pointwise::neg_assign(m, dst));
}

/// `dst *= a`, element by element.
pub fn mul_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    check(m, dst, &[dst, a]);
    dispatch!(pointwise::mul_assign(m, dst, a));
}

/// `dst = a · b`, element by element.
pub fn mul_into(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    check(m, dst, &[a, b]);
    dispatch!(pointwise::mul_into(m, dst, a, b));
}

/// `dst += a · b`, element by element.
pub fn mul_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    check(m, dst, &[dst, a, b]);
    dispatch!(pointwise::mul_add_assign(m, dst, a, b));
}

/// `dst −= a · b`, element by element.
pub fn mul_sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    check(m, dst, &[dst, a, b]);
    dispatch!(pointwise::mul_sub_assign(m, dst, a, b));
}

/// `dst *= w` for one residue `w`.
pub fn mul_scalar_assign(m: &Modulus, dst: &mut [u64], w: u64) {
    check(m, dst, &[dst]);
    dispatch!(pointwise::mul_scalar_assign(m, dst, w));
}

/// `dst = a · w` for one residue `w`.
pub fn mul_scalar_into(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    check(m, a, &[a]);
    assert_eq!(dst.len(), a.len(), "limbs of different lengths");
    dispatch!(pointwise::mul_scalar_into(m, dst, a, w));
}

/// `dst += a · w` for one residue `w`.
pub fn mul_scalar_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    check(m, dst, &[dst, a]);
    dispatch!(pointwise::mul_scalar_add_assign(m, dst, a, w));
}

/// `dst = (dst − a) · w` for one residue `w`: the last step of a division by a factor of the
/// modulus (rescaling, ModDown). What is in `dst` may be loose, below `2^52 − p`.
pub fn sub_mul_scalar_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    check(m, a, &[a]);
    assert_eq!(dst.len(), a.len(), "limbs of different lengths");
    debug_assert!(dst.iter().all(|&x| x < (1 << 52) - m.value()), "limb is not even loosely reduced");
    dispatch!(pointwise::sub_mul_scalar_assign(m, dst, a, w));
}

/// `dst += c` for one residue `c`.
pub fn add_scalar_assign(m: &Modulus, dst: &mut [u64], c: u64) {
    check(m, dst, &[dst]);
    dispatch!(pointwise::add_scalar_assign(m, dst, c));
}

/// `dst −= c` for one residue `c`.
pub fn sub_scalar_assign(m: &Modulus, dst: &mut [u64], c: u64) {
    add_scalar_assign(m, dst, m.neg(c));
}

/// `dst = src mod p` for words of any size, such as residues of another modulus.
pub fn reduce_into(m: &Modulus, dst: &mut [u64], src: &[u64]) {
    assert_eq!(dst.len(), src.len(), "limbs of different lengths");
    dispatch!(pointwise::reduce_into(m, dst, src));
}

/// `dst` = the residues modulo `to` of the centred representatives of residues modulo `from`.
pub fn switch_centered(from: &Modulus, to: &Modulus, src: &[u64], dst: &mut [u64]) {
    check(from, dst, &[src]);
    dispatch!(pointwise::switch_centered(from, to, src, dst));
}
