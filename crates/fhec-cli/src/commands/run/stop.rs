//! Being asked to stop: Ctrl-C and termination let the instruction in work end; the second one ends the process at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Exit status of a process that a signal ended: this plus the signal's number.
const SIGNALLED: i32 = 128;

/// Notices signals.
pub(crate) struct Stop {
    caught: Arc<AtomicUsize>,
}

impl Stop {
    /// From now on signals are noticed and no longer end the process.
    pub(crate) fn watch() -> Result<Self> {
        let (caught, before) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it, the second one finds it up.
            flag::register_conditional_shutdown(signal, SIGNALLED + signal, Arc::clone(&before))
                .and_then(|_| flag::register(signal, Arc::clone(&before)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&caught), signal as usize))
                .context("cannot watch for signals")?;
        }
        Ok(Stop { caught })
    }

    /// The signal that came, if any.
    pub(crate) fn requested(&self) -> Option<u8> {
        match self.caught.load(Ordering::Relaxed) {
            0 => None,
            signal => u8::try_from(signal).ok(),
        }
    }
}

/// A run that ended early because it was asked to.
#[derive(Debug)]
pub(crate) struct Interrupted {
    signal: u8,
    message: String,
}

impl Interrupted {
    /// By which signal, and what to tell.
    pub(crate) fn new(signal: u8, message: String) -> Self {
        Interrupted { signal, message }
    }

    /// The process's exit status: 130 after Ctrl-C.
    pub(crate) fn status(&self) -> u8 {
        SIGNALLED as u8 + self.signal
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Interrupted {}
