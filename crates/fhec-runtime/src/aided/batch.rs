//! The client of a whole batch of images, with few of their values in memory: an element of a tensor at a time, which is what a ciphertext
//! holds where images share ciphertexts.
//!
//! Every value is computed by the same operations, in the same order, as in [`Play`](super::Play), so results are the same bits.

use super::elements::Elements;
use super::origins::{Origin, fold, origins};
use crate::error::{Result, RuntimeError};
use crate::stream::{Streaming, Usage};
use fhec_math::chebyshev::clenshaw_all;
use fhec_plan::aided::{Lives, Moment};
use fhec_plan::{Aided, ClientOp, Layout, PlanHead};
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Most elements that are read at a time.
const WIDTH: u64 = 256;
/// As many times as many may be in memory while something is computed from them.
const COPIES: u64 = 4;
/// Images that are given at a time, if memory suffices.
const GROUP: u64 = 512;
/// Instead of the number of an element: a ciphertext that holds none.
const NONE: u32 = u32::MAX;

/// What the client of a plan whose images share ciphertexts knows of all of them.
#[derive(Debug)]
pub struct Batch<'a> {
    head: &'a PlanHead,
    aided: Cow<'a, Aided>,
    lives: Lives,
    /// How many of the tensors that are stored have ended.
    ended: usize,
    elements: Elements,
    images: usize,
    /// How many of them were given.
    given: usize,
    /// Elements read at a time.
    width: usize,
    /// Bytes of what is computed or given at a time.
    working: u64,
    /// For what is received the place of each element among the ciphertexts, where that is not its number.
    places: BTreeMap<u32, Vec<u32>>,
    /// For inputs of this round the element in each ciphertext, where that is not its number.
    sources: BTreeMap<usize, Option<Vec<u32>>>,
    /// By output how large the values are that were received.
    largest: BTreeMap<usize, f64>,
}

impl<'a> Batch<'a> {
    /// The client of a plan that was checked, for a number of images, with values in memory and on disk as `streaming` says.
    ///
    /// # Errors
    /// [`RuntimeError::Batch`] for more images than a ciphertext has room for; any number but one for a plan whose images have ciphertexts of
    /// their own.
    pub fn new(head: &'a PlanHead, images: usize, streaming: &Streaming) -> Result<Self> {
        crate::batch::check(head.batch(), images)?;
        let aided = match &head.aided {
            Some(aided) => Cow::Borrowed(aided),
            None => Cow::Owned(Aided::plain(&head.inputs, &head.outputs)),
        };
        let size = 8 * images as u64;
        let width = (streaming.budget / 4 / (COPIES * size)).clamp(1, WIDTH);
        let working = COPIES * width * size;
        let room = streaming.budget.saturating_sub(working);
        let lives = aided.lives();
        let mut places = BTreeMap::new();
        for (number, step) in (0..).zip(&aided.steps) {
            let ClientOp::Received(output) = step.op else { continue };
            let Some(output) = head.outputs.get(output) else { continue };
            let positions = output.layout.positions();
            if !positions.iter().copied().eq(0..output.layout.ciphertexts) {
                places.insert(number, positions.into_iter().map(|p| p as u32).collect());
            }
        }
        Ok(Batch {
            elements: Elements::new(aided.steps.len(), images, room, &streaming.spill),
            head,
            aided,
            lives,
            ended: 0,
            images,
            given: 0,
            width: width as usize,
            working,
            places,
            sources: BTreeMap::new(),
            largest: BTreeMap::new(),
        })
    }

    /// Bytes of values in memory with which nothing of so many images goes to disk.
    pub fn most(head: &PlanHead, images: usize) -> u64 {
        let elements = match &head.aided {
            Some(aided) => aided.peak_elements(),
            None => Aided::plain(&head.inputs, &head.outputs).peak_elements(),
        };
        (elements + COPIES * WIDTH).saturating_mul(8 * images as u64)
    }

    /// The smallest budget that is kept.
    pub fn least(images: usize) -> u64 {
        4 * COPIES * 8 * images as u64
    }

