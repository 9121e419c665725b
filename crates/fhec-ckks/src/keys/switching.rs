//! Key-switching keys.

use std::ops::Range;
use std::sync::Arc;

use fhec_math::{AlignedVec, Eval, Poly, SecretRng, lift_small, packed, pointwise, uniform_from_seed};
use rayon::prelude::*;

use super::packed_poly::{Column, PackedPoly, kept};
use crate::limbs::{HEAVY, par_chunks2};
use crate::params::{Context, Selection};

/// A key-switching key; see [`keyswitch`](crate::keyswitch) for what it holds.
///
/// It reaches up to its own level: it has the digits and limbs of that level only, which is a prefix of
/// those of a key for the top level.
///
/// Residues are packed to whole bytes: an inner product reads a key once and runs at the speed of the memory.
#[derive(Clone, Debug)]
pub struct SwitchingKey {
    pub(crate) seed: [u8; 32],
    pub(crate) level: usize,
    /// `−a_d·s + e_d + P·g_d·s'` for each digit, over `q_0 … q_level, p_0 …`.
    pub(crate) b: Vec<PackedPoly>,
    pub(crate) a: Uniform,
}

/// What becomes of the uniform half of a key that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniformHalves {
    /// It is made from its seed at once and kept: best for keys that are used again and again.
    Kept,
    /// Those of Galois keys are made limb by limb at every use: half of the memory, for a time that pays off where most keys
    /// are used once or twice.
    MadeOnUse,
}

/// The uniform half of a key.
#[derive(Clone, Debug)]
pub(crate) enum Uniform {
    /// Expanded from the seed.
    Kept(Vec<PackedPoly>),
    /// The label of the stream of each digit.
    Made(Vec<u64>),
}

