//! Micro-benchmarks of the engine, for comparison with others.
//!
//! Parameters are as large as 128 bits of security let them be, in the form that bootstrapping uses: primes of 46 or 47 bits where
//! there is room for several, a fifth of them special. Times are medians of elapsed time in a tight loop.

use crate::clock::{median, repeat};
use crate::subject::{Diagonals, Sizes, Subject};
use crate::{MeasureError, Result, pool};
use fhec_ckks::CkksError;
use fhec_ckks::linear::LinearOptions;
use fhec_math::security::{max_log_qp, security_estimate};
use fhec_math::{NttTable, SecurityLevel, log2_product};
use serde::Serialize;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Instant;

/// log2 of the ring degrees that have parameters.
pub const RINGS: std::ops::RangeInclusive<u32> = 12..=17;

/// Diagonals of the linear map.
const DIAGONALS: usize = 32;
/// Rotations of one ciphertext that share its decomposition.
const HOISTED: i64 = 8;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// log2 of the ring degrees.
    pub log_n: Vec<u32>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Seconds that each operation is repeated for, at least five times in any case.
    pub seconds: f64,
}

/// Parameters that a benchmark ran with.
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Primes of the chain.
    pub limbs: usize,
    /// Special primes.
    pub special: usize,
    /// Key-switching digits.
    pub digits: usize,
    /// log2 of the chain's product.
    pub log2_q: f64,
    /// log2 of the product of all primes.
    pub log2_qp: f64,
    /// Estimated security in bits, classical attacks.
    pub security_bits: f64,
    /// Bytes of one rotation key in memory.
    pub key_bytes: usize,
}

/// One benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What ran.
    pub operation: String,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Limbs of the operands.
    pub limbs: usize,
    /// Threads.
    pub threads: usize,
    /// Median time.
    pub seconds: f64,
    /// Number of runs.
    pub runs: usize,
}

/// All benchmarks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Parameters, by ring degree.
    pub parameters: Vec<Parameters>,
    /// Results.
    pub rows: Vec<Row>,
}

/// Parameters of a ring degree.
fn sizes(log_n: u32) -> Result<Sizes> {
    let none = MeasureError::Ring { log_n, least: *RINGS.start(), most: *RINGS.end() };
    if !RINGS.contains(&log_n) {
        return Err(none);
    }
    let Some(limit) = max_log_qp(SecurityLevel::Bits128, log_n) else { return Err(none) };
    // Six primes at least, where these are not too small to carry a message, and as many of 46 bits as there is room for, which transforms hardly
    // reduce; then what is left makes them larger by a bit. Primes lie on both sides of the power of two; a bit in all leaves room for that.
    let count = (limit - 1) / (limit / 6).clamp(30, 46);
    let bits = ((limit - 1) / count).min(47);
    let count = count as usize;
    let special = count.div_ceil(5);
    let limbs = count - special;
    // Full digits, of as many primes as are special; the first one takes what is left, so that low levels, which have few limbs, need fewer
    // special primes.
    let first = (limbs - 1) % special + 1;
    let digits = [first].into_iter().chain(std::iter::repeat_n(special, (limbs - first) / special)).collect();
    Ok(Sizes { log_n, bits, limbs, special, special_bits: bits, digits })
}

/// Runs all benchmarks. `watch` is told what runs next.
///
/// # Errors
/// [`MeasureError::Ring`] for ring degrees outside [`RINGS`], [`MeasureError::Threads`]; otherwise the engine's.
pub fn bench(options: &Options, watch: &mut (dyn FnMut(&str) + Send)) -> Result<Report> {
    let sizes = options.log_n.iter().map(|&log_n| sizes(log_n)).collect::<Result<Vec<_>>>()?;
    let mut report = Report::default();
    for sizes in &sizes {
        watch(&format!("2^{}: keys", sizes.log_n));
        let diagonals = Diagonals::choose(sizes, DIAGONALS)?;
        let mut rotations = diagonals.rotations();
        rotations.extend(1..=HOISTED);
        // Keys are made with all threads, outside of what is measured.
        let subject = Subject::new(sizes, &rotations)?;
        report.parameters.push(parameters(sizes, &subject));
        for &threads in &options.threads {
            let mut run = Run { options, threads, subject: &subject, diagonals: &diagonals, watch, rows: Vec::new() };
            pool(threads)?.install(|| run.all())?;
            report.rows.append(&mut run.rows);
        }
    }
    Ok(report)
}

fn parameters(sizes: &Sizes, subject: &Subject) -> Parameters {
    let spec = sizes.spec();
    let log2_q = log2_product(&spec.q);
    let log2_qp = log2_q + log2_product(&spec.p);
    Parameters {
        log_n: sizes.log_n,
        limbs: sizes.limbs,
        special: sizes.special,
        digits: sizes.digits.len(),
        log2_q,
        log2_qp,
        security_bits: security_estimate(sizes.log_n, log2_qp).unwrap_or(0.0),
        key_bytes: subject.evaluator.keys().relin().map_or(0, |key| key.bytes()),
    }
}

/// What the engine's operations return.
type CkksResult<T> = std::result::Result<T, CkksError>;

