//! What values a graph really sees: a few samples in f64, all of them in one walk over each matrix.

use fhec_ir::Tensor;
use fhec_ir::he::interpret::weights;
use fhec_ir::he::{Graph, Op, ValueId};
use fhec_ir::nn::InputError;
use fhec_math::chebyshev::clenshaw;
use fhec_plan::{Layout, MatrixId, VectorId, Weights};

/// Values of a graph over some samples.
pub(crate) struct Magnitudes<'a> {
    graph: &'a Graph,
    weights: Weights,
    /// Number of samples.
    pub(crate) samples: usize,
    /// By value and flat slot: one number a sample.
    values: Vec<Vec<f64>>,
}

/// Where the slots of a layout are in a value's flat storage, which holds every ciphertext up to its period.
#[derive(Clone, Copy)]
pub(crate) struct Flat {
    log_slots: u32,
    log_period: u32,
}

impl Flat {
    pub(crate) fn of(layout: &Layout) -> Self {
        // Both are powers of two, and the period divides the slots.
        Flat { log_slots: layout.slots.trailing_zeros(), log_period: layout.period.trailing_zeros() }
    }

    /// The place of a global slot.
    pub(crate) fn at(self, global: i64) -> usize {
        let global = global as usize;
        (global >> self.log_slots << self.log_period) + (global & ((1 << self.log_period) - 1))
    }
}

/// Flat slots of a layout.
pub(crate) fn size(layout: &Layout) -> usize {
    layout.ciphertexts * layout.period
}

/// Left rotation within every block of `period` slots of `columns` numbers each.
pub(crate) fn rotate(x: &[f64], period: usize, steps: i64, columns: usize) -> Vec<f64> {
    let mut out = x.to_vec();
    let left = steps.rem_euclid(period as i64) as usize * columns;
    out.chunks_exact_mut(period * columns).for_each(|block| block.rotate_left(left));
    out
}

/// `f(row, column, weight)` for every point of a matrix, with row and column where [`Flat`] puts them.
pub(crate) fn walk(graph: &Graph, matrix: MatrixId, to: Flat, from: Flat, mut f: impl FnMut(usize, usize, f64)) {
    for nest in &graph.matrices[matrix.index()].nests {
        let values = nest.tensor.map(|t| graph.tensors[t.index()].values());
        nest.for_each(|row, col, weight| {
            f(to.at(row), from.at(col), nest.factor * values.map_or(1.0, |v| v[weight as usize]));
        });
    }
}

impl<'a> Magnitudes<'a> {
    /// Runs the samples, inputs of the network with one tensor per graph input each.
    pub(crate) fn of(graph: &'a Graph, samples: &[Vec<Tensor>]) -> Result<Self, InputError> {
        samples.iter().try_for_each(|s| check(graph, s))?;
        let values = Vec::with_capacity(graph.nodes.len());
        let mut this = Magnitudes { graph, weights: weights(graph), samples: samples.len(), values };
        for id in graph.ids() {
            let value = this.value(id, samples);
            this.values.push(value);
        }
        Ok(this)
    }

    /// The number of flat slot and sample.
    pub(crate) fn at(&self, id: ValueId, slot: usize, sample: usize) -> f64 {
        self.values[id.index()][slot * self.samples + sample]
    }

    /// All numbers of a value.
    pub(crate) fn all(&self, id: ValueId) -> &[f64] {
        &self.values[id.index()]
    }

    /// Numbers of a value's elements, slots without element left out, sample after sample.
    pub(crate) fn elements(&self, id: ValueId) -> impl Iterator<Item = f64> + '_ {
        let layout = &self.graph.node(id).layout;
        let (flat, positions) = (Flat::of(layout), layout.positions());
        (0..self.samples).flat_map(move |s| {
            let at = |p: usize| self.at(id, flat.at(p as i64), s);
            positions.iter().map(|&p| at(p)).collect::<Vec<_>>()
        })
    }

    /// The numbers of a vector, flat.
    pub(crate) fn vector(&self, id: VectorId) -> Vec<f64> {
        self.graph.vectors[id.index()].values(&self.weights).concat()
    }

    fn value(&self, id: ValueId, samples: &[Vec<Tensor>]) -> Vec<f64> {
        let node = self.graph.node(id);
        let columns = self.samples;
        let operand = |k: usize| &self.values[node.inputs[k].index()];
        let map = |f: &dyn Fn(f64) -> f64| operand(0).iter().map(|&x| f(x)).collect();
        let zip = |f: &dyn Fn(f64, f64) -> f64| operand(0).iter().zip(operand(1)).map(|(&x, &y)| f(x, y)).collect();
        // Combines every slot with an entry of a vector that may have a shorter period.
        let with_vector = |vector: VectorId, mut out: Vec<f64>, f: &dyn Fn(f64, f64) -> f64| {
            let period = self.graph.vectors[vector.index()].period;
            let values = self.vector(vector);
            for (slot, numbers) in out.chunks_exact_mut(columns).enumerate() {
                let v = values[slot / node.layout.period * period + slot % node.layout.period % period];
                numbers.iter_mut().for_each(|x| *x = f(*x, v));
            }
            out
        };
        match &node.op {
            Op::Input(index) => {
                let mut out = vec![0.0; size(&node.layout) * columns];
                let (flat, factor) = (Flat::of(&node.layout), self.graph.inputs[*index].factor);
                for (s, sample) in samples.iter().enumerate() {
                    for (position, v) in node.layout.positions().into_iter().zip(sample[*index].values()) {
                        out[flat.at(position as i64) * columns + s] = v * factor;
                    }
                }
                out
            }
            Op::LinearMap { terms, bias, .. } => {
                let mut out = vec![0.0; size(&node.layout) * columns];
                for (term, source) in terms.iter().zip(&node.inputs) {
                    let (x, from) = (&self.values[source.index()], &self.graph.node(*source).layout);
                    walk(self.graph, term.matrix, Flat::of(&node.layout), Flat::of(from), |row, col, w| {
                        let o = &mut out[row * columns..][..columns];
                        o.iter_mut().zip(&x[col * columns..]).for_each(|(o, x)| *o += w * x);
                    });
                }
                match bias {
                    Some(bias) => with_vector(*bias, out, &|x, b| x + b),
                    None => out,
                }
            }
            Op::Polynomial { poly, .. } => {
                let c = &self.graph.polynomials[poly.index()].chebyshev;
                map(&|x| clenshaw(c, x))
            }
            Op::Add => zip(&|x, y| x + y),
            Op::Sub => zip(&|x, y| x - y),
            Op::Mul => zip(&|x, y| x * y),
            Op::Negate => map(&|x| -x),
            Op::MulScalar { value, .. } => map(&|x| x * value),
            Op::AddScalar(value) => map(&|x| x + value),
            Op::AddVector(vector) => with_vector(*vector, operand(0).clone(), &|x, v| x + v),
            Op::MulVector { vector, .. } => with_vector(*vector, operand(0).clone(), &|x, v| x * v),
            Op::Rotate(steps) => rotate(operand(0), node.layout.period, *steps, columns),
            Op::Relinearise | Op::Rescale | Op::LevelDrop(_) | Op::Bootstrap { .. } => operand(0).clone(),
        }
    }
}

