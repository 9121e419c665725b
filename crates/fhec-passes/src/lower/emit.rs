//! Writes the skeleton with chosen layouts as a ciphertext graph.

use super::nests::bias_nests;
use super::value::*;
use crate::layouts::choose::{Choice, matrix};
use crate::layouts::classes::Classes;
use fhec_ir::he::{Graph, Input, LinearTerm, Node, Op, Output, ValueId};
use fhec_ir::{Diagnostic, Diagnostics};
use fhec_plan::{Layout, Nest, Polynomial, Postprocess, Vector};

/// The ciphertext graph.
///
/// # Errors
/// An operation that cannot read its operand in the chosen layout.
pub(crate) fn emit(
    skeleton: &Skeleton,
    classes: &Classes,
    choice: &Choice,
    slots: usize,
) -> Result<Graph, Diagnostics> {
    let mut graph = Graph { name: skeleton.name.clone(), slots, tensors: skeleton.tensors.clone(), ..Graph::default() };
    for input in &skeleton.inputs {
        let (name, shape) = (input.name.clone(), input.shape.clone());
        graph.inputs.push(Input { name, shape, factor: input.factor, range: input.range });
    }
    let mut values: Vec<ValueId> = Vec::with_capacity(skeleton.packed.len());
    let mut problems = Vec::new();
    for id in skeleton.ids() {
        let packed = skeleton.get(id);
        let layout = &choice.layouts[classes.class(id)];
        let value = |p: PackedId| values[p.0];
        let (op, inputs) = match &packed.make {
            Make::Input(i) => (Op::Input(*i), vec![]),
            Make::Map(affine) => {
                let mut terms = Vec::new();
                let mut bias = Vec::new();
                for term in &affine.terms {
                    let from = &choice.layouts[classes.class(term.source)];
                    let Some(m) = matrix(term, from, layout) else {
                        problems.push(Diagnostic {
                            origin: packed.origin.clone(),
                            what: packed.kind.clone(),
                            message: format!("cannot read its operand as it is packed ({})", from.describe()),
                            help: String::new(),
                        });
                        continue;
                    };
                    if term.offset != 0.0 {
                        // op(1) is the sum over the same points, columns forgotten.
                        let scale = term.offset / term.factor;
                        bias.extend(m.nests.iter().map(|n| Nest { factor: n.factor * scale, ..n.clone() }));
                    }
                    terms.push(LinearTerm { matrix: graph.matrix(m), baby: 0 });
                }
                bias.extend(affine.biases.iter().map(|b| bias_nests(b, &vec![], layout)));
                let bias = (!bias.is_empty()).then(|| graph.vector(vector(layout, bias)));
                let inputs = affine.terms.iter().map(|t| value(t.source)).collect();
                (Op::LinearMap { terms, bias, out_scale: None }, inputs)
            }
            Make::Polynomial { source, chebyshev, label } => {
                let poly = graph.polynomial(Polynomial { chebyshev: chebyshev.clone(), label: label.clone() });
                (Op::Polynomial { poly, out_scale: None }, vec![value(*source)])
            }
            Make::Add(a, b) => (Op::Add, vec![value(*a), value(*b)]),
            Make::Sub(a, b) => (Op::Sub, vec![value(*a), value(*b)]),
            Make::Mul(a, b) => (Op::Mul, vec![value(*a), value(*b)]),
            Make::AddScalar(a, by) => (Op::AddScalar(*by), vec![value(*a)]),
            Make::MulScalar(a, by) => (Op::MulScalar { value: *by, scale: None }, vec![value(*a)]),
            Make::AddTensor(a, view, bias) => {
                let vector = graph.vector(vector(layout, vec![bias_nests(bias, view, layout)]));
                (Op::AddVector(vector), vec![value(*a)])
            }
            Make::MulTensor(a, view, bias) => {
                let vector = graph.vector(vector(layout, vec![bias_nests(bias, view, layout)]));
                (Op::MulVector { vector, scale: None }, vec![value(*a)])
            }
        };
        let layout = Layout { clean: packed.blank == 0.0, ..layout.clone() };
        let (range, origin, kind) = (packed.range, packed.origin.clone(), packed.kind.clone());
        values.push(graph.push(Node { op, inputs, layout, range, origin, kind }));
    }
    for output in &skeleton.outputs {
        graph.outputs.push(Output {
            name: output.name.clone(),
            shape: output.shape.clone(),
            value: values[output.packed.0],
            factor: output.factor,
            postprocess: output.softmax.iter().map(|&axis| Postprocess::Softmax { axis }).collect(),
        });
    }
    if problems.is_empty() { Ok(graph) } else { Err(Diagnostics(problems)) }
}

fn vector(layout: &Layout, nests: Vec<Nest>) -> Vector {
    Vector { slots: layout.slots, ciphertexts: layout.ciphertexts, period: layout.period, nests }
}
