//! Measurements of the kernels: `cargo bench -p fhec-math`, with a filter such as `-- forward/16`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fhec_math::accumulate::{dot_into, dot_pair_into};
use fhec_math::cpu::{Kernels, kernels};
use fhec_math::{
    AlignedVec, Automorphism, BaseConverter, LazyAccumulator, Modulus, NttTable, galois_element, ntt_primes_below,
    packed, pointwise, uniform_from_seed,
};

fn modulus(bits: u32, log_n: u32) -> Modulus {
    let p = ntt_primes_below(bits, log_n).next().expect("a prime of this size exists");
    Modulus::new(p).expect("it is fit")
}

fn limb(m: &Modulus, n: usize, label: u64) -> AlignedVec {
    let mut out = AlignedVec::zeroed(n);
    uniform_from_seed(&[1; 32], label, m, &mut out);
    out
}

fn transforms(c: &mut Criterion) {
    for (name, forward) in [("forward", true), ("inverse", false)] {
        let mut group = c.benchmark_group(name);
        for log_n in 12..=16 {
            for bits in [30, 36, 46, 48, 50] {
                let m = modulus(bits, log_n);
                let mut x = limb(&m, 1 << log_n, 0);
                for kind in [kernels(), Kernels::Portable] {
                    // The other library takes the same time for all primes below 2^50.
                    if kind == Kernels::Portable && bits != 50 {
                        continue;
                    }
                    let table = NttTable::with_kernels(m.value(), log_n, kind).expect("a table");
                    group.bench_function(BenchmarkId::new(format!("{log_n}/{kind:?}"), bits), |b| {
                        b.iter(|| if forward { table.forward(&mut x) } else { table.inverse(&mut x) });
                    });
                }
            }
        }
        group.finish();
    }
}

