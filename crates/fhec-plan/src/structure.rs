//! Structural limits: what a plan must satisfy before any of its tables is walked.
//!
//! Counts, extents, offsets and block counts that a file states are held against the limits of this module
//! when it is decoded, so that the sums over them fit 64 bits. Limits on what a whole plan takes (combinations
//! of loops, diagonals in use, register memory) are named here and held by the verifier, as is meaning
//! (levels, scales, slots in range, keys). Running a plan that passed may still take long.

use crate::{Guard, Layout, Matrix, Nest, Offsets, Vector};

/// Smallest and largest log2 of the ring degree.
pub const LOG_N: std::ops::RangeInclusive<u32> = 4..=17;
/// Most primes of the chain.
pub const MAX_CHAIN: usize = 128;
/// Most special primes.
pub const MAX_SPECIAL: usize = 64;
/// Most ciphertexts of one packed tensor.
pub const MAX_CIPHERTEXTS: usize = 1 << 16;
/// The same where a ciphertext holds a single element of an image.
pub const MAX_ELEMENT_CIPHERTEXTS: usize = 1 << 20;
/// Most input or output ciphertexts of a linear map times its period.
pub const MAX_LINEAR_SLOTS: usize = 1 << 24;
/// Most instructions.
pub const MAX_INSTRUCTIONS: usize = 1 << 20;
/// Most inputs, and most outputs.
pub const MAX_PORTS: usize = 1 << 10;
/// Most layers of the source model.
pub const MAX_LAYERS: usize = 1 << 16;
/// Most matrices, most vectors and most weight tensors.
pub const MAX_TABLE: usize = 1 << 16;
/// Most nests of all matrices and vectors together.
pub const MAX_NESTS: usize = 1 << 18;
/// Most polynomials.
pub const MAX_POLYNOMIALS: usize = 1 << 12;
/// Most coefficients of all polynomials together: planning one of degree 255 takes milliseconds.
pub const MAX_COEFFICIENTS: usize = 1 << 15;
/// Most diagonals that all linear map instructions together use; one that is used twice counts twice.
pub const MAX_DIAGONALS: usize = 1 << 22;
/// The same where a ciphertext holds a single element of an image: there a diagonal is one use of a weight, which takes
/// time but no memory of its own.
pub const MAX_ELEMENT_DIAGONALS: usize = 1 << 26;
/// Most points of all matrices together where a ciphertext holds a single element of an image, whatever guards exclude of them:
/// a walk over all of them takes a second or two.
pub const MAX_ELEMENT_POINTS: usize = 1 << 27;
/// Most points of all vectors together.
pub const MAX_VECTOR_POINTS: usize = 1 << 26;
/// Most bytes of registers at once in a run.
pub const MAX_REGISTER_BYTES: u64 = 64 << 30;
/// Most elements of one input or output tensor, and of all of a plan together.
pub const MAX_ELEMENTS: usize = 1 << 24;
/// Most loops of a nest and dimensions of a layout.
pub const MAX_DIMS: usize = 16;
/// Most guards of a nest.
pub const MAX_GUARDS: usize = 16;
/// Every offset, weight step and guard term stays below this; sums of `MAX_DIMS` of them fit 64 bits.
const MAX_STEP: i64 = 1 << 40;
/// Most loops times points that may hit one matrix entry (pooling merged with a convolution hits an
/// entry once per window position).
const MAX_OVERLAP: usize = 64;

type Check = Result<(), String>;

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(message()) }
}

/// Slots, ciphertexts and period of a packed tensor.
pub(crate) fn check_packing(slots: usize, ciphertexts: usize, period: usize) -> Check {
    let top = 1 << (LOG_N.end() - 1);
    ensure(slots.is_power_of_two() && slots <= top, || format!("{slots} slots are not a power of two up to {top}"))?;
    let most = if slots == 1 { MAX_ELEMENT_CIPHERTEXTS } else { MAX_CIPHERTEXTS };
    ensure((1..=most).contains(&ciphertexts), || format!("{ciphertexts} ciphertexts are not within 1 … {most}"))?;
    ensure(period.is_power_of_two() && period <= slots, || {
        format!("period {period} is not a power of two up to {slots}")
    })?;
    ensure(ciphertexts == 1 || period == slots, || {
        format!("{ciphertexts} ciphertexts of {slots} slots cannot have period {period}")
    })
}

/// Global slots that elements may use.
pub(crate) fn reach(slots: usize, ciphertexts: usize, period: usize) -> usize {
    if ciphertexts == 1 { period } else { slots * ciphertexts }
}

