//! What values a graph really sees: a few samples in f64.

use crate::products::{Slots, add_product};
use fhec_ir::Tensor;
use fhec_ir::he::interpret::weights;
use fhec_ir::he::{Graph, Op, ValueId};
use fhec_ir::nn::InputError;
use fhec_math::chebyshev::clenshaw_all;
use fhec_plan::{Layout, VectorId, Weights};
use rayon::prelude::*;

/// Values of a graph for one sample.
pub(crate) struct Magnitudes<'a> {
    graph: &'a Graph,
    weights: Weights,
    /// By value and flat slot.
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

impl<'a> Magnitudes<'a> {
    /// Runs samples side by side: inputs of the network, with one tensor per graph input each.
    pub(crate) fn of(graph: &'a Graph, samples: &[Vec<Tensor>]) -> Result<Vec<Self>, InputError> {
        samples.iter().try_for_each(|s| check(graph, s))?;
        let weights = weights(graph);
        let run = |sample: &Vec<Tensor>| {
            let values = Vec::with_capacity(graph.nodes.len());
            let mut this = Magnitudes { graph, weights: weights.clone(), values };
            for id in graph.ids() {
                let value = this.value(id, sample);
                this.values.push(value);
            }
            this
        };
        Ok(samples.par_iter().map(run).collect())
    }

    /// The numbers of a value, by flat slot.
    pub(crate) fn of_value(&self, id: ValueId) -> &[f64] {
        &self.values[id.index()]
    }

    /// Numbers of a value's elements, slots without element left out.
    pub(crate) fn elements(&self, id: ValueId) -> impl Iterator<Item = f64> + '_ {
        let layout = &self.graph.node(id).layout;
        let flat = Flat::of(layout);
        layout.positions().into_iter().map(move |p| self.values[id.index()][flat.at(p as i64)])
    }

    /// The numbers of a vector, which may have a shorter period, for every flat slot of a layout.
    pub(crate) fn vector(&self, id: VectorId, layout: &Layout) -> Vec<f64> {
        let vector = &self.graph.vectors[id.index()];
        let values = vector.values(&self.weights).concat();
        let at = |slot: usize| values[slot / layout.period * vector.period + slot % layout.period % vector.period];
        (0..size(layout)).map(at).collect()
    }

    fn value(&self, id: ValueId, sample: &[Tensor]) -> Vec<f64> {
        let node = self.graph.node(id);
        let operand = |k: usize| self.of_value(node.inputs[k]);
        let map = |f: &dyn Fn(f64) -> f64| operand(0).iter().map(|&x| f(x)).collect();
        let zip = |x: &[f64], y: &[f64], f: fn(f64, f64) -> f64| x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect();
        match &node.op {
            Op::Input(index) => {
                let mut out = vec![0.0; size(&node.layout)];
                let (flat, factor) = (Flat::of(&node.layout), self.graph.inputs[*index].factor);
                for (position, v) in node.layout.positions().into_iter().zip(sample[*index].values()) {
                    out[flat.at(position as i64)] = v * factor;
                }
                out
            }
            Op::LinearMap { terms, bias, .. } => {
                let mut out = match bias {
                    Some(bias) => self.vector(*bias, &node.layout),
                    None => vec![0.0; size(&node.layout)],
                };
                for (term, source) in terms.iter().zip(&node.inputs) {
                    let from = Slots { flat: Flat::of(&self.graph.node(*source).layout), width: 1 };
                    let to = Slots { flat: Flat::of(&node.layout), width: 1 };
                    add_product(self.graph, term.matrix, (from, self.of_value(*source)), (to, &mut out));
                }
                out
            }
            Op::Polynomial { poly, .. } => {
                let mut out = operand(0).to_vec();
                clenshaw_all(&self.graph.polynomials[poly.index()].chebyshev, &mut out);
                out
            }
            Op::Add => zip(operand(0), operand(1), |x, y| x + y),
            Op::Sub => zip(operand(0), operand(1), |x, y| x - y),
            Op::Mul => zip(operand(0), operand(1), |x, y| x * y),
            Op::Negate => map(&|x| -x),
            Op::MulScalar { value, .. } => map(&|x| x * value),
            Op::AddScalar(value) => map(&|x| x + value),
            Op::AddVector(vector) => zip(operand(0), &self.vector(*vector, &node.layout), |x, v| x + v),
            Op::MulVector { vector, .. } => zip(operand(0), &self.vector(*vector, &node.layout), |x, v| x * v),
            Op::Rotate(steps) => rotate(operand(0), node.layout.period, *steps, 1),
            Op::Relinearise | Op::Rescale | Op::LevelDrop(_) | Op::Bootstrap { .. } => operand(0).to_vec(),
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
        let found = Magnitudes::of(&g, &samples).expect("samples fit");
        for (found, sample) in found.iter().zip(&samples) {
            let want = interpret_slots(&g, sample).expect("runs");
            for id in g.ids() {
                for (slot, want) in want[id.index()][0][..g.node(id).layout.period].iter().enumerate() {
                    assert!((found.of_value(id)[slot] - want).abs() < 1e-9);
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
