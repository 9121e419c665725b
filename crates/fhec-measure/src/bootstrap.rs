//! Whole bootstraps: what `fhec bench --bootstrap` prints, and what calibration holds the price of a bootstrap against.

use crate::clock::{in_turns, median, median_ratio};
use crate::subject::shape;
use crate::{Result, pool};
use fhec_ckks::{
    BootstrapPreset, BootstrapTarget, Bootstrapper, Ciphertext, CkksError, Context, EncapsulationKeys, Encoder,
    Encryptor, EvaluationKeys, Evaluator, SecretKey, Security,
};
use fhec_math::security::{security_estimate, sparse_security};
use fhec_math::{SecretRng, SecurityLevel, log2_product};
use fhec_passes::shape::Shape;
use serde::Serialize;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// log2 of the number of slots of the sparse bootstrap.
const SPARSE: u32 = 12;

/// Least runs of every bootstrap.
const ROUNDS: usize = 7;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The chains and circuits, one after the other.
    pub presets: Vec<BootstrapPreset>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Seconds that each bootstrap is repeated for, at least seven times in any case.
    pub seconds: f64,
}

/// All that was found out about one preset.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub preset: String,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Primes of the chain.
    pub limbs: usize,
    /// Special primes.
    pub special: usize,
    /// Key-switching digits.
    pub digits: usize,
    /// log2 of the product of all primes.
    pub log2_qp: f64,
    /// Estimated security in bits, classical attacks, of the dense secret and of the sparse one: the less of both.
    pub security_bits: f64,
    /// Levels between the result of a bootstrap and the input of the next.
    pub levels: usize,
    /// Bytes of all evaluation keys in memory.
    pub key_bytes: usize,
    /// Bytes of the encoded matrices in memory.
    pub matrix_bytes: usize,
    /// Peak memory of the process, making the keys included, where the system says.
    pub peak_bytes: Option<u64>,
    /// The bootstraps.
    pub rows: Vec<Row>,
}

/// One kind of bootstrap.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was bootstrapped.
    pub operation: String,
    /// log2 of the number of slots.
    pub log_slots: u32,
    /// Level of the result.
    pub level: usize,
    /// Threads.
    pub threads: usize,
    /// Median time.
    pub seconds: f64,
    /// Number of runs.
    pub runs: usize,
    /// Its time over that of one ciphertext of all slots and levels on as many threads: the median over all rounds, each of which runs
    /// every bootstrap once. Absent for that one itself.
    pub of_whole: Option<f64>,
    /// The time on the first number of threads over its own, likewise. Absent for the first number.
    pub speedup: Option<f64>,
    /// Bits of the standard deviation of the error, for random values in [−1, 1].
    pub precision_bits: f64,
    /// Bits of the error in the worst slot.
    pub worst_slot_bits: f64,
}

/// Kinds of bootstraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One ciphertext, all slots, all levels.
    Full,
    /// A vector that repeats after 2^12 slots.
    Sparse,
    /// Two ciphertexts at once.
    Pair,
    /// One ciphertext, half of the levels.
    Half,
    /// One ciphertext, twice.
    Twice,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Full => "bootstrap",
            Kind::Sparse => "bootstrap of few slots",
            Kind::Pair => "bootstrap of two at once",
            Kind::Half => "bootstrap to half of the levels",
            Kind::Twice => "bootstrap in two iterations",
        }
    }
}

/// A server with the keys of a preset, and what it needs to bootstrap.
pub(crate) struct Subject {
    pub(crate) preset: BootstrapPreset,
    pub(crate) shape: Shape,
    context: Arc<Context>,
    encoder: Encoder,
    encryptor: Encryptor,
    secret: SecretKey,
    evaluator: Evaluator,
    bootstrapper: Bootstrapper,
    /// Inputs of all slots, and one of few.
    full: [(Vec<f64>, Ciphertext); 2],
    sparse: (Vec<f64>, Ciphertext),
}

