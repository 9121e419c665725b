//! What a throughput plan takes when its ciphertexts do not fit the memory that it may use: the schedule that the runtime follows
//! ([`fhec_plan::stream`]) is played through.

use fhec_plan::stream::{Schedule, forecast};
use fhec_plan::verify::derive;
use fhec_plan::{Insecure, Plan};

/// Bytes a second that a disk is assumed to read or write; no part of the cost table, because a disk is no property of the processor.
const DISK_RATE: f64 = 500e6;

/// Predicts a run within a budget: memory, what goes to disk, and the time that takes. A plan that fits anyway stays as it is. `other`
/// are the bytes that a run takes apart from ciphertexts and the schedule.
pub(crate) fn predict(plan: &mut Plan, budget: Option<u64>, other: u64) {
    let Some(budget) = budget.filter(|&budget| budget < plan.report.peak_memory) else { return };
    let Ok(facts) = derive(plan, Insecure::AllowForTests) else { return };
    let Some(schedule) = Schedule::of(plan, &facts) else { return };
    let (whole, other) = (facts.peak_register_bytes(), other + schedule.own_bytes());
    let found = forecast(plan, &facts, &schedule, budget.saturating_sub(other), plan.aided.is_none());
    let moved = found.transfers.written + found.transfers.read;
    let seconds = moved as f64 / DISK_RATE;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    plan.report.notes.push(format!(
        "streaming: {:.1} MiB of ciphertexts in memory at once instead of {:.1} MiB for whole tensors; {:.1} MiB written to disk and {:.1} MiB \
         read back, predicted {seconds:.3} s at {:.0} MB/s; the smallest memory budget is {:.1} MiB",
        mib(found.peak),
        mib(whole),
        mib(found.transfers.written),
        mib(found.transfers.read),
        DISK_RATE / 1e6,
        mib(other + found.least),
    ));
    plan.report.peak_memory = other + found.peak;
    plan.report.seconds += seconds;
}
