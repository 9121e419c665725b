//! Predicts the error of every value: random errors are carried through the network, to first order.
//!
//! Errors of neighbouring slots become alike on their way, and layers damp some of them and not others. So they are not propagated as variances,
//! with the gain of a layer for unrelated errors: in deep networks that is wrong by many orders of magnitude. What
//! nodes add is drawn at random instead, slot by slot, and what is there already is multiplied by the derivative of each layer at the values of
//! a few samples. The mean square over the slots is the prediction.

use crate::magnitudes::{Flat, Magnitudes, rotate, size};
use crate::matrices::MatrixInfo;
use crate::noise::{Injection, SAFETY};
use crate::products::{Slots, add_product};
use crate::sensitivity::derivative;
use fhec_ir::Tensor;
use fhec_ir::he::{Graph, LinearTerm, Op, ValueId};
use fhec_ir::nn::InputError;
use fhec_math::chebyshev::clenshaw_all;
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Samples whose values decide the derivatives; each has errors of its own.
const SAMPLES: usize = 2;

/// Root mean square over the slots of the error of every value, where nodes add what `injections` say, with the margin of all
/// predictions.
///
/// # Errors
/// When a sample does not fit the inputs.
pub(crate) fn carried(
    graph: &Graph,
    matrices: &[MatrixInfo],
    samples: &[Vec<Tensor>],
    injections: &[Injection],
) -> Result<Vec<f64>, InputError> {
    let values = Magnitudes::of(graph, &samples[..samples.len().min(SAMPLES)])?;
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for id in graph.ids() {
        graph.node(id).inputs.iter().for_each(|v| last_use[v.index()] = id.index());
    }
    let of_sample = |(number, values): (usize, &Magnitudes<'_>)| {
        let mut run = Run { graph, values, errors: Vec::with_capacity(graph.nodes.len()) };
        let mut normal = Normal(0x243f_6a88_85a3_08d3 ^ number as u64);
        let mut squares = Vec::with_capacity(graph.nodes.len());
        for (id, injection) in graph.ids().zip(injections) {
            let mut errors = run.forward(id);
            run.inject(id, matrices, injection, &mut errors, &mut normal);
            squares.push(errors.iter().map(|e| e * e).sum::<f64>() / errors.len().max(1) as f64);
            run.errors.push(errors);
            for v in graph.node(id).inputs.iter().filter(|v| last_use[v.index()] == id.index()) {
                run.errors[v.index()] = Vec::new();
            }
        }
        squares
    };
    let found: Vec<Vec<f64>> = values.par_iter().enumerate().map(of_sample).collect();
    let mean = |node: usize| found.iter().map(|squares| squares[node]).sum::<f64>() / found.len().max(1) as f64;
    Ok((0..graph.nodes.len()).map(|node| mean(node).sqrt() * SAFETY).collect())
}

/// The errors of one sample.
struct Run<'a> {
    graph: &'a Graph,
    values: &'a Magnitudes<'a>,
    /// By value and flat slot. Empty once nothing reads it any more.
    errors: Vec<Vec<f64>>,
}

impl Run<'_> {
    /// What the errors of its operands do to a node.
    fn forward(&self, id: ValueId) -> Vec<f64> {
        let node = self.graph.node(id);
        let error = |k: usize| &self.errors[node.inputs[k].index()];
        let value = |k: usize| self.values.of_value(node.inputs[k]);
        let scaled = |factor: f64| error(0).iter().map(|e| e * factor).collect();
        let both = |f: &dyn Fn(f64, f64) -> f64| error(0).iter().zip(error(1)).map(|(&a, &b)| f(a, b)).collect();
        match &node.op {
            Op::Input(_) => vec![0.0; size(&node.layout)],
            Op::LinearMap { terms, .. } => {
                let mut out = vec![0.0; size(&node.layout)];
                for (k, (term, source)) in terms.iter().zip(&node.inputs).enumerate() {
                    let from = Slots { flat: Flat::of(&self.graph.node(*source).layout), width: 1 };
                    let to = Slots { flat: Flat::of(&node.layout), width: 1 };
                    add_product(self.graph, term.matrix, (from, error(k)), (to, &mut out));
                }
                out
            }
            Op::Polynomial { poly, .. } => {
                let mut slopes = value(0).to_vec();
                clenshaw_all(&derivative(&self.graph.polynomials[poly.index()].chebyshev), &mut slopes);
                error(0).iter().zip(slopes).map(|(e, slope)| e * slope).collect()
            }
            Op::Add => both(&|a, b| a + b),
            Op::Sub => both(&|a, b| a - b),
            Op::Mul => {
                let by = |errors: &[f64], values: &[f64]| -> Vec<f64> {
                    errors.iter().zip(values).map(|(e, x)| e * x).collect()
                };
                let (left, right) = (by(error(0), value(1)), by(error(1), value(0)));
                left.iter().zip(right).map(|(l, r)| l + r).collect()
            }
            Op::Negate => scaled(-1.0),
            Op::MulScalar { value, .. } => scaled(*value),
            Op::MulVector { vector, .. } => {
                let factors = self.values.vector(*vector, &node.layout);
                error(0).iter().zip(factors).map(|(e, factor)| e * factor).collect()
            }
            Op::Rotate(steps) => rotate(error(0), node.layout.period, *steps, 1),
            Op::AddScalar(_)
            | Op::AddVector(_)
            | Op::Relinearise
            | Op::Rescale
            | Op::LevelDrop(_)
            | Op::Bootstrap { .. } => error(0).clone(),
        }
    }

    /// Adds what a node adds.
    fn inject(
        &self,
        id: ValueId,
        matrices: &[MatrixInfo],
        injection: &Injection,
        errors: &mut [f64],
        normal: &mut Normal,
    ) {
        let node = self.graph.node(id);
        let rows = |slot: usize| match &node.op {
            Op::LinearMap { terms, .. } if injection.entries > 0.0 => {
                let row = |t: &LinearTerm| {
                    let period = self.graph.matrices[t.matrix.index()].out_period;
                    let at = slot / node.layout.period * period + slot % node.layout.period % period;
                    matrices[t.matrix.index()].row_norm2[at]
                };
                terms.iter().map(row).sum()
            }
            _ => 0.0,
        };
        if injection.slots == 0.0 && injection.entries == 0.0 {
            return;
        }
        for (slot, error) in errors.iter_mut().enumerate() {
            *error += (injection.slots + injection.entries * rows(slot)).sqrt() * normal.next();
        }
    }
}

