//! A backend that lets another one work and keeps the result of every layer.

use fhec_math::Scale;
use fhec_plan::{LinearTerm, PolyId, Reg, VectorId};
use fhec_runtime::backend::OpResult;
use fhec_runtime::{Backend, Step};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Keeps the values of some registers while `inner` does the work.
pub(super) struct Probe<'a, B: Backend> {
    inner: &'a B,
    wanted: &'a BTreeMap<Reg, usize>,
    seen: Mutex<BTreeMap<usize, B::Value>>,
}

impl<'a, B: Backend> Probe<'a, B> {
    /// A probe of the registers in `wanted`, which gives the layer of each.
    pub(super) fn new(inner: &'a B, wanted: &'a BTreeMap<Reg, usize>) -> Self {
        Probe { inner, wanted, seen: Mutex::new(BTreeMap::new()) }
    }

    /// What was seen, by layer.
    pub(super) fn into_values(self) -> BTreeMap<usize, B::Value> {
        self.seen.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn keep(&self, step: &Step, value: OpResult<B::Value>) -> OpResult<B::Value> {
        if let (Ok(value), Some(&layer)) = (&value, self.wanted.get(&step.instruction.dst)) {
            let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            seen.insert(layer, value.clone());
        }
        value
    }
}

/// Operations that the inner backend does and whose result is kept where it is wanted.
macro_rules! watched {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name(&self, step: &Step, $($arg: $type),*) -> OpResult<Self::Value> {
            self.keep(step, self.inner.$name(step, $($arg),*))
        })*
    };
}

impl<B: Backend> Backend for Probe<'_, B> {
    type Value = B::Value;
    type Input = B::Input;
    type Output = B::Output;

    fn bytes(&self, value: &B::Value) -> usize {
        self.inner.bytes(value)
    }

    fn output(&self, step: &Step, index: usize, value: &B::Value) -> OpResult<B::Output> {
        self.inner.output(step, index, value)
    }

    fn relinearise_rescale(&self, relinearise: &Step, rescale: &Step, a: &B::Value) -> OpResult<B::Value> {
        self.keep(rescale, self.inner.relinearise_rescale(relinearise, rescale, a))
    }

    watched! {
        input(index: usize, value: B::Input);
        linear_map(terms: &[LinearTerm], sources: &[&B::Value], bias: Option<VectorId>, out_scale: &Scale);
        polynomial(a: &B::Value, poly: PolyId, out_scale: &Scale);
        add(a: &B::Value, b: &B::Value);
        sub(a: &B::Value, b: &B::Value);
        negate(a: &B::Value);
        mul(a: &B::Value, b: &B::Value);
        square(a: &B::Value);
        mul_scalar(a: &B::Value, value: f64, scale: &Scale);
        mul_vector(a: &B::Value, vector: VectorId, scale: &Scale);
        add_scalar(a: &B::Value, value: f64);
        add_vector(a: &B::Value, vector: VectorId);
        rotate(a: &B::Value, steps: i64);
        relinearise(a: &B::Value);
        rescale(a: &B::Value);
        level_drop(a: &B::Value, level: usize);
        bootstrap(a: &B::Value, level: usize, out_scale: &Scale);
    }
}
