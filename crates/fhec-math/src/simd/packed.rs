//! Packed residues. Checks and meaning: [`crate::packed`].

use std::arch::x86_64::{
    _mm512_and_si512, _mm512_cmplt_epu64_mask, _mm512_mask_storeu_epi64, _mm512_maskz_loadu_epi8,
    _mm512_maskz_loadu_epi64, _mm512_maskz_permutexvar_epi8, _mm512_permutexvar_epi8, _mm512_srlv_epi64,
};

use super::accumulate::{AHEAD, dot_each, dot_n, prefetch};
use super::galois::Targets;
use super::{Field, V, load, splat, store, sub};
use crate::accumulate::Factors;
use crate::packed::{Quotient, width};
use crate::{Automorphism, Modulus};

/// How to spread eight packed residues over eight lanes.
#[derive(Clone, Copy)]
struct Unpacking {
    width: usize,
    /// Words to load.
    words: u8,
    /// For each byte of the result the byte of the input.
    order: V,
    /// The bytes of the result that are not zero.
    bytes: u64,
}

impl Unpacking {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn new(m: &Modulus) -> Self {
        let width = width(m);
        let mut order = [0; 8];
        for (lane, word) in order.iter_mut().enumerate() {
            *word = u64::from_le_bytes(std::array::from_fn(|byte| (lane * width + byte.min(width - 1)) as u8));
        }
        Self {
            width,
            words: ((1u16 << width) - 1) as u8,
            order: load(&order),
            bytes: ((1 << width) - 1) * 0x0101_0101_0101_0101,
        }
    }

    /// The `group`-th eight residues of a packed limb.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn get(&self, limb: &[u64], group: usize) -> V {
        prefetch(limb, group * self.width + AHEAD);
        let words = &limb[group * self.width..(group + 1) * self.width];
        // SAFETY: the mask leaves only the words of the slice to be read.
        let raw = unsafe { _mm512_maskz_loadu_epi64(self.words, words.as_ptr().cast()) };
        _mm512_maskz_permutexvar_epi8(self.bytes, self.order, raw)
    }
}

/// How to put eight residues into as many words as they have bytes.
struct Packing {
    words: u8,
    /// For each byte of the result the byte of the input.
    order: V,
}

impl Packing {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn new(m: &Modulus) -> Self {
        let width = width(m);
        let mut order = [0; 8];
        for (i, word) in order.iter_mut().enumerate() {
            // Bytes beyond the last residue are not stored.
            let byte = |at: usize| ((at / width).min(7) * 8 + at % width) as u8;
            *word = u64::from_le_bytes(std::array::from_fn(|k| byte(8 * i + k)));
        }
        Self { words: ((1u16 << width) - 1) as u8, order: load(&order) }
    }

