//! Permutation of positions. Checks and meaning: [`crate::galois`].

use std::arch::x86_64::_mm512_permutexvar_epi64;

use super::{load, store, zero};
use crate::galois::Automorphism;

/// The image in the positions `start …`; all lengths are multiples of 8.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn permute(map: &Automorphism, start: usize, src: &[u64], dst: &mut [u64]) {
    let ((src, _), (dst, _)) = (src.as_chunks::<8>(), dst.as_chunks_mut::<8>());
    let mask = src.len() - 1;
    let mut orders = [zero(); 8];
    for (v, order) in orders.iter_mut().zip(&map.orders) {
        *v = load(order);
    }
    for (d, &entry) in dst.iter_mut().zip(&map.blocks[start / 8..]) {
        let block = load(&src[(entry as usize >> 3) & mask]);
        store(d, _mm512_permutexvar_epi64(orders[entry as usize & 7], block));
    }
}
