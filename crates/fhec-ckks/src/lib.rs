//! RNS-CKKS, the approximate homomorphic encryption scheme: parameters, encoding, keys, encryption,
//! evaluation, linear maps and polynomials.
//!
//! The scheme is that of Cheon, Kim, Kim, Song (2016/421) in its full-RNS form (2018/931), with
//! hybrid key switching (2019/688) and double-hoisted linear maps (2020/1203). It is secure under
//! chosen plaintexts only: **a decryption that is shown to anybody but the key holder leaks the
//! key** (2020/1533), so decryptions stay with the key holder.
//!
//! Conventions, valid throughout the crate:
//!
//! * The ring is `Z_Q[X]/(X^N + 1)`, `N = 2^log_n`. The chain is `q_0 … q_L`; a ciphertext at *level*
//!   `ℓ` lives modulo `q_0 · … · q_ℓ` (level 0: one limb). The special primes `p_0 … p_{α-1}` with
//!   product `P` exist only inside key switching.
//! * Ciphertexts and plaintexts stay in evaluation (NTT) form.
//! * There are `N/2` complex slots; slot `j` is the value of the polynomial at `ζ^(5^j)`,
//!   `ζ = exp(iπ/N)`, divided by the scale. Rotation by `k` moves slot `i + k` to slot `i`.
//! * Scales are exact ([`fhec_math::Scale`]). Operands whose level or scale differ are refused;
//!   nothing is adjusted silently.
//! * Work is spread over the ambient rayon pool; results do not depend on the number of threads.

pub mod chebyshev;
pub mod cipher;
pub mod container;
pub mod encode;
pub mod encrypt;
pub mod error;
pub mod evaluator;
pub mod keys;
pub mod keyswitch;
mod limbs;
pub mod linear;
pub mod params;
pub mod plaintext;
pub mod qp;

pub use cipher::{Ciphertext, Product, SeededCiphertext};
pub use encode::Encoder;
pub use encrypt::Encryptor;
pub use error::CkksError;
pub use evaluator::{Evaluator, HoistedCiphertext};
pub use keys::{EvaluationKeys, KeyRequest, PublicKey, SecretKey, SwitchingKey};
pub use keyswitch::Decomposed;
pub use params::{Context, InsecureToken, ParameterSpec, Security};
pub use plaintext::{CoeffPlaintext, Plaintext, QpPlaintext};
pub use qp::QpPoly;
