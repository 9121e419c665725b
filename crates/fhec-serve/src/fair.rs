//! A queue that serves its owners in turn, so that one with many entries does not keep the others waiting.

use std::collections::{BTreeMap, VecDeque};

/// First in, first out for each owner; owners take turns.
#[derive(Debug)]
pub(crate) struct FairQueue<K, T> {
    /// Owners with entries, the next one first.
    turns: VecDeque<K>,
    entries: BTreeMap<K, VecDeque<T>>,
    len: usize,
}

impl<K: Ord + Copy, T> FairQueue<K, T> {
    pub(crate) fn new() -> Self {
        FairQueue { turns: VecDeque::new(), entries: BTreeMap::new(), len: 0 }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends to the entries of an owner.
    pub(crate) fn push(&mut self, owner: K, entry: T) {
        let own = self.entries.entry(owner).or_default();
        if own.is_empty() {
            self.turns.push_back(owner);
        }
        own.push_back(entry);
        self.len += 1;
    }

    /// Takes the first entry of the owner whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<(K, T)> {
        let owner = self.turns.pop_front()?;
        let own = self.entries.get_mut(&owner)?;
        let entry = own.pop_front()?;
        self.len -= 1;
        if own.is_empty() {
            self.entries.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        Some((owner, entry))
    }

    /// Removes the entries of an owner for which `keep` does not hold.
    pub(crate) fn retain(&mut self, owner: K, keep: impl FnMut(&T) -> bool) {
        let Some(own) = self.entries.get_mut(&owner) else { return };
        let before = own.len();
        own.retain(keep);
        self.len -= before - own.len();
        if own.is_empty() {
            self.entries.remove(&owner);
            self.turns.retain(|turn| *turn != owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns() {
        let mut queue = FairQueue::new();
        for i in 0..4 {
            queue.push('a', i);
        }
        queue.push('b', 10);
        queue.push('c', 20);
        queue.push('b', 11);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [('a', 0), ('b', 10), ('c', 20), ('a', 1), ('b', 11), ('a', 2), ('a', 3)]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn removed_entries_take_no_turn() {
        let mut queue = FairQueue::new();
        for i in 0..3 {
            queue.push('a', i);
            queue.push('b', i);
        }
        queue.retain('a', |_| false);
        queue.retain('b', |i| *i != 1);
        queue.retain('x', |_| false);
        assert_eq!(queue.len(), 2);
        queue.push('a', 7);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [('b', 0), ('a', 7), ('b', 2)]);
    }
}
