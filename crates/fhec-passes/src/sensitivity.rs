//! How much an error in any value of the graph disturbs the outputs.
//!
//! The graph is run on a few sample inputs in f64, and then backwards: for some output elements the
//! derivative by every slot of every value. An error that is independent from slot to slot and has variance v at
//! value n then contributes `v · Σ_slots J²` to the variance of that output, and all contributions add. Unlike a
//! forward propagation of variances this keeps the correlations that errors acquire on their way,
//! and it uses the magnitudes that really occur instead of worst-case ranges.

use crate::magnitudes::{Flat, Magnitudes, rotate, size, walk};
use crate::matrices::MatrixInfo;
use fhec_ir::Tensor;
use fhec_ir::he::{Graph, LinearTerm, Node, Op, ValueId};
use fhec_ir::nn::InputError;
use fhec_math::chebyshev::clenshaw;

/// Output elements whose error is followed.
const MAX_COLUMNS: usize = 12;
/// Samples used.
pub const MAX_SAMPLES: usize = 4;
/// Arguments kept of every polynomial.
const MAX_ARGUMENTS: usize = 48;

/// Gains of one value to the followed output elements.
#[derive(Clone, Debug, Default)]
pub struct Gains {
    /// Variance at the output for unit variance in every slot of the value.
    pub slots: Vec<f64>,
    /// For linear maps: variance at the output for unit variance, independent for each matrix entry, of the inputs.
    pub entries: Vec<f64>,
}

/// Gains and magnitudes of a graph.
#[derive(Clone, Debug)]
pub struct Sensitivity {
    /// By value.
    pub gains: Vec<Gains>,
    /// Mean square over all slots, by value.
    pub mean_square: Vec<f64>,
    /// Some arguments that polynomials met, by value (empty for other nodes).
    pub arguments: Vec<Vec<f64>>,
    /// The output that each followed element belongs to.
    pub column_output: Vec<usize>,
    /// Smallest and largest element of each output over the samples.
    pub output_range: Vec<(f64, f64)>,
}

impl Sensitivity {
    /// That of a graph of so many nodes of which nothing is known yet: for prices, which do not depend on it.
    pub(crate) fn unknown(nodes: usize) -> Self {
        Sensitivity {
            gains: vec![Gains::default(); nodes],
            mean_square: vec![0.0; nodes],
            arguments: vec![Vec::new(); nodes],
            column_output: Vec::new(),
            output_range: Vec::new(),
        }
    }
}

impl Sensitivity {
    /// That of a graph into which bootstraps and level drops were inserted. They keep values, and add no errors that a value
    /// would not have at its first use; a drop, which adds none, has no gains.
    pub(crate) fn placed(&self, graph: &Graph) -> Self {
        let mut next = 0;
        // The node of the graph before, by node.
        let mut before: Vec<usize> = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            before.push(match node.op {
                Op::LevelDrop(_) | Op::Bootstrap { .. } => before[node.inputs[0].index()],
                _ => {
                    next += 1;
                    next - 1
                }
            });
        }
        let gains = |(node, &at): (&Node, &usize)| match node.op {
            Op::LevelDrop(_) => Gains { slots: vec![0.0; self.column_output.len()], ..Gains::default() },
            _ => self.gains[at].clone(),
        };
        let arguments = |(node, &at): (&Node, &usize)| match node.op {
            Op::Polynomial { .. } => self.arguments[at].clone(),
            _ => Vec::new(),
        };
        Sensitivity {
            gains: graph.nodes.iter().zip(&before).map(gains).collect(),
            mean_square: before.iter().map(|&at| self.mean_square[at]).collect(),
            arguments: graph.nodes.iter().zip(&before).map(arguments).collect(),
            ..self.clone()
        }
    }
}

struct Run<'a> {
    graph: &'a Graph,
    values: Magnitudes<'a>,
}

