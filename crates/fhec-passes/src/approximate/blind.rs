//! Approximation without samples: even weight on intervals from interval arithmetic, degrees by the largest error.

use super::target::{DEGREES, Target, USUAL, replace};
use super::{ApproximateError, Approximated, approximations, check_finite, targets, unbounded};
use crate::bound::bound_ranges;
use fhec_ir::nn::{Graph, Range, ValueId};
use std::collections::BTreeMap;

/// Replaces every activation by the polynomial of the least degree that errs by at most `tolerance`, relative to the
/// span of the activation's values.
pub(super) fn approximate(
    graph: &Graph,
    mut intervals: BTreeMap<ValueId, Range>,
    tolerance: f64,
) -> Result<Approximated, ApproximateError> {
    let input = input_range(graph);
    let mut escaped = None;
    // Polynomials reach a little further than their functions, and what comes after has to follow; a round settles at least
    // the first activation that is not settled yet.
    for _ in 0..=intervals.len() {
        check_finite(graph, &intervals)?;
        let targets = targets(graph, &intervals, &DEGREES[..USUAL]);
        let picks: Vec<usize> = targets.iter().map(|t| pick(graph, t, tolerance)).collect();
        let replaced = replace(graph, &targets, &picks, &[]);
        let bounded = bound_ranges(&replaced.graph, input);
        escaped = widen_to_bounds(&mut intervals, &replaced.operands, &bounded);
        if escaped.is_none() {
            return Ok(Approximated {
                notes: targets.iter().zip(&picks).map(|(t, &p)| note(graph, t, p)).collect(),
                approximations: approximations(graph, &targets, &picks),
                graph: bounded,
                output_error: 0.0,
                allowed_error: None,
                missed: false,
            });
        }
    }
    Err(unbounded(graph, escaped))
}

/// The range that was declared for the inputs.
pub(super) fn input_range(graph: &Graph) -> Range {
    graph.inputs().first().and_then(|&v| graph.node(v).range).unwrap_or(Range { lo: -1.0, hi: 1.0 })
}

/// Widens every interval that does not hold the range of its operand. Gives the first of them, with that range.
pub(super) fn widen_to_bounds(
    intervals: &mut BTreeMap<ValueId, Range>,
    operands: &[(ValueId, ValueId, Range)],
    bounded: &Graph,
) -> Option<(ValueId, Range)> {
    let mut first = None;
    for (target, operand, interval) in operands {
        let Some(range) = bounded.node(*operand).range else { continue };
        if !(interval.lo <= range.lo && range.hi <= interval.hi) {
            let wide = Range { lo: interval.lo.min(range.lo), hi: interval.hi.max(range.hi) };
            intervals.insert(*target, wide);
            first = first.or(Some((*target, range)));
        }
    }
    first
}

/// What the errors of a target are relative to.
fn span(graph: &Graph, target: &Target<'_>) -> f64 {
    graph.node(target.id).range.map_or(1.0, |r| r.hi - r.lo).max(f64::MIN_POSITIVE)
}

fn pick(graph: &Graph, target: &Target<'_>, tolerance: f64) -> usize {
    let most = tolerance * span(graph, target);
    target.fits.iter().position(|fit| fit.max <= most).unwrap_or(target.fits.len() - 1)
}

fn note(graph: &Graph, target: &Target<'_>, pick: usize) -> String {
    let fit = &target.fits[pick];
    let degree = fit.chebyshev.len() - 1;
    debug_assert!(DEGREES.contains(&degree));
    format!(
        "'{}': {} by degree {degree}, error up to {:.2} % of its span; give --calibrate for a far better fit",
        graph.node(target.id).origin,
        target.label(graph.node(target.id)),
        100.0 * fit.max / span(graph, target)
    )
}
