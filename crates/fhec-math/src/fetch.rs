//! Memory that is asked for a while before it is used.

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr;

/// What is used next, in the order of its use. Transforms, which compute more than they read, ask for a few lines of it with each of their steps.
///
/// A chain has more limbs, tables and keys than the caches hold, and a computation that waits for each of them takes twice as long. Nothing is read
/// through this: what was asked for and has gone meanwhile does no harm.
#[derive(Debug)]
pub struct Fetch {
    /// What is left of the first piece.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only these kernels fetch"))]
    current: Range<*const u64>,
    /// The other pieces.
    later: VecDeque<Range<*const u64>>,
}

impl Fetch {
    /// These pieces, one after the other.
    pub fn new<'a>(pieces: impl IntoIterator<Item = &'a [u64]>) -> Self {
        Self { current: ptr::null()..ptr::null(), later: pieces.into_iter().map(<[u64]>::as_ptr_range).collect() }
    }

    /// One more piece at the end.
    pub fn push(&mut self, piece: &[u64]) {
        self.later.push_back(piece.as_ptr_range());
    }

    /// Forgets all pieces.
    pub fn clear(&mut self) {
        self.current = ptr::null()..ptr::null();
        self.later.clear();
    }

    /// Asks for `LINES` more lines of 64 bytes.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "sse")]
    pub(crate) fn some<const LINES: usize>(&mut self) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        if self.current.start >= self.current.end {
            match self.later.pop_front() {
                Some(next) => self.current = next,
                None => return,
            }
        }
        for line in 0..LINES {
            // These need not exist: a prefetch never faults.
            _mm_prefetch::<_MM_HINT_T1>(self.current.start.wrapping_add(8 * line).cast());
        }
        self.current.start = self.current.start.wrapping_add(8 * LINES);
    }
}
