//! Packed limbs against unpacked ones, for every width.

use fhec_math::{Modulus, accumulate, packed};

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

#[test]
#[should_panic(expected = "multiple of eight")]
fn odd_lengths_are_refused() {
    packed::words(&Modulus::new(65537).unwrap(), 12);
}
