//! Networks that need bootstraps: residual ones of any depth, compiled in seconds, with a reason for every bootstrap.

mod common;

use common::{Net, tensor};
use fhec_ir::nn::{Graph, Op, Range, ValueId};
use fhec_ir::{Tensor, he};
use fhec_passes::parameters::Unfit;
use fhec_passes::{CompileError, Compiled, Options, compile, compile_watched};
use fhec_plan::verify::Insecure;
use std::time::Instant;

/// A ReLU's Chebyshev series up to a degree: `(x + |x|)/2`.
fn relu(degree: usize) -> Vec<f64> {
    let coefficient = |k: usize| match k {
        0 => 1.0 / std::f64::consts::PI,
        1 => 0.5,
        k if k % 2 == 1 => 0.0,
        k => {
            let sign = if k % 4 == 2 { 1.0 } else { -1.0 };
            sign * 2.0 / (std::f64::consts::PI * ((k * k) as f64 - 1.0))
        }
    };
    (0..=degree).map(coefficient).collect()
}

/// Convolution and activation.
fn layer(net: &mut Net, x: ValueId, channels: usize, stride: usize, activation: &[f64]) -> ValueId {
    let x = net.conv(x, channels, [3, 3], [stride, stride], [1; 4], [1, 1], 1);
    net.polynomial(x, activation)
}

/// A residual network: stages with so many blocks of two convolutions each, with half the size and twice the channels
/// from one to the next.
fn residual(stages: &[usize], channels: usize, size: usize, activation: &[f64]) -> Graph {
    let mut net = Net::new(&[1, 3, size, size]);
    let mut x = layer(&mut net, ValueId(0), channels, 1, activation);
    for (stage, &blocks) in stages.iter().enumerate() {
        let width = channels << stage;
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let h = layer(&mut net, x, width, stride, activation);
            let h = net.conv(h, width, [3, 3], [1, 1], [1; 4], [1, 1], 1);
            let skip = if stride == 2 { net.conv(x, width, [1, 1], [2, 2], [0; 4], [1, 1], 1) } else { x };
            let sum = net.push(Op::Add, &[h, skip]);
            x = net.polynomial(sum, activation);
        }
    }
    let size = net.shape(x)[2];
    let pooled = net.average_pool(x, [size, size], [1, 1], [0; 4], false);
    let flat = net.reshape(pooled, &[1, channels << (stages.len() - 1)]);
    let y = net.dense(flat, 10);
    net.output(y);
    let mut graph = net.finish();
    // Calibration widens ranges.
    for node in &mut graph.nodes {
        if let Op::Polynomial { interval, .. } = &mut node.op {
            let wider = 0.3 * (interval.hi - interval.lo);
            *interval = Range { lo: interval.lo - wider, hi: interval.hi + wider };
        }
    }
    graph
}

fn options(graph: &Graph, samples: usize) -> Options {
    let shape = &graph.nodes[0].shape;
    // Polynomials were given the ranges that the first three have.
    let sample = |i: usize| vec![tensor(shape, 100 + i as u64)];
    // Random weights enlarge errors from layer to layer.
    let (precision_bits, least_bits) = (Some(4.0), f64::NEG_INFINITY);
    Options { samples: (0..samples).map(sample).collect(), precision_bits, least_bits, ..Options::default() }
}

