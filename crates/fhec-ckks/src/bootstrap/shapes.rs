//! What the matrices of both transforms look like: layers, levels and scales.

use fhec_math::Scale;
use fhec_math::bootstrap::Matrix;

use super::fft::Direction;
use super::transform::StageShape;
use super::{Bootstrapper, cosine, spread};

impl Bootstrapper {
    /// Scales of slots-to-coefficients: from that of the input to the message ratio, with [`spread`] between them.
    pub(super) fn slots_to_coeffs_shapes(&self, log_slots: u32) -> Vec<StageShape> {
        let matrices = self.spec.down(log_slots);
        let prime = |level: usize| Scale::prime(self.context.q(level).value());
        let end = prime(0).div(&Scale::pow2(i64::from(self.spec.log_message_ratio)));
        let level = |matrices: &[Matrix]| spread::Level {
            last_layers: matrices.iter().map(|m| m.group.last).collect(),
            prime: prime(matrices[0].level).log2(),
            modulus: (0..matrices[0].level).map(|level| prime(level).log2()).sum(),
        };
        let levels: Vec<spread::Level> = matrices.chunk_by(|a, b| a.level == b.level).map(level).collect();
        let ends = [self.spec.input_scale.log2(), end.log2()];
        let low = self.spec.low_ring(log_slots, self.context.log_n());
        let scales = spread::scales(&levels, low.map_or(self.context.log_n(), |ring| ring.log_n), ends);
        let mut scale = self.spec.input_scale.clone();
        let mut shapes = Vec::with_capacity(matrices.len());
        for (i, (matrix, log2)) in matrices.iter().zip(scales).enumerate() {
            let out_scale = if i + 1 == matrices.len() { end.clone() } else { Scale::pow2(log2.round() as i64) };
            shapes.push(StageShape {
                direction: Direction::SlotsToCoeffs,
                low,
                matrix: *matrix,
                in_scale: std::mem::replace(&mut scale, out_scale.clone()),
                out_scale,
                factor: 1.0,
            });
        }
        shapes
    }

    /// Scales of coefficients-to-slots: `q_0`, so that slots end as `t`. The factor `1/K'` that EvalMod expects, and the half
    /// that `z + z̄` asks for, go into the matrix used last.
    ///
    /// A trace multiplies what it leaves by the number of its rotations. So before it the scale is that much smaller, and every
    /// matrix takes its share of it. The rescale of the matrix used last is left to the sums that follow, so that its rounding comes after.
    pub(super) fn coeffs_to_slots_shapes(&self, log_slots: u32) -> Vec<StageShape> {
        let matrices = self.spec.up(log_slots, self.output_level);
        let count = matrices.len() as i64;
        let doublings = i64::from(self.context.log_n() - 1 - log_slots);
        let scale = |done: i64| self.raised_scale().div(&Scale::pow2(doublings * done / count));
        let shape = |(matrix, done): (Matrix, i64)| {
            let out_scale = scale(done + 1);
            let prime = || Scale::prime(self.context.q(matrix.level).value());
            StageShape {
                direction: Direction::CoeffsToSlots,
                low: None,
                matrix,
                in_scale: scale(done),
                out_scale: if matrix.rescale { out_scale } else { out_scale.mul(&prime()) },
                factor: if matrix.group.first == 0 { 0.5 / cosine::half_range(&self.spec) } else { 1.0 },
            }
        };
        matrices.into_iter().zip(0..).map(shape).collect()
    }

    /// The scale at which a multiple of `q_0` is an integer.
    fn raised_scale(&self) -> Scale {
        Scale::prime(self.context.q(0).value())
    }
}