    /// Packs eight residues into `out`, which has as many words as a residue has bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn put(&self, residues: V, out: &mut [u64]) {
        assert!(out.len() >= self.words.count_ones() as usize, "words of eight residues");
        // SAFETY: the mask leaves only words of the slice to be written.
        unsafe {
            _mm512_mask_storeu_epi64(
                out.as_mut_ptr().cast(),
                self.words,
                _mm512_permutexvar_epi8(self.order, residues),
            );
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn pack(m: &Modulus, src: &[u64], dst: &mut [u64]) {
    let packing = Packing::new(m);
    let (src, _) = src.as_chunks::<8>();
    for (residues, out) in src.iter().zip(dst.chunks_exact_mut(width(m))) {
        packing.put(load(residues), out);
    }
}

/// A residue has at most 50 bits, so it lies in the eight bytes from the one where it begins.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn from_bits(m: &Modulus, bits: &[u8], dst: &mut [u64]) -> bool {
    let packing = Packing::new(m);
    let b = m.bits() as usize;
    let (mut order, mut shift) = ([0; 8], [0; 8]);
    for j in 0..8 {
        // What is beyond the bytes of the group was loaded as zero.
        order[j] = u64::from_le_bytes(std::array::from_fn(|k| (j * b / 8 + k) as u8));
        shift[j] = (j * b % 8) as u64;
    }
    let (order, shift, mask) = (load(&order), load(&shift), splat((1 << b) - 1));
    let (present, p) = ((1u64 << b) - 1, splat(m.value()));
    let mut sound = u8::MAX;
    for (group, out) in bits.chunks_exact(b).zip(dst.chunks_exact_mut(width(m))) {
        // SAFETY: the mask leaves only the bytes of the group to be read.
        let raw = unsafe { _mm512_maskz_loadu_epi8(present, group.as_ptr().cast()) };
        let words = _mm512_srlv_epi64(_mm512_permutexvar_epi8(order, raw), shift);
        let residues = _mm512_and_si512(words, mask);
        sound &= _mm512_cmplt_epu64_mask(residues, p);
        packing.put(residues, out);
    }
    sound == u8::MAX
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn unpack(m: &Modulus, src: &[u64], dst: &mut [u64]) {
    let unpacking = Unpacking::new(m);
    let (dst, _) = dst.as_chunks_mut::<8>();
    for (group, out) in dst.iter_mut().enumerate() {
        store(out, unpacking.get(src, group));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn dot(m: &Modulus, a: &[&[u64]], b: &[&[u64]], out: &mut [u64]) {
    let unpacking = Unpacking::new(m);
    dot_n(m, a.into(), [b], [out], |limb, group| unpacking.get(limb, group));
}

/// Goes through the source in order and stores eight residues at a time, permuted, where the image has them; `groups` is a power of two.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn dot_pair_moved<const ADD: bool>(
    m: &Modulus,
    a: Factors<'_>,
    b: [&[&[u64]]; 2],
    lift: Option<(&[u64], u64)>,
    (map, from): (&Automorphism, usize),
    [out0, out1]: [&mut [u64]; 2],
) {
    let (unpacking, k) = (Unpacking::new(m), Field::new(m));
    let groups = out0.len() / 8;
    let targets = Targets::new(map, from / 8, groups);
    let mut outs = [out0.as_chunks_mut::<8>().0, out1.as_chunks_mut::<8>().0];
    let put = |r: usize, group: usize, residues: V| {
        let (place, moved) = targets.of(group, residues);
        let out = &mut outs[r][place];
        store(out, if ADD { k.add(load(out), moved) } else { moved });
    };
    dot_each(m, a, b, [lift, None], groups, |limb, group| unpacking.get(limb, group), put);
}

/// Without an image the sums stay where they are; of an automorphism comes where the source begins.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn dot_pair_divided(
    m: &Modulus,
    a: Factors<'_>,
    b: [&[&[u64]]; 2],
    lifts: [Option<(&[u64], u64)>; 2],
    quotient: &Quotient<'_>,
    map: Option<(&Automorphism, usize)>,
    [out0, out1]: [&mut [u64]; 2],
) {
    let (unpacking, k) = (Unpacking::new(m), Field::new(m));
    let groups = out0.len() / 8;
    let mut outs = [out0.as_chunks_mut::<8>().0, out1.as_chunks_mut::<8>().0];
    let remainders = quotient.remainders.map(|limb| limb.as_chunks::<8>().0);
    let add = quotient.add.map(|limb| limb.map(|limb| limb.as_chunks::<8>().0));
    // The difference is taken the other way round, so that p is enough to keep it positive.
    let w = m.neg(quotient.inverse);
    let w = (splat(w), splat(m.shoup_52(w)));
    let divided = |r: usize, group: usize, residues: V| {
        let difference = sub(super::add(load(&remainders[r][group]), k.p), residues);
        let x = k.mul_shoup(difference, w);
        add[r].map_or(x, |limb| k.add(x, load(&limb[group])))
    };
    let get = |limb: &[u64], group: usize| unpacking.get(limb, group);
    let Some((map, from)) = map else {
        let put = |r: usize, group: usize, residues: V| store(&mut outs[r][group], divided(r, group, residues));
        return dot_each(m, a, b, lifts, groups, get, put);
    };
    let targets = Targets::new(map, from / 8, groups);
    let put = |r: usize, group: usize, residues: V| {
        let (place, moved) = targets.of(group, divided(r, group, residues));
        store(&mut outs[r][place], moved);
    };
    dot_each(m, a, b, lifts, groups, get, put);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn dot_pair(m: &Modulus, a: Factors<'_>, b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
    let unpacking = Unpacking::new(m);
    dot_n(m, a, b, out, |limb, group| unpacking.get(limb, group));
}
