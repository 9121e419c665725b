//! The rotated inputs of a linear map.

use std::borrow::Cow;
use std::sync::Arc;

use fhec_math::packed::{self, dot_pair_moved_into};
use fhec_math::{AlignedVec, Automorphism, Eval, Poly, galois_element, pointwise};
use rayon::prelude::*;

use super::{Hoisting, LinearMap, SmallCiphertext};
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::evaluator::Evaluator;
use crate::keys::{Column, SwitchingKey};
use crate::keyswitch::{Decomposed, decompose};
use crate::params::Context;

/// All babies of a map, made or to be made.
pub(super) enum Babies<'a> {
    /// Modulo `Q·P`, made block by block where they are used: they never leave the cache.
    Fused(Hoisted<'a>),
    /// Modulo `Q·P`, limb-major: `[limb][baby][part][coefficient]`.
    Stored {
        /// The words.
        data: AlignedVec,
        /// What they were made of.
        hoisted: Hoisted<'a>,
    },
    /// Divided by `P`; babies that are not rotated are the inputs themselves.
    Divided(Vec<Rotated<'a>>),
}

/// An input, rotated or not.
pub(super) enum Rotated<'a> {
    /// The input itself.
    Input(&'a Ciphertext),
    /// Another ciphertext.
    Other(Ciphertext),
}

impl Rotated<'_> {
    fn ciphertext(&self) -> &Ciphertext {
        match self {
            Self::Input(ciphertext) => ciphertext,
            Self::Other(ciphertext) => ciphertext,
        }
    }
}

impl Babies<'_> {
    /// Number of babies.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Fused(hoisted) | Self::Stored { hoisted, .. } => hoisted.count,
            Self::Divided(list) => list.len(),
        }
    }

    /// Both parts of limb `i` of baby `b`; `None` where they are zero or not made yet.
    pub(super) fn limb(&self, i: usize, b: usize) -> Option<[&[u64]; 2]> {
        match self {
            Self::Fused(_) => None,
            Self::Stored { data, hoisted } => {
                if hoisted.is_zero(i, b) {
                    return None;
                }
                let n = hoisted.context.n();
                let start = (i * hoisted.count + b) * 2 * n;
                Some([&data[start..start + n], &data[start + n..start + 2 * n]])
            }
            Self::Divided(list) => {
                let ciphertext = list[b].ciphertext();
                Some([ciphertext.c0().limb(i), ciphertext.c1().limb(i)])
            }
        }
    }
}

/// Prepares the babies of a map. `fused`: do not store them where they stay modulo `Q·P`.
pub(super) fn make<'a>(
    map: &LinearMap,
    evaluator: &'a Evaluator,
    inputs: &[&'a Ciphertext],
    level: usize,
    hoisting: Hoisting,
    fused: bool,
) -> Result<Babies<'a>> {
    if hoisting == Hoisting::Double {
        let hoisted = Hoisted::new(map, evaluator, inputs, level)?;
        return Ok(if fused { Babies::Fused(hoisted) } else { hoisted.store() });
    }
    // As many at a time as take no more memory for what is divided away than one sum modulo Q·P and its quotient.
    let context = evaluator.context();
    let together = (context.qp_limbs(level) + level + 1) / context.special_at(level);
    let mut list = Vec::with_capacity(map.babies.len());
    for block in map.babies.chunk_by(|a, b| a.0 == b.0) {
        let input = inputs[block[0].0];
        let steps: Vec<i64> = block.iter().map(|b| b.1).filter(|&rotation| rotation != 0).collect();
        let mut rotated = Vec::with_capacity(steps.len());
        if !steps.is_empty() {
            let hoisted = evaluator.hoist(input)?;
            for steps in steps.chunks(together.max(1)) {
                rotated.extend(evaluator.rotate_hoisted_all(&hoisted, steps)?);
            }
        }
        let mut rotated = rotated.into_iter();
        for &(_, rotation) in block {
            let other = if rotation == 0 { None } else { rotated.next() };
            list.push(other.map_or(Rotated::Input(input), Rotated::Other));
        }
    }
    Ok(Babies::Divided(list))
}