    /// How many elements should be asked for at a time.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many images should be given at a time.
    pub fn group(&self) -> usize {
        let values: usize = self.head.network_inputs().iter().map(|input| input.layout.elements()).sum();
        (self.working / (8 * values.max(1) as u64)).clamp(1, GROUP) as usize
    }

    /// What values in memory and on disk took so far.
    pub fn usage(&self) -> Usage {
        Usage { peak: self.elements.peak(), transfers: self.elements.transfers() }
    }

    /// Gives the next images: a row-major tensor for each input of the network.
    ///
    /// # Errors
    /// [`RuntimeError::Batch`] for too many, [`RuntimeError::InputCount`], [`RuntimeError::InputSize`], [`RuntimeError::InputValue`],
    /// [`RuntimeError::Spill`].
    pub fn give(&mut self, images: &[Vec<Vec<f64>>]) -> Result<()> {
        let inputs = self.head.network_inputs();
        for image in images {
            super::check_inputs(inputs, image)?;
        }
        let mut part = vec![0.0; images.len()];
        for (number, step) in self.aided.steps.iter().enumerate() {
            let ClientOp::Given(input) = step.op else { continue };
            if !self.lives.is_stored(number) {
                continue;
            }
            let count = inputs.get(input).map_or(0, |input| input.layout.elements());
            if !self.elements.has(number) {
                self.elements.begin(number, count);
            }
            for element in 0..count {
                part.iter_mut().zip(images).for_each(|(value, image)| *value = image[input][element]);
                self.elements.put(number, element, self.given, &part)?;
            }
        }
        self.given += images.len();
        Ok(())
    }

    /// Computes what has to be stored before `round` and is known by then, and drops what nothing reads any more; after the last answer
    /// `round` is the number of rounds.
    ///
    /// # Errors
    /// [`RuntimeError::Batch`] where images are missing, [`RuntimeError::Resume`] where a round was left out, [`RuntimeError::Spill`].
    pub fn advance(&mut self, round: u32) -> Result<()> {
        if self.given != self.images {
            return Err(RuntimeError::Batch { found: self.given, most: self.images });
        }
        self.sources.clear();
        if let Some(before) = round.checked_sub(1) {
            self.drop_until(Moment::sent(before));
        }
        for step in self.lives.made(round).to_vec() {
            self.make(step as usize)?;
            self.drop_until(Moment::making(round, step));
        }
        Ok(())
    }

    fn drop_until(&mut self, now: Moment) {
        while let Some(&(end, step)) = self.lives.ends().get(self.ended).filter(|(end, _)| *end <= now) {
            debug_assert!(end <= now);
            self.elements.end(step as usize);
            self.ended += 1;
        }
    }

    /// What some ciphertexts of input number `input` of the plan hold: for each a value an image, scaled as the plan says.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Resume`] where a round was left out, [`RuntimeError::InputValue`], [`RuntimeError::Spill`].
    pub fn input(&mut self, input: usize, ciphertexts: &[u32]) -> Result<Vec<Vec<f64>>> {
        let missing = || RuntimeError::NoPort { what: "input", index: input };
        let head = self.head;
        let port = head.inputs.get(input).ok_or_else(missing)?;
        let step = self.aided.sends.get(input).ok_or_else(missing)?.step as usize;
        let source = self.sources.entry(input).or_insert_with(|| elements_of(&port.layout));
        let wanted: Vec<u32> = match source {
            None => ciphertexts.to_vec(),
            Some(source) => ciphertexts.iter().map(|&c| source.get(c as usize).copied().unwrap_or(NONE)).collect(),
        };
        let there: Vec<u32> = wanted.iter().copied().filter(|&e| e != NONE).collect();
        let mut values = self.read(step, &there)?;
        for (block, &element) in values.iter_mut().zip(&there) {
            if block.iter().any(|v| !v.is_finite()) {
                return Err(RuntimeError::InputValue { name: port.name.clone(), index: element as usize });
            }
            block.iter_mut().for_each(|v| *v *= port.factor);
        }
        let mut values = values.into_iter();
        let empty = || vec![0.0; self.images];
        Ok(wanted
            .iter()
            .map(|&e| if e == NONE { None } else { values.next() })
            .map(|b| b.unwrap_or_else(empty))
            .collect())
    }

