//! How the outputs of a network answer to errors of its activations, to first order.
//!
//! If activation i is off by δ_i(x) at each of its elements, an output moves by Σ g·δ_i(x) over them, where g is the output's
//! gradient with respect to the element. Both depend on the data, δ only through x. So gradients of a few samples are summed up
//! by x once, and the effect of any polynomial is a scalar product with its error curve: all degrees of all layers cost no
//! further run of the network. That sees what a second moment of g alone (OLA's A_i) does not: errors that have one sign
//! on a whole layer add up.
//!
//! The mean of the error over each channel is taken away by a constant per channel, which costs nothing under encryption
//! (Nagel et al., *Data-Free Quantization*, 2019, §4.2, correct quantised layers so). The mean depends on the polynomial, but as
//! linearly as the effect does: it is taken away from the sums.

use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, Interpreter, Range, ValueId};
use rayon::prelude::*;

/// Cells of the argument's range by which gradients are summed up.
const CELLS: usize = 512;

/// Combinations of the outputs whose gradients are taken, per sample: random signs, so that the mean square of a combination
/// is the sum of the squares of all outputs.
const COMBINATIONS: usize = 2;

/// Gradients of combinations of the outputs, summed up by the argument of each activation.
#[derive(Debug)]
pub(super) struct Responses {
    targets: Vec<Response>,
    /// What a mean square over the combinations is divided by.
    unit: f64,
}

/// Those of one activation. Lists over cells have an entry for each border, [`CELLS`] + 1 of them.
#[derive(Debug)]
struct Response {
    range: Range,
    /// By combination of a sample, then by cell: gradients, less those of a constant per channel.
    moments: Vec<Vec<f64>>,
    /// By channel, then by cell: part of the channel's elements.
    channels: Vec<Vec<f64>>,
}

/// What one combination of one sample says of one activation.
struct Sums {
    cells: Vec<f64>,
    channels: Vec<f64>,
}

/// What one sample says.
pub(super) struct OfSample {
    /// By combination, then by activation; nothing where the outputs do not depend on it.
    combinations: Vec<Vec<Option<Sums>>>,
    /// By activation and channel: elements in each cell, over [`CELLS`] + 1 borders.
    parts: Vec<Vec<Vec<f64>>>,
}

/// Channels of a value, and elements side by side in one.
fn channels(shape: &[usize]) -> (usize, usize) {
    if shape.len() < 2 { (1, shape.iter().product()) } else { (shape[1], shape[2..].iter().product()) }
}

/// Takes gradients of outputs with respect to activations.
pub(super) struct Probe<'a> {
    interpreter: &'a Interpreter<'a>,
    outputs: &'a [ValueId],
    targets: &'a [ValueId],
    /// The value that each activation is a function of, and its range.
    operands: Vec<(ValueId, Range)>,
    combinations: usize,
}

impl<'a> Probe<'a> {
    /// For gradients of the `outputs` with respect to `targets`.
    pub(super) fn new(
        graph: &Graph,
        interpreter: &'a Interpreter<'a>,
        outputs: &'a [ValueId],
        targets: &'a [ValueId],
    ) -> Self {
        let operand = |&id: &ValueId| {
            let operand = graph.node(id).inputs[0];
            (operand, graph.node(operand).range.unwrap_or(Range { lo: -1.0, hi: 1.0 }))
        };
        let count: usize = outputs.iter().map(|&v| graph.node(v).shape.iter().product::<usize>()).sum();
        let combinations = if count == 1 { 1 } else { COMBINATIONS };
        Probe { interpreter, outputs, targets, operands: targets.iter().map(operand).collect(), combinations }
    }

    /// Those of sample number `sample`, of which all values are given.
    pub(super) fn sample(&self, sample: usize, values: &[Tensor]) -> OfSample {
        let mut signs = Signs::new(sample as u64);
        let combination = |_| {
            let mut sums: Vec<Option<Sums>> = self.targets.iter().map(|_| None).collect();
            let seeds: Vec<_> = self.outputs.iter().map(|&v| (v, signs.fill(&values[v.index()]))).collect();
            self.interpreter.pull_back(values, seeds, |id, gradient| {
                let Ok(at) = self.targets.binary_search(&id) else { return };
                let (operand, range) = self.operands[at];
                let x = &values[operand.index()];
                let mut cells = vec![0.0; CELLS + 1];
                deposit(&mut cells, range, x.values(), gradient.values());
                let (channels, inner) = channels(gradient.shape());
                let mut by_channel = vec![0.0; channels];
                for (i, plane) in gradient.values().chunks(inner.max(1)).enumerate() {
                    by_channel[i % channels] += plane.iter().sum::<f64>();
                }
                sums[at] = Some(Sums { cells, channels: by_channel });
            });
            sums
        };
        let combinations = (0..self.combinations).map(combination).collect();
        let parts = self.operands.iter().map(|&(operand, range)| parts(range, &values[operand.index()])).collect();
        OfSample { combinations, parts }
    }
}

