//! Networks of the shared data, compiled and run in the clear: the plan is the polynomial network, exactly.
//!
//! Minutes each, so only with `FHEC_SLOW=1`; with `FHEC_ONLY=NAME` just one.

use compiler_tests::{cifar_images, cifar_pixels, fixed_prices, shared};
use fhec_ir::Tensor;
use fhec_ir::nn::Interpreter;
use fhec_passes::pipeline::Compiled;
use fhec_passes::{Options, compile};
use fhec_plan::verify::{Insecure, Verified};
use fhec_runtime::{ClearBackend, run};
use std::time::Instant;

/// Samples that ranges come from: enough for a network that runs, not for one that is to be accurate.
const SAMPLES: usize = 6;

/// Compiles a network, prints time and memory, and holds the plan against the polynomial network.
fn compiled(name: &str, samples: &[Tensor]) -> Option<Compiled> {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to compile {name}");
        return None;
    }
    if std::env::var("FHEC_ONLY").is_ok_and(|only| only != name) {
        return None;
    }
    let graph = fhec_onnx::load(&shared(&format!("models/{name}.onnx"))?).expect("imports");
    let options = Options {
        samples: samples.iter().map(|s| vec![s.clone()]).collect(),
        cost: fixed_prices(),
        ..Options::default()
    };
    let start = Instant::now();
    let compiled = compile(&graph, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let report = &compiled.plan.report;
    println!(
        "{name}: compiled in {:.1} s; ring 2^{}, predicted {:.1} s, {} MiB, {:.1} bits",
        start.elapsed().as_secs_f64(),
        compiled.plan.parameters.log_n,
        report.seconds,
        report.peak_memory >> 20,
        report.output_bits
    );
    let verified = Verified::new(compiled.plan.clone(), Insecure::Refuse).expect("the verifier agrees");
    let clear = ClearBackend::new(&verified);
    let polynomial = Interpreter::new(&compiled.polynomial).expect("valid");
    for sample in &samples[..2] {
        let want = polynomial.run(std::slice::from_ref(sample)).expect("fits");
        let got = run(&verified, &clear, vec![sample.values().to_vec()], &mut |_| {}).expect("runs").outputs;
        let size = want[0].values().iter().fold(0f64, |m, v| m.max(v.abs()));
        for (a, b) in want[0].values().iter().zip(&got[0]) {
            assert!((a - b).abs() < 1e-6 * size, "{name}: {a} became {b}");
        }
    }
    Some(compiled)
}

/// A test image of CIFAR-10 as the network takes it.
fn cifar(images: fn(&std::path::Path, usize) -> Vec<Tensor>) -> Vec<Tensor> {
    shared("cifar10/test_batch.bin.gz").map_or_else(Vec::new, |path| images(&path, SAMPLES))
}

/// Batch normalization as nodes, and pads computed by shape nodes, end in the same plan as the folded network.
#[test]
fn resnet20_raw_is_resnet20() {
    let images = cifar(cifar_images);
    let (Some(folded), Some(raw)) = (compiled("resnet20", &images), compiled("resnet20_raw", &images)) else { return };
    assert_eq!(folded.plan.parameters, raw.plan.parameters);
    let ops = |c: &Compiled| c.plan.instructions.iter().map(|i| std::mem::discriminant(&i.op)).collect::<Vec<_>>();
    assert_eq!(ops(&folded), ops(&raw));
    assert_eq!(folded.plan.keys, raw.plan.keys);
}

#[test]
fn resnet8() {
    compiled("resnet8_folded", &cifar(cifar_pixels));
}

#[test]
fn resnet56() {
    compiled("resnet56", &cifar(cifar_images));
}

/// Depthwise convolutions, 96x96. Seeded waves stand for images.
#[test]
fn mobilenet() {
    let wave = |seed: usize| {
        let pixel = |i: usize| 0.5 + 0.5 * ((i * (seed + 3)) as f64 * 0.0137).sin() * ((i / 96) as f64 * 0.11).cos();
        Tensor::new(vec![1, 3, 96, 96], (0..3 * 96 * 96).map(pixel).collect())
    };
    compiled("mobilenetv1_025_vww", &(0..SAMPLES).map(wave).collect::<Vec<_>>());
}