    /// Takes what was decrypted from some ciphertexts of output number `output` of the plan: for each a value an image, as
    /// [`Client::decrypt_elements`](crate::Client::decrypt_elements) gives it.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Batch`] for other images, [`RuntimeError::Resume`] for ciphertexts that the output has not,
    /// [`RuntimeError::Spill`].
    pub fn receive(&mut self, output: usize, ciphertexts: &[u32], mut values: Vec<Vec<f64>>) -> Result<()> {
        let port = self.head.outputs.get(output).ok_or(RuntimeError::NoPort { what: "output", index: output })?;
        if let Some(other) = values.iter().find(|block| block.len() != self.images) {
            return Err(RuntimeError::Batch { found: other.len(), most: self.images });
        }
        values.par_iter_mut().for_each(|block| block.iter_mut().for_each(|v| *v *= port.factor));
        let largest = values.par_iter().map(|b| b.iter().fold(0.0f64, |m, v| m.max(v.abs())));
        let largest = largest.reduce(|| 0.0, f64::max);
        let known = self.largest.entry(output).or_insert(0.0);
        *known = known.max(largest);
        for (number, step) in self.aided.steps.iter().enumerate() {
            if step.op != ClientOp::Received(output) || !self.lives.is_stored(number) {
                continue;
            }
            if !self.elements.has(number) {
                self.elements.begin(number, port.layout.ciphertexts);
            }
            for (&ciphertext, block) in ciphertexts.iter().zip(&values) {
                self.elements.put(number, ciphertext as usize, 0, block)?;
            }
        }
        Ok(())
    }

    /// How large the values are that were received in a round, for each of its outputs as a multiple of the largest that the plan was compiled
    /// for.
    pub fn sizes(&self, round: u32) -> Vec<f64> {
        let own = self.largest.iter().filter(|(output, _)| self.head.output_round(**output) == round);
        let size = |(&output, largest): (&usize, &f64)| {
            let (lo, hi) = self.head.outputs[output].range;
            largest / lo.abs().max(hi.abs())
        };
        own.map(size).collect()
    }

    /// Output number `result` of the network for each image, without its postprocessing.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Resume`] where a round was left out, [`RuntimeError::Spill`].
    pub fn result(&mut self, result: usize) -> Result<Vec<Vec<f64>>> {
        let found = self.aided.results.get(result).ok_or(RuntimeError::NoPort { what: "output", index: result })?;
        let step = found.step as usize;
        let count: usize = self.aided.steps[step].shape.iter().product();
        let mut images = vec![Vec::with_capacity(count); self.images];
        for first in (0..count).step_by(self.width) {
            let wanted: Vec<u32> = (first as u32..count.min(first + self.width) as u32).collect();
            for block in self.read(step, &wanted)? {
                images.iter_mut().zip(block).for_each(|(image, value)| image.push(value));
            }
        }
        Ok(images)
    }

    /// Some elements of the tensor of a step.
    fn read(&mut self, step: usize, wanted: &[u32]) -> Result<Vec<Vec<f64>>> {
        if !self.lives.is_stored(step) {
            return self.compute(step, wanted);
        }
        let places = self.places.get(&(step as u32));
        let place = |&e: &u32| places.map_or(e, |all| all.get(e as usize).copied().unwrap_or(NONE)) as usize;
        wanted.iter().map(|e| self.elements.get(step, place(e))).collect()
    }

    /// The same, where an element may be wanted several times.
    fn read_each(&mut self, step: usize, wanted: &[u32]) -> Result<Vec<Vec<f64>>> {
        let unique: Vec<u32> = wanted.iter().copied().collect::<BTreeSet<u32>>().into_iter().collect();
        if unique.len() == wanted.len() {
            return self.read(step, wanted);
        }
        let values = self.read(step, &unique)?;
        let found = wanted.iter().filter_map(|e| unique.binary_search(e).ok());
        Ok(found.map(|at| values[at].clone()).collect())
    }

