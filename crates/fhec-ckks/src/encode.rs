//! Encoding of slot vectors into polynomials and back.
//!
//! Slot `j` is the value at `ζ^(5^j)`, `ζ = exp(iπ/N)` (2016/421 §2.2; the orbit of 5 as in most
//! libraries). A vector that repeats after `n` slots is a polynomial in `Y = X^(N/2n)` of `2n`
//! coefficients. With `ω = exp(iπ/2n)`, `5^j = 4·m_j + 1` and `ω^(n·5^j) = i`,
//!
//! ```text
//! z_j = Σ_{k<2n} b_k ω^(k·5^j) = Σ_{k<n} (b_k + i·b_{k+n})·ω^k · exp(2πi·k·m_j/n),
//! ```
//!
//! so encoding is one complex FFT of length `n` between the permutation `j → m_j` and the twist `ω^k`.

use std::f64::consts::PI;
use std::sync::{Arc, OnceLock};

use fhec_math::{AlignedVec, Eval, Modulus, Poly, Scale, Zeroizing, pointwise};
use num_complex::Complex64;
use rayon::prelude::*;
use realfft::{RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftPlanner};

use crate::error::{CkksError, Result};
use crate::limbs::{HEAVY, par_chunks};
use crate::params::Context;
use crate::plaintext::{CoeffPlaintext, Plaintext, QpPlaintext};

/// Coefficients are held with this many bits; larger ones share a power of two, which is far finer than `f64`.
const COEFFICIENT_BITS: f64 = 62.0;
/// Decoded values are told apart up to half this power of two.
const LOG2_DECODED: f64 = 64.0;
/// No modulus is larger than this, as a log2.
const LOG2_LARGEST: f64 = 1000.0;
/// Rings below this degree (as a log2) are transformed by direct evaluation.
const LOG2_MIN_TABLE: u32 = 4;

/// Up to here adding and taking away `1.5·2^52` rounds to the nearest integer, ties to even.
const EXACT_ROUNDING: f64 = (1u64 << 51) as f64;

/// Transforms between slots and coefficients for vectors that repeat after `n` slots.
struct SlotTables {
    forward: Arc<dyn Fft<f64>>,
    /// The forward transform of real values.
    real: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn Fft<f64>>,
    /// `m_j = (5^j mod 4n − 1)/4`.
    order: Vec<u32>,
    /// `ω^k = exp(iπk/2n)`.
    twist: Vec<Complex64>,
}

impl SlotTables {
    fn new(n: usize) -> Self {
        let mut planner = FftPlanner::new();
        let mut order = Vec::with_capacity(n);
        let mut power = 1usize;
        for _ in 0..n {
            order.push(((power - 1) / 4) as u32);
            power = power * 5 % (4 * n);
        }
        Self {
            forward: planner.plan_fft_forward(n),
            real: RealFftPlanner::new().plan_fft_forward(n),
            inverse: planner.plan_fft_inverse(n),
            order,
            twist: (0..n).map(|k| Complex64::cis(PI * k as f64 / (2 * n) as f64)).collect(),
        }
    }

    /// Coefficients `b_k + i·b_{k+n}` of slots `z`, unscaled.
    fn to_coefficients(&self, z: &[Complex64]) -> Vec<Complex64> {
        let n = z.len();
        let mut y = vec![Complex64::default(); n];
        for (&m, &value) in self.order.iter().zip(z) {
            y[m as usize] = value;
        }
        self.forward.process(&mut y);
        let inverse_n = 1.0 / n as f64;
        for (value, twist) in y.iter_mut().zip(&self.twist) {
            *value *= twist.conj() * inverse_n;
        }
        y
    }

    /// Coefficients `b_0 … b_{n−1}` of real slots `z`, times `factor`; the others follow from `b_{2n−k} = −b_k`. With `t_k` what
    /// [`to_coefficients`](Self::to_coefficients) returns, `b_k` is the real part of `t_k` and `b_{n−k}` the negated imaginary one,
    /// since the transform of real values is `y_{n−k} = conj(y_k)`.
    fn to_real_coefficients(&self, z: &[f64], factor: f64, scratch: &mut EncodeScratch) {
        let n = z.len();
        if n == 1 {
            scratch.values.clear();
            scratch.values.push(z[0] * factor);
            return;
        }
        let EncodeScratch { values, spectrum, work } = scratch;
        values.resize(n, 0.0);
        spectrum.resize(n / 2 + 1, Complex64::default());
        work.resize(self.real.get_scratch_len(), Complex64::default());
        for (&m, &value) in self.order.iter().zip(z) {
            values[m as usize] = value;
        }
        let done = self.real.process_with_scratch(values, spectrum, work);
        // The lengths are those that the transform asked for, and it checks nothing else of its input.
        debug_assert!(done.is_ok());
        let factor = factor / n as f64;
        let twisted = |k: usize| spectrum[k] * self.twist[k].conj() * factor;
        let (front, back) = values.split_at_mut(n / 2);
        for ((k, low), high) in (1..).zip(&mut front[1..]).zip(back[1..].iter_mut().rev()) {
            let t = twisted(k);
            *low = t.re;
            *high = -t.im;
        }
        front[0] = spectrum[0].re * factor;
        back[0] = twisted(n / 2).re;
    }

