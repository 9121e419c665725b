//! Plans for evaluating a Chebyshev series with few products at optimal depth.
//!
//! A series `p = Σ c_k·T_k` is turned into a list of power steps and of nodes that a backend executes
//! (Paterson–Stockmeyer in the Chebyshev basis, Han–Ki 2019/688 §4, Bossuat et al. 2020/1203 §5).
//! The plan knows nothing of ciphertexts: the compiler prices it, the clear backend runs it in `f64`, and the engine
//! runs it under encryption.
//!
//! # The basis
//!
//! Everything is expressed in `C_k = 2·T_k`, for which `C_{a+b} = C_a·C_b − C_{a−b}` and `C_0 = 2`. Compared with
//! `T_{a+b} = 2·T_a·T_b − T_{a−b}` the doublings disappear: one addition at the start makes `C_1 = x + x`.
//!
//! # Depth
//!
//! One level is one rescale. `C_k` lies `⌈log2 k⌉` levels below the input and a linear combination costs one level more,
//! so a series of degree `d` needs `⌈log2(d + 1)⌉` levels and every plan of [`ChebyshevPlan::new`] has exactly that
//! depth: the leading chunk is split again wherever its own linear combination would come one level too late.
//!
//! # Execution
//!
//! * [`PowerStep`]: `C_index = C_a·C_b − C_{a−b}`; the subtrahend joins before the rescale.
//! * [`Node`]: `constant + Σ coefficient·C_power + Σ node·C_power`, all addends at one level and one scale, then one
//!   relinearisation (if any of them has degree 2) and one rescale.
//! * Levels are as late as the consumers allow, because low levels are cheap.

mod cost;
mod search;

pub use cost::{ChebyshevCost, ChebyshevOp, ChebyshevOpKind, ChebyshevWeights};

use std::fmt;

/// Largest degree that a plan can have.
pub const MAX_DEGREE: usize = 511;

/// Why no plan was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChebyshevError {
    /// The series is a constant (or empty): there is nothing to evaluate on a ciphertext.
    Constant,
    /// The degree exceeds [`MAX_DEGREE`].
    Degree {
        /// Degree after removal of trailing zeros.
        degree: usize,
    },
    /// A coefficient is infinite or not a number.
    NotFinite {
        /// Index of the coefficient.
        index: usize,
    },
    /// The asked depth is below `⌈log2(degree + 1)⌉`.
    Depth {
        /// Degree of the series.
        degree: usize,
        /// Depth that was asked for, in levels.
        asked: usize,
        /// Least possible depth, in levels.
        least: usize,
    },
}

impl fmt::Display for ChebyshevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => write!(f, "Chebyshev series has degree 0"),
            Self::Degree { degree } => {
                write!(f, "Chebyshev series of degree {degree}, at most {MAX_DEGREE} is supported")
            }
            Self::NotFinite { index } => {
                write!(f, "Chebyshev coefficient {index} is not a finite number")
            }
            Self::Depth { degree, asked, least } => {
                write!(f, "Chebyshev series of degree {degree} needs {least} levels, {asked} were given")
            }
        }
    }
}

impl std::error::Error for ChebyshevError {}

/// `C_{a+b} = C_a·C_b − C_{a−b}` with `a ≥ b ≥ 1`; for `a = b` the subtrahend is the constant 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerStep {
    /// Index of the result, `a + b`.
    pub index: usize,
    /// Larger operand.
    pub a: usize,
    /// Smaller operand.
    pub b: usize,
    /// Levels below the input at which the result lies, after its rescale.
    pub depth: usize,
    /// Whether the result is relinearised. If not it has degree 2 and occurs only in [`Node::terms`] and as
    /// a subtrahend.
    pub relinearise: bool,
}

/// `coefficient · C_power` in a [`Node`]; `power ≥ 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// Index k of `C_k`.
    pub power: usize,
    /// Real factor, in the basis `C`.
    pub coefficient: f64,
}

/// `node · C_power` in a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductTerm {
    /// Index into [`ChebyshevPlan::nodes`], smaller than that of the node it occurs in.
    pub node: usize,
    /// Index k of `C_k`.
    pub power: usize,
}

/// A sum that is rescaled once.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Levels below the input at which the value lies, after its rescale.
    pub depth: usize,
    /// Constant addend.
    pub constant: f64,
    /// Scalar multiples of powers, by falling index.
    pub terms: Vec<Term>,
    /// Products of ciphertexts.
    pub products: Vec<ProductTerm>,
    /// Whether the sum has degree 2 (a product or a power of degree 2 takes part) and is relinearised before its rescale.
    pub relinearise: bool,
}

/// How to evaluate one Chebyshev series. See the module documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct ChebyshevPlan {
    coefficients: Vec<f64>,
    depth: usize,
    powers: Vec<PowerStep>,
    nodes: Vec<Node>,
}

/// Least number of levels for a series of this degree, `⌈log2(degree + 1)⌉`.
pub fn depth_of_degree(degree: usize) -> usize {
    ceil_log2(degree + 1)
}

/// `⌈log2 k⌉` for `k ≥ 1`.
pub(crate) fn ceil_log2(k: usize) -> usize {
    k.next_power_of_two().trailing_zeros() as usize
}

