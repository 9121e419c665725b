//! Ranges and distributions of every value, from sample inputs.

use crate::bound::hull;
use fhec_ir::Tensor;
use fhec_ir::nn::{Distribution, Graph, InputError, Interpreter, Op, Range, ValueId};
use rayon::prelude::*;

/// How far beyond the sampled values a range reaches on either side, as a part of the largest magnitude or of half
/// the width, whichever is more: other inputs will go further than the samples did, and a polynomial is worthless
/// outside its interval. Over the bundled models, the test set goes up to 1.36 times as far as 128 samples.
pub const MARGIN: f64 = 0.4;

/// Bins of a value's histogram.
const BINS: usize = 64;

/// Sample inputs: for each sample, one tensor per model input.
pub type Samples = [Vec<Tensor>];

/// What one value did over the samples.
#[derive(Clone, Copy)]
pub(crate) struct Summary {
    /// Smallest and largest number, without margin.
    pub(crate) range: Range,
    sum: f64,
    squares: f64,
    count: usize,
}

impl Summary {
    /// Of one list, by several running results side by side.
    fn of(values: &[f64]) -> Self {
        const LANES: usize = 8;
        let (mut lo, mut hi) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
        let (mut sum, mut squares) = ([0.0; LANES], [0.0; LANES]);
        let blocks = values.chunks_exact(LANES);
        let rest = blocks.remainder();
        for block in blocks.chain((!rest.is_empty()).then_some(rest)) {
            for (lane, &x) in block.iter().enumerate() {
                lo[lane] = if x < lo[lane] { x } else { lo[lane] };
                hi[lane] = if x > hi[lane] { x } else { hi[lane] };
                sum[lane] += x;
                squares[lane] += x * x;
            }
        }
        let range = Range {
            lo: lo.into_iter().fold(f64::INFINITY, f64::min),
            hi: hi.into_iter().fold(f64::NEG_INFINITY, f64::max),
        };
        Summary { range, sum: sum.iter().sum(), squares: squares.iter().sum(), count: values.len() }
    }
}

/// Sets range and distribution of every value from running `samples` in the clear. Ranges get
/// [`MARGIN`] on both sides, except those of the inputs: a picture's values have hard ends.
///
/// # Errors
/// When a sample does not fit the model's inputs.
pub fn calibrate(graph: &Graph, samples: &Samples) -> Result<Graph, InputError> {
    Ok(calibrate_with(graph, samples)?.0)
}

/// [`calibrate`] with what the values did.
///
/// # Errors
/// When a sample does not fit the model's inputs.
pub(crate) fn calibrate_with(graph: &Graph, samples: &Samples) -> Result<(Graph, Vec<Summary>), InputError> {
    let summaries = summarise(graph, samples)?;
    let mut out = annotate(graph, &summaries);
    let ranges: Vec<Range> = out.nodes.iter().filter_map(|n| n.range).collect();
    // Not by the graph with these ranges, which is broken where samples overflow.
    let histograms = histograms(graph, &ranges, samples)?;
    for ((node, s), histogram) in out.nodes.iter_mut().zip(&summaries).zip(histograms) {
        let mean = s.sum / s.count as f64;
        let std = (s.squares / s.count as f64 - mean * mean).max(0.0).sqrt();
        node.distribution = Some(Distribution { mean, std, histogram });
    }
    Ok((out, summaries))
}

/// Sets the ranges alone.
pub(crate) fn annotate(graph: &Graph, summaries: &[Summary]) -> Graph {
    let mut out = graph.clone();
    for (node, s) in out.nodes.iter_mut().zip(summaries) {
        node.range = Some(if matches!(node.op, Op::Input { .. }) { s.range } else { widen(s.range) });
        node.distribution = None;
    }
    out
}

/// A range with the calibration margin. Ends at zero stay there: what never went below zero is most likely a ReLU
/// or a square, or a sum of them.
pub(crate) fn widen(r: Range) -> Range {
    widen_by(r, MARGIN)
}

/// The same with another margin.
pub(crate) fn widen_by(r: Range, margin: f64) -> Range {
    let reach = |end: f64| margin * end.abs().max((r.hi - r.lo) / 2.0);
    let (below, above) = if r.lo == 0.0 { (0.0, reach(r.hi)) } else { (reach(r.lo), reach(r.hi)) };
    // A constant value still needs an interval of some width.
    let least = 1e-6 * (1.0 + r.hi.abs().max(r.lo.abs()));
    Range { lo: r.lo - below.max(least), hi: r.hi + above.max(least) }
}

/// What every value did over the samples.
///
/// # Errors
/// When a sample does not fit the model's inputs.
pub(crate) fn summarise(graph: &Graph, samples: &Samples) -> Result<Vec<Summary>, InputError> {
    Ok(observe(graph, samples, &[])?.0)
}

/// [`summarise`], and for every sample some of the values themselves, one after the other.
///
/// # Errors
/// When a sample does not fit the model's inputs.
pub(crate) fn observe(
    graph: &Graph,
    samples: &Samples,
    wanted: &[ValueId],
) -> Result<(Vec<Summary>, Vec<Vec<f64>>), InputError> {
    let position = |node: usize| wanted.iter().position(|id| id.index() == node);
    let runs = each_sample(graph, samples, |node, value| {
        (Summary::of(value.values()), position(node).map(|at| (at, value.values().to_vec())))
    })?;
    let mut total: Vec<Summary> = Vec::new();
    let mut values = Vec::with_capacity(runs.len());
    // Sample by sample in order, so that sums do not depend on the number of threads.
    for run in runs {
        let (summaries, kept): (Vec<Summary>, Vec<_>) = run.into_iter().unzip();
        let mut kept: Vec<(usize, Vec<f64>)> = kept.into_iter().flatten().collect();
        kept.sort_by_key(|(at, _)| *at);
        values.push(kept.into_iter().flat_map(|(_, values)| values).collect());
        if total.is_empty() {
            total = summaries;
            continue;
        }
        for (t, r) in total.iter_mut().zip(summaries) {
            let range = hull(t.range, r.range);
            *t = Summary { range, sum: t.sum + r.sum, squares: t.squares + r.squares, count: t.count + r.count };
        }
    }
    Ok((total, values))
}

fn histograms(graph: &Graph, ranges: &[Range], samples: &Samples) -> Result<Vec<Vec<u64>>, InputError> {
    let runs = each_sample(graph, samples, |node, value| {
        let range = ranges[node];
        let scale = BINS as f64 / (range.hi - range.lo).max(f64::MIN_POSITIVE);
        let mut bins = vec![0u64; BINS];
        for x in value.values() {
            bins[(((x - range.lo) * scale) as usize).min(BINS - 1)] += 1;
        }
        bins
    })?;
    let total = runs.into_iter().reduce(|mut total, run| {
        for (t, r) in total.iter_mut().flatten().zip(run.into_iter().flatten()) {
            *t += r;
        }
        total
    });
    Ok(total.unwrap_or_default())
}

/// `f` of every value of every sample, samples in order.
fn each_sample<T: Send>(
    graph: &Graph,
    samples: &Samples,
    f: impl Fn(usize, &Tensor) -> T + Sync,
) -> Result<Vec<Vec<T>>, InputError> {
    let interpreter = Interpreter::new(graph).expect("the pipeline verifies the graph after every pass");
    samples
        .par_iter()
        .map(|inputs| {
            let mut values = Vec::with_capacity(graph.nodes.len());
            interpreter.run_with(inputs, |id, value| values.push(f(id.index(), value)))?;
            Ok(values)
        })
        .collect()
}
