//! Chooses the evaluation keys: every Galois element in use, each up to the highest level at which it is used.

use crate::noise::Model;
use fhec_ir::he::{Op, ValueId};
use fhec_math::chebyshev::{ChebyshevOpKind, ChebyshevPlan};
use fhec_math::{conjugation_element, galois_element};
use fhec_plan::KeyManifest;

/// The manifest of a placed graph.
pub fn manifest(model: &Model<'_>, log_n: u32) -> KeyManifest {
    let level = |id: ValueId| model.graph().node(id).inputs.first().map_or(0, |v| model.levels()[v.index()]);
    manifest_at(model, log_n, level)
}

/// The manifest of the model's graph with the operands of every node at another level than the model's.
pub fn manifest_at(model: &Model<'_>, log_n: u32, level: impl Fn(ValueId) -> usize) -> KeyManifest {
    let graph = model.graph();
    let mut keys = KeyManifest::default();
    for id in graph.ids() {
        let (node, level) = (graph.node(id), level(id));
        match &node.op {
            Op::LinearMap { .. } => {
                for group in &model.groups()[id.index()] {
                    group.bsgs.rotations().into_iter().for_each(|r| rotation(&mut keys, r, level, log_n));
                    // Folds come after the rescale.
                    group.fold.iter().for_each(|&step| rotation(&mut keys, step as i64, level - 1, log_n));
                }
            }
            Op::Rotate(steps) => rotation(&mut keys, *steps, level, log_n),
            Op::Mul if graph.complex => galois(&mut keys, conjugation_element(log_n), level),
            Op::Relinearise => relinearisation(&mut keys, level),
            Op::Polynomial { .. } => {
                let operations = model.plan(id).map(ChebyshevPlan::operations).unwrap_or_default();
                let depths = operations.iter().filter(|o| o.kind == ChebyshevOpKind::Relinearise).map(|o| o.depth);
                if let Some(highest) = depths.min() {
                    relinearisation(&mut keys, level - highest);
                }
            }
            _ => {}
        }
    }
    keys
}

fn rotation(keys: &mut KeyManifest, steps: i64, level: usize, log_n: u32) {
    let element = galois_element(steps, log_n);
    // A rotation by a multiple of the number of slots is none.
    if element != 1 {
        galois(keys, element, level);
    }
}

fn galois(keys: &mut KeyManifest, element: u64, level: usize) {
    let entry = keys.galois.entry(element).or_insert(level);
    *entry = level.max(*entry);
}

fn relinearisation(keys: &mut KeyManifest, level: usize) {
    keys.relin = Some(keys.relin.map_or(level, |k| k.max(level)));
}
