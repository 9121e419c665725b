//! Chains for bootstraps: the sections that the circuit prescribes, and what the security table leaves for the network.
//!
//! From the bottom a chain has `q_0` and the primes of slots-to-coefficients, the levels of the network, the primes of EvalMod
//! and those of coefficients-to-slots ([`BootstrapSpec`]). Free are the number of special primes, which decides into how few
//! digits the chain is split, and the number of levels. The size of the network's primes follows: time hardly depends on it, so
//! they are as large as fits and as is of use. The size of all other primes is what precision asks for ([`Sizes`]): a small ring
//! holds few bits, and smaller primes leave more of them to the network.

use crate::digits::fewest;
use crate::parameters::{LIMIT_SLACK, MAX_SPECIAL, P_MARGIN};
use crate::shape::{MAX_LOG2_PRIME, Shape};
use fhec_math::Scale;
use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::security::{SecurityLevel, max_log_qp, max_log_sparse};

/// Most levels for the network: more make every key larger and are hardly ever used.
const MAX_LEVELS: usize = 30;
/// Least sizes of the network's primes that are of interest, in bits, smallest first: more of them fit, and each error is larger.
pub(crate) const LEAST_MESSAGES: [u32; 5] = [30, 34, 38, 44, 48];
/// Primes of the network are no larger than this if nothing asks for more: residues up to it take five bytes.
const ENOUGH: u32 = 40;

/// Sizes of the primes that are not the network's, in bits, and the message ratio that goes with them.
///
/// Errors of EvalMod are rounding errors at the scale of its primes, larger by the message ratio, and the sine's own, which grow
/// when the ratio falls: so both fall together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sizes {
    /// The lowest prime, those of slots-to-coefficients and those of EvalMod.
    eval_mod: f64,
    /// Primes of coefficients-to-slots.
    coeffs_to_slots: f64,
    /// Special primes.
    special: f64,
    /// Bits of the message ratio.
    message_ratio: u32,
    /// Least of the network's primes that go with them, in bits.
    least_message: u32,
    /// More bits of the outputs' range than this are not to be had after a bootstrap.
    most_bits: f64,
}

/// All sizes, those for the least precision first. A bootstrap errs by 2^-14 and 2^-19 of what it takes.
const SIZES: [Sizes; 2] = [
    Sizes {
        eval_mod: 43.0,
        coeffs_to_slots: 39.0,
        special: 44.0,
        message_ratio: 8,
        least_message: LEAST_MESSAGES[0],
        most_bits: 13.0,
    },
    Sizes {
        eval_mod: MAX_LOG2_PRIME,
        coeffs_to_slots: 45.0,
        special: MAX_LOG2_PRIME,
        message_ratio: 10,
        least_message: LEAST_MESSAGES[1],
        most_bits: f64::INFINITY,
    },
];

impl Sizes {
    /// Those that may give outputs of so many bits, the cheapest first.
    pub(crate) fn for_precision(bits: f64) -> impl Iterator<Item = Sizes> {
        SIZES.into_iter().filter(move |sizes| bits <= sizes.most_bits)
    }
}

/// A chain, but for the size of the network's primes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chain {
    pub(crate) log_n: u32,
    pub(crate) sizes: Sizes,
    /// Special primes.
    pub(crate) special: usize,
    /// Levels for the network, besides those of slots-to-coefficients.
    pub(crate) levels: usize,
    /// The largest primes that the network can have, in bits.
    pub(crate) largest: u32,
}

/// The circuit for a ring, but for the message ratio. Four primes, two of them special, are what a ring of degree 2^13 holds.
pub(crate) fn spec(log_n: u32) -> BootstrapSpec {
    let last = log_n - 1 - 12;
    // Rings that hold few primes are worth one of them.
    let coeffs_to_slots = if last <= 2 { vec![4, 4, 4 + last] } else { vec![4, 4, 4, last] };
    BootstrapSpec { slots_to_coeffs: vec![vec![4, 4], vec![4, last]], coeffs_to_slots, ..BootstrapSpec::default() }
}

/// All chains of a ring that are secure and leave the network's primes as many bits as go with the others; for every
/// number of special primes, those with the most levels first. None where the sparse secret of bootstraps is not granted the security.
pub(crate) fn chains(log_n: u32, security: SecurityLevel, sizes: Sizes) -> Vec<Vec<Chain>> {
    let Some(limit) = max_log_qp(security, log_n) else { return Vec::new() };
    if !sparse_is_secure(log_n, security, &sizes) {
        return Vec::new();
    }
    let [above, below] = sections(&spec(log_n), &sizes);
    let taken: f64 = above.iter().chain(&below).sum();
    let of_special = |special: usize| {
        let room = f64::from(limit) - LIMIT_SLACK - taken - special as f64 * sizes.special;
        let chain = |levels: usize| {
            let largest = (room / levels as f64).floor().min(MAX_LOG2_PRIME.floor());
            (largest >= f64::from(sizes.least_message)).then_some(Chain {
                log_n,
                sizes,
                special,
                levels,
                largest: largest as u32,
            })
        };
        (1..=MAX_LEVELS).rev().filter_map(chain).collect::<Vec<_>>()
    };
    (1..=MAX_SPECIAL).map(of_special).filter(|chains| !chains.is_empty()).collect()
}

