//! Element-wise arithmetic on one limb.
//!
//! All slices of a call have the same length (checked) and hold canonical residues (checked in
//! debug builds), and so do the results.

use crate::Modulus;

/// `dst += a`.
pub fn add_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(m, dst, a, |x, y| m.add(x, y));
}

/// `dst −= a`.
pub fn sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(m, dst, a, |x, y| m.sub(x, y));
}

/// `dst = a − dst`.
pub fn rsub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(m, dst, a, |x, y| m.sub(y, x));
}

/// `dst = −dst`.
pub fn neg_assign(m: &Modulus, dst: &mut [u64]) {
    for x in dst {
        *x = m.neg(*x);
    }
}

/// `dst *= a`, element by element.
pub fn mul_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(m, dst, a, |x, y| m.mul(x, y));
}

/// `dst = a · b`, element by element.
pub fn mul_into(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    zip3(m, dst, a, b, |_, x, y| m.mul(x, y));
}

/// `dst += a · b`, element by element.
pub fn mul_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    zip3(m, dst, a, b, |d, x, y| m.add(d, m.mul(x, y)));
}

/// `dst −= a · b`, element by element.
pub fn mul_sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    zip3(m, dst, a, b, |d, x, y| m.sub(d, m.mul(x, y)));
}

/// `dst *= w` for one residue `w`.
pub fn mul_scalar_assign(m: &Modulus, dst: &mut [u64], w: u64) {
    let w_shoup = m.shoup(w);
    for x in dst {
        *x = m.mul_shoup(*x, w, w_shoup);
    }
}

/// `dst += a · w` for one residue `w`.
pub fn mul_scalar_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let w_shoup = m.shoup(w);
    zip2(m, dst, a, |x, y| m.add(x, m.mul_shoup(y, w, w_shoup)));
}

/// `dst = (dst − a) · w` for one residue `w`: the last step of a division by a factor of the
/// modulus (rescaling, ModDown).
pub fn sub_mul_scalar_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let w_shoup = m.shoup(w);
    zip2(m, dst, a, |x, y| m.mul_shoup(m.sub(x, y), w, w_shoup));
}

/// `dst += c` for one residue `c`.
pub fn add_scalar_assign(m: &Modulus, dst: &mut [u64], c: u64) {
    for x in dst {
        *x = m.add(*x, c);
    }
}

/// `dst −= c` for one residue `c`.
pub fn sub_scalar_assign(m: &Modulus, dst: &mut [u64], c: u64) {
    add_scalar_assign(m, dst, m.neg(c));
}

/// `dst = src mod p` for words of any size, such as residues of another modulus.
pub fn reduce_into(m: &Modulus, dst: &mut [u64], src: &[u64]) {
    assert_eq!(dst.len(), src.len(), "limbs of different lengths");
    for (d, &x) in dst.iter_mut().zip(src) {
        *d = m.reduce(x);
    }
}

/// `dst` = the residues modulo `to` of the centred representatives of residues modulo `from`.
pub fn switch_centered(from: &Modulus, to: &Modulus, src: &[u64], dst: &mut [u64]) {
    assert_eq!(dst.len(), src.len(), "limbs of different lengths");
    for (d, &x) in dst.iter_mut().zip(src) {
        *d = to.reduce_i64(from.center(x));
    }
}

#[inline(always)]
fn zip2(m: &Modulus, dst: &mut [u64], a: &[u64], f: impl Fn(u64, u64) -> u64) {
    assert_eq!(dst.len(), a.len(), "limbs of different lengths");
    debug_assert!(dst.iter().chain(a).all(|&x| x < m.value()), "limb is not reduced");
    for (d, &x) in dst.iter_mut().zip(a) {
        *d = f(*d, x);
    }
}

#[inline(always)]
fn zip3(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64], f: impl Fn(u64, u64, u64) -> u64) {
    assert!(dst.len() == a.len() && a.len() == b.len(), "limbs of different lengths");
    debug_assert!(a.iter().chain(b).all(|&x| x < m.value()), "limb is not reduced");
    for ((d, &x), &y) in dst.iter_mut().zip(a).zip(b) {
        *d = f(*d, x, y);
    }
}
