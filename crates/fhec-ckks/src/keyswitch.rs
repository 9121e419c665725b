//! Hybrid key switching (Han, Ki, 2019/688 §3), cut into the pieces that hoisting reuses.
//!
//! `c` is written in digits: `c ≡ c_d mod D_d`, where `D_d` is the product of the digit's primes. With
//! `g_d ≡ 1 mod D_d`, `≡ 0` modulo the other chain primes, a key holds for every digit an encryption
//! `(b_d, a_d)` of `P·g_d·s'` modulo `Q·P`. Then
//!
//! ```text
//! u = Σ_d ([c]_{D_d} · b_d, [c]_{D_d} · a_d)   decrypts to   P·c·s' + Σ_d [c]_{D_d}·e_d   modulo Q·P,
//! ```
//!
//! and dividing by `P` leaves `c·s'` with an error of one rounding plus `Σ|[c]_{D_d}|·e_d / P`.
//! [`decompose`] makes the digits modulo all primes, [`inner_product`] makes `u`, [`mod_down`] divides.
//! Lifts and divisions are exact and centred, so the error has mean zero.
//!
//! A key for the rotation `σ` encrypts `P·g_d·s` under `σ^-1(s)`: digits are never permuted, only the sum
//! `u` is, which costs two permutations instead of one per digit (2020/1203 §4.1).

use fhec_math::accumulate::dot_into;
use fhec_math::{AlignedVec, Automorphism, Eval, Poly, pointwise};
use rayon::prelude::*;

use crate::error::{CkksError, Result};
use crate::keys::SwitchingKey;
use crate::limbs::{Conversion, HEAVY, convert, par_chunks};
use crate::params::Context;
use crate::qp::QpPoly;

/// The digits of a polynomial, each modulo all primes of the level and the special primes.
///
/// Limb-major: `[limb][digit][coefficient]`, because an inner product needs all digits of one limb.
#[derive(Clone, Debug)]
pub struct Decomposed {
    data: AlignedVec,
    digits: usize,
    n: usize,
    level: usize,
}

impl Decomposed {
    /// Level of the polynomial that was decomposed.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Number of digits.
    pub fn digits(&self) -> usize {
        self.digits
    }

    /// Digit `d` modulo the prime of limb `i` (order `q_0 … q_level, p_0 …`), in evaluation form.
    pub fn digit(&self, i: usize, d: usize) -> &[u64] {
        let start = (i * self.digits + d) * self.n;
        &self.data[start..start + self.n]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.len() * 8
    }
}

/// Decomposes the chain polynomial `c` of `level + 1` limbs (ModUp).
pub fn decompose(context: &Context, c: &Poly<Eval>, level: usize) -> Decomposed {
    let mut raised = raise(context, c, level);
    let len = raised.digits * raised.n;
    par_chunks(&mut raised.data, len, HEAVY, |i, chunk| transform_digits(context, c, level, i, chunk));
    raised
}

/// The digits in coefficient form; limbs that belong to their own digit are left unset.
fn raise(context: &Context, c: &Poly<Eval>, level: usize) -> Decomposed {
    let n = context.n();
    let tables = context.level(level);
    let digits = tables.digits.len();
    let mut coeffs = AlignedVec::from(&c.data()[..(level + 1) * n]);
    par_chunks(&mut coeffs, n, HEAVY, |i, limb| context.q_table(i).inverse(limb));
    let mut data = AlignedVec::scratch(context.qp_limbs(level) * digits * n);
    let mut conversions: Vec<Conversion<'_>> = tables
        .digits
        .iter()
        .map(|digit| Conversion {
            converter: &digit.mod_up,
            src: coeffs[digit.range.start * n..digit.range.end * n].chunks_exact(n).collect(),
            dst: Vec::with_capacity(context.qp_limbs(level)),
        })
        .collect();
    for (index, limb) in data.chunks_exact_mut(n).enumerate() {
        let (i, d) = (index / digits, index % digits);
        if !tables.digits[d].range.contains(&i) {
            conversions[d].dst.push(limb);
        }
    }
    convert(conversions);
    Decomposed { data, digits, n, level }
}

/// Evaluation form of all digits of limb `i`; the digit that the limb belongs to is the limb itself.
fn transform_digits(context: &Context, c: &Poly<Eval>, level: usize, i: usize, chunk: &mut [u64]) {
    let tables = context.level(level);
    let table = context.qp_table(level, i);
    for (limb, digit) in chunk.chunks_exact_mut(context.n()).zip(&tables.digits) {
        if digit.range.contains(&i) {
            limb.copy_from_slice(c.limb(i));
        } else {
            table.forward(limb);
        }
    }
}

