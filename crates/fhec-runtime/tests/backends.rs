//! The same plans on all backends.

mod common;

use common::*;
use fhec_plan::Verified;
use fhec_runtime::*;
use std::sync::Arc;

/// Runs a plan encrypted and in the clear and demands `bits` bits of the largest output.
fn agree(verified: &Arc<Verified>, bits: f64) {
    let inputs = inputs(verified, 0.37);
    let want = clear(verified, &inputs);
    let mut parties = Parties::new(verified, 0);
    let got = parties.run(&inputs);
    let precision = (largest(&want) / distance(&got, &want)).log2();
    assert!(precision >= bits, "{precision:.1} bits of precision, {bits} demanded");
    // Far more than demanded would mean that the test demands too little.
    assert!(precision < bits + 10.0, "{precision:.1} bits of precision, only {bits} demanded");
}

#[test]
fn dense_layers() {
    agree(&mlp(), 28.0);
}

#[test]
fn convolution_in_one_ciphertext() {
    agree(&convolution(10), 22.0);
}

#[test]
fn convolution_over_two_ciphertexts() {
    let verified = convolution(8);
    assert_eq!(verified.plan().inputs[0].layout.ciphertexts, 2);
    agree(&verified, 22.0);
}

#[test]
fn all_elementwise_operations() {
    agree(&everything(), 24.0);
}

#[test]
fn bootstraps_go_on_where_levels_end() {
    let verified = refreshed();
    agree(&verified, 14.0);
    let counts = CountBackend::count(&verified).expect("counts").total();
    assert_eq!(counts.bootstraps, 4, "two ciphertexts at once");
    // The noise backend and the encrypted one lose about as much.
    let inputs = inputs(&verified, 0.37);
    let noise = NoiseBackend::new(&verified, 1).expect("a backend");
    let noisy = run(&verified, &noise, inputs.clone(), &mut |_| ()).expect("runs").outputs;
    let want = clear(&verified, &inputs);
    let got = Parties::new(&verified, 0).run(&inputs);
    let deviation = |a: &[Vec<f64>]| {
        let squares = a.iter().flatten().zip(want.iter().flatten()).map(|(x, y)| (x - y).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let ratio = deviation(&noisy) / deviation(&got);
    assert!((0.5..2.0).contains(&ratio), "simulated noise is {ratio:.2} times the real one");
    let worst = distance(&noisy, &want) / distance(&got, &want);
    assert!(worst > 0.5, "the worst simulated error is {worst:.2} times the real one");
}

#[test]
fn terms_of_different_periods() {
    let verified = several_terms();
    assert_eq!(verified.facts().groups(3).len(), 2);
    agree(&verified, 24.0);
}

#[test]
fn vectors_over_several_ciphertexts() {
    let verified = wide();
    assert_eq!(verified.plan().matrices[0].in_ciphertexts, 3);
    agree(&verified, 24.0);
}

#[test]
fn a_real_network_at_128_bits_of_security() {
    agree(&mnist_mlp(), 11.0);
}

#[test]
fn the_clear_backend_agrees_with_a_direct_computation() {
    let verified = mlp();
    let x = &inputs(&verified, 0.37)[0];
    let layer = |rows: usize, cols: usize, seed: f64, bias: f64, x: &[f64]| -> Vec<f64> {
        let (w, b) = (pseudo(rows * cols, seed), pseudo(rows, bias));
        let row = |r: usize| (0..cols).map(|c| w[r * cols + c] * x[c]).sum::<f64>() / (cols as f64).sqrt() + b[r];
        (0..rows).map(row).collect()
    };
    let hidden: Vec<f64> = layer(6, 16, 0.31, 0.77, x).into_iter().map(|v| v * v).collect();
    let want = layer(3, 6, 0.53, 0.11, &hidden);
    assert!(distance(&clear(&verified, std::slice::from_ref(x)), &[want]) < 1e-12);
}

#[test]
fn evaluations_side_by_side_are_single_ones() {
    for verified in [mlp(), convolution(8), everything(), several_terms(), wide(), refreshed()] {
        for lanes in [1, 3, clear::LANES] {
            let each: Vec<Vec<Vec<f64>>> = (0..lanes).map(|lane| inputs(&verified, 0.37 + lane as f64)).collect();
            let joined = (0..verified.plan().inputs.len()).map(|i| each.iter().flat_map(|x| x[i].clone()).collect());
            let backend = ClearBackend::with_lanes(&verified, lanes);
            let got = run(&verified, &backend, joined.collect(), &mut |_| ()).expect("runs").outputs;
            let single: Vec<Vec<Vec<f64>>> = each.iter().map(|x| common::clear(&verified, x)).collect();
            let want = (0..got.len()).map(|o| single.iter().flat_map(|y| y[o].clone()).collect());
            assert_eq!(got, want.collect::<Vec<Vec<f64>>>());
        }
    }
}

#[test]
fn every_budget_gives_the_same_ciphertexts() {
    let verified = mlp();
    let inputs = inputs(&verified, 0.9);
    let mut reference: Option<Vec<Vec<f64>>> = None;
    let mut used = std::collections::BTreeSet::new();
    for budget in [0, 1000, 40_000, 100_000, u64::MAX] {
        for prepare in [false, true] {
            let mut parties = Parties::new(&verified, budget);
            let backend = parties.server.backend();
            if prepare {
                backend.prepare().unwrap();
                assert_eq!(backend.memory().plaintexts, backend.memory().plaintexts_planned);
            }
            used.extend(backend.tiers().into_iter().filter(|t| t.1 > 0).map(|t| t.0));
            assert!(backend.memory().plaintexts_planned as u64 <= budget);
            // The generator is seeded, so the ciphertexts and with them the errors are the same.
            for _ in 0..2 {
                parties.rng = fhec_math::SecretRng::from_seed(&[9; 32]);
                let got = parties.run(&inputs);
                assert_eq!(reference.get_or_insert_with(|| got.clone()), &got);
                let memory = parties.server.backend().memory();
                assert_eq!(memory.plaintexts, memory.plaintexts_planned);
            }
        }
    }
    assert_eq!(used.len(), 3, "all tiers occur");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let verified = wide();
    let inputs = inputs(&verified, 0.9);
    let results: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Parties::new(&verified, 0).run(&inputs))
        })
        .collect();
    assert!(results.iter().all(|r| *r == results[0]));
}

