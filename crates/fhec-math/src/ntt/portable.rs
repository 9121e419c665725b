//! The transform of the `tfhe-ntt` crate behind the conventions of this one.

use tfhe_ntt::prime64::Plan;

use crate::{MathError, Modulus};

/// A `tfhe-ntt` plan. That crate is right for every prime below 2^50, and leaves its inverse
/// unnormalised; its `mul_accumulate`, which may return unreduced values, is not used.
pub(super) struct PortableNtt(Plan);

impl PortableNtt {
    /// # Errors
    /// [`MathError::NotNttFriendly`] when the crate has no plan for the prime, or one with another
    /// root of unity than `psi`: better no transform than silently permuted values.
    pub(super) fn new(m: &Modulus, log_n: u32, psi: u64) -> Result<Self, MathError> {
        let error = MathError::NotNttFriendly { value: m.value(), log_n };
        let plan = Plan::try_new(1 << log_n, m.value()).ok_or_else(|| error.clone())?;
        let mut x = vec![0; 1 << log_n];
        x[1] = 1;
        plan.fwd(&mut x);
        if x[0] == psi { Ok(Self(plan)) } else { Err(error) }
    }

    /// Coefficients may be loose, below `4p`: the stages of `tfhe-ntt` for primes below 2^50 cut one operand themselves and take any other, which the
    /// tests of loose transforms hold it to.
    pub(super) fn forward(&self, limb: &mut [u64]) {
        self.0.fwd(limb);
    }

    pub(super) fn inverse(&self, limb: &mut [u64]) {
        self.0.inv(limb);
        self.0.normalize(limb);
    }
}
