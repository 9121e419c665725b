//! What happened, in the text format of Prometheus.

use fhec_protocol::Code;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper ends of the classes of evaluation times, seconds.
const CLASSES: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0];

const CODES: [(Code, &str); 11] = [
    (Code::Malformed, "malformed"),
    (Code::TooLarge, "too_large"),
    (Code::Refused, "refused"),
    (Code::UnknownKey, "unknown_key"),
    (Code::UnknownRequest, "unknown_request"),
    (Code::Conflict, "conflict"),
    (Code::Offset, "offset"),
    (Code::Limited, "limited"),
    (Code::Busy, "busy"),
    (Code::Ending, "ending"),
    (Code::Failed, "failed"),
];

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Evaluations that gave a result.
    pub(crate) evaluated: AtomicU64,
    /// Panics that were caught: bugs.
    pub(crate) panics: AtomicU64,
    /// Bytes of keys and frames that came.
    pub(crate) received: AtomicU64,
    /// Bytes of frames that went.
    pub(crate) sent: AtomicU64,
    /// Connections that were accepted, and those that were turned away.
    pub(crate) connections: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    refusals: [AtomicU64; CODES.len()],
    classes: [AtomicU64; CLASSES.len()],
    micros: AtomicU64,
}

/// What is now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) queued: usize,
    pub(crate) running: usize,
    pub(crate) results: usize,
    pub(crate) kept_bytes: usize,
    pub(crate) keys_ready: usize,
    pub(crate) keys_partial: usize,
    pub(crate) keys_loaded: usize,
    pub(crate) key_bytes: u64,
    pub(crate) open: usize,
    pub(crate) ending: bool,
}

impl Metrics {
    /// A refusal was sent.
    pub(crate) fn refused(&self, code: Code) {
        if let Some(at) = CODES.iter().position(|(c, _)| *c == code) {
            self.refusals[at].fetch_add(1, Relaxed);
        }
    }

    /// An evaluation gave a result.
    pub(crate) fn evaluation(&self, time: Duration) {
        self.evaluated.fetch_add(1, Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Relaxed);
        if let Some(at) = CLASSES.iter().position(|&end| time.as_secs_f64() <= end) {
            self.classes[at].fetch_add(1, Relaxed);
        }
    }

    /// Mean time of an evaluation so far.
    pub(crate) fn mean_seconds(&self) -> Option<f64> {
        let count = self.evaluated.load(Relaxed);
        (count > 0).then(|| self.micros.load(Relaxed) as f64 / 1e6 / count as f64)
    }

    /// The page.
    pub(crate) fn render(&self, now: &Gauges, key_loads: u64) -> String {
        let mut page = Page(String::new());
        let read = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        page.one("fhec_panics_total", "counter", "Panics that were caught; each is a bug", read(&self.panics));
        page.one("fhec_key_loads_total", "counter", "Times that keys were read from disk", key_loads as f64);
        page.one("fhec_received_bytes_total", "counter", "Bytes of keys and frames received", read(&self.received));
        page.one("fhec_sent_bytes_total", "counter", "Bytes of frames sent", read(&self.sent));
        page.one("fhec_connections_total", "counter", "Connections accepted", read(&self.connections));
        page.one("fhec_turned_away_total", "counter", "Connections turned away", read(&self.turned_away));
        page.one("fhec_requests_queued", "gauge", "Requests that wait", now.queued as f64);
        page.one("fhec_requests_running", "gauge", "Requests under evaluation", now.running as f64);
        page.one("fhec_results", "gauge", "Results in memory", now.results as f64);
        page.one("fhec_kept_bytes", "gauge", "Bytes that requests keep between rounds", now.kept_bytes as f64);
        page.one("fhec_keys_ready", "gauge", "Sets of keys on disk", now.keys_ready as f64);
        page.one("fhec_keys_partial", "gauge", "Uploads of keys under way", now.keys_partial as f64);
        page.one("fhec_keys_loaded", "gauge", "Sets of keys in memory", now.keys_loaded as f64);
        page.one("fhec_key_disk_bytes", "gauge", "Bytes on disk that keys may take as it stands", now.key_bytes as f64);
        page.one("fhec_connections_open", "gauge", "Connections open", now.open as f64);
        page.one("fhec_ending", "gauge", "1 once the server ends", f64::from(u8::from(now.ending)));
        page.head("fhec_refusals_total", "counter", "Refusals by reason");
        for ((_, name), count) in CODES.iter().zip(&self.refusals) {
            page.line(&format!("fhec_refusals_total{{code=\"{name}\"}}"), read(count));
        }
        page.head("fhec_evaluation_seconds", "histogram", "Time of evaluations");
        let mut below = 0.0;
        for (end, count) in CLASSES.iter().zip(&self.classes) {
            below += read(count);
            page.line(&format!("fhec_evaluation_seconds_bucket{{le=\"{end}\"}}"), below);
        }
        page.line("fhec_evaluation_seconds_bucket{le=\"+Inf\"}", read(&self.evaluated));
        page.line("fhec_evaluation_seconds_sum", read(&self.micros) / 1e6);
        page.line("fhec_evaluation_seconds_count", read(&self.evaluated));
        page.0
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: f64) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.line(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_adds_up() {
        let metrics = Metrics::default();
        assert_eq!(metrics.mean_seconds(), None);
        for millis in [5, 20, 20, 700_000] {
            metrics.evaluation(Duration::from_millis(millis));
        }
        metrics.refused(Code::Busy);
        let page = metrics.render(&Gauges { queued: 3, ..Gauges::default() }, 2);
        for line in [
            "fhec_requests_queued 3",
            "fhec_key_loads_total 2",
            "fhec_refusals_total{code=\"busy\"} 1",
            "fhec_refusals_total{code=\"failed\"} 0",
            "fhec_evaluation_seconds_bucket{le=\"0.01\"} 1",
            "fhec_evaluation_seconds_bucket{le=\"0.03\"} 3",
            "fhec_evaluation_seconds_bucket{le=\"600\"} 3",
            "fhec_evaluation_seconds_bucket{le=\"+Inf\"} 4",
            "fhec_evaluation_seconds_sum 700.045",
            "fhec_evaluation_seconds_count 4",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        // Every name of a figure is told what it is.
        for line in page.lines().filter(|l| !l.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("name");
            let name = ["_bucket", "_sum", "_count"].iter().fold(name, |n, end| n.strip_suffix(end).unwrap_or(n));
            assert!(page.contains(&format!("# TYPE {name} ")), "{line}");
        }
        assert!((metrics.mean_seconds().expect("some") - 175.01125).abs() < 1e-9);
    }
}
