//! Residues in as few whole bytes as the modulus needs.
//!
//! Key switching and plaintext sums read each word of a key or a diagonal once for two multiplications: they run at the speed
//! of the memory. A residue of 30 bits in a 64-bit word wastes half of that; packed to 4 bytes it does not, and unpacking
//! (one byte shuffle for eight residues) is hidden behind the loads.
//!
//! Residue `j` of a packed limb takes the bytes `j·w … (j+1)·w`, little-endian, with `w` = [`width`]. So eight residues take
//! `w` words, every block of a multiple of eight residues begins at a whole word, and a packed limb lives in an ordinary `[u64]`.

use crate::accumulate::{BEFORE_CARRY, Factors, LOOSE, check_factors};
use crate::cpu::dispatch;
use crate::{Automorphism, Modulus};

/// Bytes of a packed residue: 1 to 7.
pub fn width(m: &Modulus) -> usize {
    m.bits().div_ceil(8) as usize
}

/// Words of `n` packed residues.
///
/// # Panics
/// When `n` is not a multiple of 8.
pub fn words(m: &Modulus, n: usize) -> usize {
    assert!(n.is_multiple_of(8), "packed limbs hold a multiple of eight residues");
    n / 8 * width(m)
}

/// Packs canonical residues.
///
/// # Panics
/// When the lengths do not fit ([`words`]).
pub fn pack_into(m: &Modulus, src: &[u64], dst: &mut [u64]) {
    assert_eq!(dst.len(), words(m, src.len()), "length of a packed limb");
    debug_assert!(src.iter().all(|&x| x < m.value()), "limb is not reduced");
    dispatch!(packed::pack(m, src, dst));
}

/// Unpacks residues. They are canonical only if what was packed was: check data from a file.
///
/// # Panics
/// When the lengths do not fit ([`words`]).
pub fn unpack_into(m: &Modulus, src: &[u64], dst: &mut [u64]) {
    assert_eq!(src.len(), words(m, dst.len()), "length of a packed limb");
    dispatch!(packed::unpack(m, src, dst));
}

/// Residues from a stream of bits, packed again to whole bytes: residue `j` takes the bits `j·b … (j+1)·b` of `bits`, lowest
/// first, with `b` the bits of the modulus. Returns whether all of them are canonical.
///
/// # Panics
/// When the lengths do not fit.
pub fn from_bits(m: &Modulus, bits: &[u8], dst: &mut [u64]) -> bool {
    let n = dst.len() / width(m) * 8;
    assert!(dst.len() == words(m, n) && bits.len() == n / 8 * m.bits() as usize, "length of a packed limb");
    dispatch!(packed::from_bits(m, bits, dst))
}

/// [`accumulate::dot_into`](crate::accumulate::dot_into) with packed `b`.
///
/// # Panics
/// When lengths differ, are no multiples of 8, or there are too many pairs.
pub fn dot_into(m: &Modulus, a: &[&[u64]], b: &[&[u64]], out: &mut [u64]) {
    check(m, a.into(), b, out.len());
    dispatch!(packed::dot(m, a, b, out));
}

/// [`accumulate::dot_pair_into`](crate::accumulate::dot_pair_into) with both lists `b` packed.
///
/// # Panics
/// As [`dot_into`].
pub fn dot_pair_into<'a>(m: &Modulus, a: impl Into<Factors<'a>>, b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
    let a = a.into();
    for (family, limb) in b.iter().zip(&out) {
        check(m, a, family, limb.len());
    }
    dispatch!(packed::dot_pair(m, a, b, out));
}

/// The image under an automorphism of [`dot_pair_into`], the first sum of which gets `lift`, a limb times a residue, on top: what a rotation makes
/// of digits and a key, without a limb in between. `start` and the lengths say which block of the image; `a`, `b` and `lift` are those of its
/// [`source_block`](Automorphism::source_block).
///
/// # Panics
/// As [`dot_into`], for lengths below 8, and as [`source_block`](Automorphism::source_block).
pub fn dot_pair_moved_into<'a>(
    m: &Modulus,
    a: impl Into<Factors<'a>>,
    b: [&[&[u64]]; 2],
    lift: Option<(&[u64], u64)>,
    (map, start): (&Automorphism, usize),
    out: [&mut [u64]; 2],
) {
    let a = a.into();
    let from = check_moved(m, a, b, lift, (map, start), &out);
    dispatch!(packed::dot_pair_moved::<false>(m, a, b, lift, (map, from), out));
}

/// [`dot_pair_moved_into`], added to what is there.
///
/// # Panics
/// As there.
pub fn dot_pair_moved_add<'a>(
    m: &Modulus,
    a: impl Into<Factors<'a>>,
    b: [&[&[u64]]; 2],
    lift: Option<(&[u64], u64)>,
    (map, start): (&Automorphism, usize),
    out: [&mut [u64]; 2],
) {
    let a = a.into();
    let from = check_moved(m, a, b, lift, (map, start), &out);
    dispatch!(packed::dot_pair_moved::<true>(m, a, b, lift, (map, from), out));
}