    /// Slots of coefficients `b_k + i·b_{k+n}`.
    fn to_slots(&self, mut c: Vec<Complex64>) -> Vec<Complex64> {
        for (value, twist) in c.iter_mut().zip(&self.twist) {
            *value *= twist;
        }
        self.inverse.process(&mut c);
        self.order.iter().map(|&m| c[m as usize]).collect()
    }
}

/// Buffers of [`Encoder::encode_coeffs_with`], worth keeping where many vectors are encoded.
#[derive(Debug, Default)]
pub struct EncodeScratch {
    values: Vec<f64>,
    spectrum: Vec<Complex64>,
    work: Vec<Complex64>,
}

/// Encodes and decodes for one context. Tables for each vector length are made on first use.
pub struct Encoder {
    context: Arc<Context>,
    /// Index: log2 of the vector length.
    slots: Vec<OnceLock<SlotTables>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("log_n", &self.context.log_n()).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for `context`.
    pub fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), slots: (0..context.log_n()).map(|_| OnceLock::new()).collect() }
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn tables(&self, n: usize) -> &SlotTables {
        self.slots[n.trailing_zeros() as usize].get_or_init(|| SlotTables::new(n))
    }

    /// Encodes real values, repeated periodically over all slots.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] unless the length is a power of two up to the number of slots,
    /// [`CkksError::NotFinite`], [`CkksError::Overflow`] where a scaled coefficient exceeds half the
    /// modulus of the level, [`CkksError::LevelRange`].
    pub fn encode(&self, values: &[f64], level: usize, scale: &Scale) -> Result<Plaintext> {
        self.plaintext(&self.encode_coeffs(values, scale)?, level)
    }

    /// [`encode`](Self::encode) for complex values.
    pub fn encode_complex(&self, values: &[Complex64], level: usize, scale: &Scale) -> Result<Plaintext> {
        self.plaintext(&self.encode_coeffs_complex(values, scale)?, level)
    }

    /// Encodes for products inside double-hoisted linear maps; see [`QpPlaintext`].
    pub fn encode_qp(&self, values: &[f64], level: usize, scale: &Scale) -> Result<QpPlaintext> {
        self.qp_plaintext(&self.encode_coeffs(values, scale)?, level)
    }

    /// [`encode_qp`](Self::encode_qp) for complex values.
    pub fn encode_qp_complex(&self, values: &[Complex64], level: usize, scale: &Scale) -> Result<QpPlaintext> {
        self.qp_plaintext(&self.encode_coeffs_complex(values, scale)?, level)
    }

    /// Rounded coefficients of real values; see [`CoeffPlaintext`].
    pub fn encode_coeffs(&self, values: &[f64], scale: &Scale) -> Result<CoeffPlaintext> {
        self.encode_coeffs_with(values, scale, &mut EncodeScratch::default())
    }

    /// [`encode_coeffs`](Self::encode_coeffs) without allocating more than the result.
    pub fn encode_coeffs_with(
        &self,
        values: &[f64],
        scale: &Scale,
        scratch: &mut EncodeScratch,
    ) -> Result<CoeffPlaintext> {
        self.check_values(values.len(), |i| values[i].is_finite())?;
        let values = &values[..shortest_period(values)];
        self.tables(values.len()).to_real_coefficients(values, scale.to_f64(), scratch);
        let values = &scratch.values;
        let largest = values.iter().fold(0.0f64, |max, v| max.max(v.abs()));
        let shift = shift(largest)?;
        let mut coeffs = AlignedVec::scratch(values.len());
        round_into(values, largest, shift, bytemuck::cast_slice_mut(&mut coeffs));
        Ok(CoeffPlaintext::new(coeffs, true, shift, scale.clone()))
    }

    /// [`encode_coeffs`](Self::encode_coeffs) for complex values.
    pub fn encode_coeffs_complex(&self, values: &[Complex64], scale: &Scale) -> Result<CoeffPlaintext> {
        self.check_values(values.len(), |i| values[i].re.is_finite() && values[i].im.is_finite())?;
        self.round(&values[..shortest_period(values)], scale)
    }

    fn check_values(&self, len: usize, finite: impl Fn(usize) -> bool) -> Result<()> {
        let slots = self.context.slots();
        if !len.is_power_of_two() || len > slots {
            return Err(CkksError::SlotCount { op: "encode", len, slots });
        }
        match (0..len).find(|&i| !finite(i)) {
            Some(index) => Err(CkksError::NotFinite { op: "encode", index }),
            None => Ok(()),
        }
    }

    fn round(&self, z: &[Complex64], scale: &Scale) -> Result<CoeffPlaintext> {
        let n = z.len();
        let factor = scale.to_f64();
        let mut values = vec![0.0; 2 * n];
        let (low, high) = values.split_at_mut(n);
        for ((value, re), im) in self.tables(n).to_coefficients(z).iter().zip(low).zip(high) {
            *re = value.re * factor;
            *im = value.im * factor;
        }
        let largest = values.iter().fold(0.0f64, |max, v| max.max(v.abs()));
        let shift = shift(largest)?;
        let mut coeffs = AlignedVec::scratch(2 * n);
        round_into(&values, largest, shift, bytemuck::cast_slice_mut(&mut coeffs));
        Ok(CoeffPlaintext::new(coeffs, false, shift, scale.clone()))
    }

    /// Refuses coefficients that do not fit half the modulus of the level.
    fn check_fits(&self, coeffs: &CoeffPlaintext, level: usize) -> Result<()> {
        self.context.check_level("encode", level, 0)?;
        let (log2_magnitude, log2_limit) = (coeffs.log2_magnitude(), self.context.log_q(level) - 1.0);
        if log2_magnitude >= log2_limit {
            return Err(CkksError::Overflow { op: "encode", log2_magnitude, log2_limit });
        }
        if coeffs.period() > self.context.slots() {
            return Err(CkksError::SlotCount { op: "encode", len: coeffs.period(), slots: self.context.slots() });
        }
        Ok(())
    }

    /// Evaluation form over the chain of `level`.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] and [`CkksError::Overflow`].
    pub fn plaintext(&self, coeffs: &CoeffPlaintext, level: usize) -> Result<Plaintext> {
        self.check_fits(coeffs, level)?;
        let n = self.context.n();
        let values = 2 * coeffs.period();
        let mut poly = Poly::<Eval>::scratch(n, level + 1);
        par_chunks(poly.data_mut(), n, HEAVY, |i, limb| {
            subring_limb(&self.context, level, i, coeffs, &mut limb[..values]);
            spread(limb, values);
        });
        Ok(Plaintext { poly: Zeroizing::new(poly), level, scale: coeffs.scale.clone(), id: self.context.id() })
    }

    /// Evaluation form over the chain of `level` and the special primes, compressed.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] and [`CkksError::Overflow`].
    pub fn qp_plaintext(&self, coeffs: &CoeffPlaintext, level: usize) -> Result<QpPlaintext> {
        self.check_fits(coeffs, level)?;
        let values = 2 * coeffs.period();
        let mut data = AlignedVec::scratch(values * self.context.qp_limbs(level));
        par_chunks(&mut data, values, HEAVY, |i, limb| {
            subring_limb(&self.context, level, i, coeffs, limb);
        });
        Ok(QpPlaintext { data, values, n: self.context.n(), level, scale: coeffs.scale.clone(), id: self.context.id() })
    }

    /// Real parts of all slots. Values of 2^63 and more are not told from smaller ones.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`].
    pub fn decode(&self, plaintext: &Plaintext) -> Result<Vec<f64>> {
        Ok(self.decode_complex(plaintext)?.iter().map(|z| z.re).collect())
    }

    /// All slots. Values of 2^63 and more are not told from smaller ones.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`].
    pub fn decode_complex(&self, plaintext: &Plaintext) -> Result<Vec<Complex64>> {
        self.context.check_id("decode", plaintext.id)?;
        let coefficients = self.decode_coefficients(plaintext);
        let (re, im) = coefficients.split_at(self.context.slots());
        let c = re.iter().zip(im).map(|(&re, &im)| Complex64::new(re, im)).collect();
        Ok(self.tables(self.context.slots()).to_slots(c))
    }

    /// The centred coefficients divided by the scale, by balanced mixed-radix digits: those above a
    /// small coefficient are exactly zero, so nothing cancels.
    pub(crate) fn decode_coefficients(&self, plaintext: &Plaintext) -> Zeroizing<Vec<f64>> {
        let context = &self.context;
        // Enough limbs for the coefficients of any sensible message; each more costs as much as all below it.
        let wanted = plaintext.scale.log2() + LOG2_DECODED;
        let enough = (0..plaintext.level).find(|&level| context.log_q(level) >= wanted);
        let (n, limbs) = (context.n(), enough.unwrap_or(plaintext.level) + 1);
        let mut data = Zeroizing::new(plaintext.poly.data()[..limbs * n].to_vec());
        par_chunks(&mut data, n, HEAVY, |i, limb| context.q_table(i).inverse(limb));
        let radix = MixedRadix::new(&context.moduli_q()[..limbs], &plaintext.scale);
        let mut out = Zeroizing::new(vec![0.0; n]);
        out.par_iter_mut().enumerate().with_min_len(4096 / limbs).for_each(|(k, value)| {
            *value = radix.value(|i| data[i * n + k]);
        });
        out
    }
}

