//! What stays in memory.

use super::{Schedule, Tile};
use std::collections::BTreeSet;

/// Instead of the time at which a value is read next: it is not in memory.
const ABSENT: u32 = u32::MAX;

/// A value that has to leave memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Its number.
    pub id: u32,
    /// Whether it must be written; otherwise it is on disk already, or can be read again as an input.
    pub write: bool,
}

/// What went between memory and disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Bytes written.
    pub written: u64,
    /// Bytes read back.
    pub read: u64,
    /// Most bytes on disk at once.
    pub disk: u64,
}

/// Which values are in memory and which on disk, and who goes when there is no room.
#[derive(Clone, Debug)]
pub struct Residency {
    budget: u64,
    /// Whether inputs can be read more than once.
    again: bool,
    /// Number of the next group of operands.
    now: u32,
    /// By number, when each value in memory is read next; [`ABSENT`] for others.
    resident: Vec<u32>,
    /// The same, ordered by that.
    order: BTreeSet<(u32, u32)>,
    /// By number.
    on_disk: Vec<bool>,
    live: u64,
    reserved: u64,
    peak: u64,
    disk: u64,
    transfers: Transfers,
}

impl Residency {
    /// Nothing in memory yet.
    pub fn new(schedule: &Schedule, budget: u64, again: bool) -> Self {
        debug_assert!(budget >= schedule.least());
        Residency {
            budget,
            again,
            now: 0,
            resident: vec![ABSENT; schedule.total()],
            order: BTreeSet::new(),
            on_disk: vec![false; schedule.total()],
            live: 0,
            reserved: 0,
            peak: 0,
            disk: 0,
            transfers: Transfers::default(),
        }
    }

    /// Bytes of values in memory.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Bytes of values on disk that are not in memory as well or will be needed there again.
    pub fn on_disk(&self) -> u64 {
        self.disk
    }

    /// Most bytes in memory at once so far, room for results included.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// What went to disk and back so far.
    pub fn transfers(&self) -> Transfers {
        self.transfers
    }

    /// Sets the room that a tile works in. Values go for it when the operands are [fetched](Self::fetch).
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved = bytes;
    }

    /// Whether a value is in memory.
    pub fn is_resident(&self, id: u32) -> bool {
        self.resident[id as usize] != ABSENT
    }

    /// Makes room for a group of operands; those that were not in memory are there afterwards. Gives what has to leave.
    pub fn fetch(&mut self, schedule: &Schedule, group: &[u32]) -> Vec<Eviction> {
        for &id in group {
            if self.is_resident(id) {
                continue;
            }
            self.transfers.read += if self.on_disk[id as usize] { schedule.bytes(id) } else { 0 };
            self.insert(schedule, id, self.now);
        }
        self.shrink(schedule)
    }

    /// Ends the group: values that are not read any more are dropped, and given; what they have on disk is free.
    pub fn release(&mut self, schedule: &Schedule, group: &[u32]) -> Vec<u32> {
        self.now += 1;
        let mut gone = Vec::new();
        for &id in group {
            if !self.is_resident(id) {
                continue;
            }
            let old = std::mem::replace(&mut self.resident[id as usize], ABSENT);
            self.order.remove(&(old, id));
            match schedule.next_use(id, self.now) {
                Some(next) => {
                    self.resident[id as usize] = next;
                    self.order.insert((next, id));
                }
                None => {
                    self.live -= schedule.bytes(id);
                    if std::mem::take(&mut self.on_disk[id as usize]) {
                        self.disk -= schedule.bytes(id);
                    }
                    gone.push(id);
                }
            }
        }
        gone
    }

    /// Takes in the results of a tile that somebody reads; the others are given. What has to leave comes with the next group.
    pub fn produce(&mut self, schedule: &Schedule, tile: &Tile) -> Vec<u32> {
        let reg = schedule.result(tile);
        let mut unread = Vec::new();
        for &element in &tile.elements {
            let id = schedule.number(reg, element);
            match schedule.next_use(id, self.now) {
                Some(next) => self.insert(schedule, id, next),
                None => unread.push(id),
            }
        }
        unread
    }

    fn insert(&mut self, schedule: &Schedule, id: u32, next: u32) {
        self.resident[id as usize] = next;
        self.order.insert((next, id));
        self.live += schedule.bytes(id);
    }

    /// Lets values go, those first that are read the latest, until all fits.
    fn shrink(&mut self, schedule: &Schedule) -> Vec<Eviction> {
        let mut gone = Vec::new();
        while self.live + self.reserved > self.budget {
            // The operands of this moment stay.
            let Some(&(next, id)) = self.order.last().filter(|&&(next, _)| next > self.now) else { break };
            gone.push(self.evict(schedule, next, id));
        }
        self.peak = self.peak.max(self.live + self.reserved);
        gone
    }

    /// Lets all values go, between two groups. Gives what has to leave.
    pub fn clear(&mut self, schedule: &Schedule) -> Vec<Eviction> {
        let mut gone = Vec::new();
        while let Some(&(next, id)) = self.order.last() {
            gone.push(self.evict(schedule, next, id));
        }
        gone
    }

    fn evict(&mut self, schedule: &Schedule, next: u32, id: u32) -> Eviction {
        self.order.remove(&(next, id));
        self.resident[id as usize] = ABSENT;
        let bytes = schedule.bytes(id);
        self.live -= bytes;
        let write = !(self.on_disk[id as usize] || self.again && schedule.input(id).is_some());
        if write {
            self.on_disk[id as usize] = true;
            self.disk += bytes;
            self.transfers.written += bytes;
            self.transfers.disk = self.transfers.disk.max(self.disk);
        }
        Eviction { id, write }
    }
}