/// What several samples say.
#[derive(Default)]
pub(super) struct OfSamples {
    /// By sample and combination, then by activation.
    combinations: Vec<Vec<Option<Sums>>>,
    /// As of one, added up: there may be gigabytes of them if each sample keeps its own.
    parts: Vec<Vec<Vec<f64>>>,
    samples: usize,
}

impl OfSamples {
    /// Adds one more.
    pub(super) fn add(&mut self, sample: OfSample) {
        self.samples += 1;
        self.combinations.extend(sample.combinations);
        if self.parts.is_empty() {
            self.parts = sample.parts;
        } else {
            let all = self.parts.iter_mut().flatten().flatten();
            all.zip(sample.parts.iter().flatten().flatten()).for_each(|(sum, part)| *sum += part);
        }
    }
}

impl Responses {
    /// Evaluates what samples say. `outputs` are the numbers of the outputs of one, and mean squares are relative to `spread`, the
    /// standard deviation of the outputs.
    pub(super) fn new(said: OfSamples, probe: &Probe<'_>, outputs: usize, spread: f64) -> Self {
        let OfSamples { combinations: sums, mut parts, samples } = said;
        parts.iter_mut().flatten().flatten().for_each(|part| *part /= samples.max(1) as f64);
        let response = |(at, channels): (usize, Vec<Vec<f64>>)| {
            let centred = |sums: &Sums| {
                let mut cells = sums.cells.clone();
                for (sum, parts) in sums.channels.iter().zip(&channels) {
                    cells.iter_mut().zip(parts).for_each(|(c, p)| *c -= sum * p);
                }
                cells
            };
            let moments = sums.iter().filter_map(|all: &Vec<Option<Sums>>| all[at].as_ref()).map(centred).collect();
            Response { range: probe.operands[at].1, moments, channels }
        };
        let targets = parts.into_par_iter().enumerate().map(response).collect();
        let unit = (sums.len() * outputs).max(1) as f64 * spread * spread;
        Responses { targets, unit }
    }

    /// Mean square of what the error curve `error` of target number `target`, with its mean over each channel taken away, does
    /// to the outputs, relative to their spread; infinite where that cannot be said.
    pub(super) fn effect(&self, target: usize, error: impl Fn(f64) -> f64) -> f64 {
        let target = &self.targets[target];
        let curve = target.curve(error);
        let mean = target.moments.iter().map(|m| dot(m, &curve).powi(2)).sum::<f64>() / self.unit;
        if mean.is_nan() { f64::INFINITY } else { mean }
    }

    /// Mean of the error curve over each channel.
    pub(super) fn means(&self, target: usize, error: impl Fn(f64) -> f64) -> Vec<f64> {
        let target = &self.targets[target];
        let curve = target.curve(error);
        target.channels.iter().map(|parts| dot(parts, &curve)).collect()
    }
}

impl Response {
    /// A function at the borders of all cells.
    fn curve(&self, f: impl Fn(f64) -> f64) -> Vec<f64> {
        let border = |c: usize| f(self.range.lo + (self.range.hi - self.range.lo) * c as f64 / CELLS as f64);
        (0..=CELLS).map(border).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// By channel, which part of its elements is in each cell.
fn parts(range: Range, x: &Tensor) -> Vec<Vec<f64>> {
    let (channels, inner) = channels(x.shape());
    let mut parts = vec![vec![0.0; CELLS + 1]; channels];
    for (i, plane) in x.values().chunks(inner.max(1)).enumerate() {
        deposit(&mut parts[i % channels], range, plane, std::iter::repeat_n(&1.0, plane.len()));
    }
    let elements = (x.len() / channels.max(1)) as f64;
    parts.iter_mut().flatten().for_each(|p| *p /= elements);
    parts
}

/// Adds gradients to the borders of the cells that their arguments are in, shared out by distance.
fn deposit<'a>(moments: &mut [f64], range: Range, x: &[f64], gradients: impl IntoIterator<Item = &'a f64>) {
    let scale = CELLS as f64 / (range.hi - range.lo).max(f64::MIN_POSITIVE);
    for (x, g) in x.iter().zip(gradients) {
        let at = ((x - range.lo) * scale).clamp(0.0, CELLS as f64);
        let cell = (at as usize).min(CELLS - 1);
        let part = at - cell as f64;
        moments[cell] += (1.0 - part) * g;
        moments[cell + 1] += part * g;
    }
}

/// A fixed sequence of signs (splitmix64).
struct Signs(u64);

impl Signs {
    fn new(seed: u64) -> Self {
        Signs(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (z ^ (z >> 31)) & 1 == 0 { 1.0 } else { -1.0 }
    }

    /// Signs of the shape of a tensor.
    fn fill(&mut self, like: &Tensor) -> Tensor {
        Tensor::new(like.shape().to_vec(), (0..like.len()).map(|_| self.next()).collect())
    }
}
