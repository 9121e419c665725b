//! Permutation of positions. Checks and meaning: [`crate::galois`].

use std::arch::x86_64::_mm512_permutexvar_epi64;

use super::{V, load, store, zero};
use crate::galois::Automorphism;

/// The orders within a block, in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn orders(map: &Automorphism) -> [V; 8] {
    let mut orders = [zero(); 8];
    for (v, order) in orders.iter_mut().zip(&map.orders) {
        *v = load(order);
    }
    orders
}

/// Where the vectors of a limb, or of a block of it, go in the image.
pub(super) struct Targets<'a> {
    orders: [V; 8],
    /// A power of two of them.
    targets: &'a [u32],
}

impl<'a> Targets<'a> {
    /// Of the vectors `from … from + groups`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(super) fn new(map: &'a Automorphism, from: usize, groups: usize) -> Self {
        Self { orders: orders(map), targets: &map.targets[from..from + groups] }
    }

    /// The place of a vector, and its residues in their order there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(super) fn of(&self, group: usize, residues: V) -> (usize, V) {
        let target = self.targets[group] as usize;
        let moved = _mm512_permutexvar_epi64(self.orders[target & 7], residues);
        ((target >> 3) & (self.targets.len() - 1), moved)
    }
}

/// The image in the positions `start …`; all lengths are multiples of 8.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn permute(map: &Automorphism, start: usize, src: &[u64], dst: &mut [u64]) {
    let ((src, _), (dst, _)) = (src.as_chunks::<8>(), dst.as_chunks_mut::<8>());
    let mask = src.len() - 1;
    let orders = orders(map);
    for (d, &entry) in dst.iter_mut().zip(&map.blocks[start / 8..]) {
        let block = load(&src[(entry as usize >> 3) & mask]);
        store(d, _mm512_permutexvar_epi64(orders[entry as usize & 7], block));
    }
}
