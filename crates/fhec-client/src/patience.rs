//! How long to try again, and how often.

use crate::error::{ClientError, Result};
use std::time::{Duration, Instant};

/// First pause.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause that nobody asked for.
const LONGEST: Duration = Duration::from_secs(10);

/// What is left of the patience for one thing. It is whole again after every success.
#[derive(Debug)]
pub(crate) struct Patience {
    whole: Duration,
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new(whole: Duration) -> Self {
        Patience { whole, since: None, pause: FIRST }
    }

    /// Something went well.
    pub(crate) fn renew(&mut self) {
        (self.since, self.pause) = (None, FIRST);
    }

    /// How long to wait before the next try: as long as was asked for, or twice as long as the last time, and by chance a little
    /// less, so that clients that were turned away together do not come back together.
    ///
    /// # Errors
    /// `why`, once patience has run out.
    pub(crate) fn next(&mut self, asked: Option<Duration>, why: ClientError) -> Result<Duration> {
        let now = Instant::now();
        let spent = now.duration_since(*self.since.get_or_insert(now));
        let Some(left) = self.whole.checked_sub(spent).filter(|left| !left.is_zero()) else { return Err(why) };
        let mut chance = [0];
        // Without chance all come back together, which is no error.
        let _ = getrandom::fill(&mut chance);
        let part = 0.75 + f64::from(chance[0]) / 1024.0;
        let pause = match asked {
            Some(asked) => asked.max(FIRST).div_f64(part),
            None => self.pause.mul_f64(part),
        };
        self.pause = (self.pause * 2).min(LONGEST);
        Ok(pause.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> ClientError {
        ClientError::Unreachable("x".into())
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut patience = Patience::new(Duration::from_secs(60));
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            let pause = patience.next(None, why()).expect("patience");
            assert!(pause > last && pause < Duration::from_secs(2), "{pause:?} after {last:?}");
            last = pause;
        }
        assert!(patience.next(Some(Duration::from_secs(5)), why()).expect("patience") >= Duration::from_secs(5));
        // No longer than patience is left.
        assert!(patience.next(Some(Duration::from_secs(500)), why()).expect("patience") <= Duration::from_secs(60));
        patience.renew();
        assert!(patience.next(None, why()).expect("patience") <= FIRST);
        assert!(Patience::new(Duration::ZERO).next(None, why()).is_err());
    }
}
