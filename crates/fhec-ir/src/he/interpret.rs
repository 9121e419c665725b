//! The f64 interpreter: what a ciphertext graph means, slot by slot.
//!
//! It runs before and after levels are placed (rescales, relinearisations and level drops are the
//! identity) and knows nothing of how linear maps are evaluated: matrices are applied straight from
//! their loop nests, so it is the reference for diagonals and BSGS alike.

use super::graph::{Graph, Op};
use crate::Tensor;
use crate::nn::InputError;
use fhec_math::chebyshev::clenshaw;
use fhec_plan::{Postprocess, Weights};

/// Slot vectors of one value: one of full length per ciphertext.
pub type Slots = Vec<Vec<f64>>;

/// The weight store of a graph, as the plan will hold it.
pub fn weights(graph: &Graph) -> Weights {
    Weights::from_tensors(graph.tensors.iter().map(Tensor::values))
}

/// Outputs for one set of inputs, after the client's factor and postprocessing.
///
/// # Errors
/// When number or shape of the inputs differ from the graph's.
///
/// # Panics
/// When the graph breaks an invariant that [`super::verify()`] checks.
pub fn interpret(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, InputError> {
    let values = interpret_slots(graph, inputs)?;
    let outputs = graph.outputs.iter().map(|output| {
        let layout = &graph.node(output.value).layout;
        let mut tensor = layout.unpack(&values[output.value.index()]);
        for v in &mut tensor {
            *v *= output.factor;
        }
        for Postprocess::Softmax { axis } in &output.postprocess {
            softmax(&mut tensor, &output.shape, *axis);
        }
        Tensor::new(output.shape.clone(), tensor)
    });
    Ok(outputs.collect())
}

/// The slots of every value, in the graph's order.
///
/// # Errors
/// As [`interpret`].
///
/// # Panics
/// As [`interpret`].
pub fn interpret_slots(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Slots>, InputError> {
    if inputs.len() != graph.inputs.len() {
        return Err(InputError::Count { expected: graph.inputs.len(), given: inputs.len() });
    }
    for (tensor, input) in inputs.iter().zip(&graph.inputs) {
        if tensor.shape() != input.shape {
            return Err(InputError::Shape {
                name: input.name.clone(),
                expected: input.shape.clone(),
                given: tensor.shape().to_vec(),
            });
        }
    }
    let weights = weights(graph);
    let mut values: Vec<Slots> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let operand = |i: usize| &values[node.inputs[i].index()];
        let slots = graph.slots;
        let map = |f: &dyn Fn(f64) -> f64| -> Slots {
            operand(0).iter().map(|c| c.iter().map(|&v| f(v)).collect()).collect()
        };
        let zip = |other: &Slots, f: fn(f64, f64) -> f64| -> Slots {
            let pairs = operand(0).iter().zip(other);
            pairs.map(|(a, b)| a.iter().zip(b).map(|(&x, &y)| f(x, y)).collect()).collect()
        };
        let value = match &node.op {
            Op::Input(i) => {
                let factor = graph.inputs[*i].factor;
                let scaled: Vec<f64> = inputs[*i].values().iter().map(|&v| v * factor).collect();
                repeat(node.layout.pack(&scaled), slots)
            }
            Op::LinearMap { terms, bias, .. } => {
                let mut sum = vec![vec![0.0; slots]; node.layout.ciphertexts];
                let mut add = |part: Slots| {
                    for (s, p) in sum.iter_mut().flatten().zip(repeat(part, slots).iter().flatten()) {
                        *s += p;
                    }
                };
                for (i, term) in terms.iter().enumerate() {
                    add(graph.matrices[term.matrix.index()].apply(&weights, operand(i)));
                }
                if let Some(v) = bias {
                    add(graph.vectors[v.index()].values(&weights));
                }
                sum
            }
            Op::Polynomial { poly, .. } => {
                let coefficients = &graph.polynomials[poly.index()].chebyshev;
                map(&|x| clenshaw(coefficients, x))
            }
            Op::Add => zip(operand(1), |a, b| a + b),
            Op::Sub => zip(operand(1), |a, b| a - b),
            Op::Mul => zip(operand(1), |a, b| a * b),
            Op::Negate => map(&|x| -x),
            Op::MulScalar { value, .. } => map(&|x| x * value),
            Op::AddScalar(value) => map(&|x| x + value),
            Op::MulVector { vector, .. } => {
                zip(&repeat(graph.vectors[vector.index()].values(&weights), slots), |a, b| a * b)
            }
            Op::AddVector(vector) => zip(&repeat(graph.vectors[vector.index()].values(&weights), slots), |a, b| a + b),
            Op::Rotate(steps) => operand(0)
                .iter()
                .map(|c| {
                    let mut c = c.clone();
                    c.rotate_left(steps.rem_euclid(slots as i64) as usize);
                    c
                })
                .collect(),
            Op::Relinearise | Op::Rescale | Op::LevelDrop(_) | Op::Bootstrap { .. } => operand(0).clone(),
        };
        values.push(value);
    }
    Ok(values)
}

/// Periodic contents repeated up to `slots`.
fn repeat(value: Slots, slots: usize) -> Slots {
    value.into_iter().map(|c| c.iter().copied().cycle().take(slots).collect()).collect()
}

fn softmax(values: &mut [f64], shape: &[usize], axis: usize) {
    let inner: usize = shape[axis + 1..].iter().product();
    let extent = shape[axis];
    for start in (0..values.len()).filter(|i| (i / inner).is_multiple_of(extent)) {
        let at = |k: usize| start + k * inner;
        let top = (0..extent).map(|k| values[at(k)]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = (0..extent).map(|k| (values[at(k)] - top).exp()).sum();
        for k in 0..extent {
            values[at(k)] = (values[at(k)] - top).exp() / sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_works_along_any_axis() {
        let mut v = vec![0.0, 1.0, 2.0, 0.0, 1.0, 2.0];
        softmax(&mut v, &[2, 3], 0);
        assert!(v.iter().all(|&x| (x - 0.5).abs() < 1e-12));
        let mut v = vec![0.0, 1f64.ln() + 0.0, 3f64.ln()];
        softmax(&mut v, &[1, 3], 1);
        assert!((v[2] - 0.6).abs() < 1e-12);
    }
}
