//! Layout choice: where the elements of every packed value are.
//!
//! Values that are added or multiplied elementwise share a layout and form a *class*. Classes joined
//! by convolutions and poolings form a *trunk* that shares a physical pixel grid (single-shot multiplexed
//! packing, Orion §4), because a window whose input and output share a grid has few diagonals: one for
//! each tap and shift of channels, whatever the number of pixels. What is free to choose is the grid
//! (row and plane strides; powers of two make rotations wrap onto each other), the period with which a small
//! tensor repeats (a short output period folds diagonals together, at one rotation per halving), and
//! whether a value that no window reads is packed densely instead. `choose` prices every linear map for
//! every pair of candidates and descends class by class. Where images share ciphertexts there is no choice (`batched`).

pub(crate) mod batched;
pub(crate) mod choose;
pub(crate) mod classes;
pub mod diagonals;
pub mod positions;

use fhec_math::bsgs::BsgsWeights;

/// Prices by which layouts and merges are compared, in any one unit, at one limb; an operation with
/// ℓ levels left is taken to cost ℓ + 2 times that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearCost {
    /// Parts of a double-hoisted linear map.
    pub bsgs: BsgsWeights,
    /// One rotate-and-add of the hybrid method.
    pub fold: f64,
    /// One product of ciphertexts, relinearised: nonlinear operations pay it for every ciphertext.
    pub product: f64,
    /// One product with a scalar, added to a sum: maps between values of which an image has one slot a ciphertext.
    pub scalar: f64,
    /// The rescale of one such sum.
    pub output: f64,
}

impl Default for LinearCost {
    /// In key switches.
    fn default() -> Self {
        LinearCost { bsgs: BsgsWeights::default(), fold: 1.0, product: 1.2, scalar: 0.01, output: 0.2 }
    }
}
