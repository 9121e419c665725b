//! Snapshots of the last passes: selection of parameters, rotation keys, emission. Each with a small network and real
//! ones, and what they cost.

use compiler_tests::networks::{plain, samples};
use compiler_tests::{calibration_digits, cost_line, fixed_prices, model};
use fhec_ir::nn::Graph;
use fhec_math::galois_element;
use fhec_math::security::max_log_qp;
use fhec_passes::{Goal, Options, PRECISION_BITS, compile};
use fhec_plan::{Insecure, Plan, Verified, print};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The small network and three real ones, each with what it is calibrated with.
fn networks() -> Vec<(&'static str, Graph, Options)> {
    let mut all =
        vec![("plain", plain(), Options { samples: samples(16), cost: fixed_prices(), ..Options::default() })];
    for name in ["mlp_square", "lola", "lenet_silu"] {
        let graph = fhec_onnx::load(model(&format!("{name}.onnx"))).expect("bundled models import");
        let samples = calibration_digits().into_iter().map(|d| vec![d]).collect();
        all.push((name, graph, Options { samples, cost: fixed_prices(), ..Options::default() }));
    }
    all
}

fn plan(graph: &Graph, options: &Options) -> Plan {
    compile(graph, options).expect("compiles").plan
}

/// Sizes of the parameters, and how far they are from their bounds.
fn parameters(plan: &Plan, wanted: f64) -> String {
    let p = &plan.parameters;
    let bits =
        |primes: &[u64]| primes.iter().map(|&q| format!("{:.1}", (q as f64).log2())).collect::<Vec<_>>().join(" ");
    let security = p.security.expect("compiled plans are secure");
    let most = max_log_qp(security, p.log_n).expect("the ring is in the table");
    format!(
        "N=2^{} log2(QP)={:.1} of {most} at {} bits, {:.1} bits of precision for {wanted}\n  q=[{}]\n  p=[{}] digits={:?}\n  {}\n",
        p.log_n,
        p.log_qp(),
        security.bits(),
        plan.report.output_bits,
        bits(&p.q),
        bits(&p.p),
        p.digits,
        cost_line(plan),
    )
}

/// More precision takes larger primes, throughput trades key size for time, more security takes a larger ring.
#[test]
fn select_parameters() {
    use fhec_math::security::SecurityLevel;
    let mut text = String::new();
    for (name, graph, options) in networks() {
        let precise = Some(PRECISION_BITS + 5.0);
        let cases = [
            ("latency", options.clone()),
            ("throughput", Options { goal: Goal::Throughput, ..options.clone() }),
            ("precise", Options { precision_bits: precise, ..options.clone() }),
            ("192-bit security", Options { security: SecurityLevel::Bits192, ..options.clone() }),
        ];
        // One case of a real network suffices where the others take long.
        for (case, options) in cases.iter().take(if name == "lenet_silu" { 1 } else { 4 }) {
            let plan = plan(&graph, options);
            let asked = options.precision_bits.unwrap_or(PRECISION_BITS);
            assert!(plan.report.output_bits >= asked, "{name}, {case}");
            let most = max_log_qp(options.security, plan.parameters.log_n).expect("the ring is in the table");
            assert!(plan.parameters.log_qp() <= f64::from(most), "{name}, {case}");
            write!(text, "{name}, {case}: {}", parameters(&plan, asked)).expect("strings take all");
        }
    }
    insta::assert_snapshot!(text);
}

/// The steps of every rotation key, by the level up to which it is made.
#[test]
fn rotation_keys() {
    let mut text = String::new();
    for (name, graph, options) in networks() {
        let plan = plan(&graph, &options);
        let (log_n, top) = (plan.parameters.log_n, plan.parameters.max_level());
        let steps: BTreeMap<u64, i64> = (1..1i64 << (log_n - 1)).map(|s| (galois_element(s, log_n), s)).collect();
        let mut by_level: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for (element, &level) in &plan.keys.galois {
            by_level.entry(level).or_default().push(steps[element]);
        }
        writeln!(text, "{name}: levels 0 to {top}, relinearisation up to {:?}", plan.keys.relin).expect("takes all");
        for (level, mut steps) in by_level.into_iter().rev() {
            steps.sort_unstable();
            let steps: Vec<String> = steps.iter().map(i64::to_string).collect();
            writeln!(text, "  up to level {level}: rotations by {}", steps.join(" ")).expect("strings take all");
        }
        writeln!(text, "  {}", cost_line(&plan)).expect("strings take all");
        // Nothing unused, nothing missing, no key higher than its use: the verifier derives the manifest anew.
        let mut without = plan.clone();
        if let Some(element) = without.keys.galois.keys().next().copied() {
            without.keys.galois.remove(&element);
            assert!(Verified::new(without, Insecure::Refuse).is_err(), "{name}: a key that is not used");
        }
    }
    insta::assert_snapshot!(text);
}

/// The emitted plan as its printer shows it, with the facts that the independent verifier derives.
#[test]
fn emission() {
    let mut text = String::new();
    for (name, graph, options) in networks() {
        let plan = plan(&graph, &options);
        let line = cost_line(&plan);
        let verified = Verified::new(plan, Insecure::Refuse).expect("the independent verifier agrees");
        let listing = print::listing(verified.plan(), Some(verified.facts()));
        // Keys have a snapshot of their own.
        let lines = listing.lines().filter(|l| !l.trim_start().starts_with("element"));
        writeln!(text, "{name}: {line}").expect("strings take all");
        lines.for_each(|l| writeln!(text, "  {l}").expect("strings take all"));
    }
    insta::assert_snapshot!(text);
}