/// Reproducible values in [−1, 1).
fn values(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        // A linear congruential generator; its high bits are good enough.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

impl Subject {
    /// Makes all keys, on as many threads as there are; `watch` is told. Secrets are of no use to anybody, so the generator's
    /// seed is a constant.
    pub(crate) fn new(preset: BootstrapPreset, watch: &mut (dyn FnMut(&str) + Send)) -> Result<Self> {
        let named = |what: &str| format!("2^{}, {}: {what}", preset.chain.log_n, preset.name);
        watch(&named("matrices"));
        let parameters = preset.chain.parameters(&preset.spec)?;
        let shape = Shape { bootstrap: Some(preset.spec.clone()), ..shape(&parameters) };
        let context = Context::new(parameters, Security::Level(SecurityLevel::Bits128))?;
        let all = context.log_n() - 1;
        let bootstrapper = Bootstrapper::new(&context, preset.spec.clone(), &[SPARSE, all])?;
        watch(&named("keys"));
        let mut rng = SecretRng::from_seed(&[7; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let keys = EvaluationKeys::generate(&secret, &bootstrapper.key_request(), &mut rng, &|_, _| ())?;
        let (encoder, encryptor) = (Encoder::new(&context), Encryptor::new(&context));
        let mut input = |log_slots: u32, seed: u64| -> Result<(Vec<f64>, Ciphertext)> {
            let values = values(1 << log_slots, seed);
            let plaintext = encoder.encode(&values, preset.spec.input_level(log_slots), &preset.spec.input_scale)?;
            Ok((values, encryptor.encrypt_sk(&secret, &plaintext, &mut rng)?.expand(&context)?))
        };
        let (full, sparse) = ([input(all, 1)?, input(all, 2)?], input(SPARSE, 3)?);
        let evaluator = Evaluator::new(&context, Arc::new(keys))?;
        Ok(Self { preset, shape, context, encoder, encryptor, secret, evaluator, bootstrapper, full, sparse })
    }

    /// Bytes of keys and matrices.
    pub(crate) fn bytes(&self) -> u64 {
        (self.evaluator.keys().bytes() + self.bootstrapper.bytes()) as u64
    }

    /// Ciphertexts, log2 of the slots and level of the result. With few slots as many levels are left as with all.
    pub(crate) fn of(&self, kind: Kind) -> (usize, u32, usize) {
        let (all, top) = (self.context.log_n() - 1, self.bootstrapper.output_level());
        match kind {
            Kind::Full | Kind::Twice => (1, all, top),
            Kind::Sparse => {
                let begin = |log_slots| self.preset.spec.input_level(log_slots);
                let log_slots = SPARSE.min(all);
                (1, log_slots, top + begin(log_slots) - begin(all))
            }
            Kind::Pair => (2, all, top),
            Kind::Half => (1, all, top / 2 + 1),
        }
    }

    /// Kinds that make sense for the preset, first that of one whole ciphertext.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        if self.preset.log_gain.is_some() {
            return vec![Kind::Full, Kind::Twice];
        }
        vec![Kind::Full, Kind::Sparse, Kind::Pair, Kind::Half]
    }

    /// Runs it.
    pub(crate) fn run(&self, kind: Kind) -> std::result::Result<Vec<Ciphertext>, CkksError> {
        let (_, log_slots, level) = self.of(kind);
        let target = BootstrapTarget { log_slots, level, scale: self.preset.spec.input_scale.clone() };
        let (engine, keys) = (&self.evaluator, self.keys()?);
        let [a, b] = self.full.each_ref().map(|(_, input)| input);
        match kind {
            Kind::Full | Kind::Half => Ok(vec![self.bootstrapper.bootstrap(engine, keys, a, &target)?]),
            Kind::Sparse => Ok(vec![self.bootstrapper.bootstrap(engine, keys, &self.sparse.1, &target)?]),
            Kind::Pair => Ok(self.bootstrapper.bootstrap_pair(engine, keys, [a, b], &target)?.into()),
            Kind::Twice => {
                let gain = self.preset.log_gain.unwrap_or(0);
                Ok(vec![self.bootstrapper.bootstrap_twice(engine, keys, a, &target, gain)?])
            }
        }
    }

    fn keys(&self) -> std::result::Result<&EncapsulationKeys, CkksError> {
        let none = || CkksError::Parameters("no keys of encapsulation".into());
        self.evaluator.keys().encapsulation().ok_or_else(none)
    }

    /// Bits of the standard deviation and of the worst slot, over all results.
    fn precision(&self, kind: Kind, results: &[Ciphertext]) -> Result<(f64, f64)> {
        let (mut square, mut worst, mut count) = (0.0f64, 0.0f64, 0.0);
        for (i, result) in results.iter().enumerate() {
            let values = if kind == Kind::Sparse { &self.sparse.0 } else { &self.full[i].0 };
            let found = self.encoder.decode(&self.encryptor.decrypt(&self.secret, result)?)?;
            for (k, x) in found.iter().enumerate() {
                let error = (x - values[k % values.len()]).abs();
                square += error * error;
                worst = worst.max(error);
            }
            count += found.len() as f64;
        }
        Ok((-(square / count).sqrt().log2(), -worst.log2()))
    }
}

/// Runs all bootstraps. `watch` is told what runs next; `peak` gives the peak memory of the process since it was last asked, where
/// the system says.
///
/// # Errors
/// [`MeasureError::Threads`](crate::MeasureError::Threads); otherwise the engine's.
pub fn bench(
    options: &Options,
    peak: &dyn Fn() -> Option<u64>,
    watch: &mut (dyn FnMut(&str) + Send),
) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for preset in &options.presets {
        peak();
        let subject = Subject::new(preset.clone(), watch)?;
        let rows = rows(&subject, options, watch)?;
        reports.push(report(&subject, rows, peak()));
    }
    Ok(reports)
}