/// Decomposed inputs with the rotations to make of them.
pub(super) struct Hoisted<'a> {
    context: &'a Context,
    level: usize,
    count: usize,
    inputs: Vec<HoistedInput<'a>>,
    /// Babies that are `P` times a ciphertext, which is zero modulo the special primes.
    unrotated: Vec<bool>,
}

struct HoistedInput<'a> {
    /// Both parts; of a small ciphertext the first one twice, for all of its babies have keys.
    parts: [&'a Poly<Eval>; 2],
    /// Absent where nothing is rotated.
    digits: Option<Cow<'a, Decomposed>>,
    babies: Vec<Baby<'a>>,
}

/// How a baby is made of its input.
enum Baby<'a> {
    /// It is the input.
    Unrotated,
    /// By a rotation with its key, of the digits.
    Keyed(Step<'a>),
    /// It was made before, since it takes two rotations.
    Made(Ciphertext),
}

/// A rotation with its key.
struct Step<'a> {
    key: &'a SwitchingKey,
    automorphism: Arc<Automorphism>,
}

impl<'a> Hoisted<'a> {
    fn new(map: &LinearMap, evaluator: &'a Evaluator, inputs: &[&'a Ciphertext], level: usize) -> Result<Self> {
        let context = &**evaluator.context();
        let blocks = map.babies.chunk_by(|a, b| a.0 == b.0);
        let inputs = blocks.map(|block| {
            let input = inputs[block[0].0];
            let babies = block.iter().map(|&(_, rotation)| baby(evaluator, input, rotation, level));
            let babies = babies.collect::<Result<Vec<_>>>()?;
            let keyed = babies.iter().any(|baby| matches!(baby, Baby::Keyed(_)));
            let digits = keyed.then(|| Cow::Owned(decompose(context, input.c1(), level)));
            Ok(HoistedInput { parts: [input.c0(), input.c1()], digits, babies })
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let unrotated = |baby: &Baby<'_>| !matches!(baby, Baby::Keyed(_));
        let unrotated = inputs.iter().flat_map(|input| input.babies.iter().map(unrotated)).collect();
        Ok(Self { context, level, count: map.babies.len(), inputs, unrotated })
    }

    /// A ciphertext that needs no decomposition, with keys for all babies of the map, that by 0 included.
    pub(super) fn of_small(map: &LinearMap, evaluator: &'a Evaluator, input: &'a SmallCiphertext) -> Result<Self> {
        let context = &**evaluator.context();
        let level = input.c1.level();
        let step = |&(_, rotation): &(usize, i64)| keyed(evaluator, galois_element(rotation, context.log_n()), level);
        let babies = map.babies.iter().map(step).map(|step| step.map(Baby::Keyed)).collect::<Result<Vec<_>>>()?;
        let digits = Some(Cow::Borrowed(&input.c1));
        let unrotated = vec![false; babies.len()];
        let inputs = vec![HoistedInput { parts: [&input.c0; 2], digits, babies }];
        Ok(Self { context, level, count: map.babies.len(), inputs, unrotated })
    }

    /// Whether both parts of a baby are zero modulo the prime of limb `i`.
    pub(super) fn is_zero(&self, i: usize, b: usize) -> bool {
        i > self.level && self.unrotated[b]
    }

    /// Makes all babies.
    fn store(mut self) -> Babies<'a> {
        let (context, level, count) = (self.context, self.level, self.count);
        let n = context.n();
        let mut data = AlignedVec::scratch(context.qp_limbs(level) * count * 2 * n);
        data.par_chunks_exact_mut(count * 2 * n).enumerate().for_each(|(i, out)| {
            let columns = self.columns(i);
            self.block(i, 0, &columns, out);
        });
        for input in &mut self.inputs {
            input.digits = None;
        }
        Babies::Stored { data, hoisted: self }
    }

    /// Limb `i` of all digits and keys, in the order of [`block`](Self::block).
    pub(super) fn columns(&self, i: usize) -> Columns<'_> {
        let mut columns = Columns::default();
        for input in &self.inputs {
            let Some(digits) = &input.digits else { continue };
            columns.digits.push((0..digits.digits()).map(|d| digits.digit(i, d)).collect());
            for baby in &input.babies {
                let Baby::Keyed(step) = baby else { continue };
                columns.keys.push(
                    [false, true].map(|part| step.key.column(self.context, self.level, i, digits.digits(), part)),
                );
            }
        }
        columns
    }

    /// The positions of limb `i` that begin at `start`, of all babies: `out` is `[baby][part][position]`, and tells how
    /// many. A rotated baby is `σ(Σ digit·key + P·c0, Σ digit·key)`, and `σ` moves aligned blocks as a whole.
    pub(super) fn block(&self, i: usize, start: usize, columns: &Columns<'_>, out: &mut [u64]) {
        let len = out.len() / (2 * self.count);
        let m = self.context.qp_modulus(self.level, i);
        let mut slots = out.chunks_exact_mut(2 * len);
        let (mut digits, mut keys) = (columns.digits.iter(), columns.keys.iter());
        let mut lists: [Vec<&[u64]>; 3] = Default::default();
        for input in &self.inputs {
            let columns = if input.digits.is_some() { digits.next() } else { None };
            for baby in &input.babies {
                let Some((out0, out1)) = slots.next().map(|slot| slot.split_at_mut(len)) else { return };
                let (Baby::Keyed(step), Some(digits)) = (baby, columns) else {
                    if i <= self.level {
                        let parts = if let Baby::Made(made) = baby { [made.c0(), made.c1()] } else { input.parts };
                        for (out, c) in [out0, out1].into_iter().zip(parts) {
                            out.copy_from_slice(&c.limb(i)[start..start + len]);
                            pointwise::mul_scalar_assign(m, out, self.context.p_mod_q(self.level, i));
                        }
                    }
                    continue;
                };
                let Some(key) = keys.next() else { return };
                let from = step.automorphism.source_block(start, len);
                // Keys are packed; eight residues begin at a whole word.
                let packed = packed::words(m, from)..packed::words(m, from + len);
                lists.iter_mut().for_each(Vec::clear);
                lists[0].extend(digits.iter().map(|limb| &limb[from..from + len]));
                for (list, column) in lists[1..].iter_mut().zip(key) {
                    list.extend(column.iter().map(|limb| &limb[packed.clone()]));
                }
                let lift = (i <= self.level)
                    .then(|| (&input.parts[0].limb(i)[from..from + len], self.context.p_mod_q(self.level, i)));
                let place = (&*step.automorphism, start);
                dot_pair_moved_into(m, &lists[0], [&lists[1], &lists[2]], lift, place, [out0, out1]);
            }
        }
    }
}

/// One limb of the digits of every decomposed input and of the two parts of every key.
#[derive(Default)]
pub(super) struct Columns<'a> {
    digits: Vec<Vec<&'a [u64]>>,
    keys: Vec<[Vec<Column<'a>>; 2]>,
}

fn keyed(evaluator: &Evaluator, element: u64, level: usize) -> Result<Step<'_>> {
    let key = evaluator.galois_key("linear map", element, level)?;
    Ok(Step { key, automorphism: Automorphism::try_get(evaluator.context().log_n(), element)? })
}

fn baby<'a>(evaluator: &'a Evaluator, input: &Ciphertext, rotation: i64, level: usize) -> Result<Baby<'a>> {
    let log_n = evaluator.context().log_n();
    let element = galois_element(rotation, log_n);
    if element == 1 {
        return Ok(Baby::Unrotated);
    }
    if evaluator.factors(element).is_some() {
        return evaluator.automorphism("linear map", input, element).map(Baby::Made);
    }
    keyed(evaluator, element, level).map(Baby::Keyed)
}
