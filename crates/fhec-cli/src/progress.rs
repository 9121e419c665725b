//! Progress bars for whatever takes longer than two seconds.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a step may take before it shows that it is alive.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// A bar for steps of very different lengths, which tells the name of the step in work and the time that is left.
pub(crate) struct Work {
    label: String,
    start: Instant,
    visible: bool,
    bar: OnceLock<ProgressBar>,
}

impl Work {
    /// Parts of the bar.
    const PARTS: u64 = 1000;

    /// Nothing is done yet.
    pub(crate) fn new(label: impl Into<String>) -> Self {
        let (start, visible) = (Instant::now(), std::io::stderr().is_terminal());
        Work { label: label.into(), start, visible, bar: OnceLock::new() }
    }

    /// So much (0 to 1) is done; `now` gives the step that begins and the time left, if anybody looks.
    pub(crate) fn set(&self, done: f64, now: impl FnOnce() -> (String, String)) {
        if !self.visible || self.start.elapsed() < PATIENCE {
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
