//! How much memory a run may take, and how it is kept.

use fhec_math::buffer::{POOL_BYTES, keep_freed};
use fhec_plan::verify::Verified;

/// Where the system does not say how much it has.
const UNKNOWN: u64 = 2 << 30;

/// Bytes that a run may use for registers and for weights that it keeps: what the user said, or half of what the
/// machine has. A plan's own figures are no measure: whoever made it wrote them.
pub(crate) fn allowance(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| total().map_or(UNKNOWN, |bytes| bytes / 2))
}

/// Tells the allocator to keep what is freed. By default blocks of more than 128 KiB, and whatever becomes free at the end of the
/// heap, go back to the system at once, which then has to clear and map them again for the next operation: at ring degrees up to
/// 2^14 that is a third of the time of a linear map.
pub(crate) fn configure_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The largest threshold that the allocator accepts; larger blocks are the engine's, which has a pool for them.
        const MAP_ABOVE: libc::c_int = 32 << 20;
        const TRIM_ABOVE: libc::c_int = 256 << 20;
        // SAFETY: sets two limits of the allocator, before any thread is started. A refusal changes nothing.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_ABOVE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_ABOVE);
        }
    }
}

/// Keeps of what the engine frees no more than a plan counts on, in all evaluations that follow: one that was made for a memory
/// budget has little room for it. A plan that lies only makes its own runs slower.
pub(crate) fn keep_freed_of(plan: &Verified) {
    let freed = plan.plan().report.freed_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    keep_freed(freed.unwrap_or(POOL_BYTES));
}

/// Bytes of memory of this machine, where the system says.
pub(crate) fn total() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Bytes of memory that this process has, where the system says.
pub(crate) fn resident() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Bytes of memory that programs could still have, where the system says.
pub(crate) fn available() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// The most memory that this process has had since the last call, where the system says.
pub(crate) fn peak() -> Option<u64> {
    let peak = parse(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:");
    // Sets the mark back. Where that is not allowed, it stays: an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak
}

/// The value of a line such as `MemTotal: 1024 kB`.
fn parse(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood_or_left() {
        let total = |text: &str| parse(text, "MemTotal:");
        assert_eq!(total("Buffers: 1 kB\nMemTotal:       32811984 kB\nMemFree: 1 kB\n"), Some(32_811_984 << 10));
        for nothing in ["", "MemTotal:", "MemTotal: 5 MB", "MemTotal: -1 kB", "MemTotal: 99999999999999999999 kB"] {
            assert_eq!(total(nothing), None);
        }
        assert_eq!(allowance(Some(5)), 5);
        assert!(allowance(None) > 0);
        if let Some(first) = peak() {
            assert!(first >= 1 << 20 && peak().is_some_and(|second| second <= first));
        }
    }
}
