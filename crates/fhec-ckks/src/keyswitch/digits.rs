//! The digits of a polynomial, limb by limb and part by part, for those who use each of them once.

use std::ops::Range;

use fhec_math::accumulate::Factors;
use fhec_math::{AlignedVec, Automorphism, Eval, Fetch, Poly};
use rayon::prelude::*;

use super::{Decomposed, coefficients, lift_digit, raise};
use crate::keys::{Column, SwitchingKey};
use crate::limbs::{self, HEAVY};
use crate::params::Context;

/// A polynomial whose digits are made limb by limb, or one that is decomposed already.
pub(crate) enum Digits<'a> {
    /// To be made; every limb can be asked for once.
    Raised {
        /// The polynomial.
        c: &'a Poly<Eval>,
        /// Ready to be converted, as [`coefficients`] makes it.
        coeffs: AlignedVec,
        /// What conversions left of the digits; absent where all digits have a single prime and are lifted where they are used.
        raised: Option<Decomposed>,
    },
    /// Made.
    Decomposed(&'a Decomposed),
}

/// Which limbs of the digits are asked for, and the keys to multiply them with.
pub(crate) struct Span<'a> {
    pub(crate) context: &'a Context,
    pub(crate) level: usize,
    pub(crate) limbs: Range<usize>,
    pub(crate) keys: Vec<&'a SwitchingKey>,
    /// Not in quarters, even if there are any.
    pub(crate) whole: bool,
}

/// Some positions of a limb.
///
/// In rings with quarters it is one of them, whose digits, tables and results stay in the second cache together with a key; otherwise it is the
/// whole limb.
#[derive(Clone)]
pub(crate) struct At {
    /// The limb, in the order `q_0 … q_level, p_0 …`.
    pub(crate) i: usize,
    pub(crate) quarter: Option<usize>,
    pub(crate) words: Range<usize>,
}

impl At {
    /// All of a limb of so many words.
    pub(crate) fn whole(i: usize, n: usize) -> Self {
        Self { i, quarter: None, words: 0..n }
    }

    /// Whether the limb begins here.
    pub(crate) fn is_first(&self) -> bool {
        self.quarter.is_none_or(|quarter| quarter == 0)
    }

    /// Whether the limb ends here.
    pub(crate) fn is_last(&self) -> bool {
        self.quarter.is_none_or(|quarter| quarter == 3)
    }

    /// Where an automorphism moves what is here.
    pub(crate) fn image(&self, map: &Automorphism) -> Self {
        let len = self.words.len();
        let start = map.image_block(self.words.start, len);
        Self { i: self.i, quarter: self.quarter.map(|_| start / len), words: start..start + len }
    }

    /// These positions of another limb.
    pub(crate) fn of<'a>(&self, limb: &'a [u64]) -> &'a [u64] {
        &limb[self.words.clone()]
    }

    /// These positions of another limb.
    pub(crate) fn of_mut<'a>(&self, limb: &'a mut [u64]) -> &'a mut [u64] {
        &mut limb[self.words.clone()]
    }
}

/// Some positions of a limb with the digits and keys there.
pub(crate) struct Part<'a> {
    pub(crate) at: At,
    /// The digits, in evaluation form and loose.
    pub(crate) digits: Factors<'a>,
    /// The digits of both halves of each key, packed.
    keys: &'a [[Vec<&'a [u64]>; 2]],
}

impl Part<'_> {
    /// Both halves of a key, packed.
    pub(crate) fn key(&self, k: usize) -> [&[&[u64]]; 2] {
        self.keys[k].each_ref().map(Vec::as_slice)
    }
}

impl<'a> Digits<'a> {
    /// The digits of `c` at a level.
    pub(crate) fn new(context: &Context, c: &'a Poly<Eval>, level: usize) -> Self {
        let coeffs = coefficients(context, c, level);
        let single = context.level(level).digits.iter().all(|digit| digit.range.len() == 1);
        let raised = (!single).then(|| raise(context, &coeffs, level));
        Self::Raised { c, coeffs, raised }
    }

