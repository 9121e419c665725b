//! The passes over a whole limb, for base conversions that run them on the way.
//!
//! Where a transform takes a limb apart into quarters, its first pass (the last one of an inverse) works on the same places of all four of them, and
//! the rest on one after the other. A conversion has its coefficients in registers anyway, and may do it on any places.

use super::butterfly::{forward, forward_tree, inverse, inverse_tree, lift};
use super::{CARRIED, IfmaNtt, LAZY};
use crate::Modulus;
use crate::simd::{Field, V, add, cut, lo, splat, zero};

/// A factor and its companion.
type Pair = (u64, u64);

/// The first pass of a forward transform.
#[derive(Clone, Copy)]
pub(crate) struct FirstPass {
    /// Of the three nodes.
    pairs: [Pair; 3],
    pub(crate) lazy: bool,
}

/// [`FirstPass`] in registers.
#[derive(Clone, Copy)]
pub(crate) struct FirstVectors([(V, V); 3]);

/// The last pass of an inverse transform, the results of which are multiplied with a residue.
#[derive(Clone, Copy)]
pub(crate) struct FinalPass {
    /// Of the three nodes, the first times the residue.
    pairs: [Pair; 3],
    /// The residue, divided by `N`.
    scale: Pair,
    bound: u64,
    pub(crate) growth: u8,
}

/// [`FinalPass`] in registers.
#[derive(Clone, Copy)]
pub(crate) struct FinalVectors {
    pairs: [(V, V); 3],
    scale: (V, V),
    /// What keeps differences positive, or what products carry: of the first product of the first stage, of the second, and of the second stage.
    extra: [V; 3],
}

impl IfmaNtt {
    /// Whether limbs are taken apart into quarters, on which more than the last pass runs.
    pub(in crate::ntt) fn has_quarters(&self) -> bool {
        self.forward.passes.len() > 1 && self.forward.passes[0].stages == 2
    }

    pub(crate) fn first_pass(&self) -> FirstPass {
        let pass = &self.forward.passes[0];
        let lazy = self.forward.growth == LAZY;
        // Loose values grow by so little that they would have to be this large in the end too.
        assert!(!(lazy && pass.shrink), "lazy values that do not survive the first pass");
        FirstPass { pairs: nodes(&pass.records), lazy }
    }

    pub(crate) fn final_pass(&self, residue: u64) -> FinalPass {
        let (m, pass) = (&self.modulus, &self.inverse.passes[0]);
        let times = |factor| {
            let product = m.mul(factor, residue);
            (product, m.shoup_52(product))
        };
        let [root, left, right] = nodes(&pass.records);
        let pairs = [times(root.0), left, right];
        FinalPass { pairs, scale: times(self.n_inverse.0), bound: pass.bound, growth: self.inverse.growth }
    }
}

/// The pairs of a record of two stages.
fn nodes(record: &[u64]) -> [Pair; 3] {
    std::array::from_fn(|node| (record[2 * node], record[2 * node + 1]))
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn spread((factor, companion): Pair) -> (V, V) {
    (splat(factor), splat(companion))
}

impl FirstPass {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn vectors(&self) -> FirstVectors {
        let [a, b, c] = self.pairs;
        FirstVectors([spread(a), spread(b), spread(c)])
    }
}

impl FirstVectors {
    /// Eight coefficients of each quarter, loose, as the rest of the transform wants them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn run<const LAZY: bool>(&self, k: &Field, mut v: [V; 4]) -> [V; 4] {
        if LAZY {
            v[0] = lift::<2, false>(k, v[0]);
            v[1] = lift::<2, false>(k, v[1]);
        }
        macro_rules! butterfly {
            ($x:expr, $y:expr, $node:expr) => {
                (v[$x], v[$y]) = forward::<LAZY>(k, v[$x], v[$y], self.0[$node - 1]);
            };
        }
        forward_tree!(4, butterfly, 0, 1);
        v
    }
}

impl FinalPass {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn vectors(&self, m: &Modulus) -> FinalVectors {
        let k = Field::new(m);
        let [a, b, c] = self.pairs;
        let extra = match self.growth {
            CARRIED => [k.two_p, zero(), zero()],
            LAZY => {
                let first = lo(zero(), splat(self.bound), k.p);
                [first, first, add(first, first)]
            }
            _ => [k.two_p; 3],
        };
        FinalVectors { pairs: [spread(a), spread(b), spread(c)], scale: spread(self.scale), extra }
    }
}

impl FinalVectors {
    /// Eight coefficients of each quarter, times the residue and canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn run<const GROWTH: u8>(&self, k: &Field, mut v: [V; 4]) -> [V; 4] {
        macro_rules! butterfly {
            ($x:expr, $y:expr, $node:expr, $stage:expr) => {
                (v[$x], v[$y]) = {
                    let extra = match ($stage, $y) {
                        (0, 1) => self.extra[0],
                        (0, _) => self.extra[1],
                        _ => self.extra[2],
                    };
                    inverse::<GROWTH>(k, v[$x], v[$y], self.pairs[$node - 1], extra)
                };
            };
        }
        inverse_tree!(4, butterfly, 0, 1);
        let whole = |x: V| cut(k.clean(x), k.p);
        [k.mul_shoup(v[0], self.scale), k.mul_shoup(v[1], self.scale), whole(v[2]), whole(v[3])]
    }
}