/// Benchmarks on one pool.
struct Run<'a> {
    options: &'a Options,
    threads: usize,
    subject: &'a Subject,
    diagonals: &'a Diagonals,
    watch: &'a mut (dyn FnMut(&str) + Send),
    rows: Vec<Row>,
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        let top = self.subject.context.max_level();
        self.transforms()?;
        // All limbs, half of them, and the ten that comparisons like to take.
        let levels: BTreeSet<usize> = [top, top / 2, 9.min(top), 1.min(top)].into();
        levels.into_iter().rev().try_for_each(|level| self.level(level))
    }

    fn row<T>(&mut self, operation: &str, limbs: usize, mut f: impl FnMut() -> CkksResult<T>) -> Result<()> {
        let log_n = self.subject.shape.log_n;
        (self.watch)(&format!("2^{log_n}, {limbs} limbs, {} threads: {operation}", self.threads));
        // Once for the caches and the memory.
        f()?;
        let mut failed = None;
        let times = repeat(self.options.seconds, || {
            let start = Instant::now();
            let error = f().map(|result| drop(black_box(result))).err();
            let time = start.elapsed().as_secs_f64();
            failed = failed.take().or(error);
            time
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let (threads, operation) = (self.threads, operation.to_owned());
        self.rows.push(Row { operation, log_n, limbs, threads, seconds: median(&times), runs: times.len() });
        Ok(())
    }

    /// Transforms of one limb run on one thread.
    fn transforms(&mut self) -> Result<()> {
        let context = &self.subject.context;
        let prime = context.q(context.max_level()).value();
        let table = NttTable::get(prime, context.log_n())?;
        let mut limb: Vec<u64> = (0..context.n() as u64).map(|i| i * i % prime).collect();
        self.row("forward transform", 1, || {
            table.forward(black_box(&mut limb));
            Ok(())
        })?;
        self.row("inverse transform", 1, || {
            table.inverse(black_box(&mut limb));
            Ok(())
        })
    }

    fn level(&mut self, level: usize) -> Result<()> {
        let Subject { evaluator: engine, encoder, fresh, scale, context, .. } = self.subject;
        let diagonals = self.diagonals;
        let (a, b) = (engine.drop_to_level(&fresh[0], level)?, engine.drop_to_level(&fresh[1], level)?);
        let limbs = level + 1;
        let values: Vec<f64> = (0..context.slots()).map(|i| (i as f64).sin()).collect();
        self.row("encode", limbs, || encoder.encode(&values, level, scale))?;
        self.row("add", limbs, || engine.add(&a, &b))?;
        if level > 0 {
            self.row("rescale", limbs, || engine.rescale(&a))?;
            let product = || engine.relinearise_rescale(&engine.mul(&a, &b)?);
            self.row("multiply, relinearise, rescale", limbs, product)?;
        }
        self.row("rotate", limbs, || engine.rotate(&a, 1))?;
        let steps: Vec<i64> = (1..=HOISTED).collect();
        self.row(&format!("{HOISTED} hoisted rotations"), limbs, || {
            let hoisted = engine.hoist(&a)?;
            engine.rotate_hoisted_all(&hoisted, &steps)
        })?;
        if level > 0 {
            let source = diagonals.encode(self.subject, level, context.slots())?;
            let options = LinearOptions::default();
            let apply = || diagonals.map.apply(engine, &[&a], &source, &[], scale, &options);
            self.row(&format!("linear map of {DIAGONALS} diagonals"), limbs, apply)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_secure_and_nearly_as_large_as_they_may_be() {
        for log_n in RINGS {
            let sizes = sizes(log_n).expect("listed");
            let spec = sizes.spec();
            let log2_qp = log2_product(&spec.q) + log2_product(&spec.p);
            let limit = f64::from(max_log_qp(SecurityLevel::Bits128, log_n).expect("listed"));
            assert!(log2_qp <= limit && log2_qp > limit - 48.0, "2^{log_n}: {log2_qp} of {limit}");
            assert!(security_estimate(log_n, log2_qp).is_some_and(|bits| bits >= 128.0));
            assert_eq!(sizes.digits.iter().sum::<usize>(), sizes.limbs);
            assert!(sizes.digits.iter().all(|&d| (1..=sizes.special).contains(&d)), "{sizes:?}");
        }
        // The parameters that other libraries' figures are for.
        let large = sizes(16).expect("listed");
        assert!((1350..=1380).contains(&(large.bits as usize * large.limbs)), "{large:?}");
    }

    #[test]
    fn every_operation_is_timed_on_every_number_of_threads() {
        let options = Options { log_n: vec![12], threads: vec![1, 2], seconds: 0.0 };
        let report = bench(&options, &mut |_| ()).expect("runs");
        assert_eq!(report.parameters.len(), 1);
        assert!(report.parameters[0].security_bits >= 128.0);
        for threads in [1, 2] {
            for operation in ["forward transform", "rotate", "8 hoisted rotations", "linear map of 32 diagonals"] {
                let found = report.rows.iter().any(|r| r.operation == operation && r.threads == threads);
                assert!(found, "{operation} on {threads}");
            }
        }
        assert!(report.rows.iter().all(|r| r.seconds > 0.0 && r.runs >= 5));
    }

    #[test]
    fn other_rings_are_refused() {
        for log_n in [0, 11, 18, 64] {
            let options = Options { log_n: vec![log_n], threads: vec![1], seconds: 0.0 };
            assert!(matches!(bench(&options, &mut |_| ()), Err(MeasureError::Ring { .. })));
        }
    }
}