fn check(graph: &Graph, sample: &[Tensor]) -> Result<(), InputError> {
    if sample.len() != graph.inputs.len() {
        return Err(InputError::Count { expected: graph.inputs.len(), given: sample.len() });
    }
    match sample.iter().zip(&graph.inputs).find(|(tensor, input)| tensor.shape() != input.shape) {
        None => Ok(()),
        Some((tensor, input)) => Err(InputError::Shape {
            name: input.name.clone(),
            expected: input.shape.clone(),
            given: tensor.shape().to_vec(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_ir::Origin;
    use fhec_ir::he::{Input, LinearTerm, Node, interpret_slots};
    use fhec_ir::nn::Range;
    use fhec_plan::{Matrix, Nest, NestDim, Offsets, Vector};

    /// 20 → 6 with bias, squared, rotated.
    fn dense() -> Graph {
        let mut g = Graph { name: "g".into(), slots: 64, ..Graph::default() };
        let wave = |n: usize| (0..n).map(|i| (1.3 * i as f64).sin()).collect::<Vec<f64>>();
        let tensor = Some(g.tensor(Tensor::new(vec![6, 20], wave(120))));
        let dim = |extent, row, col, weight| NestDim {
            extent,
            row: Offsets::Stride(row),
            col: Offsets::Stride(col),
            weight: Offsets::Stride(weight),
        };
        let nest = |dims| Nest { dims, row: 0, col: 0, weight: 0, tensor, factor: 0.5, guards: vec![] };
        let nests = vec![nest(vec![dim(6, 1, 0, 20), dim(20, 0, 1, 1)])];
        let (in_period, out_period) = (32, 8);
        let matrix =
            g.matrix(Matrix { slots: 64, in_ciphertexts: 1, in_period, out_ciphertexts: 1, out_period, nests });
        let nests = vec![nest(vec![dim(6, 1, 0, 3)])];
        let bias = Some(g.vector(Vector { slots: 64, ciphertexts: 1, period: 8, nests }));
        let range = Range { lo: -9.0, hi: 9.0 };
        g.inputs.push(Input { name: "x".into(), shape: vec![20], factor: 2.0, range });
        let mut push = |op, inputs: &[ValueId], layout| {
            let (inputs, origin) = (inputs.to_vec(), Origin::named("n"));
            g.push(Node { op, inputs, layout, range, origin, kind: String::new() })
        };
        let x = push(Op::Input(0), &[], Layout::dense(20, 64, 32));
        let terms = vec![LinearTerm { matrix, baby: 1 }];
        let y = push(Op::LinearMap { terms, bias, out_scale: None }, &[x], Layout::dense(6, 64, 8));
        let z = push(Op::Mul, &[y, y], Layout::dense(6, 64, 8));
        push(Op::Rotate(3), &[z], Layout::dense(6, 64, 8));
        g
    }

    #[test]
    fn samples_agree_with_the_interpreter() {
        let g = dense();
        let sample = |s: usize| vec![Tensor::new(vec![20], (0..20).map(|i| ((s * 20 + i) as f64).cos()).collect())];
        let samples: Vec<_> = (0..3).map(sample).collect();
        let m = Magnitudes::of(&g, &samples).expect("samples fit");
        for (s, sample) in samples.iter().enumerate() {
            let want = interpret_slots(&g, sample).expect("runs");
            for id in g.ids() {
                for (slot, want) in want[id.index()][0][..g.node(id).layout.period].iter().enumerate() {
                    assert!((m.at(id, slot, s) - want).abs() < 1e-9);
                }
            }
        }
        assert!(Magnitudes::of(&g, &[vec![]]).is_err());
    }

    #[test]
    fn slots_are_flat_up_to_the_period() {
        let layout = Layout { ciphertexts: 3, ..Layout::dense(6, 64, 8) };
        let flat = Flat::of(&layout);
        for global in 0..3 * 64 {
            assert_eq!(flat.at(global as i64), global / 64 * 8 + global % 64 % 8);
        }
    }
}
