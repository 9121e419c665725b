//! Clocks, medians, and memory that pushes everything else out of the caches.

use std::time::Instant;

/// Least runs of anything that is timed.
const LEAST_RUNS: usize = 5;
/// Most runs.
const MOST_RUNS: usize = 10_000;
/// Bytes that are walked through to empty the caches: more than the share of a core in common last-level caches.
const SWEEP: usize = 64 << 20;

/// Seconds that this thread has worked. Other processes do not disturb it, as they do the time of day; what the system does
/// for the thread, such as clearing memory, counts. Falls back to elapsed time where the system has no such clock.
pub fn thread_seconds() -> f64 {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_secs_f64()
    }
}

/// The middle one of some times; the mean of the two in the middle of an even number.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Runs something until `seconds` have passed, at least five times, and gives all times that `timed` returned.
pub fn repeat(seconds: f64, mut timed: impl FnMut() -> f64) -> Vec<f64> {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < LEAST_RUNS || (start.elapsed().as_secs_f64() < seconds && times.len() < MOST_RUNS) {
        times.push(timed());
    }
    times
}

/// Memory that nobody needs.
pub struct Sweep(Vec<u64>);

impl Default for Sweep {
    fn default() -> Self {
        Sweep(vec![1; SWEEP / size_of::<u64>()])
    }
}

impl Sweep {
    /// Walks through the memory, so that what the caches held is gone.
    pub fn caches(&mut self) {
        for word in self.0.iter_mut().step_by(8) {
            *word = word.wrapping_add(1);
        }
        std::hint::black_box(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn work_takes_thread_time_and_sleep_does_not() {
        let start = thread_seconds();
        let mut sweep = Sweep::default();
        let times = repeat(0.0, || {
            let begin = thread_seconds();
            sweep.caches();
            thread_seconds() - begin
        });
        assert_eq!(times.len(), LEAST_RUNS);
        assert!(times.iter().all(|&t| t > 0.0) && thread_seconds() - start >= times.iter().sum());
        if cfg!(target_os = "linux") {
            let begin = thread_seconds();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(thread_seconds() - begin < 0.04);
        }
    }
}
