//! Linear maps whose weights are scalars: one image per slot, a ciphertext per tensor element (nGraph-HE2 §3).
//!
//! `out_j = Σ_i w_ji · x_i + b_j`. A weight is one residue a limb; a bias may be complex, for slots that hold two images. Products add up lazily over a whole reduction, with one
//! reduction modulo the prime and one rescale an output. Outputs that read much the same inputs are computed together, up
//! to eight in registers at once, and some hundred of them (a *wave*) share the inputs that are brought together in the cache: a wave's
//! unrescaled sums are all that the map holds besides its inputs and results.
//!
//! Sums modulo primes do not depend on their order, so results are identical for every number of threads.

use std::ops::Range;

use fhec_math::scalar_sums::{LANES, MAX_SUMS, WAVE, gather, scalar_sums};
use fhec_math::{AlignedVec, Poly, Scale};
use num_complex::Complex64;
use rayon::prelude::*;

use crate::cipher::Ciphertext;
use crate::encode::Encoder;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::params::Context;

const OP: &str = "scalar map";
/// Words of inputs brought together at a time, more or less: half of a small second-level cache.
const BLOCK: usize = 1 << 15;
/// Outputs join others as long as that takes at most so many times the products that they have.
const WASTE: f64 = 1.3;

/// A weight of a [`ScalarMap`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalarEntry {
    /// Input ciphertext.
    pub input: u32,
    /// The weight.
    pub weight: f64,
}

/// How the products of a [`ScalarMap`] are made, to measure what each way saves. By default both ways are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalarOptions {
    /// Products add up before they are rescaled, once an output; otherwise each is rescaled for itself (nGraph-HE2 §4.1).
    pub lazy_rescaling: bool,
    /// A weight is a number a limb; otherwise each is encoded as a vector of equal slots when it is used.
    pub scalar_encoding: bool,
}

impl Default for ScalarOptions {
    fn default() -> Self {
        ScalarOptions { lazy_rescaling: true, scalar_encoding: true }
    }
}

/// A linear map between lists of ciphertexts with scalar weights, encoded for one level and the scales of its inputs.
#[derive(Clone, Debug)]
pub struct ScalarMap {
    level: usize,
    /// Scale of every input.
    scales: Vec<Scale>,
    out_scale: Scale,
    outputs: usize,
    waves: Vec<Wave>,
    products: usize,
    skipped: usize,
}

/// Outputs that are computed together.
#[derive(Clone, Debug)]
struct Wave {
    /// Inputs that any of them reads, ascending.
    inputs: Vec<u32>,
    /// Numbers of the outputs, group after group.
    outputs: Vec<u32>,
    groups: Vec<Group>,
}

/// Outputs whose sums are in registers at once.
#[derive(Clone, Debug)]
struct Group {
    /// In the wave's list of outputs.
    outputs: Range<usize>,
    /// In the wave's list of inputs.
    inputs: Vec<u32>,
    /// Integers, for every input one an output.
    weights: Vec<i128>,
}

/// An output with its weights as integers, inputs ascending.
struct Row {
    output: u32,
    entries: Vec<(u32, i128)>,
}