    /// Hands the digits of some limbs, part by part, to `f` while they are in cache, with the output of the limb and the
    /// scratch memory that `init` makes for each thread.
    pub(crate) fn each<T: Send, S: Send>(
        &mut self,
        span: &Span<'_>,
        outputs: Vec<T>,
        init: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, &Part<'_>, &mut Fetch, &mut T) + Sync + Send,
    ) {
        let n = span.context.n();
        let len = span.context.level(span.level).digits.len() * n;
        let outputs = span.limbs.clone().into_par_iter().zip(outputs).with_min_len((HEAVY / len).max(1));
        let one = |state: &mut S, i: usize, mut source: Source<'_>, mut out: T| {
            span.limb(i, &mut source, |part, fetch| f(state, part, fetch, &mut out));
        };
        match self {
            Self::Decomposed(made) => {
                outputs.for_each_init(init, |state, (i, out)| one(state, i, Source::Made(made), out));
            }
            // The digits of one limb at a time, which stay in cache.
            Self::Raised { c, coeffs, raised: None } => outputs.for_each_init(
                || (AlignedVec::scratch(len), init()),
                |(chunk, state), (i, out)| one(state, i, Source::Raised { c, coeffs, chunk }, out),
            ),
            Self::Raised { c, coeffs, raised: Some(raised) } => {
                let chunks = raised.data[span.limbs.start * len..span.limbs.end * len].par_chunks_exact_mut(len);
                outputs.zip(chunks).for_each_init(init, |state, ((i, out), chunk)| {
                    one(state, i, Source::Raised { c, coeffs, chunk }, out);
                });
            }
        }
    }
}

/// Where the digits of a limb come from.
enum Source<'a> {
    Raised {
        c: &'a Poly<Eval>,
        coeffs: &'a [u64],
        /// The limb of each digit, as it was raised.
        chunk: &'a mut [u64],
    },
    Made(&'a Decomposed),
}

impl Span<'_> {
    /// Hands limb `i` to `f`, part by part.
    fn limb(&self, i: usize, source: &mut Source<'_>, mut f: impl FnMut(&Part<'_>, &mut Fetch)) {
        let (context, level, n) = (self.context, self.level, self.context.n());
        let table = context.qp_table(level, i);
        let digits = context.level(level).digits.len();
        debug_assert!(!matches!(source, Source::Made(made) if made.digits != digits), "digits of another level");
        let columns = self.keys.iter().map(|key| {
            let half = |second| key.column(context, level, i, digits, second);
            [half(false), half(true)]
        });
        let columns: Vec<[Vec<Column<'_>>; 2]> = columns.collect();
        let parts = if table.has_quarters() && !self.whole { 4 } else { 1 };
        let mut fetch = Fetch::new([]);
        for p in 0..parts {
            let at = At { i, quarter: (parts == 4).then_some(p), words: p * n / parts..(p + 1) * n / parts };
            let keys: Vec<[Vec<&[u64]>; 2]> = columns
                .iter()
                .map(|halves| {
                    halves.each_ref().map(|half| {
                        half.iter()
                            .map(|column| &column[p * column.len() / parts..(p + 1) * column.len() / parts])
                            .collect()
                    })
                })
                .collect();
            fetch.clear();
            table.fetch(false, at.quarter, &mut fetch);
            source.transform(self, &at, &mut fetch);
            let (limbs, scaled) = source.digits(self, &at);
            f(&Part { at, digits: Factors { limbs: &limbs, scaled }, keys: &keys }, &mut fetch);
        }
    }
}

impl Source<'_> {
    /// Makes the digits.
    fn transform(&mut self, span: &Span<'_>, at: &At, fetch: &mut Fetch) {
        let Self::Raised { coeffs, chunk, .. } = self else { return };
        let (context, level) = (span.context, span.level);
        let table = context.qp_table(level, at.i);
        let digits = context.level(level).digits.iter().zip(chunk.chunks_exact_mut(context.n()));
        let others: Vec<_> = digits.filter(|(digit, _)| !digit.range.contains(&at.i)).collect();
        others.iter().skip(1).for_each(|(_, limb)| fetch.push(at.of(limb)));
        for (digit, limb) in others {
            if digit.range.len() > 1 {
                limbs::forward(table, at.quarter, None, at.of_mut(limb), fetch);
            } else if at.is_first() {
                lift_digit(context, coeffs, level, at.i, digit, limb, fetch);
            }
        }
    }

    /// The digits, and which of them is still to be multiplied with what.
    fn digits<'b>(&'b self, span: &Span<'_>, at: &At) -> (Vec<&'b [u64]>, Option<(usize, u64)>) {
        let level = span.context.level(span.level);
        match self {
            Self::Raised { c, chunk, .. } => {
                let own = level.digits.iter().position(|digit| digit.range.contains(&at.i));
                let limbs = chunk.chunks_exact(span.context.n()).enumerate();
                let limbs = limbs.map(|(d, limb)| at.of(if own == Some(d) { c.limb(at.i) } else { limb }));
                let factor = level.unused_inv.as_ref().zip(own);
                (limbs.collect(), factor.map(|(factors, own)| (own, factors[at.i])))
            }
            Self::Made(made) => ((0..made.digits).map(|d| at.of(made.digit(at.i, d))).collect(), None),
        }
    }
}
