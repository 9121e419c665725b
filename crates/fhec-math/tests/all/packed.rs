//! Packed limbs against unpacked ones, for every width.

use fhec_math::accumulate::Factors;
use fhec_math::packed::{self, Quotient};
use fhec_math::{Automorphism, Modulus, accumulate};

use crate::common::edge_words;

/// The largest odd number of every number of bits, and the smallest.
fn moduli() -> impl Iterator<Item = Modulus> {
    (2..=50).flat_map(|bits| [(1u64 << bits) - 1, (1 << (bits - 1)) + 1]).map(|p| Modulus::new(p).unwrap())
}

fn pack(m: &Modulus, limb: &[u64]) -> Vec<u64> {
    let mut out = vec![u64::MAX; packed::words(m, limb.len())];
    packed::pack_into(m, limb, &mut out);
    out
}

#[test]
fn layout_is_bytes_in_order() {
    for m in moduli() {
        let w = packed::width(&m);
        assert!(m.bits() as usize <= 8 * w && 8 * (w - 1) < m.bits() as usize);
        let limb = edge_words(5, 24, m.value());
        let bytes: Vec<u8> = pack(&m, &limb).iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(bytes.len(), 24 * w);
        for (x, bytes) in limb.iter().zip(bytes.chunks(w)) {
            assert_eq!(x.to_le_bytes()[..w], *bytes);
        }
    }
}

#[test]
fn packing_round_trips() {
    for m in moduli() {
        for n in [8, 16, 40, 256] {
            let limb = edge_words(m.value() ^ n as u64, n, m.value());
            let mut back = vec![7; n];
            packed::unpack_into(&m, &pack(&m, &limb), &mut back);
            assert_eq!(back, limb, "p={}", m.value());
        }
    }
}

#[test]
fn bits_become_bytes() {
    for m in moduli() {
        for n in [8, 16, 40, 256] {
            let (p, bits) = (m.value(), m.bits() as usize);
            let mut limb = edge_words(p ^ n as u64, n, p);
            let stream = |limb: &[u64]| {
                let mut bytes = vec![0u8; n * bits / 8];
                for (j, x) in limb.iter().enumerate() {
                    (0..bits)
                        .filter(|b| x >> b & 1 == 1)
                        .for_each(|b| bytes[(j * bits + b) / 8] |= 1 << ((j * bits + b) % 8));
                }
                bytes
            };
            let mut packed = vec![u64::MAX; packed::words(&m, n)];
            assert!(packed::from_bits(&m, &stream(&limb), &mut packed));
            assert_eq!(packed, pack(&m, &limb), "p={p}");
            // Any one residue that is not reduced is found.
            for at in [0, 3, n - 1] {
                let kept = std::mem::replace(&mut limb[at], p);
                assert!(!packed::from_bits(&m, &stream(&limb), &mut packed), "p={p}, residue {at}");
                limb[at] = kept;
            }
        }
    }
}

#[test]
fn sums_with_packed_factors() {
    for m in moduli() {
        for (terms, n) in [(0, 8), (1, 8), (3, 40), (8, 64), (17, 72)] {
            let p = m.value();
            let limbs = |seed| (0..terms).map(|k| edge_words(p ^ k ^ seed, n, p)).collect::<Vec<_>>();
            fn refs(v: &[Vec<u64>]) -> Vec<&[u64]> {
                v.iter().map(Vec::as_slice).collect()
            }
            let (a, b, c) = (limbs(0), limbs(1 << 20), limbs(1 << 30));
            let mut wanted = [vec![0; n], vec![0; n]];
            for (factors, out) in [&b, &c].into_iter().zip(&mut wanted) {
                accumulate::dot_into(&m, &refs(&a), &refs(factors), out);
            }
            let packed_limbs = |list: &[Vec<u64>]| list.iter().map(|x| pack(&m, x)).collect::<Vec<_>>();
            let (b, c) = (packed_limbs(&b), packed_limbs(&c));
            let [mut first, mut second] = [vec![1; n], vec![1; n]];
            packed::dot_pair_into(&m, &refs(&a), [&refs(&b), &refs(&c)], [&mut first, &mut second]);
            assert_eq!([&first, &second], wanted.each_ref(), "p={p} terms={terms}");
            first.fill(1);
            packed::dot_into(&m, &refs(&a), &refs(&b), &mut first);
            assert_eq!(first, wanted[0], "p={p} terms={terms}");
        }
    }
}