impl ScalarMap {
    /// Encodes the weights of a map from ciphertexts at `level` with the given scales to `rows.len()` ciphertexts at `out_scale` one
    /// level lower. Entries of one row with the same input add up. A weight below half a unit of its encoding is zero
    /// there and is left out ([`skipped`](Self::skipped)).
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] at level 0, [`CkksError::Parameters`] for an input without scale, [`CkksError::NotFinite`] and
    /// [`CkksError::Overflow`] for a weight that cannot be encoded.
    pub fn new(
        context: &Context,
        level: usize,
        scales: Vec<Scale>,
        rows: &[Vec<ScalarEntry>],
        out_scale: &Scale,
    ) -> Result<Self> {
        context.check_level(OP, level, 1)?;
        let sum = out_scale.mul(&Scale::prime(context.q(level).value()));
        let encoded: Vec<Scale> = scales.iter().map(|scale| sum.div(scale)).collect();
        let encode = |(output, row): (usize, &Vec<ScalarEntry>)| encode(output as u32, row, &encoded);
        let (mut rows, skipped): (Vec<Row>, Vec<usize>) =
            rows.par_iter().enumerate().map(encode).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let outputs = rows.len();
        // Outputs of the same inputs come next to each other.
        rows.sort_by(|a, b| {
            let inputs = |row: &Row| row.entries.iter().map(|e| e.0).collect::<Vec<_>>();
            inputs(a).cmp(&inputs(b)).then(a.output.cmp(&b.output))
        });
        let (waves, products) = waves(&rows);
        let skipped = skipped.into_iter().sum();
        Ok(ScalarMap { level, scales, out_scale: out_scale.clone(), outputs, waves, products, skipped })
    }

    /// Products of an input with a weight, those with a zero that shares registers with other weights included.
    pub fn products(&self) -> usize {
        self.products
    }

    /// Weights other than zero that are too small to make a difference at the scale they are encoded at.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Most bytes of sums that a map of inputs at `level` holds besides its inputs and its results.
    pub fn scratch_bytes(context: &Context, level: usize, outputs: usize) -> usize {
        outputs.min(WAVE + MAX_SUMS) * 2 * (level + 1) * context.n() * 8
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let group = |g: &Group| size_of_val(&g.inputs[..]) + size_of_val(&g.weights[..]) + size_of::<Group>();
        let wave = |w: &Wave| 4 * (w.inputs.len() + w.outputs.len()) + w.groups.iter().map(group).sum::<usize>();
        self.waves.iter().map(wave).sum()
    }

    /// Applies the map. `bias` is empty or has one entry per output. An output without weights is an encryption of zero (plus
    /// bias) that hides nothing.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] where numbers of ciphertexts do not fit, [`CkksError::ContextMismatch`],
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`] for other inputs than the map was encoded for, and
    /// [`CkksError::NotFinite`] and [`CkksError::Overflow`] for a bias.
    pub fn apply(&self, evaluator: &Evaluator, inputs: &[&Ciphertext], bias: &[Complex64]) -> Result<Vec<Ciphertext>> {
        self.check(evaluator, inputs, bias)?;
        let mut done: Vec<Option<Ciphertext>> = (0..self.outputs).map(|_| None).collect();
        for wave in &self.waves {
            let sums = self.sums(evaluator.context(), wave, inputs);
            let finish = |(&output, sum): (&u32, Ciphertext)| {
                Self::finish_sum(evaluator, &sum, bias.get(output as usize).copied())
            };
            let results: Vec<Ciphertext> = wave.outputs.par_iter().zip(sums).map(finish).collect::<Result<_>>()?;
            for (&output, result) in wave.outputs.iter().zip(results) {
                done[output as usize] = Some(result);
            }
        }
        // Every output belongs to a wave.
        Ok(done.into_iter().flatten().collect())
    }

    /// The sums of the map before they are rescaled, in order: with those of maps of other inputs to the same outputs they add up to
    /// what [`finish_sum`](Self::finish_sum) makes an output of, exactly as if all were one map.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn partial_sums(&self, evaluator: &Evaluator, inputs: &[&Ciphertext]) -> Result<Vec<Ciphertext>> {
        self.check(evaluator, inputs, &[])?;
        let mut done: Vec<Option<Ciphertext>> = (0..self.outputs).map(|_| None).collect();
        for wave in &self.waves {
            let sums = self.sums(evaluator.context(), wave, inputs);
            wave.outputs.iter().zip(sums).for_each(|(&output, sum)| done[output as usize] = Some(sum));
        }
        // Every output belongs to a wave.
        Ok(done.into_iter().flatten().collect())
    }

    /// An output from its sum.
    ///
    /// # Errors
    /// Those of a rescale; [`CkksError::NotFinite`] and [`CkksError::Overflow`] for a bias.
    pub fn finish_sum(evaluator: &Evaluator, sum: &Ciphertext, bias: Option<Complex64>) -> Result<Ciphertext> {
        let mut out = evaluator.rescale(sum)?;
        if let Some(value) = bias {
            evaluator.add_complex_assign(&mut out, value)?;
        }
        Ok(out)
    }

    /// [`apply`](Self::apply) in another way. Results are the same up to rounding.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_with(
        &self,
        evaluator: &Evaluator,
        encoder: &Encoder,
        inputs: &[&Ciphertext],
        bias: &[Complex64],
        options: ScalarOptions,
    ) -> Result<Vec<Ciphertext>> {
        if options == ScalarOptions::default() {
            return self.apply(evaluator, inputs, bias);
        }
        self.check(evaluator, inputs, bias)?;
        let prime = Scale::prime(evaluator.context().q(self.level).value());
        let sum_scale = self.out_scale.mul(&prime);
        let product = |input: &Ciphertext, weight: i128| {
            let scale = sum_scale.div(&input.scale);
            let value = weight as f64 / scale.to_f64();
            let product = if options.scalar_encoding {
                evaluator.mul_scalar(input, value, &scale)?
            } else {
                let slots = vec![value; evaluator.context().slots()];
                evaluator.mul_plain(input, &encoder.encode(&slots, self.level, &scale)?)?
            };
            if options.lazy_rescaling { Ok(product) } else { evaluator.rescale(&product) }
        };
        let output = |wave: &Wave, group: &Group, at: usize| {
            let outputs = group.outputs.len();
            let mut sum: Option<Ciphertext> = None;
            for (k, &place) in group.inputs.iter().enumerate() {
                let weight = group.weights[k * outputs + at];
                if weight == 0 {
                    continue;
                }
                let term = product(inputs[wave.inputs[place as usize] as usize], weight)?;
                match &mut sum {
                    None => sum = Some(term),
                    Some(sum) => evaluator.add_assign(sum, &term)?,
                }
            }
            let mut out = match sum {
                Some(sum) if options.lazy_rescaling => evaluator.rescale(&sum)?,
                Some(sum) => sum,
                None => self.zero(evaluator.context()),
            };
            let number = wave.outputs[group.outputs.start + at] as usize;
            if let Some(&value) = bias.get(number) {
                evaluator.add_complex_assign(&mut out, value)?;
            }
            Ok((number, out))
        };
        let groups = self.waves.iter().flat_map(|wave| wave.groups.iter().map(move |group| (wave, group)));
        let jobs: Vec<(&Wave, &Group, usize)> =
            groups.flat_map(|(wave, group)| (0..group.outputs.len()).map(move |at| (wave, group, at))).collect();
        let mut done = jobs.into_par_iter().map(|(w, g, at)| output(w, g, at)).collect::<Result<Vec<_>>>()?;
        done.sort_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, out)| out).collect())
    }

    /// An encryption of zero that hides nothing, as an output.
    fn zero(&self, context: &Context) -> Ciphertext {
        Ciphertext {
            c0: Poly::zero(context.n(), self.level),
            c1: Poly::zero(context.n(), self.level),
            level: self.level - 1,
            scale: self.out_scale.clone(),
            id: context.id(),
        }
    }

    fn check(&self, evaluator: &Evaluator, inputs: &[&Ciphertext], bias: &[Complex64]) -> Result<()> {
        if inputs.len() != self.scales.len() || !(bias.is_empty() || bias.len() == self.outputs) {
            return Err(CkksError::Parameters(format!(
                "{OP}: {} inputs and {} biases for a map of {} inputs and {} outputs",
                inputs.len(),
                bias.len(),
                self.scales.len(),
                self.outputs
            )));
        }
        for (input, scale) in inputs.iter().zip(&self.scales) {
            evaluator.context().check_id(OP, input.id)?;
            if input.level != self.level {
                return Err(CkksError::LevelMismatch { op: OP, lhs: input.level, rhs: self.level });
            }
            if input.scale != *scale {
                return Err(CkksError::scales(OP, &input.scale, scale));
            }
        }
        Ok(())
    }

    /// The sums of a wave before they are rescaled.
    fn sums(&self, context: &Context, wave: &Wave, inputs: &[&Ciphertext]) -> Vec<Ciphertext> {
        let (n, limbs) = (context.n(), self.level + 1);
        let scale = self.out_scale.mul(&Scale::prime(context.q(self.level).value()));
        let fresh = || Ciphertext {
            c0: Poly::scratch(n, limbs),
            c1: Poly::scratch(n, limbs),
            level: self.level,
            scale: scale.clone(),
            id: context.id(),
        };
        let mut sums: Vec<Ciphertext> = wave.outputs.iter().map(|_| fresh()).collect();
        let weights: Vec<Vec<u64>> = (0..limbs)
            .into_par_iter()
            .map(|i| wave.groups.iter().flat_map(|g| &g.weights).map(|&w| context.q(i).reduce_i128(w)).collect())
            .collect();
        let words = (BLOCK / wave.inputs.len().max(1)).max(LANES).min(n);
        // The largest power of two, so that blocks are equal.
        let words = 1 << words.ilog2();
        let blocks = n / words;
        // By part, limb and block: where the sums go.
        let mut jobs: Vec<Vec<&mut [u64]>> = (0..2 * limbs * blocks).map(|_| Vec::with_capacity(sums.len())).collect();
        for sum in &mut sums {
            let parts = sum.c0.data_mut().chunks_exact_mut(words).chain(sum.c1.data_mut().chunks_exact_mut(words));
            jobs.iter_mut().zip(parts).for_each(|(job, part)| job.push(part));
        }
        jobs.into_par_iter().enumerate().for_each_init(
            || AlignedVec::scratch(words * wave.inputs.len()),
            |packed, (job, mut out)| {
                let (part, limb, block) = (job / (limbs * blocks), job / blocks % limbs, job % blocks);
                let of = |&input: &u32| {
                    let c = inputs[input as usize];
                    let poly = if part == 0 { &c.c0 } else { &c.c1 };
                    &poly.limb(limb)[block * words..(block + 1) * words]
                };
                gather(&wave.inputs.iter().map(of).collect::<Vec<_>>(), packed);
                let (m, mut weights) = (context.q(limb), &weights[limb][..]);
                for group in &wave.groups {
                    let (own, rest) = weights.split_at(group.weights.len());
                    weights = rest;
                    scalar_sums(m, packed, wave.inputs.len(), &group.inputs, own, &mut out[group.outputs.clone()]);
                }
            },
        );
        sums
    }
}

/// The weights of a row as integers, and how many became zero.
fn encode(output: u32, row: &[ScalarEntry], scales: &[Scale]) -> Result<(Row, usize)> {
    let mut entries = row.to_vec();
    entries.sort_by_key(|e| e.input);
    let (mut out, mut skipped) = (Vec::with_capacity(entries.len()), 0);
    for same in entries.chunk_by(|a, b| a.input == b.input) {
        let (input, weight) = (same[0].input, same.iter().map(|e| e.weight).sum::<f64>());
        let Some(scale) = scales.get(input as usize) else {
            return Err(CkksError::Parameters(format!("{OP}: there is no input {input}")));
        };
        if weight == 0.0 {
            continue;
        }
        match Evaluator::integer(OP, weight, scale)? {
            0 => skipped += 1,
            integer => out.push((input, integer)),
        }
    }
    Ok((Row { output, entries: out }, skipped))
}

/// Cuts sorted rows into groups and waves.
fn waves(rows: &[Row]) -> (Vec<Wave>, usize) {
    let mut waves = Vec::new();
    let mut products = 0;
    let mut groups: Vec<&[Row]> = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (group, after) = rest.split_at(group_len(rest));
        rest = after;
        groups.push(group);
        if rest.is_empty() || groups.iter().map(|g| g.len()).sum::<usize>() >= WAVE {
            let wave = wave(&groups);
            products += wave.groups.iter().map(|g| g.weights.len()).sum::<usize>();
            waves.push(wave);
            groups.clear();
        }
    }
    (waves, products)
}

/// How many of the first rows are best computed together.
fn group_len(rows: &[Row]) -> usize {
    let mut union: Vec<u32> = rows[0].entries.iter().map(|e| e.0).collect();
    let mut own = union.len();
    let mut len = 1;
    for row in &rows[1..rows.len().min(MAX_SUMS)] {
        let mut joined = union.clone();
        joined.extend(row.entries.iter().map(|e| e.0));
        joined.sort_unstable();
        joined.dedup();
        if (joined.len() * (len + 1)) as f64 > WASTE * (own + row.entries.len()) as f64 {
            break;
        }
        own += row.entries.len();
        union = joined;
        len += 1;
    }
    len
}

fn wave(groups: &[&[Row]]) -> Wave {
    let sorted = |rows: &[&[Row]]| {
        let mut inputs: Vec<u32> = rows.iter().copied().flatten().flat_map(|r| &r.entries).map(|e| e.0).collect();
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    };
    let place = |list: &[u32], input: u32| list.partition_point(|&i| i < input);
    let inputs = sorted(groups);
    let mut outputs = Vec::new();
    let make = |rows: &&[Row]| {
        let first = outputs.len();
        outputs.extend(rows.iter().map(|r| r.output));
        let own = sorted(&[rows]);
        let mut weights = vec![0; own.len() * rows.len()];
        for (r, row) in rows.iter().enumerate() {
            for &(input, weight) in &row.entries {
                weights[place(&own, input) * rows.len() + r] = weight;
            }
        }
        let own = own.iter().map(|&i| place(&inputs, i) as u32).collect();
        Group { outputs: first..outputs.len(), inputs: own, weights }
    };
    let groups = groups.iter().map(make).collect();
    Wave { inputs, outputs, groups }
}