fn check_offsets(offsets: &Offsets, extent: usize) -> Check {
    let fits = |v: i64| v.unsigned_abs() < MAX_STEP as u64;
    match offsets {
        Offsets::Stride(s) => {
            let furthest = i128::from(*s) * extent as i128;
            ensure(furthest.unsigned_abs() < MAX_STEP as u128 && fits(*s), || {
                format!("stride {s} over {extent} indices is too far")
            })
        }
        Offsets::Table(t) => {
            ensure(t.len() == extent, || format!("a table of {} offsets for {extent} indices", t.len()))?;
            ensure(t.iter().all(|&v| fits(v)), || "an offset is too large".into())
        }
    }
}

/// Smallest and largest offset of the indices `lo..hi`, which must not be empty.
pub(crate) fn offset_range(offsets: &Offsets, lo: usize, hi: usize) -> (i64, i64) {
    match offsets {
        Offsets::Stride(_) => {
            let (a, b) = (offsets.at(lo), offsets.at(hi - 1));
            (a.min(b), a.max(b))
        }
        Offsets::Table(t) => t[lo..hi].iter().fold((i64::MAX, i64::MIN), |(a, b), &v| (a.min(v), b.max(v))),
    }
}

/// A layout whose elements lie in its ciphertexts; see [`Layout`].
pub(crate) fn check_layout(layout: &Layout) -> Check {
    check_packing(layout.slots, layout.ciphertexts, layout.period)?;
    ensure(layout.dims.len() <= MAX_DIMS, || format!("{} dimensions", layout.dims.len()))?;
    let mut elements = 1usize;
    let (mut low, mut high) = (0i64, 0i64);
    for dim in &layout.dims {
        ensure(dim.extent > 0, || "a dimension without indices".into())?;
        elements = elements.saturating_mul(dim.extent);
        ensure(elements <= MAX_ELEMENTS, || format!("more than {MAX_ELEMENTS} elements"))?;
        check_offsets(&dim.offsets, dim.extent)?;
        let (a, b) = offset_range(&dim.offsets, 0, dim.extent);
        low += a;
        high += b;
    }
    ensure(layout.ciphertexts <= elements, || format!("{} ciphertexts for {elements} elements", layout.ciphertexts))?;
    let reach = reach(layout.slots, layout.ciphertexts, layout.period);
    ensure(low >= 0 && high < reach as i64, || {
        format!("elements lie in slots {low} … {high}, outside of 0 … {}", reach - 1)
    })
}

/// Number of inputs and outputs, and of their elements together.
pub(crate) fn check_ports<'a>(layouts: impl Iterator<Item = &'a Layout>) -> Check {
    let (mut ports, mut elements) = (0usize, 0usize);
    for layout in layouts {
        ports += 1;
        elements = elements.saturating_add(layout.elements());
    }
    ensure(ports <= 2 * MAX_PORTS, || format!("there are {ports} of them"))?;
    ensure(elements <= MAX_ELEMENTS, || format!("{elements} elements together, at most {MAX_ELEMENTS}"))
}

/// Number of entries of a table.
pub(crate) fn check_count(what: &str, count: usize, most: usize) -> Check {
    ensure(count <= most, || format!("{count} {what}, at most {most}"))
}

/// True when no two elements of a checked layout share a slot.
pub(crate) fn injective(layout: &Layout) -> bool {
    let mut slots = layout.positions();
    slots.sort_unstable();
    slots.windows(2).all(|w| w[0] != w[1])
}

fn check_guard(guard: &Guard, nest: &Nest) -> Check {
    ensure(guard.coefficients.len() == nest.dims.len(), || {
        format!("a guard with {} coefficients for {} loops", guard.coefficients.len(), nest.dims.len())
    })?;
    ensure((1..MAX_STEP).contains(&guard.extent) && guard.constant.unsigned_abs() < MAX_STEP as u64, || {
        format!("a guard with constant {} and extent {}", guard.constant, guard.extent)
    })?;
    for (&c, dim) in guard.coefficients.iter().zip(&nest.dims) {
        check_offsets(&Offsets::Stride(c), dim.extent)?;
    }
    Ok(())
}

/// Number of points, guards ignored; `None` where it exceeds `limit`.
pub(crate) fn points_up_to(nest: &Nest, limit: usize) -> Option<usize> {
    let points = nest.dims.iter().fold(1usize, |n, d| n.saturating_mul(d.extent));
    (points <= limit).then_some(points)
}