/// Against the sum, the product on top and the permutation one after the other; whole limbs, and blocks of them.
#[test]
fn sums_that_are_moved() {
    let log_n = 7;
    let n = 1usize << log_n;
    for m in moduli() {
        let p = m.value();
        for (terms, element, len) in [(0, 3, 8), (1, 5, 128), (3, 255, 32), (15, 25, 64), (16, 77, 128), (17, 1, 16)] {
            let limbs = |seed| (0..terms).map(|k| edge_words(p ^ k ^ seed, n, p)).collect::<Vec<_>>();
            let (a, b) = (limbs(0), [limbs(1 << 20), limbs(1 << 30)]);
            let packed = b.each_ref().map(|list| list.iter().map(|x| pack(&m, x)).collect::<Vec<_>>());
            let (top, before) = (edge_words(p ^ 77, n, p), [edge_words(p ^ 78, n, p), edge_words(p ^ 79, n, p)]);
            let map = Automorphism::get(log_n, element);
            for factor in [None, Some(1 % p), Some(p - 1)] {
                let wanted = [0, 1].map(|part| {
                    let (a, b): (Vec<&[u64]>, Vec<&[u64]>) =
                        a.iter().zip(&b[part]).map(|(a, b)| (&a[..], &b[..])).unzip();
                    let mut sum = vec![0; n];
                    accumulate::dot_into(&m, &a, &b, &mut sum);
                    if let Some(factor) = factor.filter(|_| part == 0) {
                        sum.iter_mut().zip(&top).for_each(|(x, &c)| *x = m.add(*x, m.mul(c, factor)));
                    }
                    let mut moved = vec![0; n];
                    map.apply_eval(&sum, &mut moved);
                    moved
                });
                for start in (0..n).step_by(len) {
                    let from = map.source_block(start, len);
                    let words = packed::words(&m, from)..packed::words(&m, from + len);
                    let a: Vec<&[u64]> = a.iter().map(|x| &x[from..from + len]).collect();
                    let [b0, b1] =
                        packed.each_ref().map(|list| list.iter().map(|x| &x[words.clone()]).collect::<Vec<_>>());
                    let lift = factor.map(|factor| (&top[from..from + len], factor));
                    let mut out = before.each_ref().map(|limb| limb[start..start + len].to_vec());
                    let [out0, out1] = &mut out;
                    packed::dot_pair_moved_add(&m, &a, [&b0, &b1], lift, (&map, start), [&mut *out0, &mut *out1]);
                    for (part, out) in out.iter().enumerate() {
                        let sum = before[part][start..].iter().zip(&wanted[part][start..start + len]);
                        assert!(out.iter().zip(sum).all(|(&x, (&c, &w))| x == m.add(c, w)), "p={p} {terms} {factor:?}");
                    }
                    let [out0, out1] = &mut out;
                    packed::dot_pair_moved_into(&m, &a, [&b0, &b1], lift, (&map, start), [&mut *out0, &mut *out1]);
                    for (out, wanted) in out.iter().zip(&wanted) {
                        assert_eq!(*out, wanted[start..start + len], "p={p} terms={terms} {factor:?}");
                    }
                }
            }
        }
    }
}

/// The largest operands around the number of terms up to which sums stay below 2^104.
#[test]
fn moved_sums_of_the_largest_terms() {
    let n = 64usize;
    let map = Automorphism::get(6, 5);
    for m in [50, 46].map(|bits| crate::common::moduli(bits, 6, 1)[0]) {
        let p = m.value();
        let largest = vec![p - 1; n];
        for terms in [15, 16, 17] {
            let limb = pack(&m, &largest);
            let (a, b) = (vec![&largest[..]; terms], vec![&limb[..]; terms]);
            let mut out = [vec![p - 1; n], vec![p - 1; n]];
            let [out0, out1] = &mut out;
            packed::dot_pair_moved_add(&m, &a, [&b, &b], Some((&largest, p - 1)), (&map, 0), [out0, out1]);
            // (−1)² for each, and −1 that was there.
            assert_eq!(out, [vec![terms as u64; n], vec![terms as u64 - 1; n]], "{terms} terms");
        }
    }
}

