//! Freed blocks, kept for the next buffer of about the same size.
//!
//! Key switching frees and allocates the same few sizes over and over. Returned to the system each time, their pages
//! would have to be cleared and mapped again, which costs as much as the arithmetic on them.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::AlignedVec;

/// Smaller blocks are served well by the allocator.
pub(super) const MIN_WORDS: usize = 4096;
/// By how many bytes blocks in use and kept ones together may exceed what was ever in use at once, unless [`keep_freed`] says less.
pub const POOL_BYTES: usize = 256 << 20;
/// Bytes of freed blocks that are kept for reuse at most; the sizes that were not asked for the longest time go first.
///
/// The scratch memory of a linear map at the top of a long chain is half of it. A bound that it does not fit costs a quarter of a
/// bootstrap's time: clearing pages is slower than what is done with them.
const KEPT_BYTES: usize = 1 << 30;

/// A block and the number of words allocated for it.
pub(super) struct Block {
    pub(super) ptr: NonNull<u64>,
    pub(super) capacity: usize,
}

impl Block {
    fn bytes(&self) -> usize {
        self.capacity * size_of::<u64>()
    }
}

// SAFETY: a block in the pool is owned by the pool; plain memory has no thread.
unsafe impl Send for Block {}

/// Free blocks of one capacity.
struct Class {
    blocks: Vec<Block>,
    /// Value of the clock when a block was last taken or put.
    used: u64,
}

struct Pool {
    /// By capacity in words.
    classes: BTreeMap<usize, Class>,
    /// Bytes kept.
    kept: usize,
    /// Bytes of blocks that somebody uses, and the most that there ever were.
    used: usize,
    most: usize,
    /// By how much all blocks may exceed `most`.
    spare: usize,
    clock: u64,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { classes: BTreeMap::new(), kept: 0, used: 0, most: 0, spare: POOL_BYTES, clock: 0 });

impl Pool {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn count_used(&mut self, bytes: usize) {
        self.used += bytes;
        self.most = self.most.max(self.used);
    }

    /// Takes out blocks until those that remain are few enough.
    fn trim(&mut self) -> Vec<Block> {
        let mut freed = Vec::new();
        while self.kept > KEPT_BYTES.min(self.spare + self.most - self.used) {
            let Some((&capacity, class)) = self.classes.iter_mut().min_by_key(|(_, c)| c.used) else { break };
            match class.blocks.pop() {
                Some(oldest) => {
                    self.kept -= oldest.bytes();
                    freed.push(oldest);
                }
                None => {
                    self.classes.remove(&capacity);
                }
            }
        }
        freed
    }
}

/// A block of at least `words` words, and at most half as many more, with old contents. Values lose limbs as an evaluation
/// goes on: those of lower levels then use the blocks of higher ones instead of fresh memory.
///
/// Where there is none the caller allocates a block of exactly `words` words, after it has freed those that come instead.
pub(super) fn take(words: usize) -> Result<Block, Vec<Block>> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let clock = pool.tick();
    let class = pool.classes.range_mut(words..=words + words / 2).find(|(_, c)| !c.blocks.is_empty());
    let block = class.and_then(|(_, class)| {
        class.used = clock;
        class.blocks.pop()
    });
    match block {
        Some(block) => {
            pool.kept -= block.bytes();
            pool.count_used(block.bytes());
            Ok(block)
        }
        None => {
            pool.count_used(words.saturating_mul(size_of::<u64>()));
            Err(pool.trim())
        }
    }
}

/// Sets by how many bytes blocks in use and freed ones that are kept may together exceed what was ever in use at once, from now on and
/// in the whole process: at most [`POOL_BYTES`], which it is before the first call. Less is slower, since what is not kept is cleared and
/// mapped again when it is needed, and is for programs that must keep within a bound on memory.
pub fn keep_freed(bytes: usize) {
    let freed = {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.spare = bytes.min(POOL_BYTES);
        pool.trim()
    };
    freed.into_iter().for_each(AlignedVec::free);
}

/// Keeps a block; returns the blocks that must be freed instead.
pub(super) fn put(block: Block) -> Vec<Block> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let clock = pool.tick();
    pool.used -= block.bytes();
    pool.kept += block.bytes();
    let class = pool.classes.entry(block.capacity).or_insert_with(|| Class { blocks: Vec::new(), used: clock });
    class.used = clock;
    class.blocks.push(block);
    pool.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn no_more_is_kept_than_is_allowed() {
        // Other tests use the pool meanwhile: what holds for all of them is looked at.
        let beyond = || {
            let pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
            (pool.used + pool.kept).saturating_sub(pool.most)
        };
        for spare in [0, 8 << 20] {
            keep_freed(spare);
            for step in 1..24 {
                // Sizes of which none serves the one after the next.
                let blocks: Vec<_> = (0..4).map(|_| AlignedVec::scratch(step << 15)).collect();
                drop(blocks);
                assert!(beyond() <= spare, "{} bytes kept beyond what was in use, {spare} allowed", beyond());
            }
        }
        keep_freed(usize::MAX);
        assert_eq!(POOL.lock().unwrap_or_else(PoisonError::into_inner).spare, POOL_BYTES);
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
        assert!(held.iter().all(|b| b.as_ptr().addr().is_multiple_of(64)));
        // Blocks that nothing else fits: they stay as far as there were so many bytes in use at once.
        for words in [1 << 20, 1 << 21, 1 << 22] {
            let more: Vec<AlignedVec> = (0..20).map(|_| AlignedVec::scratch(words)).collect();
            drop(more);
        }
        let pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = pool.classes.values().flat_map(|c| &c.blocks).map(Block::bytes).sum();
        assert!(pool.kept == kept && kept <= KEPT_BYTES, "{kept} bytes kept, {} counted", pool.kept);
        assert!(pool.used + kept <= pool.most + POOL_BYTES, "{kept} bytes kept, {} used", pool.used);
    }
}
