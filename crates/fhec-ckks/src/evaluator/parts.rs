//! Two real values a slot, one in the real and one in the imaginary part (nGraph-HE2 §3.3, "complex packing").
//!
//! Sums and products with real numbers act on both parts alike. Products of ciphertexts do not; but with `z = a + ib`, `w = c + id` and a
//! conjugation of each,
//!
//! ```text
//! (z + z̄)(w + w̄) − i·(z − z̄)(w − w̄) = 2a·2c − i·2ib·2id = 4·(ac + i·bd).
//! ```
//!
//! The factor 4 goes into the scale, so nothing is rounded and no level is lost. `i` is the monomial `X^(N/2)`. Both tensor products
//! are added up before the one relinearisation.

use std::ops::Range;

use fhec_math::{AlignedVec, Modulus, Scale, pointwise};
use num_complex::Complex64;

use super::Evaluator;
use super::products::double;
use crate::cipher::{Ciphertext, Product};
use crate::error::Result;
use crate::limbs::{LIGHT, par_chunks};

/// Words that are handled together: sums and differences stay in the nearest caches.
const BLOCK: usize = 1024;

/// The same words of both parts of a ciphertext.
type Words<'a> = [&'a [u64]; 2];

/// Which words.
struct At {
    limb: usize,
    words: Range<usize>,
}

impl At {
    fn of<'a>(&self, c: &'a Ciphertext) -> Words<'a> {
        [&c.c0, &c.c1].map(|part| &part.limb(self.limb)[self.words.clone()])
    }
}

