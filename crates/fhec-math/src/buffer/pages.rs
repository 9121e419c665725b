//! Large blocks straight from the kernel.
//!
//! Fresh pages are zero and come into being when they are first written: an allocator that clears them once more touches all
//! of them twice, and those that are never used once too often.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::{self, NonNull};

/// Blocks of at least this many bytes are served here, and are aligned to it: the size of a huge page.
const HUGE: usize = super::HUGE_BYTES;
/// A multiple of every size of ordinary pages.
const PAGE: usize = 64 << 10;

/// Whether a block of so many words is served here.
pub(super) fn serves(words: usize) -> bool {
    words >= HUGE / size_of::<u64>()
}

/// Bytes to map for a block.
fn mapped(words: usize) -> usize {
    let bytes = words.checked_mul(size_of::<u64>()).and_then(|bytes| bytes.checked_next_multiple_of(PAGE));
    bytes.filter(|&bytes| bytes <= isize::MAX as usize - HUGE).expect("buffer size overflows the address space")
}

/// A block of zero words, for which [`serves`] holds.
pub(super) fn allocate(words: usize) -> NonNull<u64> {
    let bytes = mapped(words);
    let failed = || handle_alloc_error(Layout::from_size_align(bytes, HUGE).unwrap_or(Layout::new::<u64>()));
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh anonymous mapping at an address that the kernel chooses touches no other memory.
    let base = unsafe { libc::mmap(ptr::null_mut(), bytes + HUGE, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        failed();
    }
    let head = base.addr().next_multiple_of(HUGE) - base.addr();
    // SAFETY: `head < HUGE` and `bytes` more lie within the mapping; what is given back was never used, and the sizes
    // are multiples of the page size since the kernel places mappings on pages.
    let start = unsafe {
        let start = base.byte_add(head);
        if head != 0 {
            libc::munmap(base, head);
        }
        if head != HUGE {
            libc::munmap(start.byte_add(bytes), HUGE - head);
        }
        // Before the first write, which is what decides on the size of the pages. A refusal costs speed only.
        libc::madvise(start, bytes, libc::MADV_HUGEPAGE);
        start
    };
    match NonNull::new(start.cast()) {
        Some(block) => block,
        None => failed(),
    }
}

/// Gives a block back.
///
/// # Safety
/// `block` comes from [`allocate`] with the same number of words, and nobody uses it any more.
pub(super) unsafe fn free(block: NonNull<u64>, words: usize) {
    // SAFETY: as promised, this mapping is ours and not used any more.
    unsafe { libc::munmap(block.as_ptr().cast(), mapped(words)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_aligned_and_apart() {
        let sizes = [HUGE / 8, HUGE / 8 + 1, 3 * HUGE / 8 - 1, 3 * HUGE / 8, 5_000_000];
        let blocks: Vec<_> = sizes.iter().map(|&words| allocate(words)).collect();
        for (k, (&block, &words)) in blocks.iter().zip(&sizes).enumerate() {
            assert!(serves(words) && block.addr().get().is_multiple_of(HUGE));
            // SAFETY: so many words were just allocated.
            let slice = unsafe { std::slice::from_raw_parts_mut(block.as_ptr(), words) };
            assert!(slice.iter().all(|&x| x == 0));
            slice.fill(k as u64 + 1);
        }
        for (k, (&block, &words)) in blocks.iter().zip(&sizes).enumerate() {
            // SAFETY: as above; freed once, and not used afterwards.
            unsafe {
                let slice = std::slice::from_raw_parts(block.as_ptr(), words);
                assert!(slice.iter().all(|&x| x == k as u64 + 1));
                free(block, words);
            }
        }
    }
}
