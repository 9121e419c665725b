//! Progress bars for whatever takes longer than two seconds; where nobody watches, lines for whatever takes minutes.

use crate::files::status;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a step may take before it shows that it is alive.
const PATIENCE: Duration = Duration::from_secs(2);

/// The least time from one line to the next in a log.
const PULSE: Duration = Duration::from_secs(30);

/// A bar on standard error that appears when the step has taken two seconds, and only on a terminal.
pub(crate) struct Progress {
    label: String,
    start: Instant,
    visible: bool,
    bar: OnceLock<ProgressBar>,
}

impl Progress {
    /// A bar for one step.
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Progress {
            label: label.into(),
            start: Instant::now(),
            visible: std::io::stderr().is_terminal(),
            bar: OnceLock::new(),
        }
    }

    /// `done` of `total` parts are done; may be called from any thread.
    pub(crate) fn set(&self, done: usize, total: usize) {
        if !self.visible || self.start.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar = ProgressBar::new(total as u64).with_elapsed(self.start.elapsed());
            if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed} (left: {eta})") {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_message(self.label.clone());
            bar
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }

    /// Time since the step began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A bar for steps of very different lengths, which tells the name of the step in work and the time that is left. Without a terminal a
/// line now and then, so that a log shows that the work goes on.
pub(crate) struct Work {
    label: String,
    start: Instant,
    visible: bool,
    bar: OnceLock<ProgressBar>,
    pulse: Pulse,
}

impl Work {
    /// Parts of the bar.
    const PARTS: u64 = 1000;

    /// Nothing is done yet.
    pub(crate) fn new(label: impl Into<String>) -> Self {
        let (start, visible) = (Instant::now(), std::io::stderr().is_terminal());
        Work { label: label.into(), start, visible, bar: OnceLock::new(), pulse: Pulse::default() }
    }

    /// So much (0 to 1) is done; `now` gives the step that begins and the time left, if anybody looks.
    pub(crate) fn set(&self, done: f64, now: impl FnOnce() -> (String, String)) {
        if !self.visible {
            if let Some(line) = self.line(self.start.elapsed(), done, now) {
                status(&line);
            }
            return;
        }
        if self.start.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar = ProgressBar::new(Self::PARTS).with_elapsed(self.start.elapsed());
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {elapsed} {wide_msg}") {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_prefix(self.label.clone());
            bar
        });
        let (step, left) = now();
        bar.set_message(format!("(left: {left}) {step}"));
        bar.set_position((done * Self::PARTS as f64) as u64);
    }

    /// The line for a log, if it is time for one. What is done is said by the result itself.
    fn line(&self, elapsed: Duration, done: f64, now: impl FnOnce() -> (String, String)) -> Option<String> {
        if done >= 1.0 || !self.pulse.is_due(elapsed) {
            return None;
        }
        let (step, left) = now();
        let at = if step.is_empty() { step } else { format!(", at {step}") };
        Some(format!("{}: {:.0} %, left: {left}{at}", self.label, 100.0 * done))
    }
}

/// Tells when it is time for the next line.
#[derive(Default)]
struct Pulse {
    /// When the last one was, milliseconds from the start.
    last: AtomicU64,
}

impl Pulse {
    /// Whether [`PULSE`] is over, after which it begins anew.
    fn is_due(&self, elapsed: Duration) -> bool {
        let now = elapsed.as_millis() as u64;
        let due = |last: u64| (now.saturating_sub(last) >= PULSE.as_millis() as u64).then_some(now);
        self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

/// A line on standard error that says which step runs, once the first two seconds are over, and only on a terminal.
pub(crate) struct Steps {
    start: Instant,
    visible: bool,
    bar: OnceLock<ProgressBar>,
}

impl Steps {
    /// Nothing runs yet.
    pub(crate) fn new() -> Self {
        Steps { start: Instant::now(), visible: std::io::stderr().is_terminal(), bar: OnceLock::new() }
    }

    /// A step begins; may be called from any thread.
    pub(crate) fn begin(&self, step: &str) {
        if !self.visible || self.start.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar = ProgressBar::new_spinner().with_elapsed(self.start.elapsed());
            if let Ok(style) = ProgressStyle::with_template("{elapsed} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(step.to_owned());
        // Nothing else draws: while a step runs no thread must be woken.
        bar.tick();
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a step that reports at these seconds, with a tenth more done each time.
    fn lines(seconds: &[u64]) -> Vec<String> {
        let work = Work::new("x.ct");
        let line = |(i, &s): (usize, &u64)| {
            let now = || (["", "conv1"][i % 2].to_owned(), format!("{} s", 100 - s));
            work.line(Duration::from_secs(s), 0.1 * (i + 1) as f64, now)
        };
        seconds.iter().enumerate().filter_map(line).collect()
    }

    #[test]
    fn a_log_gets_a_line_every_half_minute_and_short_runs_none() {
        assert!(lines(&[0, 1, 2, 5, 20, 29]).is_empty());
        assert_eq!(lines(&[29, 31, 45, 60, 61, 90]), ["x.ct: 20 %, left: 69 s, at conv1", "x.ct: 50 %, left: 39 s"]);
        // The last one is the result's.
        assert!(lines(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 99]).is_empty());
    }
}
