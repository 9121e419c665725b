//! The compiler's cost table, measured on this machine.

use crate::bootstrap::{self, Subject};
use crate::clock::{Sweep, median};
use crate::fit::fit;
use crate::samples::{Sample, Timer};
use crate::subject::Sizes;
use crate::{MeasureError, Result, pool};
use fhec_ckks::BootstrapPreset;
use fhec_math::buffer::HUGE_BYTES;
use fhec_passes::cost::CostTable;
use fhec_passes::cost_file::{Measurement, four_figures};

/// log2 of the ring degrees that the compiler chooses from.
pub const RINGS: std::ops::RangeInclusive<u32> = 12..=16;

/// log2 of the ring degree at which bootstraps are measured.
pub const BOOTSTRAP_RING: u32 = 16;
/// Bytes of memory that measuring bootstraps takes.
pub const BOOTSTRAP_MEMORY: u64 = 8 << 30;

/// How often everything is measured, minutes apart: a machine that is shared is slower for a while.
const ROUNDS: usize = 3;
/// How often a bootstrap runs on one thread and on two.
const BOOTSTRAP_ROUNDS: usize = 15;

/// How to calibrate.
#[derive(Clone, Debug)]
pub struct Options {
    /// log2 of the ring degrees to measure. Prices hold for all rings, the best for those measured.
    pub log_n: Vec<u32>,
    /// Seconds that each operation is repeated for in all, fifteen times at least.
    pub seconds: f64,
    /// Bytes of new memory to use for its price. Much: what other processes just gave back is cheaper than the rest, but a
    /// process that has read its keys has used that up.
    pub touch: usize,
    /// Whether whole bootstraps are measured too, where [`BOOTSTRAP_RING`] is among the rings. They need
    /// [`BOOTSTRAP_MEMORY`].
    pub bootstraps: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { log_n: RINGS.collect(), seconds: 0.5, touch: 2 << 30, bootstraps: true }
    }
}

/// Fitted prices and what they were fitted to.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The prices. [`CostTable::base_memory`] is that of the built-in table.
    pub prices: CostTable,
    /// The measurements, by ring degree.
    pub measurements: Vec<Measurement>,
}

impl Calibration {
    /// The worst ratio of prediction and measurement, in either direction.
    pub fn worst_ratio(&self) -> f64 {
        let ratios = self.measurements.iter().map(|m| m.predicted_seconds / m.seconds);
        ratios.map(|r| r.max(1.0 / r)).fold(1.0, f64::max)
    }
}

/// Parameters of a ring degree as they occur in plans, all with 128 bits of security.
fn cases(log_n: u32) -> Result<Vec<Sizes>> {
    let case = |bits, limbs, special, digits: &[usize]| Sizes {
        log_n,
        bits,
        limbs,
        special,
        special_bits: 49,
        digits: digits.to_vec(),
    };
    match log_n {
        12 => Ok(vec![case(28, 2, 1, &[1, 1])]),
        13 => Ok(vec![case(26, 6, 1, &[1; 6]), case(24, 6, 1, &[2, 2, 2])]),
        14 => Ok(vec![case(28, 11, 2, &[3, 2, 3, 3])]),
        15 => Ok(vec![case(31, 20, 4, &[5, 5, 5, 5])]),
        // The second one as networks with bootstraps have it.
        16 => Ok(vec![case(33, 27, 5, &[7, 6, 7, 7]), case(38, 27, 12, &[14, 13])]),
        _ => Err(MeasureError::Ring { log_n, least: *RINGS.start(), most: *RINGS.end() }),
    }
}

/// Measures everything on one thread. `watch` is told what is measured next.
///
/// # Errors
/// [`MeasureError::Ring`] for ring degrees outside [`RINGS`] and for none; otherwise the engine's.
pub fn calibrate(options: &Options, watch: &mut (dyn FnMut(&str) + Send)) -> Result<Calibration> {
    let all = options.log_n.iter().map(|&log_n| cases(log_n)).collect::<Result<Vec<_>>>()?;
    let cases: Vec<Sizes> = all.into_iter().flatten().collect();
    let Some(largest) = cases.last() else {
        return Err(MeasureError::Ring { log_n: 0, least: *RINGS.start(), most: *RINGS.end() });
    };
    let alone = pool(1)?;
    let seconds = options.seconds / ROUNDS as f64;
    let mut timer = Timer { seconds, sweep: Sweep::default(), samples: Vec::new(), watch };
    let mut prices = alone.install(|| -> Result<CostTable> {
        // First of all: later the process has memory that it only has to use again.
        let touch_huge = timer.touch(options.touch, 2 * HUGE_BYTES);
        let touch = timer.touch(options.touch / 8, HUGE_BYTES / 4);
        let (mut single, mut rounds) = ([vec![], vec![], vec![]], Vec::with_capacity(ROUNDS));
        for _ in 0..ROUNDS {
            let now = [timer.fill()?, timer.expand(largest)?, timer.read(largest)?];
            single.iter_mut().zip(now).for_each(|(all, now)| all.push(now));
            cases.iter().try_for_each(|sizes| timer.measure(sizes))?;
            rounds.push(std::mem::take(&mut timer.samples));
        }
        timer.samples = middle(rounds);
        let [fill, expand, read] = single.map(|all| median(&all));
        let mut prices = fit(&timer.samples);
        (prices.touch, prices.touch_huge) = (four_figures(touch), four_figures(touch_huge));
        (prices.fill, prices.expand) = (four_figures(fill), four_figures(expand));
        prices.read_byte = four_figures(read);
        let built_in = CostTable::default();
        (prices.base_memory, prices.bootstrap) = (built_in.base_memory, built_in.bootstrap);
        prices.bootstrap_small = built_in.bootstrap_small;
        Ok(prices)
    })?;
    if options.bootstraps && options.log_n.contains(&BOOTSTRAP_RING) {
        // Keys are made by all threads, outside of what is measured.
        let subject = Subject::new(BootstrapPreset::compact(), &mut *timer.watch)?;
        prices.bootstrap_small = Some(bootstraps(&subject, &mut timer, &alone, &prices)?);
        drop(subject);
        let subject = Subject::new(BootstrapPreset::deep(), &mut *timer.watch)?;
        prices.bootstrap = bootstraps(&subject, &mut timer, &alone, &prices)?;
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            (timer.watch)("bootstraps on one thread and on two");
            prices.sequential = four_figures(bootstrap::sequential(&subject, BOOTSTRAP_ROUNDS)?);
        }
    }
    let measurements = timer.samples.iter().map(|s| measurement(s, &prices)).collect();
    Ok(Calibration { prices, measurements })
}