/// Constants of a conversion from residues to a floating-point number.
struct MixedRadix<'a> {
    moduli: &'a [Modulus],
    /// `q_j^-1 mod q_i` with Shoup companion for `j < i`, row after row.
    inverses: Vec<(u64, u64)>,
    /// `q_0 · … · q_{i-1} / scale`.
    weights: Vec<f64>,
}

impl<'a> MixedRadix<'a> {
    fn new(moduli: &'a [Modulus], scale: &Scale) -> Self {
        let mut inverses = Vec::new();
        for (i, m) in moduli.iter().enumerate() {
            for q in &moduli[..i] {
                let inverse = m.inv(m.reduce(q.value())).expect("distinct primes are invertible");
                inverses.push((inverse, m.shoup(inverse)));
            }
        }
        let mut weights = Vec::with_capacity(moduli.len());
        let mut weight = 1.0 / scale.to_f64();
        for m in moduli {
            weights.push(weight);
            weight *= m.value() as f64;
        }
        Self { moduli, inverses, weights }
    }

    fn value(&self, residue: impl Fn(usize) -> u64) -> f64 {
        // A result has few limbs, and clearing room for the longest chain would take longer than all else.
        if self.moduli.len() <= 8 { self.sum::<8>(residue) } else { self.sum::<128>(residue) }
    }