impl Run<'_> {
    /// Adds the derivatives by a node's operands, given those by the node; `columns` derivatives a slot,
    /// `per_sample` of them for each sample.
    fn backward(&self, id: ValueId, own: &[f64], per_sample: usize, adjoint: &mut [Vec<f64>]) {
        let node = self.graph.node(id);
        let columns = per_sample * self.values.samples;
        let mut add = |k: usize, factor: &dyn Fn(usize, usize) -> f64| {
            let v = node.inputs[k].index();
            let target = &mut adjoint[v];
            target.resize(size(&self.graph.nodes[v].layout) * columns, 0.0);
            for (slot, (t, o)) in target.chunks_exact_mut(columns).zip(own.chunks_exact(columns)).enumerate() {
                for (sample, (t, o)) in t.chunks_exact_mut(per_sample).zip(o.chunks_exact(per_sample)).enumerate() {
                    let f = factor(slot, sample);
                    t.iter_mut().zip(o).for_each(|(t, o)| *t += f * o);
                }
            }
        };
        let value = |k: usize, slot: usize, sample: usize| self.values.at(node.inputs[k], slot, sample);
        match &node.op {
            Op::Input(_) => {}
            Op::LinearMap { terms, .. } => {
                for (term, source) in terms.iter().zip(&node.inputs) {
                    let from = &self.graph.node(*source).layout;
                    let target = &mut adjoint[source.index()];
                    target.resize(size(from) * columns, 0.0);
                    walk(self.graph, term.matrix, Flat::of(&node.layout), Flat::of(from), |row, col, w| {
                        let o = &own[row * columns..][..columns];
                        let t = &mut target[col * columns..][..columns];
                        t.iter_mut().zip(o).for_each(|(t, o)| *t += w * o);
                    });
                }
            }
            Op::Polynomial { poly, .. } => {
                let slope = derivative(&self.graph.polynomials[poly.index()].chebyshev);
                add(0, &|slot, sample| clenshaw(&slope, value(0, slot, sample)));
            }
            Op::Add => {
                add(0, &|_, _| 1.0);
                add(1, &|_, _| 1.0);
            }
            Op::Sub => {
                add(0, &|_, _| 1.0);
                add(1, &|_, _| -1.0);
            }
            Op::Mul => {
                add(0, &|slot, sample| value(1, slot, sample));
                add(1, &|slot, sample| value(0, slot, sample));
            }
            Op::Negate => add(0, &|_, _| -1.0),
            Op::MulScalar { value, .. } => add(0, &|_, _| *value),
            Op::MulVector { vector, .. } => {
                let factors = self.values.vector(*vector);
                add(0, &|slot, _| factors[slot]);
            }
            Op::Rotate(steps) => {
                let back = rotate(own, node.layout.period, -steps, columns);
                let target = &mut adjoint[node.inputs[0].index()];
                target.resize(back.len(), 0.0);
                target.iter_mut().zip(&back).for_each(|(t, b)| *t += b);
            }
            Op::AddScalar(_)
            | Op::AddVector(_)
            | Op::Relinearise
            | Op::Rescale
            | Op::LevelDrop(_)
            | Op::Bootstrap { .. } => {
                add(0, &|_, _| 1.0);
            }
        }
    }
}

/// Chebyshev coefficients of the derivative: `c'_{k-1} = c'_{k+1} + 2k·c_k`, the first halved.
pub(crate) fn derivative(c: &[f64]) -> Vec<f64> {
    let n = c.len();
    let mut d = vec![0.0; n + 2];
    for k in (1..n).rev() {
        d[k - 1] = d[k + 1] + 2.0 * k as f64 * c[k];
    }
    d[0] *= 0.5;
    d.truncate(n.max(2) - 1);
    d
}

