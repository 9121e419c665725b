//! Computes one tile.

use super::store::Element;
use super::{Sink, Source, Stream};
use crate::backend::{Backend, OpResult, Step};
use crate::ckks::{CkksBackend, CkksValue, scalars};
use crate::error::OpError;
use fhec_ckks::linear::{ScalarEntry, ScalarMap};
use fhec_ckks::{Ciphertext, CkksError};
use fhec_math::Scale;
use fhec_plan::stream::{Schedule, Tile};
use fhec_plan::{Op, Reg, VectorId};
use num_complex::Complex64;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

impl Stream {
    /// Computes a tile, from operands that are brought to memory for it.
    pub(super) fn tile(
        &mut self,
        backend: &CkksBackend,
        tile: &Tile,
        source: &mut dyn Source,
        sink: &mut dyn Sink,
    ) -> OpResult<()> {
        let (schedule, verified) = (Arc::clone(&self.schedule), Arc::clone(backend.verified()));
        let (plan, context) = (verified.plan(), backend.context());
        let step = Step::new(&verified, tile.number);
        self.store.reserve(schedule.working(plan, verified.facts(), tile));
        let groups = schedule.groups(plan, verified.facts(), tile);
        if let Op::LinearMap { bias, out_scale, .. } = &step.instruction.op {
            let mut sums: Option<Vec<Ciphertext>> = None;
            for group in groups {
                self.store.fetch(&verified, context, &schedule, &group, source)?;
                let part = self.sums(backend, &step, &schedule, tile, &group, out_scale)?;
                self.store.release(&schedule, &group);
                match &mut sums {
                    None => sums = Some(part),
                    Some(sums) => {
                        let add = |(a, b): (&mut Ciphertext, &Ciphertext)| backend.evaluator().add_assign(a, b);
                        sums.par_iter_mut().zip(&part).try_for_each(add)?;
                    }
                }
            }
            let biases = bias.map(|bias| self.summands(&step, tile, bias));
            let sums = sums.unwrap_or_default();
            let finish = |(k, sum): (usize, Ciphertext)| {
                let bias = biases.as_ref().map(|biases| biases[k]);
                Ok(Element::Ciphertext(ScalarMap::finish_sum(backend.evaluator(), &sum, bias)?))
            };
            let results = sums.into_par_iter().enumerate().map(finish).collect::<Result<Vec<_>, CkksError>>()?;
            self.store.produce(&schedule, tile, results);
            return Ok(());
        }
        for group in groups {
            self.store.fetch(&verified, context, &schedule, &group, source)?;
            let results = self.elementwise(backend, &step, &schedule, tile, sink)?;
            self.store.release(&schedule, &group);
            self.store.produce(&schedule, tile, results);
        }
        Ok(())
    }

    /// The sums of a linear map over one group of inputs.
    fn sums(
        &self,
        backend: &CkksBackend,
        step: &Step,
        schedule: &Schedule,
        tile: &Tile,
        group: &[u32],
        out_scale: &Scale,
    ) -> OpResult<Vec<Ciphertext>> {
        let inputs = group.iter().map(|&id| self.store.ciphertext(id)).collect::<OpResult<Vec<_>>>()?;
        let (plan, facts) = (step.verified.plan(), step.verified.facts());
        let row = |&element: &u32| {
            let mut row = Vec::new();
            schedule.weights(plan, facts, tile.number, element, |id, weight| {
                if let Ok(input) = group.binary_search(&id) {
                    row.push(ScalarEntry { input: input as u32, weight });
                }
            });
            row
        };
        let rows: Vec<Vec<ScalarEntry>> = tile.elements.par_iter().map(row).collect();
        let level = schedule.sources(tile.number).first().map_or(0, |&src| step.verified.register(src).level);
        let scales = group.iter().map(|&id| step.verified.register(schedule.element(id).0).scale.clone()).collect();
        let map = ScalarMap::new(backend.context(), level, scales, &rows, out_scale)?;
        Ok(map.partial_sums(backend.evaluator(), &inputs)?)
    }

    /// The entries of a vector that belong to a tile, to be multiplied with.
    fn vector(&mut self, step: &Step, tile: &Tile, vector: VectorId) -> Vec<f64> {
        let all = self.vectors.entry(step.number).or_insert_with(|| scalars::vector(step, vector));
        tile.elements.iter().map(|&e| all[e as usize]).collect()
    }

    /// The same, to be added.
    fn summands(&mut self, step: &Step, tile: &Tile, vector: VectorId) -> Vec<Complex64> {
        let all = self.summands.entry(step.number).or_insert_with(|| scalars::summands(step, vector));
        tile.elements.iter().map(|&e| all[e as usize]).collect()
    }

