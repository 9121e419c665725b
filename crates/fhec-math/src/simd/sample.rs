//! Rejection of random numbers. Meaning: [`crate::sample`].

use std::arch::x86_64::{
    _mm512_and_si512, _mm512_cmplt_epu64_mask, _mm512_maskz_compress_epi64, _mm512_maskz_loadu_epi8,
    _mm512_maskz_permutexvar_epi8,
};

use super::{load, splat, store};
use crate::Modulus;
use crate::packed::width;
use crate::sample::portable;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn accept(m: &Modulus, bytes: &[u8], mask: u64, out: &mut [u64]) -> usize {
    let width = width(m);
    let mut order = [0; 8];
    for (lane, word) in order.iter_mut().enumerate() {
        *word = u64::from_le_bytes(std::array::from_fn(|byte| (lane * width + byte.min(width - 1)) as u8));
    }
    let order = load(&order);
    let spread = ((1u64 << width) - 1) * 0x0101_0101_0101_0101;
    let present = (1u64 << (8 * width)) - 1;
    let (mask_all, p) = (splat(mask), splat(m.value()));
    let mut done = 0;
    let mut groups = bytes.chunks_exact(8 * width);
    for group in &mut groups {
        let Some(slot) = out[done..].first_chunk_mut::<8>() else {
            // The last few numbers must not be written beyond the end.
            let rest = bytes.len() - groups.len() * 8 * width - group.len();
            return done + portable::accept(m, &bytes[rest..], mask, &mut out[done..]);
        };
        // SAFETY: the mask leaves only the bytes of the group to be read.
        let raw = unsafe { _mm512_maskz_loadu_epi8(present, group.as_ptr().cast()) };
        let values = _mm512_and_si512(_mm512_maskz_permutexvar_epi8(spread, order, raw), mask_all);
        let fits = _mm512_cmplt_epu64_mask(values, p);
        store(slot, _mm512_maskz_compress_epi64(fits, values));
        done += fits.count_ones() as usize;
    }
    done
}