    /// [`value`](Self::value) for at most `LIMBS` moduli.
    fn sum<const LIMBS: usize>(&self, residue: impl Fn(usize) -> u64) -> f64 {
        let mut digits = [0i64; LIMBS];
        let mut inverses = self.inverses.iter();
        for (i, m) in self.moduli.iter().enumerate() {
            let mut t = residue(i);
            for (&digit, &(inverse, shoup)) in digits[..i].iter().zip(&mut inverses) {
                t = m.mul_shoup(m.sub(t, m.reduce_i64(digit)), inverse, shoup);
            }
            digits[i] = m.center(t);
        }
        // From the top down, so that the small terms are added last and exactly.
        let terms = digits[..self.moduli.len()].iter().zip(&self.weights).rev();
        terms.fold(0.0, |sum, (&digit, weight)| {
            // An infinite weight times a zero digit would be no number.
            if digit == 0 { sum } else { sum + digit as f64 * weight }
        })
    }
}

/// Length of the shortest power-of-two period, so that constants and repeated vectors are found
/// however they were written down.
fn shortest_period<T: PartialEq>(values: &[T]) -> usize {
    let mut len = values.len();
    while len > 1 && values[..len / 2] == values[len / 2..len] {
        len /= 2;
    }
    len
}

/// The exponent of two that coefficients of this magnitude must share.
fn shift(largest: f64) -> Result<u32> {
    let log2_magnitude = largest.log2();
    if log2_magnitude.is_nan() || log2_magnitude >= LOG2_LARGEST {
        return Err(CkksError::Overflow { op: "encode", log2_magnitude, log2_limit: LOG2_LARGEST });
    }
    Ok((log2_magnitude - COEFFICIENT_BITS + 1.0).ceil().max(0.0) as u32)
}

