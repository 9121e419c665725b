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
//! [`decompose`] makes the digits modulo all primes, [`mod_down`] divides. Where nothing comes in between, the sum is made and
//! divided limb by limb. Lifts and divisions are exact and centred, so the error has mean zero.
//!
//! A key for the rotation `σ` encrypts `P·g_d·s` under `σ^-1(s)`: digits are never permuted, only the sum
//! `u` is, which costs two permutations instead of one per digit (2020/1203 §4.1).

mod digits;
mod images;
mod switch;
#[cfg(test)]
mod tests;

use fhec_math::{AlignedVec, Eval, Fetch, Modulus, NttTable, Poly, pointwise};
use rayon::prelude::*;

pub(crate) use digits::{At, Digits, Span};
pub(crate) use images::{KeyedImage, Undivided, add_images, add_images_divided};
pub(crate) use switch::{Limbs, Switch, add_moved_part, switch};

use crate::error::Result;
use crate::limbs::{self, Conversion, HEAVY, convert, par_chunks};
use crate::params::{Context, DigitTables};
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
    /// A polynomial that is small enough for one digit, modulo all primes of a level and in evaluation form.
    pub(crate) fn single(context: &Context, data: AlignedVec, level: usize) -> Self {
        debug_assert_eq!(data.len(), context.qp_limbs(level) * context.n(), "limbs do not fit the level");
        Self { data, digits: 1, n: context.n(), level }
    }

    /// Level of the polynomial that was decomposed.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Number of digits.
    pub fn digits(&self) -> usize {
        self.digits
    }

    /// Digit `d` modulo the prime of limb `i` (order `q_0 … q_level, p_0 …`), in evaluation form. Residues may be loose, below 2^52.
    pub fn digit(&self, i: usize, d: usize) -> &[u64] {
        let start = (i * self.digits + d) * self.n;
        &self.data[start..start + self.n]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.len() * 8
    }
}

/// Decomposes the chain polynomial `c` of `level + 1` limbs (ModUp), divided by the special primes that the level does not use.
///
/// Keys are made for the product `P` of all of them. With the first ones alone, of product `P_ℓ`, a key still is an encryption of
/// `P·g_d·s'`, and `c·P_ℓ/P` in the place of `c` leaves `P_ℓ·c·s'`. It is never made as a whole: what is converted is multiplied there, and
/// the rest where it is used.
pub fn decompose(context: &Context, c: &Poly<Eval>, level: usize) -> Decomposed {
    let coeffs = coefficients(context, c, level);
    let mut raised = raise(context, &coeffs, level);
    let (n, tables) = (raised.n, context.level(level));
    par_chunks(&mut raised.data, raised.digits * n, HEAVY, |i, chunk| {
        let table = context.qp_table(level, i);
        let mut fetch = Fetch::new([]);
        table.fetch(false, None, &mut fetch);
        chunk.chunks_exact(n).for_each(|limb| fetch.push(limb));
        for (digit, limb) in tables.digits.iter().zip(chunk.chunks_exact_mut(n)) {
            match &tables.unused_inv {
                Some(factors) if digit.range.contains(&i) => {
                    pointwise::mul_scalar_into(context.q(i), limb, c.limb(i), factors[i]);
                }
                None if digit.range.contains(&i) => limb.copy_from_slice(c.limb(i)),
                _ if digit.range.len() > 1 => limbs::forward(table, None, None, limb, &mut fetch),
                _ => lift_digit(context, &coeffs, level, i, digit, limb, &mut fetch),
            }
        }
    });
    raised
}