/// What [`inner_product`] adds to the sum before permuting it: `P` times a ciphertext part, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lift<'a> {
    /// Added to the first component.
    pub c0: Option<&'a Poly<Eval>>,
    /// Added to the second component.
    pub c1: Option<&'a Poly<Eval>>,
}

/// `σ(Σ_d c_d·b_d + P·c0, Σ_d c_d·a_d + P·c1)` modulo `Q·P`.
///
/// Without `automorphism` nothing is permuted. The key must have been made for the inverse automorphism as described
/// in the [module documentation](self).
///
/// # Errors
/// [`CkksError::KeyLevel`] where the key does not reach the level.
pub fn inner_product(
    context: &Context,
    c: &Decomposed,
    key: &SwitchingKey,
    lift: Lift<'_>,
    automorphism: Option<&Automorphism>,
) -> Result<(QpPoly, QpPoly)> {
    let level = c.level;
    check_key("inner product", key, level)?;
    let n = context.n();
    let mut u0 = QpPoly::scratch(context, level);
    let mut u1 = QpPoly::scratch(context, level);
    let weight = (HEAVY / c.digits).max(n);
    let task = |scratch: &mut Vec<u64>, i: usize, out0: &mut [u64], out1: &mut [u64]| {
        let digits: Vec<&[u64]> = (0..c.digits).map(|d| c.digit(i, d)).collect();
        for (second, out) in [(false, out0), (true, out1)] {
            let part = if second { lift.c1 } else { lift.c0 };
            match automorphism {
                None => dot_limb(context, level, i, &digits, key, second, part, out),
                Some(automorphism) => {
                    scratch.resize(n, 0);
                    dot_limb(context, level, i, &digits, key, second, part, scratch);
                    automorphism.apply_eval(scratch, out);
                }
            }
        }
    };
    u0.poly
        .data_mut()
        .par_chunks_exact_mut(n)
        .zip(u1.poly.data_mut().par_chunks_exact_mut(n))
        .enumerate()
        .with_min_len((weight / n).max(1))
        .for_each_init(Vec::new, |scratch, (i, (out0, out1))| task(scratch, i, out0, out1));
    Ok((u0, u1))
}

/// One limb of one component of an inner product.
#[expect(clippy::too_many_arguments, reason = "an inner loop, called in two places")]
fn dot_limb(
    context: &Context,
    level: usize,
    i: usize,
    digits: &[&[u64]],
    key: &SwitchingKey,
    second: bool,
    lift: Option<&Poly<Eval>>,
    out: &mut [u64],
) {
    let m = context.qp_modulus(level, i);
    let column = key.column(level, i, digits.len(), second);
    dot_into(m, digits, &column, out);
    if let Some(c) = lift.filter(|_| i <= level) {
        pointwise::mul_scalar_add_assign(m, out, c.limb(i), context.p_mod_q(i));
    }
}

/// [`decompose`] and [`inner_product`] in one go, limb by limb, so that a digit is used while it is in cache.
///
/// # Errors
/// [`CkksError::KeyLevel`] where the key does not reach the level.
pub fn decompose_and_multiply(
    context: &Context,
    c: &Poly<Eval>,
    level: usize,
    key: &SwitchingKey,
    lift: Lift<'_>,
) -> Result<(QpPoly, QpPoly)> {
    check_key("key switch", key, level)?;
    let n = context.n();
    let mut raised = raise(context, c, level);
    let digits = raised.digits;
    let mut u0 = QpPoly::scratch(context, level);
    let mut u1 = QpPoly::scratch(context, level);
    raised
        .data
        .par_chunks_exact_mut(digits * n)
        .zip(u0.poly.data_mut().par_chunks_exact_mut(n))
        .zip(u1.poly.data_mut().par_chunks_exact_mut(n))
        .enumerate()
        .with_min_len((HEAVY / (digits * n)).max(1))
        .for_each(|(i, ((chunk, out0), out1))| {
            let table = context.qp_table(level, i);
            let list: Vec<&[u64]> = chunk
                .chunks_exact_mut(n)
                .zip(&context.level(level).digits)
                .map(|(limb, digit)| {
                    if digit.range.contains(&i) {
                        return c.limb(i);
                    }
                    table.forward(limb);
                    &*limb
                })
                .collect();
            dot_limb(context, level, i, &list, key, false, lift.c0, out0);
            dot_limb(context, level, i, &list, key, true, lift.c1, out1);
        });
    Ok((u0, u1))
}

