//! Parameters and placement for networks deeper than any chain: which values are bootstrapped, over which chain.
//!
//! The chain has the sections that a bootstrap prescribes ([`BootstrapSpec`]); free are the number of special primes, which
//! decides into how few digits the chain is split, and the number of levels for the network, which takes what the security
//! table leaves. For every candidate the cheapest [placement] is found, and the cheapest of all wins.

use crate::cost::CostTable;
use crate::levels::{self, Placed};
use crate::matrices::{self, MatrixInfo};
use crate::noise::Model;
use crate::parameters::{LIMIT_SLACK, MAX_SPECIAL, P_MARGIN, fewest};
use crate::placement::{self, Placement, Refresh};
use crate::plan_bsgs::plan_bsgs;
use crate::pricing::node_seconds;
use crate::sensitivity::Sensitivity;
use crate::shape::{MAX_LOG2_PRIME, Shape};
use fhec_ir::he::facts::levels_consumed;
use fhec_ir::he::{Graph, ValueId};
use fhec_math::Scale;
use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::security::{SecurityLevel, max_log_qp};
use fhec_plan::bootstrap_slots;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Ring degrees with bootstraps, as log2.
pub const RINGS: std::ops::RangeInclusive<u32> = 16..=17;

/// Most levels for the network: more make every key larger and are hardly ever used.
const MAX_MESSAGE_LEVELS: usize = 30;

/// Sizes of the sections of a chain, in bits: the lowest prime and those of slots-to-coefficients and EvalMod are as large as
/// primes may be, messages and coefficients-to-slots need less.
const MESSAGE: f64 = 40.0;
const COEFFS_TO_SLOTS: f64 = 45.0;

/// A graph with bootstraps and the chain that they were placed for.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The graph, with the level of every value.
    pub placed: Placed,
    /// Sizes of the primes, and the circuit.
    pub shape: Shape,
    /// log2 of the largest values times their scale inside the network.
    pub amplitude: f64,
}

/// The circuit for a ring.
fn spec(log_n: u32) -> BootstrapSpec {
    let last = log_n - 1 - 12;
    BootstrapSpec {
        slots_to_coeffs: vec![vec![4, 4], vec![4, last]],
        coeffs_to_slots: vec![4, 4, 4, last],
        input_scale: Scale::pow2(MESSAGE as i64),
        ..BootstrapSpec::default()
    }
}

/// The shape with so many special primes and as many levels as the security table leaves.
fn candidate(log_n: u32, security: SecurityLevel, special: usize) -> Option<Shape> {
    let spec = spec(log_n);
    let limit = f64::from(max_log_qp(security, log_n)?) - LIMIT_SLACK;
    let above: Vec<f64> = std::iter::repeat_n(MAX_LOG2_PRIME, spec.eval_mod_levels())
        .chain(std::iter::repeat_n(COEFFS_TO_SLOTS, spec.coeffs_to_slots.len()))
        .collect();
    let below = vec![MAX_LOG2_PRIME; 1 + spec.slots_to_coeffs.len()];
    let log2_p = vec![MAX_LOG2_PRIME; special];
    let taken: f64 = above.iter().chain(&below).chain(&log2_p).sum();
    let levels = ((limit - taken) / MESSAGE).floor();
    if levels < 1.0 {
        return None;
    }
    let message = vec![MESSAGE; (levels as usize).min(MAX_MESSAGE_LEVELS)];
    let log2_q = [below, message, above].concat();
    let digits = fewest(&log2_q, log2_p.iter().sum::<f64>() - P_MARGIN.0)?;
    Some(Shape { log_n, log2_q, log2_p, digits, bootstrap: Some(spec) })
}

/// The cheapest placement over all candidates, for a graph whose products are rescaled and relinearised and whose levels are not
/// placed; `None` where an operation alone needs more levels than there are, or a polynomial is a constant, which no engine
/// evaluates.
pub fn choose(graph: &Graph, log_n: u32, security: SecurityLevel, table: &CostTable) -> Option<Chosen> {
    if graph.polynomials.iter().any(|p| p.chebyshev.iter().skip(1).all(|&c| c == 0.0)) {
        return None;
    }
    let matrices = matrices::analyse(graph);
    let mut best: Option<(Placement, Shape)> = None;
    for special in 1..=MAX_SPECIAL {
        let Some(shape) = candidate(log_n, security, special) else { continue };
        let Some(placement) = place(graph, &matrices, &shape, table) else { continue };
        if best.as_ref().is_none_or(|(b, _)| placement.cost < b.cost) {
            best = Some((placement, shape));
        }
    }
    let (placement, shape) = best?;
    Some(Chosen { placed: levels::apply(graph, &placement.decisions), shape, amplitude: MESSAGE })
}

fn place(graph: &Graph, matrices: &[MatrixInfo], shape: &Shape, table: &CostTable) -> Option<Placement> {
    let spec = shape.bootstrap.as_ref()?;
    let top = spec.output_level(shape.log2_q.len() - 1)?;
    let prices = table.prices(shape);
    // Babies and giants for a middling level; they are split anew once levels are known.
    let weights = prices.linear_weights(top / 2);
    let planned = plan_bsgs(graph, |_| weights);
    let levels = vec![0; graph.nodes.len()];
    let sensitivity = Sensitivity::unknown(graph.nodes.len());
    let model = Model::new(&planned, &levels, matrices, &sensitivity);
    let refreshes: RefCell<BTreeMap<(usize, u32), Vec<f64>>> = RefCell::default();
    let refresh = |id: ValueId| {
        let layout = &graph.node(id).layout;
        let log_slots = bootstrap_slots(layout.period);
        let mut known = refreshes.borrow_mut();
        let cost = known.entry((layout.ciphertexts, log_slots)).or_insert_with(|| {
            (0..=top).map(|target| prices.bootstrap(layout.ciphertexts, log_slots, target)).collect()
        });
        Some(Refresh { from: spec.input_level(log_slots), cost: cost.clone() })
    };
    let cost = |id: ValueId, level: usize| {
        let result = level - levels_consumed(graph, &graph.node(id).op);
        node_seconds(&model, &prices, id, level, result)
    };
    placement::place(&levels::steps(&planned, top, cost, refresh))
}
