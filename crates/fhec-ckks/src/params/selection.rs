//! Parts of a chain.

use std::ops::Range;
use std::sync::Arc;

use super::{Context, ParameterSpec};
use crate::error::Result;

/// A part of the chain of a context, and the context over that part.
///
/// Keys and plaintexts of the whole chain serve it as they are, with the limbs of the other primes left out. Its modulus
/// divides the whole one, so it is at least as secure.
#[derive(Debug)]
pub(crate) struct Selection {
    context: Arc<Context>,
    limbs: Vec<usize>,
}

impl Selection {
    /// The part that consists of these limbs, which ascend and begin with 0.
    pub(crate) fn new(whole: &Context, limbs: Vec<usize>) -> Result<Self> {
        let spec = ParameterSpec {
            log_n: whole.log_n(),
            q: limbs.iter().map(|&i| whole.spec.q[i]).collect(),
            p: whole.spec.p.clone(),
            digits: whole
                .digit_ranges
                .iter()
                .map(|range| limbs.iter().filter(|&i| range.contains(i)).count())
                .filter(|&count| count > 0)
                .collect(),
        };
        Ok(Self { context: Context::prepare(spec)?, limbs })
    }

    /// The context over the part.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Limbs of the whole chain, ascending.
    pub(crate) fn limbs(&self) -> &[usize] {
        &self.limbs
    }

    /// The same part of the [raising](Context::raising) context.
    pub(crate) fn raising(&self) -> Self {
        Self { context: Arc::clone(self.context.raising()), limbs: self.limbs.clone() }
    }

    /// The highest level of the part whose limbs all exist at a level of the whole chain.
    pub(crate) fn level(&self, whole: usize) -> usize {
        self.limbs.partition_point(|&i| i <= whole) - 1
    }

    /// Whether it has a limb in a range.
    pub(crate) fn meets(&self, range: &Range<usize>) -> bool {
        self.limbs.iter().any(|i| range.contains(i))
    }
}