fn check_key(op: &'static str, key: &SwitchingKey, level: usize) -> Result<()> {
    if key.level() < level {
        return Err(CkksError::KeyLevel { op, have: key.level(), need: level });
    }
    Ok(())
}

/// `⌊a / P⌉` modulo `q_0 … q_level` (ModDown).
pub fn mod_down(context: &Context, a: QpPoly) -> Poly<Eval> {
    let [out] = divide(context, [a], false);
    out
}

/// [`mod_down`] of both components.
pub fn mod_down_pair(context: &Context, (a, b): (QpPoly, QpPoly)) -> (Poly<Eval>, Poly<Eval>) {
    let [a, b] = divide(context, [a, b], false);
    (a, b)
}

/// `⌊a / (P·q_level)⌉` modulo `q_0 … q_{level-1}`: ModDown and rescaling with one rounding and fewer
/// transforms than one after the other.
///
/// # Errors
/// [`CkksError::LevelRange`] at level 0.
pub fn mod_down_rescale(context: &Context, a: QpPoly) -> Result<Poly<Eval>> {
    context.check_level("mod_down_rescale", a.level, 1)?;
    let [out] = divide(context, [a], true);
    Ok(out)
}

/// [`mod_down_rescale`] of both components.
///
/// # Errors
/// [`CkksError::LevelRange`] at level 0.
pub fn mod_down_rescale_pair(context: &Context, (a, b): (QpPoly, QpPoly)) -> Result<(Poly<Eval>, Poly<Eval>)> {
    context.check_level("mod_down_rescale", a.level, 1)?;
    let [a, b] = divide(context, [a, b], true);
    Ok((a, b))
}

/// Divides by `P`, and by the last chain prime too where `rescale` is set.
fn divide<const K: usize>(context: &Context, mut parts: [QpPoly; K], rescale: bool) -> [Poly<Eval>; K] {
    let n = context.n();
    let level = parts[0].level;
    let tables = context.level(level);
    let (converter, inverses) = match &tables.rescale {
        Some(t) if rescale => (&t.mod_down, &t.pq_inv),
        _ => (&tables.mod_down, &tables.p_inv),
    };
    let limbs = inverses.len();
    // The limbs that are divided away go to coefficient form.
    let mut jobs = Vec::new();
    for part in &mut parts {
        debug_assert_eq!(part.level, level);
        let tail = part.poly.data_mut()[limbs * n..].chunks_exact_mut(n);
        jobs.extend(tail.enumerate().map(|(j, limb)| (limbs + j, limb)));
    }
    jobs.into_par_iter()
        .with_min_len((HEAVY / n).max(1))
        .for_each(|(i, limb)| context.qp_table(level, i).inverse(limb));
    let mut out: [Poly<Eval>; K] = std::array::from_fn(|_| Poly::scratch(n, limbs));
    let conversions = parts
        .iter()
        .zip(&mut out)
        .map(|(part, out)| {
            // The converter wants the special primes first, then the last chain prime.
            let mut src: Vec<&[u64]> = (level + 1..part.poly.limbs()).map(|i| part.poly.limb(i)).collect();
            if rescale {
                src.push(part.poly.limb(level));
            }
            Conversion { converter, src, dst: out.data_mut().chunks_exact_mut(n).collect() }
        })
        .collect();
    convert(conversions);
    let mut jobs = Vec::with_capacity(K * limbs);
    for (part, out) in parts.iter().zip(&mut out) {
        for (i, limb) in out.data_mut().chunks_exact_mut(n).enumerate() {
            jobs.push((i, part.poly.limb(i), limb));
        }
    }
    finish_division(context, jobs, inverses);
    out
}

/// For every job `(i, x, t)`: `t ← (x − NTT(t)) · inverse_i` modulo `q_i`.
pub(crate) fn finish_division(context: &Context, mut jobs: Vec<(usize, &[u64], &mut [u64])>, inverses: &[u64]) {
    // One limb of all components after the other: they share twiddles.
    jobs.sort_by_key(|job| job.0);
    jobs.into_par_iter().with_min_len((HEAVY / context.n()).max(1)).for_each(|(i, x, t)| {
        let m = context.q(i);
        context.q_table(i).forward(t);
        pointwise::sub_mul_scalar_assign(m, t, x, m.neg(inverses[i]));
    });
}