/// Value of `Σ c_k·T_k(x)` by Clenshaw's recurrence: the reference for every plan.
pub fn clenshaw(coefficients: &[f64], x: f64) -> f64 {
    let (mut b1, mut b2) = (0.0, 0.0);
    for &c in coefficients.iter().skip(1).rev() {
        (b1, b2) = (c + 2.0 * x * b1 - b2, b1);
    }
    coefficients.first().copied().unwrap_or(0.0) + x * b1 - b2
}

/// [`clenshaw`] of every value, in place. Runs several recurrences side by side: one alone waits for its own last
/// result at every step.
pub fn clenshaw_all(coefficients: &[f64], values: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { clenshaw_all_avx2(coefficients, values) };
    }
    clenshaw_all_portable(coefficients, values)
}

/// The portable code, compiled for 256-bit vectors. Without fused multiply-add, so that results are the same to the last bit.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn clenshaw_all_avx2(coefficients: &[f64], values: &mut [f64]) {
    clenshaw_all_portable(coefficients, values)
}

#[inline(always)]
fn clenshaw_all_portable(coefficients: &[f64], values: &mut [f64]) {
    const LANES: usize = 16;
    let mut blocks = values.chunks_exact_mut(LANES);
    for block in &mut blocks {
        let twice: [f64; LANES] = std::array::from_fn(|lane| 2.0 * block[lane]);
        let (mut b1, mut b2) = ([0.0; LANES], [0.0; LANES]);
        for &c in coefficients.iter().skip(1).rev() {
            let next: [f64; LANES] = std::array::from_fn(|lane| c + twice[lane] * b1[lane] - b2[lane]);
            (b1, b2) = (next, b1);
        }
        let constant = coefficients.first().copied().unwrap_or(0.0);
        for lane in 0..LANES {
            block[lane] = constant + block[lane] * b1[lane] - b2[lane];
        }
    }
    for x in blocks.into_remainder() {
        *x = clenshaw(coefficients, *x);
    }
}

impl ChebyshevPlan {
    /// Plans `Σ coefficients[k]·T_k(x)` for `x ∈ [−1, 1]` at the least depth, with the weights of
    /// [`ChebyshevWeights::default`].
    ///
    /// Trailing zeros are dropped. Zero coefficients are used: odd and even series cost about half.
    pub fn new(coefficients: &[f64]) -> Result<Self, ChebyshevError> {
        let degree = degree_of(coefficients)?;
        Self::with_depth(coefficients, depth_of_degree(degree), &ChebyshevWeights::default())
    }

    /// Plans the series for exactly `depth` levels, which may be more than the least number, minimising the weighted cost.
    pub fn with_depth(coefficients: &[f64], depth: usize, weights: &ChebyshevWeights) -> Result<Self, ChebyshevError> {
        let degree = degree_of(coefficients)?;
        let least = depth_of_degree(degree);
        if depth < least {
            return Err(ChebyshevError::Depth { degree, asked: depth, least });
        }
        Ok(search::best_plan(&coefficients[..=degree], depth, weights))
    }

    /// The plan of `factor` times the series: the same steps with other numbers.
    ///
    /// # Panics
    /// When the factor is zero or not finite.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        assert!(factor != 0.0 && factor.is_finite(), "factor {factor}");
        let mut plan = self.clone();
        plan.coefficients.iter_mut().for_each(|c| *c *= factor);
        for node in &mut plan.nodes {
            node.constant *= factor;
            node.terms.iter_mut().for_each(|term| term.coefficient *= factor);
        }
        plan
    }

    /// Coefficients in the basis `T_k`, the last one not zero.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// Degree of the series.
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Levels between the input and the output.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Powers to compute, operands before results. `C_1` is the input and not in the list.
    pub fn powers(&self) -> &[PowerStep] {
        &self.powers
    }

    /// Nodes to compute, operands before results. The last one is the output.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The last node.
    pub fn root(&self) -> &Node {
        &self.nodes[self.nodes.len() - 1]
    }

    /// Counts of all operations.
    pub fn cost(&self) -> ChebyshevCost {
        ChebyshevCost::of(&self.operations())
    }

    /// Runs the plan in `f64`.
    pub fn eval(&self, x: f64) -> f64 {
        let mut power = vec![f64::NAN; self.coefficients.len().max(2)];
        power[0] = 2.0;
        power[1] = 2.0 * x;
        for step in &self.powers {
            power[step.index] = power[step.a] * power[step.b] - power[step.a - step.b];
        }
        let mut value = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let terms: f64 = node.terms.iter().map(|t| t.coefficient * power[t.power]).sum();
            let products: f64 = node.products.iter().map(|p| value[p.node] * power[p.power]).sum();
            value.push(node.constant + terms + products);
        }
        value[value.len() - 1]
    }
}

/// Degree after removal of trailing zeros; refuses what cannot be planned.
fn degree_of(coefficients: &[f64]) -> Result<usize, ChebyshevError> {
    if let Some(index) = coefficients.iter().position(|c| !c.is_finite()) {
        return Err(ChebyshevError::NotFinite { index });
    }
    match coefficients.iter().rposition(|&c| c != 0.0) {
        None | Some(0) => Err(ChebyshevError::Constant),
        Some(degree) if degree > MAX_DEGREE => Err(ChebyshevError::Degree { degree }),
        Some(degree) => Ok(degree),
    }
}

#[cfg(test)]
mod tests;
