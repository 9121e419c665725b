//! The cost model: a plan costs what its graph was said to cost, and prices fit the engine.
//!
//! Times depend on the machine and on what else it does, so the engine is measured only with `FHEC_SLOW=1`:
//!
//!     FHEC_SLOW=1 cargo test --release -p compiler-tests --test cost_model -- --nocapture

use compiler_tests::{calibration_digits, model};
use fhec_ckks::container::KeySizes;
use fhec_ckks::{Bootstrapper, KeyRequest, UniformHalves};
use fhec_ir::Tensor;
use fhec_measure::calibrate;
use fhec_passes::bootstrap_price::Circuit;
use fhec_passes::cost::CostTable;
use fhec_passes::pricing::price_plan;
use fhec_passes::shape::Shape;
use fhec_passes::{Compiled, Options, compile};
use fhec_plan::{Insecure, Plan, verify::Verified};
use std::collections::BTreeMap;
use std::sync::Arc;

fn compiled(name: &str) -> Compiled {
    let graph = fhec_onnx::load(model(name)).expect("imports");
    let samples = calibration_digits().into_iter().take(64).map(|t| vec![t]).collect();
    compile(&graph, &Options { samples, ..Options::default() }).expect("compiles")
}

fn verified(compiled: &Compiled) -> Verified {
    let plan = Plan::read(Arc::new(compiled.plan.to_bytes())).expect("reads back");
    Verified::new(plan, Insecure::Refuse).expect("verifies")
}

#[test]
fn a_plan_costs_what_the_report_says() {
    for name in ["lola.onnx", "lenet_silu.onnx"] {
        let compiled = compiled(name);
        let report = &compiled.plan.report;
        let price = price_plan(&verified(&compiled), &CostTable::default());
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
        assert!(close(price.seconds, report.seconds), "{name}: {} and {}", price.seconds, report.seconds);
        assert_eq!(price.layers.len(), report.layers.len());
        for (found, layer) in price.layers.iter().zip(&report.layers) {
            assert!(close(*found, layer.seconds), "{name}: {found} and {}", layer.seconds);
        }
    }
}

/// Of a plan that bootstraps vectors of all slots and of fewer, with keys from the sparse secret and of smaller rings.
#[test]
fn sizes_of_keys_are_those_of_the_engine() {
    let graph = fhec_onnx::load(model("resnet8.onnx")).expect("imports");
    let image = |seed: usize| (0..3 * 32 * 32).map(|k| ((k * k + 7 * seed * k + seed) % 256) as f64 / 255.0).collect();
    let samples = (1..9).map(|seed| vec![Tensor::new(vec![1, 3, 32, 32], image(seed))]).collect();
    let compiled = compile(&graph, &Options { samples, ..Options::default() }).expect("compiles");
    let (plan, report) = (&compiled.plan, &compiled.plan.report);
    assert!(!plan.keys.low.is_empty() && !report.bootstraps.is_empty());
    let context = fhec_runtime::context::context(&plan.parameters, None).expect("secure");
    let request = fhec_runtime::context::key_request(&plan.keys, &plan.parameters);
    let sizes = KeySizes::of(&request, &context, UniformHalves::Kept).expect("sizes");
    assert_eq!(sizes.memory, report.key_bytes_memory);
    // Head and manifest are not counted.
    let manifest = sizes.file - report.key_bytes_disk;
    assert!((1..10_000).contains(&manifest), "{} {}", sizes.file, report.key_bytes_disk);
    // Nor are matrices.
    let bytes = Shape::of(&plan.parameters);
    let table = CostTable::default();
    let prices = table.prices(&bytes);
    let spec = plan.parameters.bootstrap.clone().expect("bootstraps");
    let slots = [12, spec.coeffs_to_slots.iter().sum()];
    let circuits = slots.map(|k| (k, Circuit::new(&spec, k, plan.parameters.log_n))).into_iter().collect();
    let bootstrapper = Bootstrapper::new(&context, spec, &slots).expect("prepares");
    assert_eq!(prices.bootstrap_matrices(&circuits).0, bootstrapper.bytes() as u64);
    let request = KeyRequest { relin_level: None, galois: BTreeMap::new(), ..bootstrapper.key_request() };
    let keys = KeySizes::of(&request, &context, UniformHalves::Kept).expect("sizes").memory;
    assert_eq!(prices.bootstrap_bytes(&circuits), keys + bootstrapper.bytes() as u64);
}

#[test]
fn dearer_prices_make_a_plan_dearer() {
    let verified = verified(&compiled("lola.onnx"));
    let base = CostTable::default();
    let seconds = |table: &CostTable| price_plan(&verified, table).seconds;
    let change: [fn(&mut CostTable); 4] =
        [|t| t.butterfly *= 2.0, |t| t.fill += 1.0, |t| t.touch += 1.0, |t| t.stream += 1.0];
    for change in change {
        let mut dearer = base.clone();
        change(&mut dearer);
        assert!(seconds(&dearer) > seconds(&base), "{dearer:?}");
    }
    // Reading keys is not part of an evaluation.
    assert_eq!(seconds(&CostTable { read_byte: 100.0, ..base.clone() }), seconds(&base));
}

#[test]
fn prices_fit_the_engine() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to measure the engine");
        return;
    }
    let found = calibrate::calibrate(&calibrate::Options::default(), &mut |_| ()).expect("measures");
    for m in &found.measurements {
        let (name, ratio) =
            (format!("2^{} level {:2} {}", m.log_n, m.level, m.operation), m.predicted_seconds / m.seconds);
        println!("{name:55} {:10.1} µs  predicted x{ratio:.2}", m.seconds * 1e6);
    }
    println!("{:?}", found.prices);
    // Operations of milliseconds decide what a network takes.
    let large = found.measurements.iter().filter(|m| m.seconds > 1e-3);
    let worst = large.map(|m| m.predicted_seconds / m.seconds).map(|r| r.max(1.0 / r)).fold(1.0, f64::max);
    assert!(worst < 2.0, "a prediction is off by a factor of {worst:.2}");
}
