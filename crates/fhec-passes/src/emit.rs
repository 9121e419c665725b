//! Writes a placed ciphertext graph down as a plan.
//!
//! Demands [`Facts`], so that only a verified graph can become a plan.

use fhec_ir::he::facts::Facts;
use fhec_ir::he::interpret::weights;
use fhec_ir::he::{Graph, Op, ValueId};
use fhec_plan as plan;
use fhec_plan::{Instruction, KeyManifest, Layer, LayerId, Parameters, Plan, Preprocess, Reg, Report};

use crate::shape::plan_term;

/// What a plan holds besides the graph.
#[derive(Clone, Debug)]
pub struct Extras {
    /// Encryption parameters.
    pub parameters: Parameters,
    /// Evaluation keys.
    pub keys: KeyManifest,
    /// Predictions.
    pub report: Report,
    /// What the client does to pictures, per input; missing entries mean nothing.
    pub preprocess: Vec<Option<Preprocess>>,
    /// Predicted error of each output, standard deviation, in units of the encrypted value.
    pub output_errors: Vec<f64>,
}

/// The layers of a graph and the layer of each node: nodes of one origin are one layer.
pub fn layers(graph: &Graph) -> (Vec<Layer>, Vec<LayerId>) {
    let mut layers: Vec<Layer> = Vec::new();
    let of = graph
        .nodes
        .iter()
        .map(|node| {
            let name = node.origin.to_string();
            let at = layers.iter().position(|l| l.name == name).unwrap_or_else(|| {
                layers.push(Layer { name, kind: node.kind.clone() });
                layers.len() - 1
            });
            LayerId(at as u32)
        })
        .collect();
    (layers, of)
}

/// Emits the plan. `graph` must be the one that `facts` were derived from.
///
/// # Panics
/// When it is not, or a scale is missing; the derivation of facts refuses such graphs.
pub fn emit(graph: &Graph, facts: &Facts, extras: Extras) -> Plan {
    let (layers, layer_of) = layers(graph);
    let reg = |v: ValueId| Reg(v.0);
    let mut instructions: Vec<Instruction> = graph
        .ids()
        .map(|id| Instruction { dst: reg(id), layer: layer_of[id.index()], op: operation(graph, id) })
        .collect();
    for (output, o) in graph.outputs.iter().enumerate() {
        let op = plan::Op::Output { src: reg(o.value), output };
        let dst = Reg((graph.nodes.len() + output) as u32);
        instructions.push(Instruction { dst, layer: layer_of[o.value.index()], op });
    }
    Plan {
        compiler: env!("CARGO_PKG_VERSION").into(),
        model: graph.name.clone(),
        inputs: inputs(graph, facts, &extras),
        outputs: outputs(graph, facts, &extras),
        complex: graph.complex,
        aided: None,
        parameters: extras.parameters,
        keys: extras.keys,
        layers,
        matrices: graph.matrices.clone(),
        vectors: graph.vectors.clone(),
        polynomials: graph.polynomials.clone(),
        weights: weights(graph),
        instructions,
        report: extras.report,
    }
}

fn inputs(graph: &Graph, facts: &Facts, extras: &Extras) -> Vec<plan::Input> {
    let node_of = |index: usize| graph.nodes.iter().find(|n| n.op == Op::Input(index));
    graph
        .inputs
        .iter()
        .enumerate()
        .map(|(index, input)| plan::Input {
            name: input.name.clone(),
            shape: input.shape.clone(),
            layout: node_of(index).expect("lowering keeps every input").layout.clone(),
            level: facts.inputs()[index].level,
            scale: facts.inputs()[index].scale.clone(),
            factor: input.factor,
            range: (input.range.lo, input.range.hi),
            preprocess: extras.preprocess.get(index).cloned().flatten(),
        })
        .collect()
}

fn outputs(graph: &Graph, facts: &Facts, extras: &Extras) -> Vec<plan::Output> {
    graph
        .outputs
        .iter()
        .zip(&extras.output_errors)
        .map(|(output, error)| {
            let node = graph.node(output.value);
            let fact = facts.of(output.value);
            let (a, b) = (node.range.lo * output.factor, node.range.hi * output.factor);
            plan::Output {
                name: output.name.clone(),
                shape: output.shape.clone(),
                layout: node.layout.clone(),
                level: fact.level,
                scale: fact.scale.clone(),
                factor: output.factor,
                range: (a.min(b), a.max(b)),
                error_std: error * output.factor.abs(),
                postprocess: output.postprocess.clone(),
            }
        })
        .collect()
}

fn operation(graph: &Graph, id: ValueId) -> plan::Op {
    let node = graph.node(id);
    let src = |k: usize| Reg(node.inputs[k].0);
    let chosen = |s: &Option<fhec_math::scale::Scale>| s.clone().expect("facts were derived");
    match &node.op {
        Op::Input(index) => plan::Op::Input(*index),
        Op::LinearMap { terms, bias, out_scale } => plan::Op::LinearMap {
            terms: terms.iter().zip(&node.inputs).map(|(t, v)| plan_term(t, v.0)).collect(),
            bias: *bias,
            out_scale: chosen(out_scale),
        },
        Op::Polynomial { poly, out_scale } => {
            plan::Op::Polynomial { src: src(0), poly: *poly, out_scale: chosen(out_scale) }
        }
        Op::Add => plan::Op::Add(src(0), src(1)),
        Op::Sub => plan::Op::Sub(src(0), src(1)),
        Op::Negate => plan::Op::Negate(src(0)),
        Op::Mul => plan::Op::Mul(src(0), src(1)),
        Op::MulScalar { value, scale } => plan::Op::MulScalar { src: src(0), value: *value, scale: chosen(scale) },
        Op::MulVector { vector, scale } => plan::Op::MulVector { src: src(0), vector: *vector, scale: chosen(scale) },
        Op::AddScalar(value) => plan::Op::AddScalar { src: src(0), value: *value },
        Op::AddVector(vector) => plan::Op::AddVector { src: src(0), vector: *vector },
        Op::Rotate(steps) => plan::Op::Rotate { src: src(0), steps: *steps },
        Op::Relinearise => plan::Op::Relinearise(src(0)),
        Op::Rescale => plan::Op::Rescale(src(0)),
        Op::LevelDrop(level) => plan::Op::LevelDrop { src: src(0), level: *level },
        Op::Bootstrap { level, out_scale } => {
            plan::Op::Bootstrap { src: src(0), level: *level, out_scale: chosen(out_scale) }
        }
    }
}
