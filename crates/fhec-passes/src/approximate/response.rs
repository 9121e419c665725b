//! How the outputs of a network answer to errors of its activations, to first order.
//!
//! If activation i is off by δ_i(x) at each of its elements, an output moves by Σ g·δ_i(x) over them, where g is the output's
//! gradient with respect to the element. Both depend on the data, δ only through x. So gradients of a few samples are summed up
//! by x once, and the effect of any polynomial is a scalar product with its error curve: all degrees of all layers cost no
//! further run of the network. That sees what a second moment of g alone (OLA's A_i) does not: errors that have one sign
//! on a whole layer add up.

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
    ranges: Vec<Range>,
    /// By combination of a sample, activation and cell border, [`CELLS`] + 1 of these.
    moments: Vec<Vec<Vec<f64>>>,
    /// What a mean square over the combinations is divided by.
    unit: f64,
}

impl Responses {
    /// Takes gradients of the `outputs` on samples, of which all values are given, with respect to `targets`. Mean squares
    /// are relative to `spread`, the standard deviation of the outputs.
    pub(super) fn new(
        graph: &Graph,
        values: &[Vec<Tensor>],
        outputs: &[ValueId],
        targets: &[ValueId],
        spread: f64,
    ) -> Self {
        let interpreter = Interpreter::new(graph).expect("the pipeline verifies the graph after every pass");
        let range = |&id: &ValueId| graph.node(graph.node(id).inputs[0]).range.unwrap_or(Range { lo: -1.0, hi: 1.0 });
        let ranges: Vec<Range> = targets.iter().map(range).collect();
        let count: usize = outputs.iter().map(|&v| graph.node(v).shape.iter().product::<usize>()).sum();
        let of_sample = |(s, values): (usize, &Vec<Tensor>)| {
            let mut signs = Signs::new(s as u64);
            let combinations = if count == 1 { 1 } else { COMBINATIONS };
            let combination = |_| {
                let mut moments = vec![vec![0.0; CELLS + 1]; targets.len()];
                let seeds: Vec<_> = outputs.iter().map(|&v| (v, signs.fill(&values[v.index()]))).collect();
                interpreter.pull_back(values, seeds, |id, gradient| {
                    let Ok(at) = targets.binary_search(&id) else { return };
                    let x = &values[graph.node(id).inputs[0].index()];
                    deposit(&mut moments[at], ranges[at], x.values(), gradient.values());
                });
                moments
            };
            (0..combinations).map(combination).collect::<Vec<_>>()
        };
        let moments: Vec<Vec<Vec<Vec<f64>>>> = values.par_iter().enumerate().map(of_sample).collect();
        let moments: Vec<_> = moments.into_iter().flatten().collect();
        let unit = (moments.len() * count).max(1) as f64 * spread * spread;
        Responses { ranges, moments, unit }
    }

    /// Mean square of what the error curve `error` of target number `target` does to the outputs, relative to their spread;
    /// infinite where that cannot be said.
    pub(super) fn effect(&self, target: usize, error: impl Fn(f64) -> f64) -> f64 {
        let range = self.ranges[target];
        let border = |c: usize| error(range.lo + (range.hi - range.lo) * c as f64 / CELLS as f64);
        let curve: Vec<f64> = (0..=CELLS).map(border).collect();
        let square = |moments: &Vec<Vec<f64>>| -> f64 {
            moments[target].iter().zip(&curve).map(|(m, e)| m * e).sum::<f64>().powi(2)
        };
        let mean = self.moments.iter().map(square).sum::<f64>() / self.unit;
        if mean.is_nan() { f64::INFINITY } else { mean }
    }
}

/// Adds gradients to the borders of the cells that their arguments are in, shared out by distance.
fn deposit(moments: &mut [f64], range: Range, x: &[f64], gradients: &[f64]) {
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