/// The limbs `q_0 … q_level` of `c`, ready to be converted. Digits of one prime are not: those are in coefficient form, and multiplied already.
fn coefficients(context: &Context, c: &Poly<Eval>, level: usize) -> AlignedVec {
    let (n, tables) = (context.n(), context.level(level));
    let mut coeffs = AlignedVec::scratch((level + 1) * n);
    par_chunks(&mut coeffs, n, HEAVY, |i, limb| {
        let (table, mut fetch) = (context.q_table(i), Fetch::new([]));
        table.fetch(true, None, &mut fetch);
        if i < level {
            fetch.push(c.limb(i + 1));
        }
        if tables.digits.iter().all(|digit| digit.range != (i..i + 1)) {
            return limbs::inverse(table, None, Some(c.limb(i)), limb, &mut fetch);
        }
        table.inverse_from(c.limb(i), limb, &mut fetch);
        if let Some(factors) = &tables.unused_inv {
            pointwise::mul_scalar_assign(context.q(i), limb, factors[i]);
        }
    });
    coeffs
}

/// The digits of several primes as conversions leave them, modulo the primes that are not their own. All else is left unset:
/// digits of one prime are lifted where they are used, which takes no reconstruction.
fn raise(context: &Context, coeffs: &[u64], level: usize) -> Decomposed {
    let n = context.n();
    let tables = context.level(level);
    let digits = tables.digits.len();
    let mut data = AlignedVec::scratch(context.qp_limbs(level) * digits * n);
    let mut conversions: Vec<Conversion<'_>> = tables
        .digits
        .iter()
        .map(|digit| Conversion {
            converter: &digit.mod_up,
            src: digit.range.clone().map(|i| (&**context.q_table(i), &coeffs[i * n..(i + 1) * n])).collect(),
            dst: Vec::with_capacity(context.qp_limbs(level)),
        })
        .collect();
    for (index, limb) in data.chunks_exact_mut(n).enumerate() {
        let (i, d) = (index / digits, index % digits);
        if !tables.digits[d].range.contains(&i) {
            conversions[d].dst.push((context.qp_table(level, i), limb));
        }
    }
    conversions.retain(|conversion| conversion.src.len() > 1);
    convert(conversions);
    Decomposed { data, digits, n, level }
}

/// A digit of one prime modulo the prime of limb `i`, which is another: evaluation form, loose.
fn lift_digit(
    context: &Context,
    coeffs: &[u64],
    level: usize,
    i: usize,
    digit: &DigitTables,
    limb: &mut [u64],
    fetch: &mut Fetch,
) {
    let (n, from) = (context.n(), digit.range.start);
    let src = &coeffs[from * n..(from + 1) * n];
    pointwise::switch_centered(context.q(from), context.qp_modulus(level, i), src, limb);
    context.qp_table(level, i).forward_loose(None, limb, fetch);
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
/// [`CkksError::LevelRange`](crate::CkksError::LevelRange) at level 0.
pub fn mod_down_rescale(context: &Context, a: QpPoly) -> Result<Poly<Eval>> {
    context.check_level("mod_down_rescale", a.level, 1)?;
    let [out] = divide(context, [a], true);
    Ok(out)
}

/// [`mod_down_rescale`] of both components.
///
/// # Errors
/// [`CkksError::LevelRange`](crate::CkksError::LevelRange) at level 0.
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
    // The limbs that are divided away are made ready to be converted.
    let mut jobs = Vec::new();
    for part in &mut parts {
        debug_assert_eq!(part.level, level);
        let tail = part.poly.data_mut()[limbs * n..].chunks_exact_mut(n);
        jobs.extend(tail.enumerate().map(|(j, limb)| (limbs + j, limb)));
    }
    jobs.into_par_iter().with_min_len((HEAVY / n).max(1)).for_each(|(i, limb)| {
        let mut fetch = Fetch::new([]);
        context.qp_table(level, i).fetch(true, None, &mut fetch);
        inverse_divided(context, level, limbs, &At::whole(i, n), limb, &mut fetch);
    });
    let mut out: [Poly<Eval>; K] = std::array::from_fn(|_| Poly::scratch(n, limbs));
    // The converter wants the special primes first, then the last chain prime.
    let order = (level + 1..context.qp_limbs(level)).chain(limbs..level + 1);
    let sources = parts.each_ref().map(|part| {
        let source = |i| (&**context.qp_table(level, i), part.poly.limb(i));
        order.clone().map(source).collect::<Vec<_>>()
    });
    let from = context.moduli_p().first().filter(|_| sources[0].len() == 1);
    if from.is_none() {
        let pairs = sources.iter().zip(&mut out);
        let conversions =
            pairs.map(|(src, out)| Conversion { converter, src: src.clone(), dst: with_tables(context, out) });
        convert(conversions.collect());
    }
    let mut jobs = Vec::with_capacity(K * limbs);
    for ((part, out), src) in parts.iter().zip(&mut out).zip(&sources) {
        for (i, t) in out.data_mut().chunks_exact_mut(n).enumerate() {
            jobs.push(Division { i, x: part.poly.limb(i), t, from: from.map(|m| (m, src[0].1)) });
        }
    }
    finish_division(context, jobs, inverses);
    out
}