/// Whether the sparse secret of bootstraps, whose key is modulo q_0·p_0, is granted the security.
pub(crate) fn sparse_is_secure(log_n: u32, security: SecurityLevel, sizes: &Sizes) -> bool {
    let limit = max_log_sparse(security, log_n, spec(log_n).sparse_weight);
    limit.is_some_and(|limit| sizes.eval_mod + sizes.special <= f64::from(limit))
}

/// Sizes of the primes above and below the levels of the network.
fn sections(spec: &BootstrapSpec, sizes: &Sizes) -> [Vec<f64>; 2] {
    let eval_mod = std::iter::repeat_n(sizes.eval_mod, spec.eval_mod_levels());
    let above = eval_mod.chain(std::iter::repeat_n(sizes.coeffs_to_slots, spec.coeffs_to_slots.len())).collect();
    [above, vec![sizes.eval_mod; 1 + spec.slots_to_coeffs.len()]]
}

impl Chain {
    /// A chain of full sizes, with the smallest primes for the network.
    pub(crate) fn nominal(log_n: u32, special: usize, levels: usize) -> Self {
        let sizes = SIZES[SIZES.len() - 1];
        Chain { log_n, sizes, special, levels, largest: sizes.least_message }
    }

    /// The size of the network's primes if they must have at least so many bits.
    pub(crate) fn message(&self, least: u32) -> Option<u32> {
        (self.largest >= least).then(|| self.largest.min(least.max(ENOUGH)))
    }

    /// The shape with primes of `message` bits for the network.
    pub(crate) fn shape(&self, message: u32) -> Option<Shape> {
        let spec = BootstrapSpec {
            input_scale: Scale::pow2(i64::from(message)),
            log_message_ratio: self.sizes.message_ratio,
            ..spec(self.log_n)
        };
        let [above, below] = sections(&spec, &self.sizes);
        let log2_q = [below, vec![f64::from(message); self.levels], above].concat();
        let log2_p = vec![self.sizes.special; self.special];
        let digits = fewest(&log2_q, log2_p.iter().sum::<f64>() - P_MARGIN.0)?;
        Some(Shape { log_n: self.log_n, log2_q, log2_p, digits, bootstrap: Some(spec) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_secure_and_as_large_as_fits() {
        for security in SecurityLevel::ALL {
            for log_n in 15..=17 {
                let limit = max_log_qp(security, log_n).map_or(0.0, f64::from);
                for chain in SIZES.into_iter().flat_map(|sizes| chains(log_n, security, sizes).concat()) {
                    let message = chain.message(chain.sizes.least_message).expect("large enough");
                    // A single special prime is smaller than the largest digits can be.
                    let Some(shape) = chain.shape(message) else {
                        assert_eq!(chain.special, 1, "{chain:?}");
                        continue;
                    };
                    assert!(shape.log2_qp() < limit, "{chain:?}");
                    assert_eq!(shape.log2_q.len(), shape.digits.iter().sum::<usize>());
                    // Smaller rings too.
                    for ring in spec(log_n).low_rings(log_n) {
                        let limit = max_log_qp(security, ring.log_n).map_or(0.0, f64::from);
                        let bits = ring.log_qp(&shape.log2_q, &shape.log2_p);
                        assert!(bits < limit, "{chain:?} {ring:?} {bits}");
                    }
                    let larger = Chain { largest: chain.largest + 1, ..chain };
                    let too_large = larger.shape(chain.largest + 1).is_none_or(|s| s.log2_qp() > limit - 1.0);
                    assert!(too_large || chain.largest == MAX_LOG2_PRIME as u32, "{chain:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_bootstraps_where_the_sparse_secret_is_not_secure() {
        for security in [SecurityLevel::Bits192, SecurityLevel::Bits256] {
            assert!(SIZES.into_iter().all(|sizes| (15..=17).all(|log_n| chains(log_n, security, sizes).is_empty())));
        }
        assert!(!chains(16, SecurityLevel::Bits128, SIZES[1]).is_empty());
    }

    /// A uniform ReLU takes fourteen levels, the map after it one, and two are left for the next bootstrap.
    #[test]
    fn the_ring_of_degree_65536_holds_a_uniform_relu_between_bootstraps() {
        let [small, full] = SIZES;
        let all = chains(16, SecurityLevel::Bits128, full).concat();
        let deep: Vec<_> = all.iter().filter(|c| c.levels >= 16 && c.message(38).is_some()).collect();
        assert!(deep.iter().any(|c| c.special >= 6), "{deep:?}");
        assert!(chains(15, SecurityLevel::Bits128, full).concat().iter().all(|c| c.levels <= 6));
        // Small sizes leave room there for a polynomial of degree 15, and a map.
        let five = |c: &Chain| c.levels >= 5 && c.special >= 2;
        assert!(chains(15, SecurityLevel::Bits128, small).concat().iter().any(five));
        assert!(!chains(15, SecurityLevel::Bits128, full).concat().iter().any(five));
    }

    #[test]
    fn sizes_follow_the_precision_that_is_asked_for() {
        let [small, full] = SIZES;
        assert_eq!(Sizes::for_precision(10.0).collect::<Vec<_>>(), [small, full]);
        assert_eq!(Sizes::for_precision(15.0).collect::<Vec<_>>(), [full]);
    }
}
