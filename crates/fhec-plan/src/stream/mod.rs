//! How a plan whose images share ciphertexts is evaluated with few of them in memory.
//!
//! Its tensors have a ciphertext an element, tens of thousands of them, but an operation reads few: a window of a convolution, one
//! element of a sum. So the unit of work is a [`Tile`], some elements of an instruction's result. [`Schedule`] puts the tiles in an order in
//! which values are used soon after they are made: the elements of every tensor follow the last of their operands, and tiles are
//! made when the next one needs them, through all layers (depth first). [`Residency`] decides what stays in memory: since the order is
//! known, the value that is used the latest goes (Belady 1966), and no choice does with fewer transfers of equal size.
//!
//! Both know nothing of ciphertexts but their size, so the compiler predicts with them what the runtime does.

mod residency;
mod schedule;

pub use residency::{Eviction, Residency, Transfers};
pub use schedule::{CHUNK, Schedule, TILE, Tile};

use crate::{Facts, Plan};

/// What an evaluation under a memory budget takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Smallest budget that suffices, bytes of ciphertexts.
    pub least: u64,
    /// Most bytes of ciphertexts in memory at once.
    pub peak: u64,
    /// What goes to disk and comes back.
    pub transfers: Transfers,
}

/// Plays an evaluation through, without ciphertexts. With `again`, inputs that were dropped can be read once more; a budget below the least
/// is taken as the least.
pub fn forecast(plan: &Plan, facts: &Facts, schedule: &Schedule, budget: u64, again: bool) -> Forecast {
    let least = schedule.least();
    let mut residency = Residency::new(schedule, budget.max(least), again);
    for tile in schedule.tiles() {
        residency.reserve(schedule.working(plan, facts, tile));
        for group in schedule.groups(plan, facts, tile) {
            residency.fetch(schedule, &group);
            residency.release(schedule, &group);
        }
        residency.reserve(0);
        residency.produce(schedule, tile);
    }
    Forecast { least, peak: residency.peak(), transfers: residency.transfers() }
}

/// Bytes of a ciphertext of a degree.
pub(crate) fn element_bytes(plan: &Plan, level: usize, degree: u8) -> u64 {
    ((u64::from(degree) + 1) * (level as u64 + 1)) << (plan.parameters.log_n + 3)
}