/// Finds the gains. `samples` are inputs of the network, each one tensor per graph input; at least one
/// is needed, at most [`MAX_SAMPLES`] are used.
///
/// # Errors
/// When a sample does not fit the inputs.
pub fn analyse(graph: &Graph, matrices: &[MatrixInfo], samples: &[Vec<Tensor>]) -> Result<Sensitivity, InputError> {
    let run = Run { graph, values: Magnitudes::of(graph, &samples[..samples.len().min(MAX_SAMPLES)])? };
    let values = &run.values;
    let elements = followed(graph);
    let per_sample = elements.len();
    let columns = per_sample * values.samples;
    let mut adjoint: Vec<Vec<f64>> = vec![Vec::new(); graph.nodes.len()];
    for (j, &(output, position)) in elements.iter().enumerate() {
        let id = graph.outputs[output].value;
        let layout = &graph.node(id).layout;
        let seed = &mut adjoint[id.index()];
        seed.resize(size(layout) * columns, 0.0);
        let at = Flat::of(layout).at(position as i64) * columns;
        (0..values.samples).for_each(|s| seed[at + s * per_sample + j] += 1.0);
    }
    let mut gains = vec![Gains::default(); graph.nodes.len()];
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        let own = std::mem::take(&mut adjoint[id.index()]);
        if own.is_empty() {
            gains[id.index()] = Gains { slots: vec![0.0; per_sample], entries: vec![0.0; per_sample] };
            continue;
        }
        gains[id.index()] = gains_of(graph, graph.node(id), &own, per_sample, values.samples, matrices);
        run.backward(id, &own, per_sample, &mut adjoint);
    }
    let mean_square = graph.ids().map(|id| mean_square(values.all(id))).collect();
    let arguments = graph.ids().map(|id| arguments(graph, values, id)).collect();
    let output_range = graph.outputs.iter().map(|o| range(values.elements(o.value))).collect();
    let column_output = elements.iter().map(|e| e.0).collect();
    Ok(Sensitivity { gains, mean_square, arguments, column_output, output_range })
}

/// Which elements of which outputs are followed: `(output, global slot)`, spread evenly.
fn followed(graph: &Graph) -> Vec<(usize, usize)> {
    let share = (MAX_COLUMNS / graph.outputs.len().max(1)).max(1);
    let mut list = Vec::new();
    for (number, output) in graph.outputs.iter().enumerate() {
        let layout = &graph.node(output.value).layout;
        let n = layout.elements();
        let take = n.min(share);
        list.extend((0..take).map(|i| (number, layout.position(i * n / take))));
    }
    list
}

fn gains_of(
    graph: &Graph,
    node: &Node,
    own: &[f64],
    per_sample: usize,
    samples: usize,
    matrices: &[MatrixInfo],
) -> Gains {
    let mut slots = vec![0.0; per_sample];
    let mut entries = vec![0.0; per_sample];
    for (slot, row) in own.chunks_exact(per_sample * samples).enumerate() {
        let mut squares = vec![0.0; per_sample];
        for part in row.chunks_exact(per_sample) {
            squares.iter_mut().zip(part).for_each(|(s, x)| *s += x * x / samples as f64);
        }
        let norm: f64 = match &node.op {
            Op::LinearMap { terms, .. } => {
                let row_of = |t: &LinearTerm| {
                    let info = &matrices[t.matrix.index()];
                    let period = graph.matrices[t.matrix.index()].out_period;
                    info.row_norm2[slot / node.layout.period * period + slot % node.layout.period % period]
                };
                terms.iter().map(row_of).sum()
            }
            _ => 0.0,
        };
        for j in 0..per_sample {
            slots[j] += squares[j];
            entries[j] += squares[j] * norm;
        }
    }
    Gains { slots, entries }
}

fn mean_square(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x * x).sum::<f64>() / numbers.len().max(1) as f64
}

fn arguments(graph: &Graph, values: &Magnitudes<'_>, id: ValueId) -> Vec<f64> {
    let node = graph.node(id);
    if !matches!(node.op, Op::Polynomial { .. }) {
        return Vec::new();
    }
    let source = node.inputs[0];
    let count = graph.node(source).layout.elements() * values.samples;
    values.elements(source).step_by(count.div_ceil(MAX_ARGUMENTS).max(1)).collect()
}

fn range(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), x| (lo.min(x), hi.max(x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivative_of_a_chebyshev_series() {
        let c = [0.3, -1.0, 0.5, 2.0, -0.25];
        let d = derivative(&c);
        for i in -4..=4 {
            let x = f64::from(i) / 4.5;
            let h = 1e-6;
            let slope = (clenshaw(&c, x + h) - clenshaw(&c, x - h)) / (2.0 * h);
            assert!((clenshaw(&d, x) - slope).abs() < 1e-7, "{x}");
        }
    }
}
