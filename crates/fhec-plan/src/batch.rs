//! One image over the slots of its ciphertexts, or one image per slot.
//!
//! Layouts speak of the slots that *one image* has in a ciphertext. In latency mode these are all of them, N/2. In
//! throughput mode (nGraph-HE2 §3, "batch-axis packing") an image has one slot of every ciphertext, and N/2 images
//! share a ciphertext, image `i` in slot `i`. Then layouts, matrices and vectors are those of ciphertexts of a single slot:
//! element `e` of a tensor is ciphertext `e`, every weight is a scalar, and nothing is ever rotated. All else about a plan stays as
//! it is, and computing with one image means the same in both modes.
//!
//! A slot is a complex number and can hold *two* images (nGraph-HE2 §3.3): image `i` in the real part of slot `i`, image `N/2 + i` in its
//! imaginary part. Sums and products with weights act on both alike, biases are added to both. A product of ciphertexts is the
//! product of the real and that of the imaginary parts. Polynomials and bootstraps would mix the two.

use crate::{Input, Output, Parameters, Plan, PlanHead};

/// log2 of the factor in the scale of a product of ciphertexts whose slots hold two images: products of the parts come as
/// products of sums and differences with the conjugates, each twice a part.
pub const LOG2_PARTS: i64 = 2;

/// Slots that one image has in a ciphertext: all, or one where images share ciphertexts. The verifier makes sure that every
/// layout, matrix and vector of a plan agrees with its first input or output.
pub(crate) fn image_slots(parameters: &Parameters, inputs: &[Input], outputs: &[Output]) -> usize {
    let mut layouts = inputs.iter().map(|i| &i.layout).chain(outputs.iter().map(|o| &o.layout));
    layouts.next().map_or(parameters.slots(), |layout| layout.slots)
}

macro_rules! batch {
    ($type:ty) => {
        impl $type {
            /// Slots that one image has in a ciphertext: N/2 in latency mode, 1 in throughput mode.
            pub fn image_slots(&self) -> usize {
                image_slots(&self.parameters, &self.inputs, &self.outputs)
            }

            /// Images that one run evaluates: 1 in latency mode, N/2 or N in throughput mode.
            pub fn batch(&self) -> usize {
                (self.parameters.slots() / self.image_slots().max(1)).max(1) * self.images_per_slot()
            }

            /// Images that share a slot: 1, or 2 as its real and imaginary part.
            pub fn images_per_slot(&self) -> usize {
                1 + usize::from(self.complex)
            }

            /// Whether images share ciphertexts.
            pub fn is_batched(&self) -> bool {
                self.batch() > 1
            }
        }
    };
}

batch!(Plan);
batch!(PlanHead);