#[test]
fn simulated_noise_has_the_size_of_the_real_one() {
    for verified in [mlp(), convolution(8), everything(), several_terms(), wide()] {
        let inputs = inputs(&verified, 0.37);
        let want = clear(&verified, &inputs);
        let mut parties = Parties::new(&verified, u64::MAX);
        let noise = NoiseBackend::new(&verified, 1).unwrap();
        let (mut real, mut simulated) = (0.0, 0.0);
        let square = |a: &[Vec<f64>]| {
            let differences = a.iter().flatten().zip(want.iter().flatten()).map(|(x, y)| (x - y).powi(2));
            differences.sum::<f64>()
        };
        for seed in 0..12 {
            real += square(&parties.run(&inputs));
            let noise = noise.with_seed(seed);
            simulated += square(&run(&verified, &noise, inputs.clone(), &mut |_| ()).unwrap().outputs);
        }
        let ratio = (simulated / real).sqrt();
        assert!((0.7..1.4).contains(&ratio), "simulated noise is {ratio:.2} times the real one");
    }
}

#[test]
fn simulated_noise_depends_on_the_seed_alone() {
    let verified = mlp();
    let inputs = inputs(&verified, 0.37);
    let once = |seed| {
        let backend = NoiseBackend::new(&verified, seed).unwrap();
        run(&verified, &backend, inputs.clone(), &mut |_| ()).unwrap().outputs
    };
    assert_eq!(once(3), once(3));
    assert_ne!(once(3), once(4));
}

#[test]
fn counts_of_a_small_network() {
    let verified = mlp();
    let layers = CountBackend::count(&verified).unwrap().layers();
    // 8 diagonals of 16 columns in babies of 4: babies 1, 2, 3 and giant 4; one fold from 16 to 8.
    let want = Counts {
        rotations: 5,
        key_switches: 5,
        decompositions: 3,
        plaintext_products: 8,
        rescales: 1,
        encodings: 9,
        ..Counts::default()
    };
    assert_eq!(layers[0], want);
    let want = Counts {
        key_switches: 1,
        decompositions: 1,
        ciphertext_products: 1,
        relinearisations: 1,
        rescales: 1,
        ..Counts::default()
    };
    assert_eq!(layers[1], want);
    assert_eq!(layers[2].plaintext_products, 4);
}

/// The counting backend predicts exactly what the engine does.
#[test]
fn counts_agree_with_the_engine() {
    let plans = [mlp(), convolution(8), convolution(10), everything(), several_terms(), wide()];
    for (number, verified) in plans.iter().enumerate() {
        let counts = CountBackend::count(verified).unwrap().total();
        for budget in [0, u64::MAX] {
            let mut parties = Parties::new(verified, budget);
            parties.run(&inputs(verified, 0.37));
            let engine = parties.server.backend().evaluator().key_switches();
            let counted = (counts.rotations as u64, counts.relinearisations as u64);
            assert_eq!((engine.rotations, engine.relinearisations), counted, "plan {number}, budget {budget}");
            assert_eq!(counts.key_switches, counts.rotations + counts.relinearisations);
        }
    }
}

#[test]
fn registers_are_freed_at_their_last_use() {
    let verified = mlp();
    let inputs = inputs(&verified, 0.37);
    let mut parties = Parties::new(&verified, 0);
    let key = EncryptionKey::Secret(&parties.secret);
    let bundle = parties.client.encrypt(&inputs, key, &mut parties.rng).unwrap();
    let mut live = Vec::new();
    let (_, trace) = parties.server.run(&bundle, &mut |event| live.push(event.live_bytes)).unwrap();
    let polynomial = 8 << 9;
    // The input is gone after the first layer, whose result has three limbs; at the end nothing is left.
    assert_eq!(live[0], 2 * 4 * polynomial);
    assert_eq!(live[1], 2 * 3 * polynomial);
    assert_eq!(live[live.len() - 1], 0);
    // The input is held next to the first layer's result. A square is not held: it is made with its relinearisation.
    assert_eq!(trace.peak_register_bytes, (2 * 4 + 2 * 3) * polynomial);
    assert_eq!(trace.layers.len(), 3);
    assert!(trace.layers.iter().sum::<std::time::Duration>() <= trace.total);
}