    /// A tile of an operation that works on every element alone.
    fn elementwise(
        &mut self,
        backend: &CkksBackend,
        step: &Step,
        schedule: &Schedule,
        tile: &Tile,
        sink: &mut dyn Sink,
    ) -> OpResult<Vec<Element>> {
        if let Op::Output { src, output } = step.instruction.op {
            let id = |&e: &u32| schedule.number(src, e);
            let found = |e: &u32| Ok((*e, self.store.ciphertext(id(e))?));
            let values = tile.elements.iter().map(found).collect::<OpResult<Vec<_>>>()?;
            sink.write(output, &values)?;
            let read = step.result.last_read != step.number;
            let copies = values.into_iter().filter(|_| read).map(|(_, c)| Element::Ciphertext(c.clone()));
            return Ok(copies.collect());
        }
        let mut operands = BTreeMap::new();
        for &reg in schedule.sources(tile.number) {
            if let Entry::Vacant(place) = operands.entry(reg) {
                place.insert(self.lend(schedule, tile, reg)?);
            }
        }
        let result = self.operation(backend, step, schedule, tile, &operands);
        for (reg, value) in operands {
            let elements: Vec<Element> = elements(value);
            for (&e, value) in tile.elements.iter().zip(elements) {
                self.store.give_back(schedule.number(reg, e), value);
            }
        }
        Ok(elements(result?))
    }

    /// Some elements of a register as a packed tensor.
    fn lend(&mut self, schedule: &Schedule, tile: &Tile, reg: Reg) -> OpResult<CkksValue> {
        let (mut ciphertexts, mut products) = (Vec::new(), Vec::new());
        for &e in &tile.elements {
            match self.store.lend(schedule.number(reg, e))? {
                Element::Ciphertext(c) => ciphertexts.push(c),
                Element::Product(p) => products.push(p),
            }
        }
        Ok(if products.is_empty() { CkksValue::Ciphertexts(ciphertexts) } else { CkksValue::Products(products) })
    }

    fn operation(
        &mut self,
        backend: &CkksBackend,
        step: &Step,
        schedule: &Schedule,
        tile: &Tile,
        operands: &BTreeMap<Reg, CkksValue>,
    ) -> OpResult<CkksValue> {
        let (b, evaluator) = (backend, backend.evaluator());
        let get = |reg: &Reg| operands.get(reg).ok_or(OpError::Kind { expected: "a value", found: "nothing" });
        Ok(match &step.instruction.op {
            Op::Add(x, y) => b.add(step, get(x)?, get(y)?)?,
            Op::Sub(x, y) => b.sub(step, get(x)?, get(y)?)?,
            Op::Negate(x) => b.negate(step, get(x)?)?,
            Op::Mul(x, y) if x == y => b.square(step, get(x)?)?,
            Op::Mul(x, y) => b.mul(step, get(x)?, get(y)?)?,
            Op::MulScalar { src, value, scale } => b.mul_scalar(step, get(src)?, *value, scale)?,
            Op::AddScalar { src, value } => b.add_scalar(step, get(src)?, *value)?,
            Op::MulVector { src, vector, scale } => {
                let values = self.vector(step, tile, *vector);
                let product = |c: &Ciphertext, v| evaluator.mul_scalar(c, v, scale);
                CkksValue::Ciphertexts(scalars::each(get(src)?.ciphertexts()?, &values, product)?)
            }
            Op::AddVector { src, vector } => {
                let values = self.summands(step, tile, *vector);
                let sum = |c: &Ciphertext, v| evaluator.add_complex(c, v);
                CkksValue::Ciphertexts(scalars::each(get(src)?.ciphertexts()?, &values, sum)?)
            }
            Op::Polynomial { src, poly, out_scale } => b.polynomial(step, get(src)?, *poly, out_scale)?,
            Op::LevelDrop { src, level } => b.level_drop(step, get(src)?, *level)?,
            Op::Relinearise(x) => b.relinearise(step, get(x)?)?,
            Op::Rescale(x) => match schedule.fused().rescales.get(&step.number) {
                None => b.rescale(step, get(x)?)?,
                Some(&first) => {
                    let product = schedule.fused().products.get(&first).map(|&n| Step::new(step.verified, n));
                    let first = Step::new(step.verified, first);
                    match product.map(|product| (product, &product.instruction.op)) {
                        Some((product, Op::Mul(x, y))) => {
                            b.multiply_rescale([&product, &first, step], get(x)?, get(y)?)?
                        }
                        _ => b.relinearise_rescale(&first, step, get(&first.instruction.op.sources()[0])?)?,
                    }
                }
            },
            Op::Input(_) | Op::Output { .. } | Op::LinearMap { .. } | Op::Rotate { .. } | Op::Bootstrap { .. } => {
                return Err(OpError::Kind {
                    expected: "an operation on single elements",
                    found: step.instruction.op.name(),
                });
            }
        })
    }
}

/// The elements of a packed tensor.
fn elements(value: CkksValue) -> Vec<Element> {
    match value {
        CkksValue::Ciphertexts(all) => all.into_iter().map(Element::Ciphertext).collect(),
        CkksValue::Products(all) => all.into_iter().map(Element::Product).collect(),
    }
}
