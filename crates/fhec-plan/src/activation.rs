//! Elementwise functions as the ONNX operators define them.

/// An elementwise function.
#[derive(Clone, Debug, PartialEq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x for x ≥ 0, alpha·x below
    LeakyRelu {
        /// Slope below zero.
        alpha: f64,
    },
    /// x for x ≥ 0, alpha(eˣ − 1) below
    Elu {
        /// Factor below zero.
        alpha: f64,
    },
    /// gamma·x for x > 0, gamma·alpha(eˣ − 1) below
    Selu {
        /// Factor below zero.
        alpha: f64,
        /// Overall factor.
        gamma: f64,
    },
    /// max(x, 0) + min(0, alpha(e^(x/alpha) − 1))
    Celu {
        /// Sharpness.
        alpha: f64,
    },
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// clamp(alpha·x + beta, 0, 1)
    HardSigmoid {
        /// Slope.
        alpha: f64,
        /// Offset.
        beta: f64,
    },
    /// x · clamp(x/6 + 1/2, 0, 1)
    HardSwish,
    /// x · sigmoid(alpha·x); alpha = 1 is SiLU
    Swish {
        /// Sharpness.
        alpha: f64,
    },
    /// x · tanh(softplus(x))
    Mish,
    /// tanh(x)
    Tanh,
    /// The error function.
    Erf,
    /// x·Φ(x), or its tanh approximation
    Gelu {
        /// Use the tanh form.
        tanh: bool,
    },
    /// ln(1 + eˣ)
    Softplus,
    /// x / (1 + |x|)
    Softsign,
    /// eˣ
    Exp,
    /// clamp(x, min, max)
    Clip {
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
    /// xⁿ for a small natural n: exact under encryption.
    Power {
        /// Exponent, at least 2.
        exponent: u32,
    },
}

impl Activation {
    /// Whether its parameters are numbers that it can be computed with.
    pub fn is_sound(&self) -> bool {
        match *self {
            Activation::LeakyRelu { alpha } | Activation::Elu { alpha } | Activation::Swish { alpha } => {
                alpha.is_finite()
            }
            Activation::Selu { alpha, gamma } => alpha.is_finite() && gamma.is_finite(),
            Activation::Celu { alpha } => alpha.is_finite() && alpha != 0.0,
            Activation::HardSigmoid { alpha, beta } => alpha.is_finite() && beta.is_finite(),
            // One end may be open.
            Activation::Clip { min, max } => !min.is_nan() && !max.is_nan(),
            Activation::Power { exponent } => exponent <= i32::MAX as u32,
            _ => true,
        }
    }

    /// The bounds of a clipping, which ReLU is too; `None` of all other functions. They are monotone, so that the bounds of one, put
    /// through a second, are those of both.
    pub fn clipping(&self) -> Option<(f64, f64)> {
        match *self {
            Activation::Relu => Some((0.0, f64::INFINITY)),
            Activation::Clip { min, max } => Some((min, max)),
            _ => None,
        }
    }

    /// The function itself. Inlined, so that a loop over one function is a loop of its own.
    #[inline(always)]
    pub fn eval(&self, x: f64) -> f64 {
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        let sigmoid = |x: f64| if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
        match *self {
            Activation::Relu => x.max(0.0),
            Activation::LeakyRelu { alpha } => {
                if x >= 0.0 {
                    x
                } else {
                    alpha * x
                }
            }
            Activation::Elu { alpha } => {
                if x >= 0.0 {
                    x
                } else {
                    alpha * x.exp_m1()
                }
            }
            Activation::Selu { alpha, gamma } => gamma * if x > 0.0 { x } else { alpha * x.exp_m1() },
            Activation::Celu { alpha } => x.max(0.0) + (alpha * (x / alpha).exp_m1()).min(0.0),
            Activation::Sigmoid => sigmoid(x),
            Activation::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Activation::Swish { alpha } => x * sigmoid(alpha * x),
            Activation::Mish => x * softplus(x).tanh(),
            Activation::Tanh => x.tanh(),
            Activation::Erf => libm::erf(x),
            Activation::Gelu { tanh: false } => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Activation::Gelu { tanh: true } => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Activation::Softplus => softplus(x),
            Activation::Softsign => x / (1.0 + x.abs()),
            Activation::Exp => x.exp(),
            Activation::Clip { min, max } => x.max(min).min(max),
            Activation::Power { exponent } => x.powi(exponent as i32),
        }
    }

    /// The name of the ONNX operator, for messages and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Activation::Relu => "Relu",
            Activation::LeakyRelu { .. } => "LeakyRelu",
            Activation::Elu { .. } => "Elu",
            Activation::Selu { .. } => "Selu",
            Activation::Celu { .. } => "Celu",
            Activation::Sigmoid => "Sigmoid",
            Activation::HardSigmoid { .. } => "HardSigmoid",
            Activation::HardSwish => "HardSwish",
            Activation::Swish { .. } => "Swish",
            Activation::Mish => "Mish",
            Activation::Tanh => "Tanh",
            Activation::Erf => "Erf",
            Activation::Gelu { .. } => "Gelu",
            Activation::Softplus => "Softplus",
            Activation::Softsign => "Softsign",
            Activation::Exp => "Exp",
            Activation::Clip { .. } => "Clip",
            Activation::Power { .. } => "Pow",
        }
    }
}
