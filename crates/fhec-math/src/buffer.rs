//! Word buffers aligned to cache lines.

#[cfg(target_os = "linux")]
mod pages;
mod pool;

pub use pool::{POOL_BYTES, keep_freed};

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use zeroize::Zeroize;

/// Blocks of at least this many bytes get huge pages where the kernel has them.
pub const HUGE_BYTES: usize = 2 << 20;
/// Alignment in bytes: one cache line, one AVX-512 register.
const ALIGN: usize = 64;

/// A fixed-length block of words, aligned to 64 bytes. On Linux blocks of 2 MiB and more come from the kernel directly and
/// ask for huge pages, which saves most TLB misses when key material is streamed.
///
/// Blocks of some size are kept for reuse when they are dropped, with what they hold: wipe secrets
/// ([`Zeroize`]) before.
pub struct AlignedVec {
    ptr: NonNull<u64>,
    len: usize,
    /// Words allocated; `truncate` makes `len` smaller than this.
    capacity: usize,
}

// SAFETY: the buffer is owned and plain data, as in `Vec<u64>`.
unsafe impl Send for AlignedVec {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedVec {}

impl AlignedVec {
    /// A buffer of `len` zero words.
    pub fn zeroed(len: usize) -> Self {
        let (mut buffer, fresh) = Self::allocate(len);
        if !fresh {
            buffer.fill(0);
        }
        buffer
    }

    /// A buffer of `len` words of any values, for callers that overwrite all of them. Saves the clearing where a
    /// block is reused.
    pub fn scratch(len: usize) -> Self {
        Self::allocate(len).0
    }

    /// A buffer, and whether it is new and therefore zero.
    fn allocate(len: usize) -> (Self, bool) {
        if len == 0 {
            const DANGLING: NonZero<usize> = NonZero::new(ALIGN).unwrap();
            return (Self { ptr: NonNull::without_provenance(DANGLING), len: 0, capacity: 0 }, true);
        }
        if len >= pool::MIN_WORDS {
            match pool::take(len) {
                Ok(block) => return (Self { ptr: block.ptr, len, capacity: block.capacity }, false),
                Err(superfluous) => superfluous.into_iter().for_each(Self::free),
            }
        }
        #[cfg(target_os = "linux")]
        if pages::serves(len) {
            return (Self { ptr: pages::allocate(len), len, capacity: len }, true);
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has a non-zero size.
        let raw = unsafe { alloc_zeroed(layout) }.cast::<u64>();
        let Some(ptr) = NonNull::new(raw) else { handle_alloc_error(layout) };
        (Self { ptr, len, capacity: len }, true)
    }

    /// Keeps the first `len` words; the memory is not given back. Longer than the buffer: no effect.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn free(block: pool::Block) {
        #[cfg(target_os = "linux")]
        if pages::serves(block.capacity) {
            // SAFETY: allocated in `allocate` with the same capacity, and owned by nobody else.
            return unsafe { pages::free(block.ptr, block.capacity) };
        }
        // SAFETY: allocated in `allocate` with the layout of the same capacity, and owned by nobody else.
        unsafe { dealloc(block.ptr.as_ptr().cast(), Self::layout(block.capacity)) };
    }

    fn layout(words: usize) -> Layout {
        let bytes = words.checked_mul(size_of::<u64>()).expect("buffer size overflows the address space");
        Layout::from_size_align(bytes, ALIGN).expect("buffer size overflows the address space")
    }
}

impl Zeroize for AlignedVec {
    /// Overwrites all of the allocation, words cut off by [`truncate`](AlignedVec::truncate) included.
    fn zeroize(&mut self) {
        // SAFETY: `capacity` words are allocated and were initialised when allocated.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.capacity) }.zeroize();
    }
}

impl Drop for AlignedVec {
    fn drop(&mut self) {
        let block = pool::Block { ptr: self.ptr, capacity: self.capacity };
        if self.capacity >= pool::MIN_WORDS {
            pool::put(block).into_iter().for_each(Self::free);
        } else if self.capacity != 0 {
            Self::free(block);
        }
    }
}

impl Deref for AlignedVec {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        // SAFETY: `len ≤ capacity` initialised words; for `len` 0 the pointer is dangling but aligned.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedVec {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Clone for AlignedVec {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl From<&[u64]> for AlignedVec {
    fn from(words: &[u64]) -> Self {
        let mut copy = Self::scratch(words.len());
        copy.copy_from_slice(words);
        copy
    }
}

impl PartialEq for AlignedVec {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for AlignedVec {}

impl fmt::Debug for AlignedVec {
    /// Only the length: buffers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedVec").field("len", &self.len).finish_non_exhaustive()
    }
}
