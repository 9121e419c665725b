//! Variances of the elementary noise sources, in the real parts of the slots and at scale 1: divide by the
//! square of the scale for the error of a value.
//!
//! An error polynomial whose coefficients have variance v has slots of variance `N·v`, half of it in the real
//! part.
//! Fresh encryption: 2016/421; rounding and key switching: 2020/1203 §5. A dense ternary secret has
//! `h = 2N/3` non-zero coefficients.

use fhec_ckks::Context;
use fhec_math::log2_product;
use fhec_math::sample::NOISE_SIGMA as SIGMA;

/// Noise of one set of parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elementary {
    /// Ring degree.
    n: f64,
    /// Non-zero coefficients of the secret.
    h: f64,
    /// Variance of the real part of a slot for coefficients of variance 1.
    slot: f64,
}

impl Elementary {
    pub(crate) fn new(context: &Context) -> Self {
        let n = context.n() as f64;
        Elementary { n, h: 2.0 * n / 3.0, slot: n / 2.0 }
    }

    /// Fresh encryption under the secret key, rounding of the encoding included.
    pub(crate) fn fresh(&self) -> f64 {
        self.slot * (SIGMA * SIGMA + 1.0 / 12.0)
    }

    /// Rounding of both parts of a ciphertext: a rescale or a division by `P`.
    pub(crate) fn rounding(&self) -> f64 {
        self.slot * (self.h + 1.0) / 12.0
    }

    /// Rounding of the part that multiplies the secret alone.
    pub(crate) fn rounding_c1(&self) -> f64 {
        self.slot * self.h / 12.0
    }

    /// Rounding of the three parts of a product: the third multiplies s², whose slots are exponentially
    /// distributed with mean h, so that their mean square is 2h².
    pub(crate) fn rounding_product(&self) -> f64 {
        self.rounding() + self.slot * 2.0 * self.h * self.h / 12.0
    }

    /// Rounding of an encoded vector of the given period: it has `2·period` coefficients.
    pub(crate) fn encoding(&self, period: usize) -> f64 {
        self.slot.min(period as f64) / 12.0
    }

    /// A key switch at `level`, without the rounding of the division by `P`: every digit `D` contributes
    /// `σN/√12 · D/P`.
    pub(crate) fn key_switch(&self, context: &Context, level: usize) -> f64 {
        let spec = context.spec();
        let log2_p = log2_product(&spec.p);
        let mut start = 0;
        let mut ratio = 0.0;
        for &len in &spec.digits {
            if start <= level {
                let log2 = log2_product(&spec.q[start..(start + len).min(level + 1)]);
                ratio += (2.0 * (log2 - log2_p)).exp2();
            }
            start += len;
        }
        SIGMA * SIGMA * self.slot * self.n / 12.0 * ratio
    }
}