/// Compiles, and prints how long each pass took that took long.
fn timed(graph: &Graph, options: &Options) -> Result<Compiled, CompileError> {
    let start = Instant::now();
    let mut last = start;
    let compiled = compile_watched(graph, options, &mut |run| {
        let (since, now) = (last.elapsed(), Instant::now());
        if since.as_secs_f64() > 0.1 {
            println!(
                "{:.2} s until after {} ({:?}), pass {:.2}",
                since.as_secs_f64(),
                run.pass,
                run.log_n,
                run.time.as_secs_f64()
            );
        }
        last = now;
    });
    println!(
        "{:.2} s after the last pass, {:.2} s in all",
        last.elapsed().as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    if let Ok(c) = &compiled {
        let (p, r) = (&c.plan.parameters, &c.plan.report);
        println!(
            "N = 2^{}, {} + {} primes, digits {:?}, log QP {:.0}, {:.1} s, {} MiB, {} keys of {} MiB, {:.1} bits",
            p.log_n,
            p.q.len(),
            p.p.len(),
            p.digits,
            p.log_qp(),
            r.seconds,
            r.peak_memory >> 20,
            c.plan.keys.galois.len(),
            r.key_bytes_memory >> 20,
            r.output_bits
        );
        for b in &r.bootstraps {
            println!("  {} -> {}, {:.2} s, without {:?}", b.level_in, b.level_out, b.seconds, b.without);
        }
    }
    compiled
}

#[test]
fn every_bootstrap_has_a_reason_and_the_meaning_stays() {
    let graph = residual(&[3, 2], 4, 8, &relu(14));
    let options = options(&graph, 3);
    let c = timed(&graph, &options).expect("compiles");
    fhec_plan::verify::verify(&c.plan, Insecure::Refuse).expect("the independent verifier agrees");
    let report = &c.plan.report;
    let count = c.he.nodes.iter().filter(|n| matches!(n.op, he::Op::Bootstrap { .. })).count();
    assert_eq!(report.bootstraps.len(), count);
    // Eleven activations of four levels and twelve maps: more than one chain holds, and no more than one each.
    assert!((1..=11).contains(&count), "{count}");
    for b in &report.bootstraps {
        assert!(b.level_out > b.level_in && b.seconds > 0.1);
        assert!(b.without.is_none_or(|more| more >= 0.0), "{b:?}");
        // What is bootstrapped instead is something else, and not bootstrapped here.
        let here = |reg: &fhec_plan::Reg| matches!(c.he.nodes[reg.0 as usize].op, he::Op::Bootstrap { .. });
        assert!(b.without.is_some() || b.instead.is_empty(), "{b:?}");
        assert!(!b.instead.iter().any(here), "{b:?}");
    }
    let layers: f64 = report.layers.iter().map(|l| l.seconds).sum();
    assert!((layers - report.seconds).abs() < 1e-6 * layers);
    let sample: &[Tensor] = &options.samples[0];
    let want = fhec_ir::nn::Interpreter::new(&c.polynomial).expect("valid").run(sample).expect("runs");
    let got = he::interpret(&c.he, sample).expect("runs");
    for (w, g) in want[0].values().iter().zip(got[0].values()) {
        assert!((w - g).abs() < 1e-9 * w.abs().max(1.0), "{w} became {g}");
    }
}

#[test]
fn a_network_of_a_hundred_layers_compiles_in_seconds() {
    let graph = residual(&[17, 16, 16], 4, 8, &relu(7));
    let start = Instant::now();
    let c = timed(&graph, &options(&graph, 2)).expect("compiles");
    let seconds = start.elapsed().as_secs_f64();
    assert!(c.plan.report.bootstraps.len() > 10);
    assert!(c.plan.report.bootstraps.iter().all(|b| b.seconds > 0.0));
    assert!(c.plan.report.bootstraps.iter().any(|b| !b.instead.is_empty()), "some could be elsewhere");
    // Half of it on an idle core.
    assert!(seconds < 20.0, "{seconds} s");
}

/// The shapes of ResNet-20 and ResNet-56 for CIFAR-10.
#[test]
fn networks_of_real_size_compile_in_seconds() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: FHEC_SLOW is not set");
        return;
    }
    for blocks in [3, 9] {
        let graph = residual(&[blocks; 3], 16, 32, &relu(31));
        let start = Instant::now();
        timed(&graph, &options(&graph, 2)).expect("compiles");
        assert!(start.elapsed().as_secs_f64() < 10.0 * blocks as f64);
    }
}

#[test]
fn a_memory_budget_is_kept_or_refused_with_the_least_that_works() {
    let graph = residual(&[3, 2], 4, 8, &relu(14));
    let free = options(&graph, 2);
    let roomy = compile(&graph, &free).expect("compiles").plan.report;
    let with = |budget: u64| Options { memory_budget: Some(budget), ..free.clone() };
    let Err(CompileError::Parameters { reasons, .. }) = compile(&graph, &with(1 << 26)) else {
        panic!("64 MiB hold no bootstrap")
    };
    let least = reasons.iter().filter_map(|(_, why)| if let Unfit::Memory(bytes) = why { Some(*bytes) } else { None });
    let least = least.min().expect("memory is the reason");
    assert!(least < roomy.peak_memory, "{least} of {}", roomy.peak_memory);
    let narrow = compile(&graph, &with(least)).expect("the stated budget works").plan.report;
    assert!(narrow.peak_memory <= least);
    assert!(narrow.seconds >= 0.99 * roomy.seconds);
}
