//! What a plan costs: the list of its operations, counts of them, and a weighted sum.

use super::ChebyshevPlan;

/// Kinds of operations on ciphertexts that a plan performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChebyshevOpKind {
    /// Product of two different degree-1 ciphertexts, without relinearisation.
    Multiply,
    /// Square of a degree-1 ciphertext, without relinearisation.
    Square,
    /// Product with a real constant, added to a sum.
    ScalarMultiply,
    /// Addition of a real constant.
    ScalarAdd,
    /// Addition of a ciphertext to itself or to a sum of products.
    Add,
    /// Relinearisation: one key switch.
    Relinearise,
    /// Rescale by one prime.
    Rescale,
}

/// One operation and where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChebyshevOp {
    /// What is done.
    pub kind: ChebyshevOpKind,
    /// Levels below the input of the operands: at input level ℓ the operation works on level ℓ − depth.
    pub depth: usize,
    /// Polynomials per ciphertext of the operand that is worked on, 2 or 3 (3: not relinearised).
    pub polys: usize,
}

/// Counts of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChebyshevCost {
    /// Products of ciphertexts, squares included.
    pub multiplications: usize,
    /// Squares among the products.
    pub squarings: usize,
    /// Products with real constants.
    pub scalar_multiplications: usize,
    /// Additions of real constants.
    pub scalar_additions: usize,
    /// Additions of ciphertexts.
    pub additions: usize,
    /// Relinearisations (key switches).
    pub relinearisations: usize,
    /// Rescales.
    pub rescales: usize,
}

impl ChebyshevCost {
    /// Counts a list of operations.
    pub fn of(operations: &[ChebyshevOp]) -> Self {
        let mut cost = Self::default();
        for op in operations {
            match op.kind {
                ChebyshevOpKind::Multiply => cost.multiplications += 1,
                ChebyshevOpKind::Square => {
                    cost.multiplications += 1;
                    cost.squarings += 1;
                }
                ChebyshevOpKind::ScalarMultiply => cost.scalar_multiplications += 1,
                ChebyshevOpKind::ScalarAdd => cost.scalar_additions += 1,
                ChebyshevOpKind::Add => cost.additions += 1,
                ChebyshevOpKind::Relinearise => cost.relinearisations += 1,
                ChebyshevOpKind::Rescale => cost.rescales += 1,
            }
        }
        cost
    }
}

/// Relative prices that decide between plans of the same depth. An operation `d` levels below the input costs
/// `price · max(1 − level_discount·d, ¼)`, because it has fewer limbs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChebyshevWeights {
    /// Product of ciphertexts.
    pub multiply: f64,
    /// Product with a constant, per polynomial.
    pub scalar: f64,
    /// Relinearisation.
    pub relinearise: f64,
    /// Rescale, per polynomial.
    pub rescale: f64,
    /// Part of the price that each level saves.
    pub level_discount: f64,
}

impl Default for ChebyshevWeights {
    /// Shares of one multiplication-relinearisation-rescale at about ten limbs and three digits.
    fn default() -> Self {
        Self { multiply: 0.06, scalar: 0.01, relinearise: 0.74, rescale: 0.1, level_discount: 0.06 }
    }
}

impl ChebyshevWeights {
    /// Weighted price of a list of operations.
    pub fn price(&self, operations: &[ChebyshevOp]) -> f64 {
        operations
            .iter()
            .map(|op| {
                let unit = match op.kind {
                    ChebyshevOpKind::Multiply | ChebyshevOpKind::Square => self.multiply,
                    ChebyshevOpKind::ScalarMultiply => self.scalar * op.polys as f64,
                    ChebyshevOpKind::Relinearise => self.relinearise,
                    ChebyshevOpKind::Rescale => self.rescale * op.polys as f64,
                    ChebyshevOpKind::ScalarAdd | ChebyshevOpKind::Add => 0.0,
                };
                unit * (1.0 - self.level_discount * op.depth as f64).max(0.25)
            })
            .sum()
    }
}

impl ChebyshevPlan {
    /// All operations in the order of execution. A relinearisation comes before the rescale of the same value.
    pub fn operations(&self) -> Vec<ChebyshevOp> {
        let mut list = Vec::new();
        let mut push = |kind, depth, polys| list.push(ChebyshevOp { kind, depth, polys });
        let mut polys = vec![2; self.degree().max(1) + 1];
        if !self.powers().is_empty() {
            push(ChebyshevOpKind::Add, 0, 2);
        }
        for step in self.powers() {
            let at = step.depth - 1;
            if step.a == step.b {
                push(ChebyshevOpKind::Square, at, 2);
                push(ChebyshevOpKind::ScalarAdd, at, 1);
            } else {
                push(ChebyshevOpKind::Multiply, at, 2);
                push(ChebyshevOpKind::ScalarMultiply, at, polys[step.a - step.b]);
            }
            polys[step.index] = if step.relinearise { 2 } else { 3 };
            if step.relinearise {
                push(ChebyshevOpKind::Relinearise, at, 3);
            }
            push(ChebyshevOpKind::Rescale, at, polys[step.index]);
        }
        for node in self.nodes() {
            let at = node.depth - 1;
            for i in 0..node.products.len() {
                push(ChebyshevOpKind::Multiply, at, 2);
                if i > 0 {
                    push(ChebyshevOpKind::Add, at, 3);
                }
            }
            for term in &node.terms {
                push(ChebyshevOpKind::ScalarMultiply, at, polys[term.power]);
            }
            if node.constant != 0.0 {
                push(ChebyshevOpKind::ScalarAdd, at, 1);
            }
            if node.relinearise {
                push(ChebyshevOpKind::Relinearise, at, 3);
            }
            push(ChebyshevOpKind::Rescale, at, 2);
        }
        list
    }
}
