//! Polynomials that approximate the sign function and ReLU: composites of minimax polynomials.
//!
//! A single polynomial that is close to the sign for `|x| ≥ 2^-13` would have a degree of many thousands. A composite
//! `p_k ∘ … ∘ p_1` of small ones has the same accuracy at about the logarithm of that cost: `p_1` is the odd polynomial
//! closest to the sign on `[−1, −gap] ∪ [gap, 1]`; its values lie in `[1 − e, 1 + e]` up to their sign, and `p_2` is the
//! closest one there, and so on (Lee, Lee, No, Kim, 2020/834 §3: no composite of the same degrees is better).
//!
//! With a composite `p`, `ReLU(x) ≈ x·(1 + p(x))/2` (2021/1688). Its error is at most half the error of `p` where
//! `|x| ≥ gap`; nearer to zero the factor `x` keeps it small. [`relu_composite`] takes the gap that balances both, for
//! the degrees published for precision α = 4 … 14 bits.
//!
//! # Form
//!
//! The engine evaluates Chebyshev series on `[−1, 1]`, so all scaling is folded into coefficients: stage `i` takes its argument
//! divided by the width of its interval, and gives its value divided by the width of the next one's. A composite
//! can be evaluated stage by stage with [`crate::chebyshev::ChebyshevPlan`], and its depth is the sum of the stages' depths.
//!
//! # Noise
//!
//! Under encryption the value of a stage is not exactly the polynomial's. Every interval after the first is wider by a
//! `margin` on both sides, so the error bound holds for each stage as long as the noise of its argument stays below the margin.
//! The noise of the last stage comes on top. The [`MARGIN`] of the ready-made composites is above the worst-slot noise of a
//! scale of 2^40 in a ring of degree 2^16, and costs less than 0.02 bits of α.

mod double;
mod remez;

use crate::chebyshev::{clenshaw, depth_of_degree};
use std::fmt;

/// Noise of a stage's argument that ready-made composites allow for.
pub const MARGIN: f64 = 1.0 / 65536.0;

/// Least and largest precision α for which degrees are known.
pub const PRECISIONS: std::ops::RangeInclusive<u32> = 4..=14;

/// For each α from 4 on: degrees of the stages (Lee et al., arXiv 2105.10879, used by 2021/1688), and −log2 of the gap at which the ReLU made of them is best.
/// A test searches the gaps again.
const TABLE: [(&[usize], f64); 11] = [
    (&[5], 1.547),
    (&[13], 2.420),
    (&[3, 7], 2.713),
    (&[7, 7], 3.569),
    (&[7, 15], 4.444),
    (&[15, 15], 5.315),
    (&[7, 7, 13], 6.331),
    (&[7, 7, 27], 7.264),
    (&[7, 15, 27], 8.202),
    (&[15, 15, 27], 9.149),
    (&[15, 27, 29], 9.988),
];

/// Largest degree of a stage.
pub const MAX_STAGE_DEGREE: usize = 63;

/// Why there is no such polynomial.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MinimaxError {
    /// A precision for which no degrees are known.
    Precision {
        /// Precision asked for, in bits.
        alpha: u32,
    },
    /// A degree that is even or beyond [`MAX_STAGE_DEGREE`].
    Degree {
        /// Degree asked for.
        degree: usize,
    },
    /// A composite without stages.
    NoStages,
    /// An interval that is empty, not finite or reaches zero.
    Interval {
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
    /// A margin or range that is negative, zero where it must not be, or not finite.
    Size {
        /// What is wrong.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The exchange does not settle: the interval is beyond what extended precision resolves.
    NoConvergence {
        /// Degree of the polynomial.
        degree: usize,
        /// Lower end of the interval divided by its upper end.
        ratio: f64,
    },
}

impl fmt::Display for MinimaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Precision { alpha } => {
                write!(f, "no composite for {alpha} bits: {} to {} are known", PRECISIONS.start(), PRECISIONS.end())
            }
            Self::Degree { degree } => {
                write!(f, "degree {degree} is not an odd number up to {MAX_STAGE_DEGREE}")
            }
            Self::NoStages => write!(f, "a composite needs at least one polynomial"),
            Self::Interval { lo, hi } => write!(f, "the sign has no best polynomial on [{lo}, {hi}]"),
            Self::Size { what, value } => write!(f, "{what} {value} is not possible"),
            Self::NoConvergence { degree, ratio } => {
                write!(f, "no minimax polynomial of degree {degree} was found on [{ratio}, 1]")
            }
        }
    }
}