/// Where the source begins. The length of a block is a power of two.
fn check_moved(
    m: &Modulus,
    a: Factors<'_>,
    b: [&[&[u64]]; 2],
    lift: Option<(&[u64], u64)>,
    (map, start): (&Automorphism, usize),
    out: &[&mut [u64]; 2],
) -> usize {
    for (family, limb) in b.iter().zip(out) {
        check(m, a, family, limb.len());
    }
    let len = out[0].len();
    assert!(a.limbs.len() < BEFORE_CARRY, "bad number of pairs in a lazy sum");
    if let Some((limb, factor)) = lift {
        check_factors(&[limb], len, LOOSE);
        assert!(factor < m.value(), "a factor that is not reduced");
    }
    assert!(len >= 8 && out[1].len() == len && start + len <= 1 << map.log_n(), "block is not aligned");
    map.source_block(start, len)
}

/// What becomes of the two sums of a key switch: `(x − r)·i + c`.
#[derive(Clone, Copy, Debug)]
pub struct Quotient<'a> {
    /// `r` of each sum, its remainder modulo the divisor; may be loose, below `2^52 − p`.
    pub remainders: [&'a [u64]; 2],
    /// `i`, the inverse of the divisor.
    pub inverse: u64,
    /// `c` of each, residues; absent for zero.
    pub add: [Option<&'a [u64]>; 2],
}

/// [`dot_pair_into`], each sum with a limb times a residue on top if there is one, then divided, and moved by an automorphism if there is
/// one: the end of a key switch, without a limb in between. Entries of `a` and of the limbs in `lifts` may be loose, below 2^52. With an automorphism,
/// `start` and the lengths say which block of the image, as for [`dot_pair_moved_into`].
///
/// # Panics
/// As [`dot_into`], when lengths differ, and as [`source_block`](Automorphism::source_block).
pub fn dot_pair_divided_into<'a>(
    m: &Modulus,
    a: impl Into<Factors<'a>>,
    b: [&[&[u64]]; 2],
    lifts: [Option<(&[u64], u64)>; 2],
    quotient: &Quotient<'_>,
    (map, start): (Option<&Automorphism>, usize),
    out: [&mut [u64]; 2],
) {
    let a = a.into();
    let n = out[0].len();
    b.iter().for_each(|family| check(m, a, family, n));
    assert!(a.limbs.len() < BEFORE_CARRY, "bad number of pairs in a lazy sum");
    for (limb, factor) in lifts.into_iter().flatten() {
        check_factors(&[limb], n, LOOSE);
        assert!(factor < m.value(), "a factor that is not reduced");
    }
    check_factors(&quotient.remainders, n, LOOSE - m.value());
    quotient.add.iter().flatten().for_each(|limb| check_factors(&[limb], n, m.value()));
    assert!(out[1].len() == n, "limbs of different lengths");
    assert!(quotient.inverse < m.value(), "a factor that is not reduced");
    let map = map.map(|map| {
        assert!(n >= 8 && start + n <= 1 << map.log_n(), "block is not aligned");
        (map, map.source_block(start, n))
    });
    dispatch!(packed::dot_pair_divided(m, a, b, lifts, quotient, map, out));
}

fn check(m: &Modulus, Factors { limbs: a, scaled }: Factors<'_>, b: &[&[u64]], n: usize) {
    assert!(scaled.is_none_or(|(t, factor)| t < a.len() && factor < m.value()), "a factor that is not reduced");
    assert!(a.len() == b.len() && a.len() <= BEFORE_CARRY, "bad number of pairs in a lazy sum");
    check_factors(a, n, LOOSE);
    let packed = words(m, n);
    assert!(b.iter().all(|limb| limb.len() == packed), "length of a packed limb");
}

mod portable {
    use super::{Factors, Quotient, width};
    use crate::{Automorphism, Modulus};

    /// The `j`-th of the eight residues in `words`.
    fn residue(words: &[u64], w: usize, j: usize) -> u64 {
        let (word, shift) = (j * w / 8, j * w % 8 * 8);
        let mut x = words[word] >> shift;
        if shift + 8 * w > 64 {
            x |= words[word + 1] << (64 - shift);
        }
        x & ((1 << (8 * w)) - 1)
    }

    pub(super) fn pack(m: &Modulus, src: &[u64], dst: &mut [u64]) {
        let w = width(m);
        for (residues, out) in src.chunks_exact(8).zip(dst.chunks_exact_mut(w)) {
            out.fill(0);
            for (j, &x) in residues.iter().enumerate() {
                let (word, shift) = (j * w / 8, j * w % 8 * 8);
                out[word] |= x << shift;
                if shift + 8 * w > 64 {
                    out[word + 1] |= x >> (64 - shift);
                }
            }
        }
    }

