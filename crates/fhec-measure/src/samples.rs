//! Timed operations, each with the formula that predicts it.

use crate::Result;
use crate::bootstrap::{self, Kind};
use crate::clock::{Sweep, median, repeat, thread_seconds};
use crate::subject::{Diagonals, Sizes, Subject};
use fhec_ckks::CkksError;
use fhec_ckks::linear::{LinearMap, LinearOptions, ScalarEntry, ScalarMap};
use fhec_math::{AlignedVec, packed, uniform_from_seed};
use fhec_passes::bootstrap_price::Circuit;
use fhec_passes::cost::{CostTable, Prices};
use fhec_passes::shape::Shape;
use fhec_plan::linear::LinearGroup;
use fhec_plan::{Matrix, Nest, NestDim, Offsets, TensorId, Weights};
use std::collections::BTreeSet;
use std::hint::black_box;

/// What the engine's operations return.
type CkksResult<T> = std::result::Result<T, CkksError>;

/// The cost model's formula for an operation.
type Predict = Box<dyn Fn(&Prices<'_>) -> f64 + Send>;

/// One measurement and the formula that predicts it.
pub(crate) struct Sample {
    pub(crate) operation: String,
    pub(crate) shape: Shape,
    pub(crate) level: usize,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    pub(crate) predict: Predict,
}

/// Diagonals of a linear map: enough that products with them matter, few enough that there is memory for its keys.
const DIAGONALS: usize = 128;

/// Sums of products with scalars, and terms of each.
const SUMS: usize = 32;
/// See [`SUMS`].
const SUMMED: usize = 25;

/// Diagonals encoded in one batch.
const BATCH: usize = 24;

/// Times operations one after another.
pub(crate) struct Timer<'a> {
    pub(crate) seconds: f64,
    pub(crate) sweep: Sweep,
    pub(crate) samples: Vec<Sample>,
    /// Told the operation that comes next.
    pub(crate) watch: &'a mut (dyn FnMut(&str) + Send),
}

