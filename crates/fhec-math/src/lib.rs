//! Arithmetic under RNS-CKKS, without any knowledge of the scheme.
//!
//! The ring is `Z_Q[X]/(X^N + 1)` with `N = 2^log_n` and `Q` a product of distinct primes below
//! 2^50, so a polynomial is a list of *limbs*: `N` residues for each prime. Everything here works on
//! one limb or on a limb-major block of them ([`Poly`]).
//!
//! Conventions, which every function keeps:
//!
//! * Residues are canonical, in `[0, p)`, at every function boundary.
//! * The transform ([`NttTable`]) takes natural order to bit-reversed order:
//!   `out[i] = a(ψ^(2·brv(i)+1))`, where `ψ` is a fixed primitive `2N`-th root of unity.
//! * Lengths that do not fit are a programming error and panic; values that come from outside
//!   (moduli, serialised parts) are checked and give a [`MathError`].
//! * Kernels for AVX-512-IFMA are chosen at run time ([`cpu::kernels`]); results do not depend on the choice.

pub mod accumulate;
pub mod bootstrap;
pub mod bsgs;
pub mod buffer;
pub mod chebyshev;
pub mod convert;
pub mod cpu;
pub mod diagonals;
pub mod error;
mod fetch;
pub mod galois;
pub mod minimax;
pub mod modulus;
pub mod ntt;
pub mod packed;
pub mod pointwise;
pub mod poly;
pub mod primes;
pub mod sample;
pub mod scalar_sums;
pub mod scale;
pub mod security;
#[cfg(target_arch = "x86_64")]
mod simd;
mod special;
pub mod streamed;

pub use accumulate::LazyAccumulator;
pub use buffer::AlignedVec;
pub use convert::BaseConverter;
pub use error::MathError;
pub use fetch::Fetch;
pub use galois::{Automorphism, conjugation_element, galois_element};
pub use modulus::Modulus;
pub use ntt::NttTable;
pub use poly::{Coeff, Eval, Form, Poly};
pub use primes::{is_prime, ntt_primes_below, ntt_primes_near};
pub use sample::{SecretRng, lift_small, uniform_from_seed};
pub use scale::Scale;
pub use security::{SecurityLevel, log2_product, max_log_qp, max_log_sparse, security_estimate, sparse_security};
pub use special::special_primes;
/// Wraps what must be wiped when dropped, such as a secret [`Poly`] or [`AlignedVec`].
pub use zeroize::Zeroizing;