/// All kinds on all numbers of threads, in turns.
fn rows(subject: &Subject, options: &Options, watch: &mut (dyn FnMut(&str) + Send)) -> Result<Vec<Row>> {
    let named = |what: &str| format!("2^{}, {}: {what}", subject.shape.log_n, subject.preset.name);
    let kinds = subject.kinds();
    let mut precision = Vec::with_capacity(kinds.len());
    for &kind in &kinds {
        // Also for the caches and the memory.
        watch(&named(kind.name()));
        precision.push(subject.precision(kind, &subject.run(kind)?)?);
    }
    let pools = options.threads.iter().map(|&threads| pool(threads)).collect::<Result<Vec<_>>>()?;
    // Few slots beside all slots, on the same threads.
    let cases: Vec<(usize, usize)> = (0..pools.len()).flat_map(|t| (0..kinds.len()).map(move |k| (k, t))).collect();
    let times = in_turns(cases.len(), ROUNDS, options.seconds, |round, case| {
        let (kind, threads) = cases[case];
        let (name, count) = (kinds[kind].name(), options.threads[threads]);
        watch(&named(&format!("{name}, {count} threads, round {}", round + 1)));
        pools[threads].install(|| time(subject, kinds[kind]))
    })?;
    let of = |kind: usize, threads: usize| &times[threads * kinds.len() + kind];
    let row = |kind: usize, threads: usize| {
        let (_, log_slots, level) = subject.of(kinds[kind]);
        let own = of(kind, threads);
        Row {
            operation: kinds[kind].name().to_owned(),
            log_slots,
            level,
            threads: options.threads[threads],
            seconds: median(own),
            runs: own.len(),
            of_whole: (kind > 0).then(|| median_ratio(own, of(0, threads))),
            speedup: (threads > 0).then(|| median_ratio(of(kind, 0), own)),
            precision_bits: precision[kind].0,
            worst_slot_bits: precision[kind].1,
        }
    };
    Ok((0..kinds.len())
        .flat_map(|kind| (0..pools.len()).map(move |threads| (kind, threads)))
        .map(|(k, t)| row(k, t))
        .collect())
}