/// Measures the bootstraps of a subject: what they take, relative to their parts.
fn bootstraps(subject: &Subject, timer: &mut Timer<'_>, alone: &rayon::ThreadPool, prices: &CostTable) -> Result<f64> {
    let from = timer.samples.len();
    alone.install(|| timer.bootstraps(subject))?;
    Ok(four_figures(factor(&timer.samples[from..], prices)))
}

/// The samples of the first round, each with the middle one of the times of all rounds.
fn middle(mut rounds: Vec<Vec<Sample>>) -> Vec<Sample> {
    let times = |at: usize| rounds.iter().map(|round| round[at].seconds).collect::<Vec<f64>>();
    let times: Vec<f64> = (0..rounds[0].len()).map(|at| median(&times(at))).collect();
    let mut samples = rounds.swap_remove(0);
    samples.iter_mut().zip(times).for_each(|(sample, time)| sample.seconds = time);
    samples
}

/// The mean ratio of some measurements and the prices of their parts.
fn factor(samples: &[Sample], prices: &CostTable) -> f64 {
    let parts = CostTable { bootstrap: 1.0, bootstrap_small: None, ..prices.clone() };
    let ratio = |s: &Sample| (s.seconds / (s.predict)(&parts.prices(&s.shape))).ln();
    (samples.iter().map(ratio).sum::<f64>() / samples.len() as f64).exp()
}

/// The form of a sample that is written. What prices hold for the runs of a fresh process is not part of a sample.
fn measurement(sample: &Sample, prices: &CostTable) -> Measurement {
    let prices = &CostTable { fill: 0.0, touch: 0.0, touch_huge: 0.0, expand: 0.0, read_byte: 0.0, ..prices.clone() };
    Measurement {
        operation: sample.operation.clone(),
        log_n: sample.shape.log_n,
        level: sample.level,
        special: sample.shape.special_at(sample.level),
        digits: sample.shape.digits_at(sample.level),
        seconds: four_figures(sample.seconds),
        bytes: sample.bytes,
        predicted_seconds: four_figures((sample.predict)(&prices.prices(&sample.shape))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_passes::cost_file::{CostFile, built_in};
    use fhec_passes::shape::Shape;

    #[test]
    fn a_small_ring_gives_a_whole_table() {
        let options = Options { log_n: vec![12], seconds: 0.0, touch: 16 << 20, bootstraps: true };
        let mut seen = Vec::new();
        let found = calibrate(&options, &mut |what| seen.push(what.to_owned())).expect("measures");
        assert!(seen.len() > found.measurements.len(), "{seen:?}");
        assert!(found.measurements.iter().all(|m| m.log_n == 12 && m.seconds > 0.0 && m.bytes > 0));
        for operation in ["add", "multiply", "rescale", "rotate", "relinearise", "linear map of 128 diagonals"] {
            assert!(found.measurements.iter().any(|m| m.operation == operation), "{operation}");
        }
        let p = &found.prices;
        assert_eq!(p.bootstrap, CostTable::default().bootstrap, "measured at 2^16 only");
        assert_eq!(p.bootstrap_small, CostTable::default().bootstrap_small, "measured with it");
        assert!(p.touch > 0.0 && p.fill > 0.0 && p.expand > 0.0 && p.read_byte > 0.0, "{p:?}");
        let file = CostFile::new(built_in().machine.clone(), 1, p.clone(), found.measurements.clone());
        assert_eq!(CostFile::parse(&file.to_json()), Ok(file));
    }

    #[test]
    fn the_factor_of_bootstraps_is_a_mean() {
        let shape = Shape { bootstrap: None, ..Shape::nominal(12, 2) };
        let sample = |seconds: f64, parts: f64| Sample {
            operation: String::new(),
            shape: shape.clone(),
            level: 0,
            seconds,
            bytes: 0,
            predict: Box::new(move |_| parts),
        };
        let found = factor(&[sample(2.0, 1.0), sample(1.0, 2.0), sample(27.0, 1.0)], &CostTable::default());
        assert!((found - 3.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn rings_that_no_plan_has_are_refused() {
        for log_n in [vec![], vec![11], vec![12, 17]] {
            let options = Options { log_n, ..Options::default() };
            assert!(matches!(calibrate(&options, &mut |_| ()), Err(MeasureError::Ring { .. })));
        }
    }

    #[test]
    fn all_parameters_exist_and_are_secure() {
        for log_n in RINGS {
            for sizes in cases(log_n).expect("listed") {
                let spec = sizes.spec();
                let level = fhec_ckks::Security::Level(fhec_math::SecurityLevel::Bits128);
                assert!(fhec_ckks::Context::new(spec, level).is_ok(), "{sizes:?}");
            }
        }
    }
}