    pub(super) fn from_bits(m: &Modulus, bits: &[u8], dst: &mut [u64]) -> bool {
        let (b, mask) = (m.bits() as usize, u64::MAX >> (64 - m.bits()));
        let mut sound = true;
        let mut residues = [0; 8];
        // Eight residues take as many bytes as one has bits.
        for (group, out) in bits.chunks_exact(b).zip(dst.chunks_exact_mut(width(m))) {
            let mut bytes = [0; 64];
            bytes[..b].copy_from_slice(group);
            for (j, x) in residues.iter_mut().enumerate() {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[j * b / 8..j * b / 8 + 8]);
                *x = u64::from_le_bytes(word) >> (j * b % 8) & mask;
                sound &= *x < m.value();
            }
            pack(m, &residues, out);
        }
        sound
    }

    pub(super) fn unpack(m: &Modulus, src: &[u64], dst: &mut [u64]) {
        let w = width(m);
        for (words, out) in src.chunks_exact(w).zip(dst.chunks_exact_mut(8)) {
            for (j, x) in out.iter_mut().enumerate() {
                *x = residue(words, w, j);
            }
        }
    }

    pub(super) fn dot(m: &Modulus, a: &[&[u64]], b: &[&[u64]], out: &mut [u64]) {
        sum(m, a.into(), b, out);
    }

    fn sum(m: &Modulus, Factors { limbs: a, scaled }: Factors<'_>, b: &[&[u64]], out: &mut [u64]) {
        let w = width(m);
        for (group, out) in out.chunks_exact_mut(8).enumerate() {
            for (j, o) in out.iter_mut().enumerate() {
                let terms = a.iter().zip(b).enumerate().map(|(t, (x, y))| {
                    let (x, y) = (x[8 * group + j], residue(&y[group * w..(group + 1) * w], w, j));
                    let scaled = scaled.filter(|(at, _)| *at == t);
                    u128::from(scaled.map_or(x, |(_, factor)| m.mul(m.reduce(x), factor))) * u128::from(y)
                });
                *o = m.reduce_u128(terms.sum());
            }
        }
    }

    /// Hands eight residues of a block that begins at `from` to `put` at a time, permuted, with their place in the image of the block.
    fn moved(block: &[u64], (map, from): (&Automorphism, usize), mut put: impl FnMut(usize, [u64; 8])) {
        for (residues, &target) in block.chunks_exact(8).zip(&map.targets[from / 8..]) {
            let order = &map.orders[target as usize & 7];
            put(target as usize & !7 & (block.len() - 1), order.map(|lane| residues[lane as usize]));
        }
    }

    pub(super) fn dot_pair_moved<const ADD: bool>(
        m: &Modulus,
        a: Factors<'_>,
        b: [&[&[u64]]; 2],
        lift: Option<(&[u64], u64)>,
        (map, from): (&Automorphism, usize),
        out: [&mut [u64]; 2],
    ) {
        let mut sum = vec![0; out[0].len()];
        for ((family, limb), lift) in b.into_iter().zip(out).zip([lift, None]) {
            self::sum(m, a, family, &mut sum);
            if let Some((limb, factor)) = lift {
                sum.iter_mut().zip(limb).for_each(|(x, &c)| *x = m.add(*x, m.mul(c, factor)));
            }
            moved(&sum, (map, from), |to, residues| {
                for (x, moved) in limb[to..to + 8].iter_mut().zip(residues) {
                    *x = if ADD { m.add(*x, moved) } else { moved };
                }
            });
        }
    }

    pub(super) fn dot_pair_divided(
        m: &Modulus,
        a: Factors<'_>,
        b: [&[&[u64]]; 2],
        lifts: [Option<(&[u64], u64)>; 2],
        quotient: &Quotient<'_>,
        map: Option<(&Automorphism, usize)>,
        out: [&mut [u64]; 2],
    ) {
        let mut sum = vec![0; out[0].len()];
        for (r, limb) in out.into_iter().enumerate() {
            self::sum(m, a, b[r], &mut sum);
            for (i, x) in sum.iter_mut().enumerate() {
                if let Some((limb, factor)) = lifts[r] {
                    *x = m.add(*x, m.mul(m.reduce(limb[i]), factor));
                }
                *x = m.mul(m.sub(*x, m.reduce(quotient.remainders[r][i])), quotient.inverse);
                if let Some(limb) = quotient.add[r] {
                    *x = m.add(*x, limb[i]);
                }
            }
            match map {
                Some((map, from)) => {
                    moved(&sum, (map, from), |to, residues| limb[to..to + 8].copy_from_slice(&residues))
                }
                None => limb.copy_from_slice(&sum),
            }
        }
    }

    pub(super) fn dot_pair(m: &Modulus, a: Factors<'_>, b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
        for (family, limb) in b.into_iter().zip(out) {
            sum(m, a, family, limb);
        }
    }
}
