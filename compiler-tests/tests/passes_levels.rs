//! Explore.
use compiler_tests::{calibration_digits, model};
use fhec_passes::{Options, compile_watched};

#[test]
fn explore() {
    for name in ["mlp_square", "lola", "cryptonets", "lenet_silu", "lenet_relu"] {
        let path = model(&format!("{name}.onnx"));
        if !path.exists() { println!("{name} missing"); continue; }
        let graph = fhec_onnx::load(&path).expect("imports");
        let shape = graph.node(graph.inputs()[0]).shape.clone();
        let samples = calibration_digits().into_iter().map(|t| vec![t.reshaped(shape.clone())]).collect();
        let options = Options { samples, ..Options::default() };
        let start = std::time::Instant::now();
        let mut passes = Vec::new();
        match compile_watched(&graph, &options, &mut |r| passes.push((r.pass, r.log_n, r.time.as_millis()))) {
            Ok(c) => {
                let r = &c.plan.report;
                println!("== {name} {:?}: N=2^{} primes {:?} p {:?} digits {:?}", start.elapsed(), c.plan.parameters.log_n,
                    c.plan.parameters.q.iter().map(|&q| (q as f64).log2().round()).collect::<Vec<_>>(),
                    c.plan.parameters.p.iter().map(|&q| (q as f64).log2().round()).collect::<Vec<_>>(), c.plan.parameters.digits);
                println!("   {:.1} bits, {:.3} s, {} MiB peak, keys {} MiB, {} keys, security {:.0}", r.output_bits, r.seconds, r.peak_memory >> 20, r.key_bytes_memory >> 20, c.plan.keys.galois.len(), r.security_bits);
                for (l, r) in c.plan.layers.iter().zip(&r.layers) {
                    println!("   {:30} {:30} {}->{} deg {} rot {} ks {} pm {} {:.4} s err {:.2e} {}", l.name, l.kind, r.level_in, r.level_out, r.degree, r.rotations, r.key_switches, r.plaintext_products, r.seconds, r.error_std, r.layout);
                }
                if let Err(e) = fhec_plan::verify::verify(&c.plan, fhec_plan::verify::Insecure::Refuse) { println!("VERIFY {e}"); }
            }
            Err(e) => println!("== {name}: {e}"),
        }
        println!("   {passes:?}");
    }
}