/// The last steps of a division, for limb `i` of `x`.
pub(crate) struct Division<'a> {
    pub(crate) i: usize,
    pub(crate) x: &'a [u64],
    /// What a conversion left of the remainder modulo `q_i`, and then the result.
    pub(crate) t: &'a mut [u64],
    /// Where the remainder is still to be taken from: coefficients modulo a single divisor.
    pub(crate) from: Option<(&'a Modulus, &'a [u64])>,
}

/// For every job: `t ← (x − NTT(t)) · inverse_i` modulo `q_i`.
pub(crate) fn finish_division(context: &Context, mut jobs: Vec<Division<'_>>, inverses: &[u64]) {
    // One limb of all components after the other: they share twiddles.
    jobs.sort_by_key(|job| job.i);
    jobs.into_par_iter().with_min_len((HEAVY / context.n()).max(1)).for_each(|Division { i, x, t, from }| {
        let m = context.q(i);
        let (at, mut fetch) = (At::whole(i, t.len()), Fetch::new([]));
        context.q_table(i).fetch(false, None, &mut fetch);
        fetch.push(x);
        transform_remainder(context, &at, from, t, None, &mut fetch);
        pointwise::sub_mul_scalar_assign(m, t, x, m.neg(inverses[i]));
    });
}

/// A limb that is divided away, one of those from `kept` on: ready to be converted, or where it is the only one in coefficient form.
fn inverse_divided(context: &Context, level: usize, kept: usize, at: &At, limb: &mut [u64], fetch: &mut Fetch) {
    let table = context.qp_table(level, at.i);
    if context.qp_limbs(level) - kept == 1 {
        table.inverse(limb);
    } else {
        limbs::inverse(table, at.quarter, None, limb, fetch);
    }
}

/// The limbs of a polynomial modulo chain primes, with their tables.
fn with_tables<'a>(context: &'a Context, poly: &'a mut Poly<Eval>) -> Vec<(&'a NttTable, &'a mut [u64])> {
    poly.iter_mut().enumerate().map(|(i, limb)| (&**context.q_table(i), limb)).collect()
}

/// Evaluation form, loose, of a remainder: of what a conversion left in `t`, or of coefficients modulo a single divisor, which need
/// no conversion and are those of a whole limb. It stays in `t` or goes `to` another limb.
fn transform_remainder(
    context: &Context,
    at: &At,
    from: Option<(&Modulus, &[u64])>,
    t: &mut [u64],
    to: Option<&mut [u64]>,
    fetch: &mut Fetch,
) {
    let table = context.q_table(at.i);
    if let Some((from, remainder)) = from {
        pointwise::switch_centered(from, context.q(at.i), remainder, t);
    }
    let (source, limb) = match to {
        Some(to) => (Some(&*t), to),
        None => (None, t),
    };
    if from.is_some() {
        table.forward_loose(source, limb, fetch);
    } else {
        limbs::forward(table, at.quarter, source, limb, fetch);
    }
}
