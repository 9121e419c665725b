//! Freed blocks, kept for the next buffer of about the same size.
//!
//! Key switching frees and allocates the same few sizes over and over. Returned to the system each time, their pages
//! would have to be cleared and mapped again, which costs as much as the arithmetic on them.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// Smaller blocks are served well by the allocator.
pub(super) const MIN_WORDS: usize = 4096;
/// Bytes kept at most. When this is exceeded, everything kept is freed: sizes that are no longer in use go, those
/// that are in use come back at once.
const MAX_BYTES: usize = 256 << 20;

/// A block and the number of words allocated for it.
pub(super) struct Block {
    pub(super) ptr: NonNull<u64>,
    pub(super) capacity: usize,
}

// SAFETY: a block in the pool is owned by the pool; plain memory has no thread.
unsafe impl Send for Block {}

struct Pool {
    /// Capacity in words to blocks.
    blocks: BTreeMap<usize, Vec<Block>>,
    bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { blocks: BTreeMap::new(), bytes: 0 });

/// A block of at least `words` words, and not many more, with old contents.
pub(super) fn take(words: usize) -> Option<Block> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, list) = pool.blocks.range_mut(words..=words + words / 8).find(|(_, list)| !list.is_empty())?;
    let block = list.pop()?;
    pool.bytes -= block.capacity * size_of::<u64>();
    Some(block)
}

/// Keeps a block; returns the blocks that must be freed instead.
pub(super) fn put(block: Block) -> Vec<Block> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = block.capacity * size_of::<u64>();
    let mut freed = Vec::new();
    if pool.bytes + bytes > MAX_BYTES {
        freed = std::mem::take(&mut pool.blocks).into_values().flatten().collect();
        pool.bytes = 0;
        if bytes > MAX_BYTES {
            freed.push(block);
            return freed;
        }
    }
    pool.bytes += bytes;
    pool.blocks.entry(block.capacity).or_default().push(block);
    freed
}

#[cfg(test)]
mod tests {
    use crate::AlignedVec;

    #[test]
    fn reused_blocks_are_clean_where_that_is_promised() {
        for len in [4096, 5000, 300_000] {
            for cut in [len, len / 2, 10] {
                let mut buffer = AlignedVec::zeroed(len);
                buffer.fill(u64::MAX);
                buffer.truncate(cut);
                drop(buffer);
                // A little smaller, so that the block above may serve it.
                let next = AlignedVec::zeroed(len - len / 16);
                assert!(next.iter().all(|&x| x == 0));
                let copy = AlignedVec::from(&vec![7; len - 3][..]);
                assert!(copy.len() == len - 3 && copy.iter().all(|&x| x == 7));
                assert_eq!(AlignedVec::scratch(len - 1).len(), len - 1);
            }
        }
    }

    #[test]
    fn many_large_blocks_come_and_go() {
        let mut held: Vec<AlignedVec> = Vec::new();
        for round in 0..40 {
            held.push(AlignedVec::scratch(1 << 20));
            if round % 3 == 0 {
                held.clear();
            }
        }
        assert!(held.iter().all(|b| b.as_ptr() as usize % 64 == 0));
    }
}