/// A fixed sequence of normally distributed numbers (splitmix64, Box and Muller).
struct Normal(u64);

impl Normal {
    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrices;
    use fhec_ir::Origin;
    use fhec_ir::he::{Input, Node};
    use fhec_ir::nn::Range;
    use fhec_plan::{Layout, Matrix, Nest, NestDim, Offsets, Polynomial};

    const STD: f64 = 1e-3;

    /// Errors of an input of 512 numbers that errs, and of nodes that do not.
    fn found(nodes: impl FnOnce(&mut Graph, &mut dyn FnMut(&mut Graph, Op, &[u32]) -> u32)) -> Vec<f64> {
        let mut g = Graph { name: "g".into(), slots: 512, ..Graph::default() };
        let range = Range { lo: -1.0, hi: 1.0 };
        g.inputs.push(Input { name: "x".into(), shape: vec![512], factor: 1.0, range });
        let mut push = |g: &mut Graph, op: Op, inputs: &[u32]| {
            let (inputs, origin) = (inputs.iter().map(|&v| ValueId(v)).collect(), Origin::named("n"));
            g.push(Node { op, inputs, layout: Layout::dense(512, 512, 512), range, origin, kind: String::new() }).0
        };
        push(&mut g, Op::Input(0), &[]);
        nodes(&mut g, &mut push);
        let sample = Tensor::new(vec![512], (0..512).map(|i| 0.9 * (0.7 * f64::from(i)).sin()).collect());
        let mut injections = vec![Injection::default(); g.nodes.len()];
        injections[0].slots = STD * STD;
        let found = carried(&g, &matrices::analyse(&g), &[vec![sample]], &injections).expect("the sample fits");
        found.into_iter().map(|e| e / SAFETY).collect()
    }

    fn near(found: f64, want: f64) {
        assert!((found / want - 1.0).abs() < 0.15, "{found}, expected {want}");
    }

    /// The mean over 8 neighbours, by a matrix.
    fn mean(g: &mut Graph) -> Op {
        let dim = |extent, row, col| NestDim {
            extent,
            row: Offsets::Stride(row),
            col: Offsets::Stride(col),
            weight: Offsets::Stride(0),
        };
        let nest = |dims| Nest { dims, row: 0, col: 0, weight: 0, tensor: None, factor: 0.125, guards: vec![] };
        let nests = vec![nest(vec![dim(64, 8, 8), dim(8, 1, 0), dim(8, 0, 1)])];
        let matrix = g.matrix(Matrix {
            slots: 512,
            in_ciphertexts: 1,
            in_period: 512,
            out_ciphertexts: 1,
            out_period: 512,
            nests,
        });
        Op::LinearMap { terms: vec![LinearTerm { matrix, baby: 1 }], bias: None, out_scale: None }
    }

    #[test]
    fn errors_that_became_alike_stay_alike() {
        let found = found(|g, push| {
            let map = mean(g);
            let once = push(g, map.clone(), &[0]);
            let twice = push(g, map, &[once]);
            push(g, Op::Sub, &[once, twice]);
            push(g, Op::Add, &[once, twice]);
        });
        near(found[0], STD);
        near(found[1], STD / 8f64.sqrt());
        // The mean of equal numbers is the same number: variances would say that it is less by another factor of √8.
        assert!((found[2] / found[1] - 1.0).abs() < 1e-9);
        assert!(found[3] < 1e-12);
        assert!((found[4] / found[1] - 2.0).abs() < 1e-9);
    }

    #[test]
    fn products_and_polynomials_have_the_slope_of_the_values() {
        let found = found(|g, push| {
            push(g, Op::Mul, &[0, 0]);
            // x² as (T_2 + T_0)/2.
            let poly = g.polynomial(Polynomial { chebyshev: vec![0.5, 0.0, 0.5], label: String::new() });
            push(g, Op::Polynomial { poly, out_scale: None }, &[0]);
            push(g, Op::Sub, &[1, 2]);
            push(g, Op::MulScalar { value: -3.0, scale: None }, &[2]);
            push(g, Op::Rotate(5), &[4]);
        });
        // 2x, and x has a mean square of 0.9²/2.
        near(found[1], STD * 2.0 * 0.9 / 2f64.sqrt());
        assert!(found[3] < 1e-12);
        assert!((found[4] / found[2] - 3.0).abs() < 1e-9);
        assert!((found[5] / found[4] - 1.0).abs() < 1e-9);
    }
}