/// Nearest integers of `values / 2^shift`, ties to even.
fn round_into(values: &[f64], largest: f64, shift: u32, out: &mut [i64]) {
    if largest < EXACT_ROUNDING {
        // The sum has no room for a fraction: its low bits are the integer. Two vector instructions, where the general way calls
        // a function for each value.
        const MAGIC: f64 = 3.0 * EXACT_ROUNDING;
        for (out, v) in out.iter_mut().zip(values) {
            *out = (v + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i64;
        }
    } else {
        let factor = 2f64.powi(-(shift as i32));
        for (out, v) in out.iter_mut().zip(values) {
            *out = (v * factor).round_ties_even() as i64;
        }
    }
}

/// The values of `Σ b_k Y^k`, `Y = X^(N/2n)`, in bit-reversed order: those that the transform of the
/// whole ring would repeat `N/2n` times each. Limb `i` in the order `q_0 … q_level, p_0 …`.
fn subring_limb(context: &Context, level: usize, i: usize, coeffs: &CoeffPlaintext, out: &mut [u64]) {
    if coeffs.real {
        let (front, back) = out.split_at_mut(coeffs.period());
        symmetric_limb(context, level, i, coeffs, front);
        for (x, y) in back.iter_mut().rev().zip(front) {
            *x = *y;
        }
        return;
    }
    lift(context.qp_modulus(level, i), coeffs, out);
    transform(context, level, i, out);
}

/// Residues of the stored coefficients.
fn lift(m: &Modulus, coeffs: &CoeffPlaintext, out: &mut [u64]) {
    let p = m.value();
    if coeffs.max < p {
        // Branch-free, and vectorised by the compiler.
        for (x, &c) in out.iter_mut().zip(coeffs.words()) {
            *x = (c as u64).wrapping_add(((c >> 63) as u64) & p);
        }
    } else {
        for (x, &c) in out.iter_mut().zip(coeffs.words()) {
            *x = m.reduce_i64(c);
        }
    }
    if coeffs.shift != 0 {
        pointwise::mul_scalar_assign(m, out, m.pow(2, u64::from(coeffs.shift)));
    }
}

/// Residues of all coefficients to values.
fn transform(context: &Context, level: usize, i: usize, out: &mut [u64]) {
    let m = context.qp_modulus(level, i);
    let log_len = out.len().trailing_zeros();
    if log_len >= LOG2_MIN_TABLE {
        context.subring_table(level, i, log_len).forward(out);
    } else {
        let psi = context.qp_table(level, i).psi();
        evaluate_directly(m, m.pow(psi, 1 << (context.log_n() - log_len)), out);
    }
}

/// The first half of the values of [`subring_limb`] for a real vector; the other half is its mirror image.
pub(crate) fn symmetric_limb(context: &Context, level: usize, i: usize, coeffs: &CoeffPlaintext, out: &mut [u64]) {
    let m = context.qp_modulus(level, i);
    let words = coeffs.words();
    if words[1..].iter().all(|&c| c == 0) {
        // A real constant: the same everywhere, without a transform.
        out.fill(m.reduce_i64(words[0]));
    } else if out.len() >= 1 << (LOG2_MIN_TABLE - 1) {
        let log_len = out.len().trailing_zeros() + 1;
        context.subring_table(level, i, log_len).forward_symmetric(words, out);
    } else {
        let mut limb: Vec<u64> = coeffs.coefficients().iter().map(|&c| m.reduce_i64(c)).collect();
        transform(context, level, i, &mut limb);
        out.copy_from_slice(&limb[..out.len()]);
    }
    if coeffs.shift != 0 {
        pointwise::mul_scalar_assign(m, out, m.pow(2, u64::from(coeffs.shift)));
    }
}

/// Transform of at most 8 coefficients at the odd powers of `root`, by Horner's rule.
fn evaluate_directly(m: &Modulus, root: u64, values: &mut [u64]) {
    let len = values.len();
    let mut coeffs = [0; 1 << (LOG2_MIN_TABLE - 1)];
    coeffs[..len].copy_from_slice(values);
    for (i, value) in values.iter_mut().enumerate() {
        let reversed = (i as u64).reverse_bits() >> (64 - len.trailing_zeros());
        let point = m.pow(root, 2 * reversed + 1);
        *value = coeffs[..len].iter().rev().fold(0, |acc, &c| m.add(m.mul(acc, point), c));
    }
}

/// Repeats the first `values` words over the whole limb, each at consecutive positions.
fn spread(limb: &mut [u64], values: usize) {
    let repeat = limb.len() / values;
    if repeat > 1 {
        for k in (0..values).rev() {
            let value = limb[k];
            limb[k * repeat..(k + 1) * repeat].fill(value);
        }
    }
}
