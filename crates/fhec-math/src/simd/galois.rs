//! Permutation of positions. Meaning: [`crate::galois`].
//!
//! In bit-reversed order an automorphism maps every aligned block of a power of two of positions to one such block, so
//! eight results come from one load.

use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtepu32_epi64, _mm512_permutexvar_epi64};

use super::{load, store};

/// `dst[i] = src[source[i] mod len]` for a power of two `len`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn permute(source: &[u32], src: &[u64], dst: &mut [u64]) {
    let mask = src.len() - 1;
    let (blocks, _) = src.as_chunks::<8>();
    let (indices, index_tail) = source.as_chunks::<8>();
    let (out, out_tail) = dst.as_chunks_mut::<8>();
    for (o, index) in out.iter_mut().zip(indices) {
        let block = load(&blocks[(index[0] as usize & mask) / 8]);
        // SAFETY: reads the 32 bytes of the array; the instruction needs no alignment.
        let index = unsafe { _mm256_loadu_si256(index.as_ptr().cast()) };
        // The permutation looks at the lowest three bits of each index only.
        store(o, _mm512_permutexvar_epi64(_mm512_cvtepu32_epi64(index), block));
    }
    for (o, &index) in out_tail.iter_mut().zip(index_tail) {
        *o = src[index as usize & mask];
    }
}
