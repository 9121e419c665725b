//! Architectures for ImageNet, 224x224, with constant weights: each is refused with every reason at once, or, its
//! maxima replaced by averages, planned in bounded time and memory.

use compiler_tests::{fixed_prices, shared};
use fhec_ir::nn::{Graph, Op, Range};
use fhec_onnx::ImportError;
use fhec_passes::pipeline::check;
use fhec_passes::{CompileError, Options, compile};
use std::path::Path;
use std::time::Instant;

/// Name, maximum poolings, local response normalisations.
const ARCHITECTURES: [(&str, usize, usize); 9] = [
    ("squeezenet", 3, 0),
    ("shufflenet", 1, 0),
    ("resnet50", 1, 0),
    ("densenet121", 1, 0),
    ("inception_v1", 13, 2),
    ("inception_v2", 5, 0),
    ("bvlc_alexnet", 3, 2),
    ("zfnet512", 3, 2),
    ("vgg19", 5, 0),
];

/// Most seconds to a plan or a refusal.
const SECONDS: f64 = 120.0;
/// Most bytes of memory to a plan or a refusal.
const BYTES: u64 = 16 << 30;

/// All problems of a model: those found on import, or by the passes that need no data.
fn problems(path: &Path) -> Vec<(String, String)> {
    let found = match fhec_onnx::load(path) {
        Ok(graph) => match check(&graph) {
            Err(CompileError::Model(found)) => found,
            other => panic!("{}: {other:?}", path.display()),
        },
        Err(ImportError::Unsupported(found)) => found,
        Err(other) => panic!("{}: {other}", path.display()),
    };
    found.0.iter().map(|d| (d.what.clone(), d.help.clone())).collect()
}

fn is_refused_completely((name, pools, normalisations): (&str, usize, usize)) {
    let Some(path) = shared(&format!("onnx-light/light_{name}.onnx")) else { return };
    let found = problems(&path);
    let count = |what: &str| found.iter().filter(|(w, _)| w == what).count();
    assert_eq!(
        (count("MaxPool"), count("LRN"), found.len()),
        (pools, normalisations, pools + normalisations),
        "{name}"
    );
    assert!(found.iter().all(|(_, help)| !help.is_empty()), "{name}: every problem has a way out");
}

#[test]
fn everything_that_keeps_an_architecture_from_compiling_is_listed_at_once() {
    for architecture in &ARCHITECTURES[..5] {
        is_refused_completely(*architecture);
    }
}

/// Peak of this process's memory, where the system tells.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The graph with averages for maxima: the same shapes, and nothing that is no polynomial.
fn averaged(mut graph: Graph) -> Graph {
    for node in &mut graph.nodes {
        if let Op::MaxPool(pool) = node.op.clone() {
            node.op = Op::AveragePool(pool);
        }
    }
    graph
}

/// All of them, and plans of those that import. Minutes, so only with `FHEC_SLOW=1`; with `FHEC_ONLY=NAME` just one.
#[test]
fn architectures_are_planned_in_bounded_time_and_memory() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to plan networks for 224x224 images");
        return;
    }
    let only = std::env::var("FHEC_ONLY").ok();
    for architecture in ARCHITECTURES.into_iter().filter(|(name, ..)| only.as_ref().is_none_or(|o| o == name)) {
        let (name, _, normalisations) = architecture;
        is_refused_completely(architecture);
        let Some(path) = shared(&format!("onnx-light/light_{name}.onnx")) else { continue };
        if normalisations > 0 {
            continue;
        }
        let start = Instant::now();
        let graph = averaged(fhec_onnx::load(&path).expect("imports"));
        let options = Options {
            input_range: Some(Range { lo: 0.0, hi: 1.0 }),
            cost: fixed_prices(),
            least_bits: f64::NEG_INFINITY,
            ..Options::default()
        };
        let compiled = compile(&graph, &options);
        let (seconds, bytes) = (start.elapsed().as_secs_f64(), peak_memory());
        let said = match &compiled {
            Ok(c) => format!(
                "ring 2^{}, {:.0} s and {} MiB predicted",
                c.plan.parameters.log_n,
                c.plan.report.seconds,
                c.plan.report.peak_memory >> 20
            ),
            Err(e) => e.to_string(),
        };
        println!("{name}: {seconds:.1} s, {} MiB: {said}", bytes >> 20);
        assert!(seconds <= SECONDS && bytes <= BYTES, "{name}: {seconds:.1} s, {bytes} bytes");
    }
}