/// Ours against `tfhe-ntt`, call by call in turn, so that what else the machine does hits both: medians, and their ratio. The
/// prime has 46 bits, where ours hardly reduce on the way.
fn paired(_: &mut Criterion) {
    const ROUNDS: usize = 301;
    for log_n in [13, 16] {
        let m = modulus(46, log_n);
        let n = 1 << log_n;
        let ours = NttTable::with_kernels(m.value(), log_n, kernels()).expect("a table");
        let theirs = tfhe_ntt::prime64::Plan::try_new(n, m.value()).expect("a plan");
        let (mut x, mut y, b) = (limb(&m, n, 0), limb(&m, n, 0), limb(&m, n, 1));
        let compare = |what: &str, mut pair: [&mut dyn FnMut(); 2]| {
            let mut times = [Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS)];
            for _ in 0..ROUNDS {
                for (times, f) in times.iter_mut().zip(pair.each_mut()) {
                    let start = Instant::now();
                    f();
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
            let [ours, theirs] = times.each_mut().map(|t| {
                t.sort_by(f64::total_cmp);
                t[ROUNDS / 2]
            });
            println!("paired/{log_n}: {what}: {ours:.1} µs, tfhe-ntt {theirs:.1} µs, ratio {:.3}", ours / theirs);
        };
        compare("forward", [&mut || ours.forward(&mut x), &mut || theirs.fwd(&mut y)]);
        compare(
            "inverse, normalised",
            [&mut || ours.inverse(&mut x), &mut || {
                theirs.inv(&mut y);
                theirs.normalize(&mut y);
            }],
        );
        compare(
            "product of values",
            [&mut || pointwise::mul_assign(&m, &mut x, &b), &mut || theirs.mul_assign_normalize(&mut y, &b)],
        );
        compare(
            "product of polynomials, one transformed before",
            [
                &mut || {
                    ours.forward(&mut x);
                    pointwise::mul_assign(&m, &mut x, &b);
                    ours.inverse(&mut x);
                },
                &mut || {
                    theirs.fwd(&mut y);
                    theirs.mul_assign_normalize(&mut y, &b);
                    theirs.inv(&mut y);
                },
            ],
        );
    }
}

/// A limb and a table of each prime of a chain, one after the other: in a key switch both come from memory. Times are of 37 limbs.
fn chain(c: &mut Criterion) {
    let (log_n, count) = (16, 37);
    let n = 1 << log_n;
    let moduli: Vec<Modulus> =
        ntt_primes_below(46, log_n).take(count).map(|p| Modulus::new(p).expect("it is fit")).collect();
    let tables: Vec<_> = moduli.iter().map(|m| NttTable::get(m.value(), log_n).expect("a table")).collect();
    let mut limbs: Vec<AlignedVec> = moduli.iter().map(|m| limb(m, n, 0)).collect();
    let mut group = c.benchmark_group(format!("chain/{log_n}"));
    group.bench_function("forward", |b| {
        b.iter(|| tables.iter().zip(&mut limbs).for_each(|(table, limb)| table.forward(limb)));
    });
    group.bench_function("inverse", |b| {
        b.iter(|| tables.iter().zip(&mut limbs).for_each(|(table, limb)| table.inverse(limb)));
    });
    group.finish();
}

fn element_wise(c: &mut Criterion) {
    for log_n in [13, 16] {
        let mut group = c.benchmark_group(format!("element-wise/{log_n}"));
        let m = modulus(50, log_n);
        let n = 1 << log_n;
        group.throughput(Throughput::Elements(n as u64));
        let (mut x, a, b) = (limb(&m, n, 0), limb(&m, n, 1), limb(&m, n, 2));
        group.bench_function("add", |t| t.iter(|| pointwise::add_assign(&m, &mut x, &a)));
        group.bench_function("mul", |t| t.iter(|| pointwise::mul_assign(&m, &mut x, &a)));
        group.bench_function("mul_add", |t| t.iter(|| pointwise::mul_add_assign(&m, &mut x, &a, &b)));
        group.bench_function("mul_scalar", |t| t.iter(|| pointwise::mul_scalar_assign(&m, &mut x, 12345)));
        let mut acc = LazyAccumulator::new(n);
        group.bench_function("mac", |t| {
            t.iter(|| {
                acc.clear();
                for _ in 0..8 {
                    acc.mac(&a, &b);
                }
                acc.reduce_into(&m, &mut x);
            });
        });
        let lists: Vec<Vec<AlignedVec>> =
            (0..3u64).map(|r| (0..8).map(|k| limb(&m, n, 10 * r + k)).collect()).collect();
        let refs: Vec<Vec<&[u64]>> = lists.iter().map(|l| l.iter().map(|v| &v[..]).collect()).collect();
        for terms in [3, 8] {
            let cut = |r: usize| &refs[r][..terms];
            group.bench_function(BenchmarkId::new("dot", terms), |t| {
                t.iter(|| dot_into(&m, cut(0), cut(1), &mut x));
            });
            let mut y = x.clone();
            group.bench_function(BenchmarkId::new("dot_pair", terms), |t| {
                t.iter(|| dot_pair_into(&m, cut(0), [cut(1), cut(2)], [&mut x, &mut y]));
            });
        }
        let rotation = Automorphism::get(log_n, galois_element(3, log_n));
        group.bench_function("automorphism", |t| t.iter(|| rotation.apply_eval(&a, &mut x)));
        group.bench_function("uniform_from_seed", |t| {
            t.iter(|| uniform_from_seed(black_box(&[3; 32]), 1, &m, &mut x));
        });
        group.finish();
    }
}

/// Inner products with keys that come from memory, as in a series of hoisted rotations.
fn key_streaming(c: &mut Criterion) {
    let (log_n, digits, keys) = (13, 6, 120);
    let n = 1 << log_n;
    let mut group = c.benchmark_group("inner product, keys from memory");
    for bits in [30, 40, 50] {
        let m = modulus(bits, log_n);
        let digit_limbs: Vec<AlignedVec> = (0..digits).map(|d| limb(&m, n, d)).collect();
        let a: Vec<&[u64]> = digit_limbs.iter().map(|v| &v[..]).collect();
        let words = packed::words(&m, n);
        let mut plain = AlignedVec::zeroed(keys * 2 * digits as usize * n);
        let mut small = AlignedVec::zeroed(keys * 2 * digits as usize * words);
        for (x, y) in plain.chunks_exact_mut(n).zip(small.chunks_exact_mut(words)) {
            uniform_from_seed(&[2; 32], 0, &m, x);
            packed::pack_into(&m, x, y);
        }
        let (mut x, mut y) = (AlignedVec::zeroed(n), AlignedVec::zeroed(n));
        for (name, data, len) in [("plain", &plain, n), ("packed", &small, words)] {
            let mut rounds = data.chunks_exact(2 * digits as usize * len).cycle();
            group.bench_function(BenchmarkId::new(name, bits), |b| {
                b.iter(|| {
                    let Some(key) = rounds.next() else { return };
                    let columns: Vec<&[u64]> = key.chunks_exact(len).collect();
                    let (b0, b1) = columns.split_at(digits as usize);
                    if name == "packed" {
                        packed::dot_pair_into(&m, &a, [b0, b1], [&mut x, &mut y]);
                    } else {
                        dot_pair_into(&m, &a, [b0, b1], [&mut x, &mut y]);
                    }
                });
            });
        }
    }
    group.finish();
}

fn base_conversion(c: &mut Criterion) {
    let mut group = c.benchmark_group("base conversion");
    for (log_n, from, to) in [(13, 2, 4), (16, 10, 28), (16, 9, 29), (16, 1, 29)] {
        let n = 1 << log_n;
        let chain: Vec<Modulus> = ntt_primes_below(50, log_n)
            .take(from + to)
            .map(|p| Modulus::new(p).expect("a prime of the chain"))
            .collect();
        let converter = BaseConverter::new(&chain[..from], &chain[from..]);
        let src: Vec<AlignedVec> = chain[..from].iter().map(|m| limb(m, n, 0)).collect();
        let src: Vec<&[u64]> = src.iter().map(|v| &v[..]).collect();
        let mut dst = vec![AlignedVec::zeroed(n); to];
        let mut scratch = Vec::new();
        group.throughput(Throughput::Elements((n * from * to) as u64));
        group.bench_function(format!("{log_n}: {from} to {to}"), |b| {
            b.iter(|| {
                let mut out: Vec<&mut [u64]> = dst.iter_mut().map(|v| &mut v[..]).collect();
                converter.convert_with(&src, &mut out, &mut scratch);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = paired, transforms, chain, element_wise, key_streaming, base_conversion
}
criterion_main!(benches);
