//! Levels, scales and parameters of graphs written by hand.

mod common;

use common::{Builder, mlp};
use fhec_ir::he::facts::derive;
use fhec_ir::he::{Op, interpret, verify};
use fhec_math::security::{SecurityLevel, max_log_qp};
use fhec_passes::cost::CostTable;
use fhec_passes::parameters::{Demands, Unfit};
use fhec_passes::report::Context;
use fhec_passes::stage::{Stage, place};

fn demands() -> Demands {
    Demands { security: SecurityLevel::Bits128, precision_bits: 14.0, memory_budget: None }
}

#[test]
fn a_square_mlp_of_depth_five_fits_the_ring_of_degree_8192() {
    let table = CostTable::default();
    let smaller = mlp(1 << 11);
    let stage = Stage::new(place(&smaller.graph), &smaller.samples(2)).expect("samples fit");
    assert!(stage.select(12, &demands(), &table).is_err());

    let b = mlp(1 << 12);
    let stage = Stage::new(place(&b.graph), &b.samples(2)).expect("samples fit");
    let (selected, keys) = stage.select(13, &demands(), &table).expect("depth 5 fits 2^13");
    let p = &selected.parameters;
    assert_eq!(p.q.len(), 6);
    assert!(p.log_qp() <= 214.0);
    let bits = (p.q[3] as f64).log2();
    assert!((22.0..31.0).contains(&bits), "primes of {bits} bits");
    assert!(selected.prediction.bits >= 13.9);
    let emitted = stage.emit(&selected, keys, &table, &Context::default(), vec![]).expect("consistent");
    assert_eq!(emitted.facts.of(emitted.graph.outputs[0].value).level, 0);
    assert_eq!(emitted.plan.inputs[0].level, 5);
    assert_eq!(emitted.plan.keys.relin, Some(4));
    println!("{:?}", emitted.plan.report);
    println!("{:?}", emitted.plan.parameters);
}