impl std::error::Error for MinimaxError {}

/// The odd polynomial closest to the sign function on `[−hi, −lo] ∪ [lo, hi]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SignPolynomial {
    /// Coefficients of `T_0, T_1, …` as functions of `x / hi`; the even ones are zero.
    pub coefficients: Vec<f64>,
    /// Inner end of the interval.
    pub lo: f64,
    /// Outer end of the interval.
    pub hi: f64,
    /// Largest distance from the sign on the interval, for `coefficients` before their rounding to f64.
    pub error: f64,
}

impl SignPolynomial {
    /// The polynomial of an odd degree.
    ///
    /// # Errors
    /// [`MinimaxError::Degree`], [`MinimaxError::Interval`] unless `0 < lo < hi`, [`MinimaxError::NoConvergence`].
    pub fn new(degree: usize, lo: f64, hi: f64) -> Result<Self, MinimaxError> {
        if degree.is_multiple_of(2) || degree > MAX_STAGE_DEGREE {
            return Err(MinimaxError::Degree { degree });
        }
        let ratio = lo / hi;
        if !(hi.is_finite() && lo > 0.0 && ratio > 0.0 && ratio < 1.0) {
            return Err(MinimaxError::Interval { lo, hi });
        }
        let found = remez::minimax_sign(degree, ratio)?;
        let coefficients = found.odd.iter().flat_map(|c| [0.0, c.to_f64()]).collect();
        Ok(SignPolynomial { coefficients, lo, hi, error: found.error })
    }

    /// Value at `x`.
    pub fn eval(&self, x: f64) -> f64 {
        clenshaw(&self.coefficients, x / self.hi)
    }
}

/// A composite of polynomials for arguments in `[−1, 1]`; see the [module](self) for its form.
#[derive(Clone, Debug, PartialEq)]
pub struct Composite {
    stages: Vec<Vec<f64>>,
    gap: f64,
    factor: f64,
    error: f64,
}

impl Composite {
    /// The composite closest to the sign for `gap ≤ |x| ≤ 1` with stages of the given odd degrees, the first one applied
    /// first. Arguments of all later stages may be off by `margin`.
    ///
    /// # Errors
    /// [`MinimaxError`], where the degrees, the gap or the margin make no sense; [`MinimaxError::Interval`] too where the margin is
    /// so large that it reaches zero.
    pub fn sign(degrees: &[usize], gap: f64, margin: f64) -> Result<Self, MinimaxError> {
        if !(margin >= 0.0 && margin.is_finite()) {
            return Err(MinimaxError::Size { what: "a margin of", value: margin });
        }
        let mut polynomials: Vec<SignPolynomial> = Vec::with_capacity(degrees.len());
        for &degree in degrees {
            let (lo, hi) = match polynomials.last() {
                None => (gap, 1.0),
                Some(before) => (1.0 - before.error - margin, 1.0 + before.error + margin),
            };
            polynomials.push(SignPolynomial::new(degree, lo, hi)?);
        }
        let Some(last) = polynomials.last() else { return Err(MinimaxError::NoStages) };
        let error = last.error;
        let widths: Vec<f64> = polynomials.iter().skip(1).map(|p| p.hi).chain([1.0]).collect();
        let scaled = |(p, width): (SignPolynomial, f64)| p.coefficients.iter().map(|c| c / width).collect();
        let stages = polynomials.into_iter().zip(widths).map(scaled).collect();
        Ok(Composite { stages, gap, factor: 1.0, error })
    }

    /// The composite times a number, which is folded into the last stage.
    pub fn scaled(mut self, factor: f64) -> Self {
        for c in self.stages.last_mut().into_iter().flatten() {
            *c *= factor;
        }
        self.factor *= factor;
        self.error *= factor.abs();
        self
    }

    /// Chebyshev coefficients of every stage, on `[−1, 1]`, in the order of evaluation. Even ones are zero.
    pub fn stages(&self) -> &[Vec<f64>] {
        &self.stages
    }

    /// Degrees of the stages.
    pub fn degrees(&self) -> Vec<usize> {
        self.stages.iter().map(|s| s.len() - 1).collect()
    }

    /// Levels of all stages together: `Σ ⌈log2(degree + 1)⌉`.
    pub fn depth(&self) -> usize {
        self.stages.iter().map(|s| depth_of_degree(s.len() - 1)).sum()
    }

