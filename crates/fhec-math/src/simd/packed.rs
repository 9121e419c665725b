//! Packed residues. Checks and meaning: [`crate::packed`].

use std::arch::x86_64::{_mm512_maskz_loadu_epi64, _mm512_maskz_permutexvar_epi8};

use super::accumulate::{AHEAD, dot_n, prefetch};
use super::{V, load, store};
use crate::Modulus;
use crate::packed::width;

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
    dot_n(m, a, [b], [out], |limb, group| unpacking.get(limb, group));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn dot_pair(m: &Modulus, a: &[&[u64]], b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
    let unpacking = Unpacking::new(m);
    dot_n(m, a, b, out, |limb, group| unpacking.get(limb, group));
}
