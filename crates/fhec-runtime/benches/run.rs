//! Encrypted latency of the network 784-128-128-10 with squares at N = 2^13, one thread: with weights encoded
//! beforehand and with weights encoded on the way, and the steps before a run.

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use criterion::{Criterion, criterion_group, criterion_main};
use fhec_plan::{Insecure, Plan, Verified};
use fhec_runtime::*;
use std::hint::black_box;
use std::sync::Arc;

fn network(c: &mut Criterion) {
    let verified = mnist_mlp();
    let inputs = inputs(&verified, 0.37);
    let bytes = verified.plan().to_bytes();
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("no pool yet");
    {
        let mut group = c.benchmark_group("mlp-784-128-128-10");
        group.sample_size(10);
        group.bench_function("read and verify", |b| {
            b.iter(|| {
                let plan = Plan::read(Arc::new(bytes.clone())).expect("sound");
                black_box(Verified::new(plan, Insecure::Refuse).expect("sound"))
            });
        });
        for (name, budget) in [("run, encoded before", u64::MAX), ("run, encoded on the way", 0)] {
            let mut parties = Parties::new(&verified, budget);
            parties.server.backend().prepare().expect("fits");
            let key = EncryptionKey::Secret(&parties.secret);
            let bundle = parties.client.encrypt(&inputs, key, &mut parties.rng).expect("fits");
            group.bench_function(name, |b| {
                b.iter(|| parties.server.run(&bundle, &mut |_| ()).expect("runs"));
            });
            let (_, trace) = parties.server.run(&bundle, &mut |_| ()).expect("runs");
            let parts: Vec<String> =
                trace.events.iter().map(|e| format!("{} {:.2}", e.op, e.time.as_secs_f64() * 1e3)).collect();
            println!("{name}: milliseconds: {}", parts.join(", "));
            println!("{:?}, registers {}", parties.server.backend().memory(), trace.peak_register_bytes);
        }
        let clear = ClearBackend::new(&verified);
        group.bench_function("clear", |b| {
            b.iter(|| run(&verified, &clear, inputs.clone(), &mut |_| ()).expect("runs"));
        });
    }
}

criterion_group!(benches, network);
criterion_main!(benches);
