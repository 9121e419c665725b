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

/// Times so many things in turns: in every round each of them once, every other round backwards, until `seconds` have passed for
/// each on average, at least `rounds` times. A machine that is slow for a while is slow for all of them, so that times of the same round
/// can be compared. Gives the times of each, by round.
///
/// # Errors
/// The first one of `timed`, which gets the round and what to time.
pub fn in_turns<E>(
    things: usize,
    rounds: usize,
    seconds: f64,
    mut timed: impl FnMut(usize, usize) -> Result<f64, E>,
) -> Result<Vec<Vec<f64>>, E> {
    let start = Instant::now();
    let mut times = vec![Vec::new(); things];
    let mut round = 0;
    while round < rounds || (start.elapsed().as_secs_f64() < seconds * things as f64 && round < MOST_RUNS) {
        for turn in 0..things {
            let thing = if round % 2 == 0 { turn } else { things - 1 - turn };
            times[thing].push(timed(round, thing)?);
        }
        round += 1;
    }
    Ok(times)
}

/// The middle one of the ratios of times of the same round.
pub fn median_ratio(times: &[f64], to: &[f64]) -> f64 {
    median(&times.iter().zip(to).map(|(a, b)| a / b).collect::<Vec<f64>>())
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
    fn turns_are_rounds() {
        // Everything is three times as slow in the second round, and the second thing takes twice the first.
        let mut order = Vec::new();
        let times = in_turns::<()>(3, 3, 0.0, |round, thing| {
            order.push((round, thing));
            Ok([1.0, 2.0, 10.0][thing] * [1.0, 3.0, 1.0][round])
        });
        let times = times.expect("nothing fails");
        assert_eq!(order, [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0), (2, 0), (2, 1), (2, 2)]);
        assert_eq!(times, [[1.0, 3.0, 1.0], [2.0, 6.0, 2.0], [10.0, 30.0, 10.0]]);
        assert_eq!(median_ratio(&times[1], &times[0]), 2.0);
        assert_eq!(median_ratio(&[1.0, 3.0, 5.0], &[2.0, 1.0, 5.0]), 1.0);
        let mut calls = 0;
        let failed = in_turns(2, 5, 0.0, |_, thing| {
            calls += 1;
            if thing == 1 { Err("broken") } else { Ok(1.0) }
        });
        assert_eq!((failed, calls), (Err("broken"), 2));
        // A slow round is enough for the time, but not for the number.
        let slow = in_turns::<()>(1, 2, 0.001, |_, _| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            Ok(1.0)
        });
        assert_eq!(slow.map(|times| times[0].len()), Ok(2));
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
