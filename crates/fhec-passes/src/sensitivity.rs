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
use std::ops::Range;

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
    /// The followed elements that each value can reach, and all between; where a network is in parts that is a small share of all.
    reach: Vec<Range<usize>>,
}

impl Run<'_> {
    /// Derivatives that are kept for every slot of a value.
    fn columns(&self, value: usize) -> usize {
        self.reach[value].len() * self.values.samples
    }

    /// Adds the derivatives by a node's operands, given those by the node: for every slot and sample those of the followed elements
    /// that it reaches.
    fn backward(&self, id: ValueId, own: &[f64], adjoint: &mut [Vec<f64>]) {
        let node = self.graph.node(id);
        let (columns, width) = (self.columns(id.index()), self.reach[id.index()].len());
        // `target += factor(sample) · own` for the derivatives of one slot.
        let add_slot = |v: usize, target: &mut [f64], own: &[f64], factor: &dyn Fn(usize) -> f64| {
            let from = self.reach[id.index()].start - self.reach[v].start;
            let samples = target.chunks_exact_mut(self.reach[v].len()).zip(own.chunks_exact(width));
            for (sample, (t, o)) in samples.enumerate() {
                let f = factor(sample);
                t[from..from + width].iter_mut().zip(o).for_each(|(t, o)| *t += f * o);
            }
        };
        let mut add_from = |k: usize, own: &[f64], factor: &dyn Fn(usize, usize) -> f64| {
            let v = node.inputs[k].index();
            let wide = self.columns(v);
            let target = &mut adjoint[v];
            target.resize(size(&self.graph.nodes[v].layout) * wide, 0.0);
            for (slot, (t, o)) in target.chunks_exact_mut(wide).zip(own.chunks_exact(columns)).enumerate() {
                add_slot(v, t, o, &|sample| factor(slot, sample));
            }
        };
        let mut add = |k: usize, factor: &dyn Fn(usize, usize) -> f64| add_from(k, own, factor);
        let value = |k: usize, slot: usize, sample: usize| self.values.at(node.inputs[k], slot, sample);
        match &node.op {
            Op::Input(_) => {}
            Op::LinearMap { terms, .. } => {
                for (term, source) in terms.iter().zip(&node.inputs) {
                    let (v, wide) = (source.index(), self.columns(source.index()));
                    let from = &self.graph.node(*source).layout;
                    let target = &mut adjoint[v];
                    target.resize(size(from) * wide, 0.0);
                    walk(self.graph, term.matrix, Flat::of(&node.layout), Flat::of(from), |row, col, w| {
                        let (o, t) = (&own[row * columns..][..columns], &mut target[col * wide..][..wide]);
                        match wide == columns {
                            true => t.iter_mut().zip(o).for_each(|(t, o)| *t += w * o),
                            false => add_slot(v, t, o, &|_| w),
                        }
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
                add_from(0, &back, &|_, _| 1.0);
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

/// The followed elements that each value can reach, and all between.
fn reach(graph: &Graph, elements: &[(usize, usize)]) -> Vec<Range<usize>> {
    let mut reach = vec![0..0; graph.nodes.len()];
    let join = |a: &Range<usize>, b: &Range<usize>| match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    };
    for (column, &(output, _)) in elements.iter().enumerate() {
        let at = graph.outputs[output].value.index();
        reach[at] = join(&reach[at], &(column..column + 1));
    }
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        for v in &graph.node(id).inputs {
            reach[v.index()] = join(&reach[v.index()], &reach[id.index()]);
        }
    }
    reach
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
    let values = Magnitudes::of(graph, &samples[..samples.len().min(MAX_SAMPLES)])?;
    let elements = followed(graph);
    let run = Run { graph, values, reach: reach(graph, &elements) };
    let (values, samples) = (&run.values, run.values.samples);
    let mut adjoint: Vec<Vec<f64>> = vec![Vec::new(); graph.nodes.len()];
    for (j, &(output, position)) in elements.iter().enumerate() {
        let id = graph.outputs[output].value;
        let (layout, reach) = (&graph.node(id).layout, &run.reach[id.index()]);
        let (seed, columns) = (&mut adjoint[id.index()], run.columns(id.index()));
        seed.resize(size(layout) * columns, 0.0);
        let at = Flat::of(layout).at(position as i64) * columns + j - reach.start;
        (0..samples).for_each(|s| seed[at + s * reach.len()] += 1.0);
    }
    let none = || Gains { slots: vec![0.0; elements.len()], entries: vec![0.0; elements.len()] };
    let mut gains: Vec<Gains> = graph.nodes.iter().map(|_| none()).collect();
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        let own = std::mem::take(&mut adjoint[id.index()]);
        if !own.is_empty() {
            add_gains(graph, id, &own, &run.reach[id.index()], samples, matrices, &mut gains[id.index()]);
            run.backward(id, &own, &mut adjoint);
        }
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

/// Adds up the derivatives of the slots of a value by the followed elements that it reaches.
fn add_gains(
    graph: &Graph,
    id: ValueId,
    own: &[f64],
    reach: &Range<usize>,
    samples: usize,
    matrices: &[MatrixInfo],
    gains: &mut Gains,
) {
    let (node, width) = (graph.node(id), reach.len());
    let mut squares = vec![0.0; width];
    for (slot, row) in own.chunks_exact(width * samples).enumerate() {
        squares.fill(0.0);
        for part in row.chunks_exact(width) {
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
        let own = gains.slots[reach.clone()].iter_mut().zip(&mut gains.entries[reach.clone()]);
        for ((slots, entries), square) in own.zip(&squares) {
            *slots += square;
            *entries += square * norm;
        }
    }
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
    use fhec_ir::Origin;
    use fhec_ir::he::{Input, Output};
    use fhec_plan::{Layout, Matrix, Nest, NestDim, Offsets};

    /// A dense layer and a square after it, for each number of inputs; ciphertexts hold one element each.
    fn parts(sizes: &[usize]) -> Graph {
        let mut g = Graph { name: "g".into(), slots: 1, ..Graph::default() };
        for (k, &n) in sizes.iter().enumerate() {
            let wave = (0..4 * n).map(|i| (0.7 + i as f64 + n as f64).sin()).collect();
            let tensor = Some(g.tensor(Tensor::new(vec![4, n], wave)));
            let dim = |extent, row, col, weight| NestDim {
                extent,
                row: Offsets::Stride(row),
                col: Offsets::Stride(col),
                weight: Offsets::Stride(weight),
            };
            let dims = vec![dim(4, 1, 0, n as i64), dim(n, 0, 1, 1)];
            let nests = vec![Nest { dims, row: 0, col: 0, weight: 0, tensor, factor: 1.0, guards: vec![] }];
            let (in_ciphertexts, out_ciphertexts) = (n, 4);
            let matrix =
                g.matrix(Matrix { slots: 1, in_ciphertexts, in_period: 1, out_ciphertexts, out_period: 1, nests });
            let range = fhec_ir::nn::Range { lo: -9.0, hi: 9.0 };
            g.inputs.push(Input { name: format!("x{k}"), shape: vec![n], factor: 1.0, range });
            let mut push = |op, inputs: Vec<ValueId>, elements| {
                let (layout, origin) = (Layout::batched(elements), Origin::named("n"));
                g.push(Node { op, inputs, layout, range, origin, kind: String::new() })
            };
            let x = push(Op::Input(k), vec![], n);
            let terms = vec![LinearTerm { matrix, baby: 1 }];
            let y = push(Op::LinearMap { terms, bias: None, out_scale: None }, vec![x], 4);
            let value = push(Op::Mul, vec![y, y], 4);
            let name = format!("y{k}");
            g.outputs.push(Output { name, value, shape: vec![4], factor: 1.0, postprocess: vec![] });
        }
        g
    }

    #[test]
    fn parts_of_a_network_do_not_disturb_each_other() {
        let sizes = [3, 5, 2];
        let whole = parts(&sizes);
        let sample = |n: usize| Tensor::new(vec![n], (0..n).map(|i| (i as f64 + 0.3).cos()).collect());
        let samples = vec![sizes.map(sample).to_vec(), sizes.map(sample).map(|t| scaled(&t, -1.5)).to_vec()];
        let all = analyse(&whole, &crate::matrices::analyse(&whole), &samples).expect("samples fit");
        assert_eq!(all.column_output.len(), 12);
        for (k, &n) in sizes.iter().enumerate() {
            let alone = parts(&[n]);
            let own: Vec<Vec<Tensor>> = samples.iter().map(|s| vec![s[k].clone()]).collect();
            let own = analyse(&alone, &crate::matrices::analyse(&alone), &own).expect("samples fit");
            for node in 0..3 {
                let (gains, alone) = (&all.gains[3 * k + node], &own.gains[node]);
                for (gains, alone) in [(&gains.slots, &alone.slots), (&gains.entries, &alone.entries)] {
                    assert_eq!(gains[4 * k..4 * k + 4], alone[..4]);
                    assert!(gains[..4 * k].iter().chain(&gains[4 * k + 4..]).all(|&g| g == 0.0));
                }
                assert!(alone.slots.iter().any(|&g| g > 0.0));
            }
        }
    }

    fn scaled(t: &Tensor, by: f64) -> Tensor {
        Tensor::new(t.shape().to_vec(), t.values().iter().map(|v| v * by).collect())
    }

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