    /// Computes some elements of a step that takes at most one element of each operand.
    fn compute(&mut self, number: usize, wanted: &[u32]) -> Result<Vec<Vec<f64>>> {
        let step = &self.aided.steps[number];
        let (op, operands) = (step.op.clone(), step.operands.clone());
        let shapes: Vec<&[usize]> = operands.iter().map(|&o| &self.aided.steps[o as usize].shape[..]).collect();
        let from = origins(&op, &shapes, &step.shape, wanted);
        let mut wants = vec![Vec::new(); operands.len()];
        for origin in &from {
            match *origin {
                Origin::One(operand, e) => wants[operand].push(e),
                Origin::Two(a, b) => {
                    wants[0].push(a);
                    wants[1].push(b);
                }
                Origin::Constant(_) => {}
            }
        }
        let mut found = Vec::with_capacity(operands.len());
        for (&operand, wants) in operands.iter().zip(&wants) {
            found.push(self.read_each(operand as usize, wants)?.into_iter());
        }
        let images = self.images;
        let missing = || RuntimeError::Resume(format!("client step {number}, an operand of which is missing"));
        let mut take = |operand: usize| found.get_mut(operand).and_then(Iterator::next).ok_or_else(missing);
        let mut pairs = Vec::with_capacity(wanted.len());
        for origin in from {
            pairs.push(match origin {
                Origin::One(operand, _) => (take(operand)?, None),
                Origin::Two(..) => (take(0)?, Some(take(1)?)),
                Origin::Constant(value) => (vec![value; images], None),
            });
        }
        let compute = |(mut x, y): (Vec<f64>, Option<Vec<f64>>)| {
            apply(&op, &mut x, y.as_deref().unwrap_or(&[]));
            x
        };
        Ok(pairs.into_par_iter().map(compute).collect())
    }

    /// Computes a step and stores it.
    fn make(&mut self, number: usize) -> Result<()> {
        let step = self.aided.steps[number].clone();
        let count: usize = step.shape.iter().product();
        self.elements.begin(number, count);
        if let ClientOp::Softmax(axis) = step.op {
            return self.softmax(number, step.operands[0] as usize, &step.shape, axis);
        }
        let folds = matches!(step.op, ClientOp::MaxPool(_) | ClientOp::AveragePool { .. } | ClientOp::Sum { .. });
        let tile = if folds { (self.width / 4).max(1) } else { self.width };
        for first in (0..count).step_by(tile) {
            let wanted: Vec<u32> = (first as u32..count.min(first + tile) as u32).collect();
            let made = match folds {
                true => self.fold(&step.op, step.operands[0] as usize, &step.shape, &wanted)?,
                false => self.compute(number, &wanted)?,
            };
            for (&element, values) in wanted.iter().zip(&made) {
                self.elements.put(number, element as usize, 0, values)?;
            }
        }
        Ok(())
    }

    /// Folds some elements.
    fn fold(&mut self, op: &ClientOp, operand: usize, shape: &[usize], wanted: &[u32]) -> Result<Vec<Vec<f64>>> {
        let own = &self.aided.steps[operand].shape;
        let folds: Vec<_> = wanted.iter().filter_map(|&e| fold(op, own, shape, e)).collect();
        let largest = matches!(op, ClientOp::MaxPool(_));
        let start = if largest { f64::NEG_INFINITY } else { 0.0 };
        let mut sums = vec![vec![start; self.images]; folds.len()];
        let longest = folds.iter().map(|f| f.elements.len()).max().unwrap_or(0);
        // Of each as many at a time as all may read together.
        let part = (self.width / folds.len().max(1)).max(1);
        for first in (0..longest).step_by(part) {
            let of = |elements: &[u32]| elements.iter().copied().skip(first).take(part).collect::<Vec<u32>>();
            let parts: Vec<Vec<u32>> = folds.iter().map(|f| of(&f.elements)).collect();
            let union: Vec<u32> = parts.iter().flatten().copied().collect::<BTreeSet<u32>>().into_iter().collect();
            let values = self.read(operand, &union)?;
            sums.par_iter_mut().zip(&parts).for_each(|(sums, part)| {
                for block in part.iter().filter_map(|e| union.binary_search(e).ok()).map(|at| &values[at]) {
                    match largest {
                        true => sums.iter_mut().zip(block).for_each(|(sum, v)| *sum = f64::max(*sum, *v)),
                        false => sums.iter_mut().zip(block).for_each(|(sum, v)| *sum += v),
                    }
                }
            });
        }
        for (sums, divisor) in sums.iter_mut().zip(folds.iter().map(|f| f.divisor)) {
            match divisor {
                None => {}
                Some(0.0) => sums.fill(0.0),
                Some(divisor) => sums.iter_mut().for_each(|sum| *sum /= divisor),
            }
        }
        Ok(sums)
    }