impl Timer<'_> {
    /// The median time of `f`, which gets the number of the run; letting its result go counts. Before every run the caches are
    /// emptied.
    fn cold<T>(&mut self, mut f: impl FnMut(usize) -> CkksResult<T>) -> Result<f64> {
        let mut failed = None;
        let mut run = 0;
        let sweep = &mut self.sweep;
        let times = repeat(self.seconds, || {
            sweep.caches();
            let begin = thread_seconds();
            let error = f(run).map(|result| drop(black_box(result))).err();
            let time = thread_seconds() - begin;
            run += 1;
            failed = failed.take().or(error);
            time
        });
        failed.map_or_else(|| Ok(median(&times)), |error| Err(error.into()))
    }

    /// Every priced operation at some levels.
    pub(crate) fn measure(&mut self, sizes: &Sizes) -> Result<()> {
        let diagonals = Diagonals::choose(sizes, DIAGONALS)?;
        (self.watch)(&format!("2^{}: keys", sizes.log_n));
        let subject = Subject::new(sizes, &diagonals.rotations())?;
        let top = subject.context.max_level();
        let levels: BTreeSet<usize> = [top, 2 * top / 3, top / 3, 1.min(top), 0].into();
        for level in levels.into_iter().rev() {
            self.arithmetic(&subject, level)?;
            self.key_switches(&subject, level)?;
            self.encoding(&subject, level)?;
            if level > 0 {
                self.linear(&subject, &diagonals, level)?;
                // Larger rings take no images that share ciphertexts.
                if sizes.log_n < 15 {
                    self.scalars(&subject, level)?;
                }
            }
        }
        Ok(())
    }

    /// Times an operation. `bytes` and `predict` are what the cost model says of it.
    fn push<T>(
        &mut self,
        at: (&Subject, usize),
        operation: &str,
        bytes: impl Fn(&Prices<'_>) -> u64,
        predict: impl Fn(&Prices<'_>) -> f64 + Send + 'static,
        f: impl FnMut(usize) -> CkksResult<T>,
    ) -> Result<()> {
        let (shape, level) = (at.0.shape.clone(), at.1);
        (self.watch)(&format!("2^{} level {level}: {operation}", shape.log_n));
        let seconds = self.cold(f)?;
        let bytes = bytes(&CostTable::default().prices(&shape));
        let (operation, predict) = (operation.into(), Box::new(predict));
        self.samples.push(Sample { operation, shape, level, seconds, bytes, predict });
        Ok(())
    }

    fn arithmetic(&mut self, subject: &Subject, level: usize) -> Result<()> {
        let (at, engine) = ((subject, level), &subject.evaluator);
        let dropped = subject.fresh.iter().map(|c| engine.drop_to_level(c, level));
        let inputs = dropped.collect::<CkksResult<Vec<_>>>()?;
        let input = |run: usize| &inputs[run % inputs.len()];
        let result = move |p: &Prices<'_>| p.ciphertext_bytes(level);
        let product = move |p: &Prices<'_>| p.ciphertext_bytes(level) / 2 * 3;
        let sum = move |p: &Prices<'_>| p.elementwise(level, 2);
        self.push(at, "add", result, sum, |run| engine.add(input(run), input(run + 1)))?;
        self.push(at, "multiply by a number", result, sum, |run| engine.mul_scalar(input(run), 0.3, &subject.scale))?;
        let predict = move |p: &Prices<'_>| p.multiply(level);
        self.push(at, "multiply", product, predict, |run| engine.mul(input(run), input(run + 1)))?;
        if level > 0 {
            let predict = move |p: &Prices<'_>| p.rescale(level, 2);
            self.push(at, "rescale", result, predict, |run| engine.rescale(input(run)))?;
        }
        Ok(())
    }

    fn key_switches(&mut self, subject: &Subject, level: usize) -> Result<()> {
        let (at, engine) = ((subject, level), &subject.evaluator);
        let input = engine.drop_to_level(&subject.fresh[0], level)?;
        let product = engine.mul(&input, &input)?;
        let rotations = &subject.rotations;
        let bytes = move |p: &Prices<'_>| p.key_bytes(level) + p.ciphertext_bytes(level);
        let rotate = |run: usize| engine.rotate(&input, rotations[run % rotations.len()]);
        self.push(at, "rotate", bytes, move |p| p.rotate(level), rotate)?;
        let relinearise = |_| engine.relinearise(&product);
        self.push(at, "relinearise", bytes, move |p| p.relinearise(level), relinearise)?;
        if level > 0 {
            let predict = move |p: &Prices<'_>| p.relinearise_rescale(level);
            self.push(at, "relinearise and rescale", bytes, predict, |_| engine.relinearise_rescale(&product))?;
        }
        Ok(())
    }

    /// Encoding of weights, batch by batch: the runtime keeps what it encodes until a whole sum of products is there.
    fn encoding(&mut self, subject: &Subject, level: usize) -> Result<()> {
        let (at, slots) = ((subject, level), subject.context.slots());
        let values: Vec<f64> = (0..slots).map(|i| (i as f64).cos() / 50.0).collect();
        let scale = LinearMap::plaintext_scale(&subject.context, level, &subject.scale, &subject.scale, level > 0);
        for period in BTreeSet::from([slots / 4, slots]) {
            let batch = if period == slots && subject.shape.log_n > 14 { BATCH / 4 } else { BATCH };
            let bytes = move |p: &Prices<'_>| batch as u64 * p.encoded_bytes(period, level);
            let predict = move |p: &Prices<'_>| batch as f64 * p.encode_diagonal(period, level);
            let one = |_| subject.encoder.encode_qp(&values[..period], level, &scale);
            let all = |_| (0..batch).map(one).collect::<CkksResult<Vec<_>>>();
            self.push(at, &format!("encode {batch} diagonals of period {period}"), bytes, predict, all)?;
        }
        Ok(())
    }

    /// A map as runs apply it for the first time: its diagonals are encoded on the way.
    fn linear(&mut self, subject: &Subject, diagonals: &Diagonals, level: usize) -> Result<()> {
        let (engine, scale) = (&subject.evaluator, &subject.scale);
        let period = subject.context.slots() / 4;
        let source = diagonals.fill(subject, level, period);
        let input = engine.drop_to_level(&subject.fresh[0], level)?;
        let products = diagonals.bsgs.products();
        let bsgs = diagonals.bsgs.clone();
        let group = LinearGroup { terms: vec![0], bsgs, sources: vec![], products, fold: vec![] };
        let (keys, products) = (diagonals.rotations().len() as u64, products as u64);
        let plaintexts = move |p: &Prices<'_>| products * p.encoded_bytes(period, level);
        let bytes = move |p: &Prices<'_>| keys * p.key_bytes(level) + plaintexts(p) + p.ciphertext_bytes(level);
        let predict = move |p: &Prices<'_>| p.linear(level, &group, 1) + p.encode_diagonals(level, &group, period);
        let options = LinearOptions::default();
        let apply = |_| diagonals.map.apply(engine, &[&input], &source, &[], scale, &options);
        self.push((subject, level), &format!("linear map of {products} diagonals"), bytes, predict, apply)
    }

    /// Sums of products with scalars, as layers have them where images share ciphertexts.
    fn scalars(&mut self, subject: &Subject, level: usize) -> Result<()> {
        let (engine, scale) = (&subject.evaluator, &subject.scale);
        let dropped = subject.fresh.iter().map(|c| engine.drop_to_level(c, level));
        let dropped = dropped.collect::<CkksResult<Vec<_>>>()?;
        let inputs: Vec<_> = (0..SUMMED).map(|i| &dropped[i % dropped.len()]).collect();
        let entry = |output: u32, input: u32| {
            let weight = f64::from((5 * output + 3 * input) % 17 + 1) / 17.0;
            ScalarEntry { input, weight }
        };
        let row = |output: u32| (0..SUMMED as u32).map(|input| entry(output, input)).collect();
        let rows: Vec<Vec<_>> = (0..SUMS as u32).map(row).collect();
        let map = ScalarMap::new(&subject.context, level, vec![scale.clone(); SUMMED], &rows, scale)?;
        let products = map.products();
        let bytes = move |p: &Prices<'_>| SUMS as u64 * p.ciphertext_bytes(level - 1);
        let predict = move |p: &Prices<'_>| p.scalar_map(level, products, SUMS);
        let apply = |_| map.apply(engine, &inputs, &[]);
        self.push((subject, level), &format!("{products} products with numbers, {SUMS} sums"), bytes, predict, apply)
    }

    /// Whole bootstraps, in all ways in which plans ask for them.
    pub(crate) fn bootstraps(&mut self, subject: &bootstrap::Subject) -> Result<()> {
        for kind in [Kind::Full, Kind::Sparse, Kind::Pair, Kind::Half] {
            let (ciphertexts, log_slots, level) = subject.of(kind);
            (self.watch)(&format!("2^{} level {level}: {}", subject.shape.log_n, kind.name()));
            // Once for what is made on first use: plans bootstrap often.
            subject.run(kind)?;
            let seconds = self.cold(|_| subject.run(kind))?;
            let circuit = Circuit::new(&subject.preset.spec, log_slots, subject.shape.log_n);
            let predict = move |p: &Prices<'_>| p.bootstrap(&circuit, ciphertexts, level);
            self.samples.push(Sample {
                operation: kind.name().into(),
                shape: subject.shape.clone(),
                level,
                seconds,
                bytes: subject.bytes(),
                predict: Box::new(predict),
            });
        }
        Ok(())
    }

    /// Nanoseconds for an entry of a diagonal that is filled from the weights of a dense layer.
    pub(crate) fn fill(&mut self) -> Result<f64> {
        const OUT: usize = 128;
        const IN: usize = 1024;
        (self.watch)("filling diagonals");
        let dim = |extent: usize, row: i64, col: i64, weight: usize| {
            let step = |stride: i64| Offsets::from_table((0..extent as i64).map(|i| i * stride).collect());
            NestDim { extent, row: step(row), col: step(col), weight: step(weight as i64) }
        };
        let nest = Nest {
            dims: vec![dim(OUT, 1, 0, IN), dim(IN, 0, 1, 1)],
            row: 0,
            col: 0,
            weight: 0,
            tensor: Some(TensorId(0)),
            factor: 1.0,
            guards: vec![],
        };
        let matrix = Matrix {
            slots: IN,
            in_ciphertexts: 1,
            in_period: IN,
            out_ciphertexts: 1,
            out_period: OUT,
            nests: vec![nest],
        };
        let values: Vec<f64> = (0..OUT * IN).map(|i| i as f64).collect();
        let weights = Weights::from_tensors([&values[..]]);
        let found = fhec_plan::Diagonals::of(&matrix);
        let tensors = fhec_plan::Diagonals::tensors(&matrix, &weights);
        let mut out = vec![0.0; IN];
        let seconds = self.cold(|_| {
            for at in 0..found.len() {
                found.fill_rotated(&matrix, &tensors, at, at / 8, &mut out);
                black_box(&mut out);
            }
            Ok(())
        })?;
        Ok(seconds * 1e9 / (OUT * IN) as f64)
    }

    /// Nanoseconds for a byte of memory that is used for the first time, in blocks of some size. Nothing is given back in between, and
    /// each block is used once, so the mean counts.
    pub(crate) fn touch(&mut self, bytes: usize, block: usize) -> f64 {
        (self.watch)("using new memory");
        // Not quite a round size, so that no operation measured later finds blocks of this kind in the engine's pool.
        let len = block / size_of::<u64>() + 64;
        let count = (bytes / block).max(1);
        let begin = thread_seconds();
        let used = |_| {
            let mut block = AlignedVec::scratch(len);
            // The first write is what brings the memory.
            block.fill(1);
            block
        };
        let held: Vec<AlignedVec> = (0..count).map(used).collect();
        let time = thread_seconds() - begin;
        drop(black_box(held));
        time * 1e9 / (count * len * size_of::<u64>()) as f64
    }

    /// Nanoseconds for a packed byte of the uniform half of a key that is made from its seed: a whole one, which comes from memory
    /// where it is used.
    pub(crate) fn expand(&mut self, sizes: &Sizes) -> Result<f64> {
        (self.watch)("expanding seeds");
        let subject = Subject::new(sizes, &BTreeSet::new())?;
        let (context, n) = (&subject.context, subject.context.n());
        let level = context.max_level();
        let moduli: Vec<_> = (0..context.qp_limbs(level)).map(|limb| context.qp_modulus(level, limb)).collect();
        let moduli = moduli.repeat(sizes.digits.len());
        let mut limb = vec![0; n];
        let mut half: Vec<Vec<u64>> = moduli.iter().map(|m| vec![0; packed::words(m, n)]).collect();
        let seconds = self.cold(|run| {
            for (i, (m, packed)) in moduli.iter().zip(&mut half).enumerate() {
                uniform_from_seed(&[run as u8; 32], i as u64, m, &mut limb);
                packed::pack_into(m, &limb, packed);
            }
            // Who uses it reads it.
            black_box(half.iter().flatten().fold(0u64, |sum, word| sum.wrapping_add(*word)));
            Ok(())
        })?;
        let words: usize = half.iter().map(Vec::len).sum();
        Ok(seconds * 1e9 / (words * size_of::<u64>()) as f64)
    }

    /// Nanoseconds for a byte of a key file that is read, checked and unpacked.
    pub(crate) fn read(&mut self, sizes: &Sizes) -> Result<f64> {
        (self.watch)("reading keys");
        let subject = Subject::new(sizes, &BTreeSet::from([1, 2, 3]))?;
        let mut file = Vec::new();
        let plan = [0; 32];
        fhec_ckks::container::write_evaluation_keys(subject.evaluator.keys(), &plan, &mut file)?;
        let seconds = self.cold(|_| fhec_ckks::container::read_evaluation_keys(&file, &subject.context, &plan))?;
        Ok(seconds * 1e9 / file.len() as f64)
    }
}
