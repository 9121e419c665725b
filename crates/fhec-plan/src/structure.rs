//! Structural limits: what a plan must satisfy before any of its tables is walked.
//!
//! Everything that a file states (extents, offsets, block counts) is held against the limits of this
//! module first, so that no later loop, allocation or 64-bit sum can be driven out of bounds by a
//! hostile file. Meaning (levels, scales, slots in range, keys) is the business of the verifier.

use crate::{Guard, Layout, Matrix, Nest, Offsets, Vector};

/// Smallest and largest log2 of the ring degree.
pub const LOG_N: std::ops::RangeInclusive<u32> = 4..=17;
/// Most primes of the chain.
pub const MAX_CHAIN: usize = 128;
/// Most special primes.
pub const MAX_SPECIAL: usize = 64;
/// Most ciphertexts of one packed tensor.
pub const MAX_CIPHERTEXTS: usize = 1 << 16;
/// Most input or output ciphertexts of a linear map times its period.
pub const MAX_LINEAR_SLOTS: usize = 1 << 24;
/// Most instructions.
pub const MAX_INSTRUCTIONS: usize = 1 << 20;
/// Most elements of one input or output tensor.
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
    ensure((1..=MAX_CIPHERTEXTS).contains(&ciphertexts), || {
        format!("{ciphertexts} ciphertexts are not within 1 … {MAX_CIPHERTEXTS}")
    })?;
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
fn points_up_to(nest: &Nest, limit: usize) -> Option<usize> {
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

/// Most combinations of enumerated loops that all matrices together may need, given the number of weights
/// in the plan: a convolution or dense layer has one per weight, a slice or pooling one per element or tap.
pub(crate) fn max_runs(weights: usize) -> usize {
    weights.saturating_mul(8).saturating_add(1 << 22)
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
    let limit = max_points(rows.saturating_mul(columns));
    matrix.nests.iter().enumerate().try_for_each(|(i, n)| check_nest(n, limit).map_err(|e| format!("nest {i}: {e}")))
}

/// Shape, steps and point counts of a vector; see [`Vector`].
pub(crate) fn check_vector(vector: &Vector) -> Check {
    check_packing(vector.slots, vector.ciphertexts, vector.period)?;
    let limit = max_points(reach(vector.slots, vector.ciphertexts, vector.period));
    vector.nests.iter().enumerate().try_for_each(|(i, n)| check_nest(n, limit).map_err(|e| format!("nest {i}: {e}")))
}
