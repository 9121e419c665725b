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

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}
