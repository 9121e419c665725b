//! How much an error in any value of the graph disturbs the outputs.
//!
//! The graph is run on a few sample inputs in f64, and then backwards: for some output elements the
//! derivative by every slot of every value. An error that is independent from slot to slot and has variance v at
//! value n then contributes `v · Σ_slots J²` to the variance of that output, and all contributions add. Unlike a
//! forward propagation of variances this keeps the correlations that errors acquire on their way,
//! and it uses the magnitudes that really occur instead of worst-case ranges.

use crate::levels::Placed;
use crate::magnitudes::{Flat, Magnitudes, rotate, size};
use crate::matrices::MatrixInfo;
use crate::products::{Slots, add_transposed};
use fhec_ir::Tensor;
use fhec_ir::he::facts::bound;
use fhec_ir::he::{Graph, LinearTerm, Node, Op, ValueId};
use fhec_ir::nn::InputError;
use fhec_math::chebyshev::clenshaw;
use rayon::prelude::*;
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
    /// would not have at its first use; a drop, which adds none, has no gains. Of values that a bootstrap takes around their middle
    /// only the bound is known.
    pub(crate) fn placed(&self, placed: &Placed) -> Self {
        let graph = &placed.graph;
        let before: Vec<usize> = placed.before.iter().map(|v| v.index()).collect();
        let mut bounds = vec![0.0f64; self.mean_square.len()];
        for (node, &at) in graph.nodes.iter().zip(&before) {
            bounds[at] = bounds[at].max(bound(node));
        }
        let mean_square = |(node, &at): (&Node, &usize)| {
            if bound(node) < bounds[at] { bound(node).powi(2) } else { self.mean_square[at] }
        };
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
            mean_square: graph.nodes.iter().zip(&before).map(mean_square).collect(),
            arguments: graph.nodes.iter().zip(&before).map(arguments).collect(),
            ..self.clone()
        }
    }
}

/// The derivatives for one sample.
struct Run<'a> {
    graph: &'a Graph,
    values: &'a Magnitudes<'a>,
    /// The followed elements that each value can reach, and all between; where a network is in parts that is a small share of all.
    reach: &'a [Range<usize>],
    /// Of values that are still needed: for every slot those of the followed elements that it reaches.
    adjoint: Vec<Vec<f64>>,
}

impl<'a> Run<'a> {
    /// Begins at the followed elements.
    fn new(
        graph: &'a Graph,
        values: &'a Magnitudes<'a>,
        reach: &'a [Range<usize>],
        elements: &[(usize, usize)],
    ) -> Self {
        let mut run = Run { graph, values, reach, adjoint: vec![Vec::new(); graph.nodes.len()] };
        for (j, &(output, position)) in elements.iter().enumerate() {
            let id = graph.outputs[output].value;
            let at = Flat::of(&graph.node(id).layout).at(position as i64);
            let (seed, reach) = (run.adjoint(id), &reach[id.index()]);
            seed[at * reach.len() + j - reach.start] += 1.0;
        }
        run
    }

    /// The derivatives by a value, all zero at first.
    fn adjoint(&mut self, id: ValueId) -> &mut Vec<f64> {
        let all = size(&self.graph.node(id).layout) * self.reach[id.index()].len();
        let adjoint = &mut self.adjoint[id.index()];
        adjoint.resize(all, 0.0);
        adjoint
    }

    /// Adds the derivatives by a node's operands, given those by the node.
    fn backward(&mut self, id: ValueId, own: &[f64]) {
        let (graph, values) = (self.graph, self.values);
        let node = graph.node(id);
        let reach = &self.reach[id.index()];
        let value = |k: usize, slot: usize| values.of_value(node.inputs[k])[slot];
        match &node.op {
            Op::Input(_) => {}
            Op::LinearMap { terms, .. } => {
                for (term, &source) in terms.iter().zip(&node.inputs) {
                    let wide = &self.reach[source.index()];
                    let from = Slots { flat: Flat::of(&node.layout), width: reach.len() };
                    let to = Slots { flat: Flat::of(&graph.node(source).layout), width: wide.len() };
                    let first = reach.start - wide.start;
                    add_transposed(graph, term.matrix, (from, own), (to, self.adjoint(source), first));
                }
            }
            Op::Polynomial { poly, .. } => {
                let slope = derivative(&graph.polynomials[poly.index()].chebyshev);
                self.add(id, 0, own, |slot| clenshaw(&slope, value(0, slot)));
            }
            Op::Add => {
                self.add(id, 0, own, |_| 1.0);
                self.add(id, 1, own, |_| 1.0);
            }
            Op::Sub => {
                self.add(id, 0, own, |_| 1.0);
                self.add(id, 1, own, |_| -1.0);
            }
            Op::Mul => {
                self.add(id, 0, own, |slot| value(1, slot));
                self.add(id, 1, own, |slot| value(0, slot));
            }
            Op::Negate => self.add(id, 0, own, |_| -1.0),
            Op::MulScalar { value, .. } => self.add(id, 0, own, |_| *value),
            Op::MulVector { vector, .. } => {
                let factors = values.vector(*vector, &node.layout);
                self.add(id, 0, own, |slot| factors[slot]);
            }
            Op::Rotate(steps) => {
                let back = rotate(own, node.layout.period, -steps, reach.len());
                self.add(id, 0, &back, |_| 1.0);
            }
            Op::AddScalar(_)
            | Op::AddVector(_)
            | Op::Relinearise
            | Op::Rescale
            | Op::LevelDrop(_)
            | Op::Bootstrap { .. } => self.add(id, 0, own, |_| 1.0),
        }
    }