/// Against the sum, the product on top, the quotient and the permutation one after the other.
#[test]
fn sums_that_are_divided() {
    let log_n = 7;
    let n = 1usize << log_n;
    for m in moduli() {
        let p = m.value();
        // Loose values, as large as they may be.
        let loose = |seed: u64, below: u64| edge_words(p ^ seed, n, below);
        for (terms, element) in [(0, None), (1, Some(5)), (3, None), (4, Some(255)), (63, Some(3)), (64, None)] {
            let a: Vec<Vec<u64>> = (0..terms).map(|k| loose(k, 1 << 52)).collect();
            let b = [1 << 20, 1 << 30].map(|seed| (0..terms).map(|k| loose(k ^ seed, p)).collect::<Vec<_>>());
            let packed = b.each_ref().map(|list| list.iter().map(|x| pack(&m, x)).collect::<Vec<_>>());
            let remainders = [77, 78].map(|seed| loose(seed, (1 << 52) - p));
            let (lifts, add) = ([79, 80].map(|seed| loose(seed, p)), [81, 82].map(|seed| loose(seed, p)));
            let map = element.map(|element| Automorphism::get(log_n, element));
            for (parts, factor, inverse) in
                [([false; 2], 1 % p, 1 % p), ([true, false], p - 1, p / 2), ([true; 2], p / 3, p - 1)]
            {
                // The last limb, or the first, is multiplied on the way.
                let scaled = (terms > 0 && parts[0])
                    .then(|| (if parts[1] { 0 } else { terms as usize - 1 }, (p - 1).min(factor + 1)));
                let wanted = [0, 1].map(|r| {
                    let sum = |i: usize| {
                        let scale = |t: usize| scaled.filter(|(at, _)| *at == t).map_or(1 % p, |(_, factor)| factor);
                        let products = a.iter().zip(&b[r]).enumerate();
                        let products = products.map(|(t, (a, b))| m.mul(m.mul(m.reduce(a[i]), scale(t)), b[i]));
                        let sum = products.fold(0, |sum, x| m.add(sum, x));
                        let sum = if parts[r] { m.add(sum, m.mul(lifts[r][i], factor)) } else { sum };
                        let x = m.mul(m.sub(sum, m.reduce(remainders[r][i])), inverse);
                        if parts[r] { m.add(x, add[r][i]) } else { x }
                    };
                    let divided: Vec<u64> = (0..n).map(sum).collect();
                    let mut moved = divided.clone();
                    if let Some(map) = &map {
                        map.apply_eval(&divided, &mut moved);
                    }
                    moved
                });
                // In one go and block by block.
                for len in [n, 32, 8] {
                    let mut out = [vec![7; n], vec![7; n]];
                    for start in (0..n).step_by(len) {
                        let from = map.as_ref().map_or(start, |map| map.source_block(start, len));
                        let words = |limb: &[u64]| from * limb.len() / n..(from + len) * limb.len() / n;
                        let a: Vec<&[u64]> = a.iter().map(|limb| &limb[words(limb)]).collect();
                        let [b0, b1] =
                            packed.each_ref().map(|list| list.iter().map(|x| &x[words(x)]).collect::<Vec<_>>());
                        let some = |r: usize| parts[r].then_some(());
                        let lifts = [0, 1].map(|r| some(r).map(|()| (&lifts[r][from..from + len], factor)));
                        let quotient = Quotient {
                            remainders: remainders.each_ref().map(|limb| &limb[from..from + len]),
                            inverse,
                            add: [0, 1].map(|r| some(r).map(|()| &add[r][from..from + len])),
                        };
                        let a = Factors { limbs: &a, scaled };
                        let out = out.each_mut().map(|limb| &mut limb[start..start + len]);
                        packed::dot_pair_divided_into(
                            &m,
                            a,
                            [&b0, &b1],
                            lifts,
                            &quotient,
                            (map.as_deref(), start),
                            out,
                        );
                    }
                    assert_eq!(out, wanted, "p={p} terms={terms} {parts:?} len={len}");
                }
            }
        }
    }
}

/// Whatever does not fit a block.
#[test]
fn moved_sums_refuse_what_does_not_fit() {
    let m = crate::common::moduli(50, 6, 1)[0];
    let map = Automorphism::get(6, 5);
    let refused = |start: usize, len: usize, lift: usize, factor: u64| {
        let call = move || {
            let (limb, mut out0, mut out1) = (vec![0; lift], vec![0; len], vec![0; len]);
            let map = Automorphism::get(6, 5);
            packed::dot_pair_moved_into(
                &m,
                &[],
                [&[], &[]],
                Some((&limb, factor)),
                (&map, start),
                [&mut out0, &mut out1],
            );
        };
        std::panic::catch_unwind(call).is_err()
    };
    assert!(!refused(16, 16, 16, 1) && map.log_n() == 6);
    assert!(refused(8, 16, 16, 1), "a start within a block");
    assert!(refused(0, 24, 24, 1), "no power of two");
    assert!(refused(64, 16, 16, 1) && refused(0, 128, 128, 1), "beyond the end");
    assert!(refused(0, 16, 8, 1), "another length on top");
    assert!(refused(0, 16, 16, m.value()), "a factor that is not reduced");
}

#[test]
#[should_panic(expected = "multiple of eight")]
fn odd_lengths_are_refused() {
    packed::words(&Modulus::new(65537).unwrap(), 12);
}