fn check_nest(nest: &Nest, max_points: usize) -> Check {
    ensure(nest.dims.len() <= MAX_DIMS, || format!("{} nested loops", nest.dims.len()))?;
    ensure(nest.guards.len() <= MAX_GUARDS, || format!("{} guards", nest.guards.len()))?;
    for at in [nest.row, nest.col, nest.weight] {
        ensure(at.unsigned_abs() < MAX_STEP as u64, || format!("a nest begins at {at}"))?;
    }
    for dim in &nest.dims {
        for offsets in [&dim.row, &dim.col, &dim.weight] {
            check_offsets(offsets, dim.extent)?;
        }
    }
    nest.guards.iter().try_for_each(|g| check_guard(g, nest))?;
    ensure(points_up_to(nest, max_points).is_some(), || format!("a nest of more than {max_points} points"))
}

/// What enumerating the diagonals of all matrices of a plan may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Runs and boxes of parallel loops that are kept: memory.
    pub runs: usize,
    /// Combinations of enumerated loops that are tried: time.
    pub tries: usize,
}

impl Budget {
    /// No limit: for matrices of the compiler itself.
    pub const NONE: Self = Budget { runs: usize::MAX, tries: usize::MAX };

    /// What the number of weights in a plan justifies: a convolution or dense layer has one run per weight, a
    /// slice or pooling one per element or tap. Padding and the search for loops that stay within one
    /// ciphertext try some more.
    pub(crate) fn justified(weights: usize) -> Self {
        Budget {
            runs: weights.saturating_mul(8).saturating_add(1 << 22),
            tries: weights.saturating_mul(64).saturating_add(1 << 24),
        }
    }

    /// The same where a ciphertext holds a single element of an image. There a weight of a convolution is used at every
    /// pixel, so that time is bounded by itself; memory is taken for rows and not for uses.
    pub(crate) fn of_elements(weights: usize) -> Self {
        Budget { tries: MAX_ELEMENT_POINTS, ..Budget::justified(weights) }
    }

    /// Takes `count` combinations.
    pub(crate) fn try_runs(&mut self, count: usize) -> Check {
        let left = self.tries.checked_sub(count);
        ensure(left.is_some(), || format!("{count} runs to try, at most {} are justified", self.tries))?;
        self.tries = left.unwrap_or(0);
        Ok(())
    }
}

/// Most points of a box of parallel loops over a matrix with that many rows and columns.
pub(crate) fn max_box(rows: usize, columns: usize) -> usize {
    rows.max(columns).saturating_mul(MAX_OVERLAP)
}

/// Most points that a nest over `entries` distinct places may have.
fn max_points(entries: usize) -> usize {
    entries.saturating_mul(MAX_OVERLAP).saturating_add(1 << 12)
}

/// Shapes, steps and point counts of a linear map; see [`Matrix`].
pub(crate) fn check_matrix(matrix: &Matrix) -> Check {
    check_packing(matrix.slots, matrix.in_ciphertexts, matrix.in_period).map_err(|e| format!("input: {e}"))?;
    check_packing(matrix.slots, matrix.out_ciphertexts, matrix.out_period).map_err(|e| format!("output: {e}"))?;
    let columns = reach(matrix.slots, matrix.in_ciphertexts, matrix.in_period);
    let rows = reach(matrix.slots, matrix.out_ciphertexts, matrix.out_period);
    ensure(!matrix.nests.is_empty(), || "it has no nest".into())?;
    let limit = max_points(rows.saturating_mul(columns));
    matrix.nests.iter().enumerate().try_for_each(|(i, n)| check_nest(n, limit).map_err(|e| format!("nest {i}: {e}")))
}

/// Shape, steps and point counts of a vector; see [`Vector`].
pub(crate) fn check_vector(vector: &Vector) -> Check {
    check_packing(vector.slots, vector.ciphertexts, vector.period)?;
    ensure(vector.ciphertexts * vector.period <= MAX_LINEAR_SLOTS, || {
        format!("{} ciphertexts of period {} are too many", vector.ciphertexts, vector.period)
    })?;
    let limit = max_points(reach(vector.slots, vector.ciphertexts, vector.period));
    vector.nests.iter().enumerate().try_for_each(|(i, n)| check_nest(n, limit).map_err(|e| format!("nest {i}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_as_bounded_as_matrices() {
        let of = |ciphertexts| Vector { slots: 1 << 16, ciphertexts, period: 1 << 16, nests: vec![] };
        assert!(check_vector(&of(256)).is_ok());
        assert!(check_vector(&of(257)).unwrap_err().contains("too many"));
    }

    #[test]
    fn tries_run_out() {
        let mut budget = Budget { runs: 1, tries: 10 };
        assert!(budget.try_runs(7).is_ok() && budget.try_runs(4).is_err() && budget.try_runs(3).is_ok());
        assert_eq!(budget, Budget { runs: 1, tries: 0 });
    }
}