    /// Computes a softmax, line after line: the largest of each, the sum of the exponentials, then the quotients.
    fn softmax(&mut self, number: usize, operand: usize, shape: &[usize], axis: usize) -> Result<()> {
        let (extent, inner): (usize, usize) = (shape[axis], shape[axis + 1..].iter().product());
        let lines = shape.iter().product::<usize>() / extent;
        for line in 0..lines {
            let at = |i: usize| ((line / inner * extent + i) * inner + line % inner) as u32;
            let elements: Vec<u32> = (0..extent).map(at).collect();
            let (mut largest, mut sums) = (vec![f64::NEG_INFINITY; self.images], vec![0.0; self.images]);
            for part in elements.chunks(self.width) {
                for block in self.read(operand, part)? {
                    largest.iter_mut().zip(block).for_each(|(largest, v)| *largest = f64::max(*largest, v));
                }
            }
            for part in elements.chunks(self.width) {
                for block in self.exponentials(operand, part, &largest)? {
                    sums.iter_mut().zip(block).for_each(|(sum, v)| *sum += v);
                }
            }
            for part in elements.chunks(self.width) {
                let blocks = self.exponentials(operand, part, &largest)?;
                for (&element, mut block) in part.iter().zip(blocks) {
                    block.iter_mut().zip(&sums).for_each(|(v, sum)| *v /= sum);
                    self.elements.put(number, element as usize, 0, &block)?;
                }
            }
        }
        Ok(())
    }

    /// The exponentials of what some elements are below the largest of their line.
    fn exponentials(&mut self, operand: usize, elements: &[u32], largest: &[f64]) -> Result<Vec<Vec<f64>>> {
        let mut blocks = self.read(operand, elements)?;
        blocks.par_iter_mut().for_each(|block| {
            block.iter_mut().zip(largest).for_each(|(v, largest)| *v = (*v - largest).exp());
        });
        Ok(blocks)
    }
}

/// Computes an element in place of its first operand.
fn apply(op: &ClientOp, x: &mut [f64], y: &[f64]) {
    let with = |x: &mut [f64], f: fn(f64, f64) -> f64| x.iter_mut().zip(y).for_each(|(x, &y)| *x = f(*x, y));
    match op {
        ClientOp::Function(f) => x.iter_mut().for_each(|v| *v = f.eval(*v)),
        ClientOp::Polynomial { chebyshev, interval: (lo, hi) } => {
            x.iter_mut().for_each(|v| *v = (2.0 * *v - lo - hi) / (hi - lo));
            clenshaw_all(chebyshev, x);
        }
        ClientOp::Affine { mul, add } => x.iter_mut().for_each(|v| *v = mul * *v + add),
        ClientOp::Add => with(x, |x, y| x + y),
        ClientOp::Sub => with(x, |x, y| x - y),
        ClientOp::Mul => with(x, |x, y| x * y),
        _ => {}
    }
}

/// The element in each ciphertext of a layout in which every image has one slot; `None` where it is that of the same number.
fn elements_of(layout: &Layout) -> Option<Vec<u32>> {
    let positions = layout.positions();
    if positions.iter().copied().eq(0..layout.ciphertexts) {
        return None;
    }
    let mut out = vec![NONE; layout.ciphertexts];
    for (element, at) in positions.into_iter().enumerate() {
        out[at] = element as u32;
    }
    Some(out)
}
