//! Instructions that are carried out together: a product, its relinearisation and its rescale, where nothing else reads what is
//! between.

use crate::{Instruction, Op, Reg};
use std::collections::{BTreeMap, BTreeSet};

/// Which instructions do the work of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fused {
    /// Number of a rescale to that of the relinearisation before it, of which it is the only reader.
    pub rescales: BTreeMap<usize, usize>,
    /// Number of such a relinearisation to that of the product before it, of which it is the only reader.
    pub products: BTreeMap<usize, usize>,
    /// The relinearisations and products among them: a later instruction does their work.
    pub deferred: BTreeSet<usize>,
}

impl Fused {
    /// Finds them.
    pub fn of(instructions: &[Instruction]) -> Self {
        let (mut readers, mut writers) = (BTreeMap::<Reg, Vec<usize>>::new(), BTreeMap::<Reg, usize>::new());
        for (number, instruction) in instructions.iter().enumerate() {
            writers.insert(instruction.dst, number);
            for src in instruction.op.sources() {
                readers.entry(src).or_default().push(number);
            }
        }
        let mut fused = Fused::default();
        for (number, instruction) in instructions.iter().enumerate() {
            let Op::Relinearise(src) = instruction.op else { continue };
            let Some([only]) = readers.get(&instruction.dst).map(Vec::as_slice) else { continue };
            if !matches!(instructions[*only].op, Op::Rescale(_)) {
                continue;
            }
            fused.rescales.insert(*only, number);
            let product = writers.get(&src).filter(|&&n| matches!(instructions[n].op, Op::Mul(..)));
            if let Some(&product) = product
                && readers.get(&src).is_some_and(|readers| readers.len() == 1)
            {
                fused.products.insert(number, product);
            }
        }
        fused.deferred = fused.rescales.values().chain(fused.products.values()).copied().collect();
        fused
    }

    /// What an instruction reads, with the work that it does for others.
    pub fn sources(&self, instructions: &[Instruction], number: usize) -> Vec<Reg> {
        let first = self.rescales.get(&number).map(|first| self.products.get(first).unwrap_or(first));
        instructions[*first.unwrap_or(&number)].op.sources()
    }
}
