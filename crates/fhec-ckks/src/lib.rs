//! RNS-CKKS, the approximate homomorphic encryption scheme: parameters, encoding, keys, encryption,
//! evaluation, linear maps, polynomials and bootstrapping.
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
//! * Work is spread over the ambient rayon pool; results do not depend on the number of threads. Call from inside a
//!   pool (`rayon::ThreadPool::install`): from outside, every parallel step waits for a thread of the global pool to wake.
//!
//! ```
//! use std::sync::Arc;
//!
//! use fhec_ckks::{
//!     Context, Encoder, Encryptor, EvaluationKeys, Evaluator, KeyRequest, ParameterSpec, SecretKey, Security,
//! };
//! use fhec_math::{Scale, SecretRng, SecurityLevel, galois_element, ntt_primes_below};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // N = 2^13: chain 36 + 30 + 30 bits, special prime of 37 bits, one limb a digit.
//! let medium: Vec<u64> = ntt_primes_below(30, 13).take(2).collect();
//! let spec = ParameterSpec {
//!     log_n: 13,
//!     q: ntt_primes_below(36, 13).take(1).chain(medium).collect(),
//!     p: ntt_primes_below(37, 13).take(1).collect(),
//!     digits: vec![1, 1, 1],
//! };
//! let context = Context::new(spec, Security::Level(SecurityLevel::Bits128))?;
//!
//! // The client makes keys; the server gets `keys` only.
//! let mut rng = SecretRng::from_os()?;
//! let secret = SecretKey::generate(&context, &mut rng);
//! let request = KeyRequest { relin_level: Some(2), galois: [(galois_element(1, 13), 1)].into(), ..KeyRequest::default() };
//! let keys = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ())?;
//!
//! let encoder = Encoder::new(&context);
//! let encryptor = Encryptor::new(&context);
//! let plaintext = encoder.encode(&[0.5, -0.25, 1.0, 0.0], 2, &Scale::pow2(30))?;
//! let x = encryptor.encrypt_sk(&secret, &plaintext, &mut rng)?.expand(&context)?;
//!
//! // x², then every slot moves one to the left.
//! let evaluator = Evaluator::new(&context, Arc::new(keys))?;
//! let square = evaluator.relinearise_rescale(&evaluator.square(&x)?)?;
//! let y = evaluator.rotate(&square, 1)?;
//!
//! let slots = encoder.decode(&encryptor.decrypt(&secret, &y)?)?;
//! for (found, expected) in slots.iter().zip([0.0625, 1.0, 0.0, 0.25]) {
//!     assert!((found - expected).abs() < 1e-4);
//! }
//! # Ok(())
//! # }
//! ```

pub mod bootstrap;
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

pub use bootstrap::{BootstrapChain, BootstrapPreset, BootstrapSpec, BootstrapTarget, Bootstrapper, EncapsulationKeys};
pub use cipher::{Ciphertext, Product, SeededCiphertext};
pub use encode::{EncodeScratch, Encoder};
pub use encrypt::Encryptor;
pub use error::CkksError;
pub use evaluator::{Evaluator, HoistedCiphertext, KeySwitches};
pub use keys::{EvaluationKeys, KeyRequest, PublicKey, SecretKey, SwitchingKey, UniformHalves};
pub use keyswitch::Decomposed;
pub use params::{Context, InsecureToken, ParameterSpec, Security};
pub use plaintext::{CoeffPlaintext, Plaintext, QpPlaintext};
pub use qp::QpPoly;