impl SwitchingKey {
    /// Highest level at which the key can be used.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let kept = if let Uniform::Kept(polys) = &self.a { &polys[..] } else { &[] };
        self.b.iter().chain(kept).map(PackedPoly::bytes).sum()
    }

    /// A key of `message` under `under`, both over `q_0 … q_L, p_0 …`.
    pub(crate) fn generate(
        context: &Context,
        message: &Poly<Eval>,
        under: &Poly<Eval>,
        level: usize,
        rng: &mut SecretRng,
    ) -> Self {
        let n = context.n();
        let seed = rng.next_seed();
        let digits = context.digits_at(level);
        let noise: Vec<_> = (0..digits).map(|_| rng.noise(n)).collect();
        let (mut packed_b, mut packed_a) = (Vec::with_capacity(digits), Vec::with_capacity(digits));
        let mut b = Poly::<Eval>::scratch(n, context.qp_limbs(level));
        let mut a = Poly::<Eval>::scratch(n, context.qp_limbs(level));
        for (d, noise) in noise.iter().enumerate() {
            let range = context.digit_range(d);
            par_chunks2(b.data_mut(), a.data_mut(), n, HEAVY, |i, b, a| {
                let m = context.qp_modulus(level, i);
                let top = limb_index(context.max_level(), level, i);
                uniform_from_seed(&seed, d as u64, m, a);
                lift_small(m, noise, b);
                context.qp_table(level, i).forward(b);
                pointwise::mul_sub_assign(m, b, a, under.limb(top));
                if i <= level && range.contains(&i) {
                    pointwise::mul_scalar_add_assign(m, b, message.limb(top), context.gadget(i));
                }
            });
            packed_b.push(PackedPoly::pack(context, level, &b));
            packed_a.push(PackedPoly::pack(context, level, &a));
        }
        Self { seed, level, b: packed_b, a: Uniform::Kept(packed_a) }
    }

    /// Words that one half of a key up to `level` takes in memory.
    pub(crate) fn half_words(context: &Context, level: usize) -> usize {
        let one: usize = PackedPoly::ranges(context, level, 0).iter().map(Range::len).sum();
        context.digits_at(level) * one
    }

    /// The key whose [`half_words`](Self::half_words) lie in `block` from `start` on, digit after digit; those of the
    /// uniform half follow if it is `kept`.
    pub(crate) fn within(
        context: &Context,
        block: &Arc<AlignedVec>,
        start: usize,
        seed: [u8; 32],
        level: usize,
        kept: bool,
    ) -> Self {
        let digits = context.digits_at(level);
        let mut end = start;
        let mut half = || {
            let polys = (0..digits).map(|_| {
                let limbs = PackedPoly::ranges(context, level, end);
                end = limbs[context.qp_limbs(level) - 1].end;
                PackedPoly { data: Arc::clone(block), limbs }
            });
            polys.collect()
        };
        let b = half();
        let a = if kept { Uniform::Kept(half()) } else { Uniform::Made((0..digits as u64).collect()) };
        Self { seed, level, b, a }
    }

    /// Writes the uniform half of the key with this seed.
    pub(crate) fn expand(context: &Context, seed: &[u8; 32], level: usize, half: &mut [u64]) {
        let n = context.n();
        let limbs: Vec<&mut [u64]> = PackedPoly::split(context, level, half);
        let per_digit = context.qp_limbs(level);
        limbs.into_par_iter().enumerate().with_min_len((HEAVY / n).max(1)).for_each_init(
            || AlignedVec::scratch(n),
            |scratch, (index, out)| {
                let m = context.qp_modulus(level, index % per_digit);
                uniform_from_seed(seed, (index / per_digit) as u64, m, scratch);
                packed::pack_into(m, scratch, out);
            },
        );
    }

    /// The same key for a part of the chain; nothing is copied.
    ///
    /// The gadget `g_d` is 1 modulo the primes of its digit and 0 modulo all others, so leaving out primes leaves a key.
    pub(super) fn select(&self, context: &Context, selection: &Selection) -> Self {
        let level = selection.level(self.level);
        let special = (0..selection.context().special_at(level)).map(|j| self.level + 1 + j);
        let limbs: Vec<usize> = selection.limbs()[..=level].iter().copied().chain(special).collect();
        let met = |d: &usize| selection.meets(&context.digit_range(*d));
        let part = |half: &[PackedPoly]| {
            let digits = (0..half.len()).filter(met);
            digits.map(|d| half[d].select(limbs.iter().copied())).collect()
        };
        let a = match &self.a {
            Uniform::Kept(polys) => Uniform::Kept(part(polys)),
            Uniform::Made(labels) => Uniform::Made((0..labels.len()).filter(met).map(|d| labels[d]).collect()),
        };
        Self { seed: self.seed, level, b: part(&self.b), a }
    }

    /// Limb `i` (in the order of `level`, which may be below the key's) of the first `digits` digits of
    /// one component, packed.
    pub(crate) fn column(
        &self,
        context: &Context,
        level: usize,
        i: usize,
        digits: usize,
        second: bool,
    ) -> Vec<Column<'_>> {
        let index = limb_index(self.level, level, i);
        let labels = match &self.a {
            Uniform::Made(labels) if second => labels,
            Uniform::Kept(polys) if second => return kept(polys, digits, index),
            _ => return kept(&self.b, digits, index),
        };
        let (m, n) = (context.qp_modulus(level, i), context.n());
        let mut limb = AlignedVec::scratch(n);
        let mut make = |&label: &u64| {
            uniform_from_seed(&self.seed, label, m, &mut limb);
            let mut words = AlignedVec::scratch(packed::words(m, n));
            packed::pack_into(m, &limb, &mut words);
            Column::Made(words)
        };
        labels[..digits].iter().map(&mut make).collect()
    }
}

/// Where limb `i` of the order `q_0 … q_level, p_0 …` lies in an object stored at a higher level.
fn limb_index(stored: usize, level: usize, i: usize) -> usize {
    if i <= level { i } else { i + stored - level }
}