    /// Adds `factor(slot)` times derivatives by a node to those by its operand number `k`.
    fn add(&mut self, id: ValueId, k: usize, own: &[f64], factor: impl Fn(usize) -> f64) {
        let operand = self.graph.node(id).inputs[k];
        let (reach, wide) = (self.reach[id.index()].clone(), self.reach[operand.index()].clone());
        let inside = reach.start - wide.start..reach.end - wide.start;
        let target = self.adjoint(operand).chunks_exact_mut(wide.len());
        for (slot, (target, own)) in target.zip(own.chunks_exact(reach.len())).enumerate() {
            let f = factor(slot);
            target[inside.clone()].iter_mut().zip(own).for_each(|(t, o)| *t += f * o);
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
    let reach = reach(graph, &elements);
    let of_sample = |values: &Magnitudes<'_>| {
        let none = || Gains { slots: vec![0.0; elements.len()], entries: vec![0.0; elements.len()] };
        let mut gains: Vec<Gains> = graph.nodes.iter().map(|_| none()).collect();
        let mut run = Run::new(graph, values, &reach, &elements);
        for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
            let own = std::mem::take(&mut run.adjoint[id.index()]);
            if !own.is_empty() {
                add_gains(graph, id, &own, &reach[id.index()], matrices, &mut gains[id.index()]);
                run.backward(id, &own);
            }
        }
        gains
    };
    // Sample by sample in order, so that sums do not depend on the number of threads.
    let found: Vec<Vec<Gains>> = values.par_iter().map(of_sample).collect();
    let gains = |node: usize| {
        let mean = |list: &dyn Fn(&Gains) -> &Vec<f64>| {
            let sum = |column: usize| found.iter().map(|gains| list(&gains[node])[column]).sum::<f64>();
            (0..elements.len()).map(|column| sum(column) / values.len() as f64).collect()
        };
        Gains { slots: mean(&|g| &g.slots), entries: mean(&|g| &g.entries) }
    };
    let all = |id: ValueId| values.iter().flat_map(move |v| v.of_value(id));
    Ok(Sensitivity {
        gains: (0..graph.nodes.len()).map(gains).collect(),
        mean_square: graph.ids().map(|id| mean_square(all(id))).collect(),
        arguments: graph.ids().map(|id| arguments(graph, &values, id)).collect(),
        column_output: elements.iter().map(|e| e.0).collect(),
        output_range: graph.outputs.iter().map(|o| range(values.iter().flat_map(|v| v.elements(o.value)))).collect(),
    })
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

/// Adds up the squares of the derivatives of the slots of a value by the followed elements that it reaches.
fn add_gains(
    graph: &Graph,
    id: ValueId,
    own: &[f64],
    reach: &Range<usize>,
    matrices: &[MatrixInfo],
    gains: &mut Gains,
) {
    let node = graph.node(id);
    for (slot, row) in own.chunks_exact(reach.len()).enumerate() {
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
        for ((slots, entries), x) in own.zip(row) {
            *slots += x * x;
            *entries += x * x * norm;
        }
    }
}

fn mean_square<'a>(numbers: impl Iterator<Item = &'a f64>) -> f64 {
    let (sum, count) = numbers.fold((0.0, 0usize), |(sum, count), x| (sum + x * x, count + 1));
    sum / count.max(1) as f64
}

fn arguments(graph: &Graph, values: &[Magnitudes<'_>], id: ValueId) -> Vec<f64> {
    let node = graph.node(id);
    if !matches!(node.op, Op::Polynomial { .. }) {
        return Vec::new();
    }
    let source = node.inputs[0];
    let count = graph.node(source).layout.elements() * values.len();
    values.iter().flat_map(|v| v.elements(source)).step_by(count.div_ceil(MAX_ARGUMENTS).max(1)).collect()
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