    /// Least `|x|` for which the error bound holds.
    pub fn gap(&self) -> f64 {
        self.gap
    }

    /// What the sign is multiplied with: 1, or what [`Composite::scaled`] was given.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Largest distance from `factor·sign(x)` for `gap ≤ |x| ≤ 1`.
    pub fn error(&self) -> f64 {
        self.error
    }

    /// Value at `x ∈ [−1, 1]`.
    pub fn eval(&self, x: f64) -> f64 {
        self.stages.iter().fold(x, |y, stage| clenshaw(stage, y))
    }
}

/// ReLU as `x·(1/2 + h(x / range))`, where `h` is a composite for half the sign.
#[derive(Clone, Debug, PartialEq)]
pub struct ReluComposite {
    half_sign: Composite,
    range: f64,
    error: f64,
}

impl ReluComposite {
    /// ReLU for `|x| ≤ range` made of a composite for the sign.
    ///
    /// # Errors
    /// [`MinimaxError::Size`] for a range that is not positive and finite.
    pub fn new(sign: Composite, range: f64) -> Result<Self, MinimaxError> {
        if !(range > 0.0 && range.is_finite()) {
            return Err(MinimaxError::Size { what: "a range of", value: range });
        }
        let half_sign = sign.scaled(0.5);
        let near = error_near_zero(&half_sign);
        let error = range * near.max(half_sign.error());
        Ok(ReluComposite { half_sign, range, error })
    }

    /// The composite `h` for half the sign, of `x / range`.
    pub fn half_sign(&self) -> &Composite {
        &self.half_sign
    }

    /// Largest `|x|`.
    pub fn range(&self) -> f64 {
        self.range
    }

    /// Levels: those of the composite and one for the product. Dividing by the range costs none where the layer before takes it over.
    pub fn depth(&self) -> usize {
        self.half_sign.depth() + 1
    }

    /// Largest distance from ReLU for `|x| ≤ range`.
    pub fn error(&self) -> f64 {
        self.error
    }

    /// Value at `x`, `|x| ≤ range`.
    pub fn eval(&self, x: f64) -> f64 {
        x * (0.5 + self.half_sign.eval(x / self.range))
    }
}

/// Largest `x·(1/2 − h(x))` for `0 ≤ x ≤ gap`: what ReLU errs by where the sign is not approximated. The function is smooth and
/// has few extrema there, so samples and a margin for what lies between them are enough.
fn error_near_zero(half_sign: &Composite) -> f64 {
    const SAMPLES: u32 = 1024;
    let points = (0..=SAMPLES).map(|i| half_sign.gap() * f64::from(i) / f64::from(SAMPLES));
    let most = points.map(|x| (x * (0.5 - half_sign.eval(x))).abs()).fold(0.0, f64::max);
    most * (1.0 + 1e-4)
}

fn published(alpha: u32) -> Result<(&'static [usize], f64), MinimaxError> {
    let entry = alpha.checked_sub(*PRECISIONS.start()).and_then(|i| TABLE.get(i as usize));
    let &(degrees, log2) = entry.ok_or(MinimaxError::Precision { alpha })?;
    Ok((degrees, libm::exp2(-log2)))
}

/// The composite for the sign with the degrees published for precision `alpha`: its error is below `2^(1−alpha)` for
/// [`Composite::gap`]` ≤ |x| ≤ 1`.
///
/// ```
/// let sign = fhec_math::minimax::sign_composite(7)?;
/// assert_eq!((sign.degrees(), sign.depth()), (vec![7, 7], 6));
/// assert!((sign.eval(-0.5) + 1.0).abs() < 1.0 / 64.0);
/// # Ok::<(), fhec_math::minimax::MinimaxError>(())
/// ```
///
/// # Errors
/// [`MinimaxError::Precision`] outside [`PRECISIONS`].
pub fn sign_composite(alpha: u32) -> Result<Composite, MinimaxError> {
    let (degrees, gap) = published(alpha)?;
    Composite::sign(degrees, gap, MARGIN)
}

/// ReLU for `|x| ≤ range` within `range·2^-alpha`.
///
/// # Errors
/// [`MinimaxError::Precision`] outside [`PRECISIONS`], [`MinimaxError::Size`] for a range that is not positive.
pub fn relu_composite(alpha: u32, range: f64) -> Result<ReluComposite, MinimaxError> {
    ReluComposite::new(sign_composite(alpha)?, range)
}

#[cfg(test)]
mod tests;