/// Part of the time of a bootstrap on one thread that a second one does not shorten. Both are taken in turns, and the
/// least times count: whatever else runs takes a core from the two threads, and nothing from the one.
pub(crate) fn sequential(subject: &Subject, rounds: usize) -> Result<f64> {
    let pools = [pool(1)?, pool(2)?];
    let times = in_turns(2, rounds, 0.0, |_, i| pools[i].install(|| time(subject, Kind::Full)))?;
    let least = |i: usize| times[i].iter().copied().fold(f64::INFINITY, f64::min);
    Ok(unshared(least(0), least(1)))
}

/// The part s of `one` for which two threads take s + (1 − s)/2 of it.
fn unshared(one: f64, two: f64) -> f64 {
    (2.0 * two / one - 1.0).clamp(0.0, 1.0)
}

fn time(subject: &Subject, kind: Kind) -> Result<f64> {
    let start = Instant::now();
    drop(black_box(subject.run(kind)?));
    Ok(start.elapsed().as_secs_f64())
}

fn report(subject: &Subject, rows: Vec<Row>, peak_bytes: Option<u64>) -> Report {
    let spec = subject.context.spec();
    let log2_qp = log2_product(&spec.q) + log2_product(&spec.p);
    let input = subject.preset.spec.input_level(spec.log_n - 1);
    let dense = security_estimate(spec.log_n, log2_qp).unwrap_or(0.0);
    let encapsulation = log2_product(&spec.q[..1]) + log2_product(&spec.p[..1]);
    let sparse = sparse_security(spec.log_n, subject.preset.spec.sparse_weight, encapsulation).unwrap_or(0.0);
    let Shape { log2_q, log2_p, .. } = &subject.shape;
    let low = subject.preset.spec.low_rings(spec.log_n);
    let low = low.map(|ring| security_estimate(ring.log_n, ring.log_qp(log2_q, log2_p)).unwrap_or(0.0));
    Report {
        preset: subject.preset.name.to_owned(),
        log_n: spec.log_n,
        limbs: spec.q.len(),
        special: spec.p.len(),
        digits: spec.digits.len(),
        log2_qp,
        security_bits: low.fold(dense.min(sparse), f64::min),
        levels: subject.bootstrapper.output_level() - input,
        key_bytes: subject.evaluator.keys().bytes(),
        matrix_bytes: subject.bootstrapper.bytes(),
        peak_bytes,
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_threads_share_is_half_as_long() {
        assert_eq!(unshared(1.0, 0.5), 0.0);
        assert_eq!(unshared(2.0, 2.5), 1.0);
        assert!((unshared(4.0, 2.4) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn values_fill_the_range() {
        let v = values(1 << 12, 5);
        assert!(v.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let square = v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64;
        assert!(mean.abs() < 0.05 && (square - 1.0 / 3.0).abs() < 0.03, "{mean} {square}");
    }

    #[test]
    fn bootstraps_are_timed_with_precision_and_memory() {
        if std::env::var_os("FHEC_SLOW").is_none() {
            println!("skipped: set FHEC_SLOW=1 to bootstrap at N = 2^15");
            return;
        }
        let options = Options { presets: vec![BootstrapPreset::shallow()], threads: vec![1, 2], seconds: 0.0 };
        let found = bench(&options, &|| Some(7), &mut |_| ()).expect("runs");
        let [report] = &found[..] else { panic!("one report") };
        assert!(report.security_bits >= 128.0 && report.levels == 4 && report.peak_bytes == Some(7));
        assert_eq!(report.rows.len(), 8);
        assert!(report.rows.iter().all(|r| r.seconds > 0.0 && r.precision_bits > 14.0 && r.worst_slot_bits > 11.0));
        assert!(report.rows.iter().all(|r| r.runs == ROUNDS));
        assert!(report.rows.iter().all(|r| r.of_whole.is_none() == (r.operation == "bootstrap")));
        assert!(report.rows.iter().all(|r| r.speedup.is_none() == (r.threads == 1)));
        // Two at once take longer than one and less long than two.
        let pairs = report.rows.iter().filter(|r| r.operation == Kind::Pair.name());
        assert!(pairs.filter_map(|r| r.of_whole).all(|ratio| (1.0..2.0).contains(&ratio)), "{:?}", report.rows);
    }
}
