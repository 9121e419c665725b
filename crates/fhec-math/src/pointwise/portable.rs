//! Element-wise arithmetic in plain Rust.

use crate::Modulus;

pub(super) fn add_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(dst, a, |x, y| m.add(x, y));
}

pub(super) fn sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(dst, a, |x, y| m.sub(x, y));
}

pub(super) fn rsub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(dst, a, |x, y| m.sub(y, x));
}

pub(super) fn neg_assign(m: &Modulus, dst: &mut [u64]) {
    zip1(dst, |x| m.neg(x));
}

pub(super) fn mul_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    zip2(dst, a, |x, y| m.mul(x, y));
}

pub(super) fn mul_into(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    zip3(dst, a, b, |_, x, y| m.mul(x, y));
}

pub(super) fn mul_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    zip3(dst, a, b, |d, x, y| m.add(d, m.mul(x, y)));
}

pub(super) fn mul_sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    zip3(dst, a, b, |d, x, y| m.sub(d, m.mul(x, y)));
}

pub(super) fn mul_scalar_assign(m: &Modulus, dst: &mut [u64], w: u64) {
    let w_shoup = m.shoup(w);
    zip1(dst, |x| m.mul_shoup(x, w, w_shoup));
}

pub(super) fn mul_scalar_into(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let w_shoup = m.shoup(w);
    zip2(dst, a, |_, x| m.mul_shoup(x, w, w_shoup));
}

pub(super) fn mul_scalar_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let w_shoup = m.shoup(w);
    zip2(dst, a, |x, y| m.add(x, m.mul_shoup(y, w, w_shoup)));
}

pub(super) fn sub_mul_scalar_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let w_shoup = m.shoup(w);
    zip2(dst, a, |x, y| m.mul_shoup(m.sub(m.reduce(x), y), w, w_shoup));
}

pub(super) fn add_scalar_assign(m: &Modulus, dst: &mut [u64], c: u64) {
    zip1(dst, |x| m.add(x, c));
}

pub(super) fn reduce_into(m: &Modulus, dst: &mut [u64], src: &[u64]) {
    zip2(dst, src, |_, x| m.reduce(x));
}

pub(super) fn switch_centered(from: &Modulus, to: &Modulus, src: &[u64], dst: &mut [u64]) {
    let from_mod_to = to.reduce(from.value());
    let half = from.value() / 2;
    zip2(dst, src, |_, x| {
        let r = to.reduce(x);
        if x > half { to.sub(r, from_mod_to) } else { r }
    });
}

#[inline(always)]
fn zip1(dst: &mut [u64], f: impl Fn(u64) -> u64) {
    for d in dst {
        *d = f(*d);
    }
}

#[inline(always)]
fn zip2(dst: &mut [u64], a: &[u64], f: impl Fn(u64, u64) -> u64) {
    for (d, &x) in dst.iter_mut().zip(a) {
        *d = f(*d, x);
    }
}

#[inline(always)]
fn zip3(dst: &mut [u64], a: &[u64], b: &[u64], f: impl Fn(u64, u64, u64) -> u64) {
    for ((d, &x), &y) in dst.iter_mut().zip(a).zip(b) {
        *d = f(*d, x, y);
    }
}