impl Evaluator {
    /// `Re a · Re b + i · Im a · Im b` in every slot, not relinearised, at four times the product of the scales. Conjugates both
    /// operands.
    ///
    /// # Errors
    /// [`CkksError::NoGaloisKey`](crate::CkksError::NoGaloisKey), [`CkksError::KeyLevel`](crate::CkksError::KeyLevel),
    /// [`CkksError::LevelMismatch`](crate::CkksError::LevelMismatch), [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn mul_parts(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Product> {
        self.check_levels("mul_parts", a, b)?;
        let conjugates = [self.conjugate(a)?, self.conjugate(b)?];
        let scale = a.scale.mul(&b.scale).mul(&Scale::pow2(2));
        Ok(self.blocks(a.level, scale, |m, minus_i, temp: [&mut [u64]; 10], at, [c0, c1, c2]| {
            let [x0, x1, y0, y1, u0, u1, v0, v1, w0, w1] = temp;
            sum_and_difference(m, at.of(a), at.of(&conjugates[0]), [&mut *x0, &mut *x1], [&mut *y0, &mut *y1]);
            sum_and_difference(m, at.of(b), at.of(&conjugates[1]), [&mut *u0, &mut *u1], [&mut *v0, &mut *v1]);
            times(m, minus_i, [&*y0, &*y1], [&mut *w0, &mut *w1]);
            pointwise::mul_into(m, c0, x0, u0);
            pointwise::mul_add_assign(m, c0, w0, v0);
            pointwise::mul_into(m, c1, x0, u1);
            pointwise::mul_add_assign(m, c1, x1, u0);
            pointwise::mul_add_assign(m, c1, w0, v1);
            pointwise::mul_add_assign(m, c1, w1, v0);
            pointwise::mul_into(m, c2, x1, u1);
            pointwise::mul_add_assign(m, c2, w1, v1);
        }))
    }

    /// `(Re a)² + i · (Im a)²` in every slot, not relinearised, at four times the square of the scale. Conjugates the operand.
    ///
    /// # Errors
    /// As [`mul_parts`](Self::mul_parts).
    pub fn square_parts(&self, a: &Ciphertext) -> Result<Product> {
        let conjugate = self.conjugate(a)?;
        let scale = a.scale.square().mul(&Scale::pow2(2));
        Ok(self.blocks(a.level, scale, |m, minus_i, temp: [&mut [u64]; 6], at, [c0, c1, c2]| {
            let [x0, x1, y0, y1, w0, w1] = temp;
            sum_and_difference(m, at.of(a), at.of(&conjugate), [&mut *x0, &mut *x1], [&mut *y0, &mut *y1]);
            times(m, minus_i, [&*y0, &*y1], [&mut *w0, &mut *w1]);
            pointwise::mul_into(m, c0, x0, x0);
            pointwise::mul_add_assign(m, c0, w0, y0);
            pointwise::mul_into(m, c1, x0, x1);
            pointwise::mul_add_assign(m, c1, w0, y1);
            double(m, c1);
            pointwise::mul_into(m, c2, x1, x1);
            pointwise::mul_add_assign(m, c2, w1, y1);
        }))
    }

    /// A product whose blocks `f` fills, given the residue that stands for `−i` there, `T` blocks of scratch, and which words
    /// they are.
    fn blocks<const T: usize, F>(&self, level: usize, scale: Scale, f: F) -> Product
    where
        F: Fn(&Modulus, u64, [&mut [u64]; T], &At, [&mut [u64]; 3]) + Sync,
    {
        let half = self.context.n() / 2;
        let block = BLOCK.min(half);
        let [c0, c1, c2] = self.product(level, |m, i, parts| {
            let root = self.imaginary_unit(i);
            let mut scratch = AlignedVec::scratch(T * block);
            let mut outs = parts.map(|part| part.chunks_exact_mut(block));
            for start in (0..2 * half).step_by(block) {
                let mut temp = scratch.chunks_exact_mut(block);
                let temp = std::array::from_fn(|_| temp.next().expect("as many blocks as were made"));
                let out = outs.each_mut().map(|chunks| chunks.next().expect("parts have all words"));
                let at = At { limb: i, words: start..start + block };
                f(m, if start < half { m.neg(root) } else { root }, temp, &at, out);
            }
        });
        Product { c0, c1, c2, level, scale, id: self.context.id() }
    }

    /// The residue modulo chain prime `i` that stands for `i`, which is `X^(N/2)`, in the first half of the words. In
    /// bit-reversed order these are the powers `ψ^(4k+1)`, where `X^(N/2)` is `ψ^(N/2)`; the second half are the powers
    /// `ψ^(4k+3)`, where it is the negative.
    pub(super) fn imaginary_unit(&self, i: usize) -> u64 {
        self.context.q(i).pow(self.context.q_table(i).psi(), self.context.n() as u64 / 2)
    }

    /// `a += value` in every slot, encoded at the scale of `a`: touches one part, two residues a limb.
    ///
    /// # Errors
    /// As [`mul_scalar`](Self::mul_scalar).
    pub fn add_complex_assign(&self, a: &mut Ciphertext, value: Complex64) -> Result<()> {
        let op = "add_complex";
        self.check(op, a)?;
        let (re, im) = (Self::integer(op, value.re, &a.scale)?, Self::integer(op, value.im, &a.scale)?);
        let half = self.context.n() / 2;
        par_chunks(a.c0.data_mut(), 2 * half, LIGHT, |i, limb| {
            let m = self.context.q(i);
            let (re, im) = (m.reduce_i128(re), m.mul(m.reduce_i128(im), self.imaginary_unit(i)));
            pointwise::add_scalar_assign(m, &mut limb[..half], m.add(re, im));
            pointwise::add_scalar_assign(m, &mut limb[half..], m.sub(re, im));
        });
        Ok(())
    }

    /// `a + value` in every slot; see [`add_complex_assign`](Self::add_complex_assign).
    ///
    /// # Errors
    /// As [`mul_scalar`](Self::mul_scalar).
    pub fn add_complex(&self, a: &Ciphertext, value: Complex64) -> Result<Ciphertext> {
        let mut out = a.clone();
        self.add_complex_assign(&mut out, value)?;
        Ok(out)
    }
}

/// `z + c` and `z − c`, part by part.
fn sum_and_difference(m: &Modulus, z: Words<'_>, c: Words<'_>, sum: [&mut [u64]; 2], difference: [&mut [u64]; 2]) {
    for (((z, c), sum), difference) in z.into_iter().zip(c).zip(sum).zip(difference) {
        sum.copy_from_slice(z);
        pointwise::add_assign(m, sum, c);
        difference.copy_from_slice(z);
        pointwise::sub_assign(m, difference, c);
    }
}

/// `y` times a residue, part by part.
fn times(m: &Modulus, by: u64, y: Words<'_>, out: [&mut [u64]; 2]) {
    for (y, out) in y.into_iter().zip(out) {
        out.copy_from_slice(y);
        pointwise::mul_scalar_assign(m, out, by);
    }
}
