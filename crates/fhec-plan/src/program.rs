//! The plan itself: parameters, key manifest, tables, instructions and report, as plain Rust types.
//! How they are written to a file is the business of the wire module alone.

use crate::{Aided, KeyManifest, LayerId, Layout, Matrix, MatrixId, PolyId, Reg, Vector, VectorId, Weights};
use fhec_math::bootstrap::{BootstrapSpec, LowRing};
use fhec_math::scale::Scale;
use fhec_math::security::{SecurityLevel, security_estimate, sparse_security};

/// A compiled network.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Version of the compiler that wrote it.
    pub compiler: String,
    /// Name of the source model (file stem).
    pub model: String,
    /// Encryption parameters.
    pub parameters: Parameters,
    /// Evaluation keys that the instructions use.
    pub keys: KeyManifest,
    /// What the client encrypts, in order.
    pub inputs: Vec<Input>,
    /// What the client decrypts, in order.
    pub outputs: Vec<Output>,
    /// Whether a slot holds two images, one in its real and one in its imaginary part: only in throughput mode.
    pub complex: bool,
    /// Rounds and client functions, in client-aided mode.
    pub aided: Option<Aided>,
    /// Layers of the source model, indexed by [`LayerId`].
    pub layers: Vec<Layer>,
    /// Linear maps, indexed by [`MatrixId`].
    pub matrices: Vec<Matrix>,
    /// Plaintext vectors, indexed by [`VectorId`].
    pub vectors: Vec<Vector>,
    /// Polynomials, indexed by [`PolyId`].
    pub polynomials: Vec<Polynomial>,
    /// Weight tensors that matrices and vectors refer to.
    pub weights: Weights,
    /// Straight-line program.
    pub instructions: Vec<Instruction>,
    /// What the compiler predicted.
    pub report: Report,
}

impl Plan {
    /// Bytes of memory that come on top of [`Report::peak_memory`] where several inputs are evaluated: weights stay encoded, and the
    /// uniform halves of keys are kept where a single run [does not](Report::keeps_keys).
    pub fn kept_bytes(&self) -> u64 {
        let halves = if self.report.keeps_keys { 0 } else { self.report.key_bytes_memory / 2 };
        self.report.plaintext_budget.saturating_add(halves)
    }
}

/// RNS-CKKS parameters. Secret: dense ternary; error: σ ≈ 3.2.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Ring degree N = 2^log_n.
    pub log_n: u32,
    /// Modulus chain, `q[0]` first; level ℓ uses `q[0..=ℓ]`.
    pub q: Vec<u64>,
    /// Special primes of key switching.
    pub p: Vec<u64>,
    /// Limbs of each key-switching digit, from `q[0]` up; sums to `q.len()`.
    pub digits: Vec<usize>,
    /// The level that was asked for and is guaranteed; `None` only for test plans that carry the
    /// explicit insecurity token.
    pub security: Option<SecurityLevel>,
    /// The circuit of bootstraps, where the plan has any. The chain is laid out for it.
    pub bootstrap: Option<BootstrapSpec>,
}

impl Parameters {
    /// Slots of a ciphertext, N/2.
    pub fn slots(&self) -> usize {
        1 << (self.log_n - 1)
    }

    /// Highest level.
    pub fn max_level(&self) -> usize {
        self.q.len() - 1
    }

    /// Highest level of values of the network: above it are the primes of bootstraps.
    pub fn message_level(&self) -> usize {
        let above = self.bootstrap.as_ref().and_then(|spec| spec.output_level(self.max_level()));
        above.unwrap_or(self.max_level())
    }

    /// log2 of Q·P.
    pub fn log_qp(&self) -> f64 {
        self.q.iter().chain(&self.p).map(|&m| (m as f64).log2()).sum()
    }

    /// log2 of the modulus under which the sparse secret of bootstraps is used, q_0·p_0.
    pub fn log_sparse(&self) -> f64 {
        self.q.iter().take(1).chain(self.p.iter().take(1)).map(|&m| (m as f64).log2()).sum()
    }

    /// The smaller rings that bootstraps may go down to, and log2 of the modulus there.
    pub fn low_rings(&self) -> Vec<(LowRing, f64)> {
        let log2 = |primes: &[u64]| -> Vec<f64> { primes.iter().map(|&m| (m as f64).log2()).collect() };
        let (q, p) = (log2(&self.q), log2(&self.p));
        let rings = self.bootstrap.iter().flat_map(|spec| spec.low_rings(self.log_n));
        rings.map(|ring| (ring, ring.log_qp(&q, &p))).collect()
    }

    /// An estimate of the security in bits: that of the dense secret or, where the plan bootstraps, that of a smaller ring or what is
    /// granted to the sparse secret if that is less. 0 where nothing is known.
    pub fn security_bits(&self) -> f64 {
        let estimate = |log_n, log_qp| security_estimate(log_n, log_qp).unwrap_or(0.0);
        let sparse = |spec: &BootstrapSpec| sparse_security(self.log_n, spec.sparse_weight, self.log_sparse());
        let low = self.low_rings().into_iter().map(|(ring, log_qp)| estimate(ring.log_n, log_qp));
        let others = low.chain(self.bootstrap.as_ref().map(|spec| sparse(spec).unwrap_or(0.0)));
        others.fold(estimate(self.log_n, self.log_qp()), f64::min)
    }
}

/// log2 of the number of slots that a value of a period is bootstrapped with; a bootstrap has at least two.
pub fn bootstrap_slots(period: usize) -> u32 {
    period.trailing_zeros().max(1)
}

/// How a client turns a picture or raw array into the tensor the network expects:
/// `(pixel · scale − mean[channel]) / std[channel]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Factor for raw pixel values 0…255 (1/255 makes them 0…1).
    pub scale: f64,
    /// Subtracted per channel; one entry serves all channels.
    pub mean: Vec<f64>,
    /// Divides per channel; one entry serves all channels.
    pub std: Vec<f64>,
}

/// One encrypted input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Name in the model.
    pub name: String,
    /// Tensor shape, batch first.
    pub shape: Vec<usize>,
    /// Where its elements go.
    pub layout: Layout,
    /// Level of the fresh ciphertext.
    pub level: usize,
    /// Scale of the fresh ciphertext.
    pub scale: Scale,
    /// Multiplied into every value before encoding (range normalisation that the client does for free).
    pub factor: f64,
    /// Values seen in calibration (or declared), with margin; the client warns outside of it.
    pub range: (f64, f64),
    /// What to do to pictures.
    pub preprocess: Option<Preprocess>,
}

/// What the client does to a decrypted output.
#[derive(Clone, Debug, PartialEq)]
pub enum Postprocess {
    /// Softmax over the given axis of the output's shape: left to the client, who sees the logits anyway.
    Softmax {
        /// Axis, non-negative.
        axis: usize,
    },
}

/// One encrypted output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Name in the model.
    pub name: String,
    /// Tensor shape, batch first.
    pub shape: Vec<usize>,
    /// Where its elements are.
    pub layout: Layout,
    /// Level at the end.
    pub level: usize,
    /// Scale at the end.
    pub scale: Scale,
    /// Multiplied into every decrypted value.
    pub factor: f64,
    /// Range of values seen in calibration (or derived), for the precision figures.
    pub range: (f64, f64),
    /// Predicted standard deviation of the error, in the units of the output; `decrypt` rounds to it.
    pub error_std: f64,
    /// Left to the client.
    pub postprocess: Vec<Postprocess>,
}

/// A layer of the source model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Names of the ONNX nodes it came from.
    pub name: String,
    /// What it is ("Conv 5x5 stride 2", "Square", …).
    pub kind: String,
}

/// A polynomial in the Chebyshev basis of [-1, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Polynomial {
    /// Coefficients of T_0, T_1, …
    pub chebyshev: Vec<f64>,
    /// What it stands for ("SiLU on [-7.1, 9.4]").
    pub label: String,
}

/// One summand of a linear map instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearTerm {
    /// Input register.
    pub src: Reg,
    /// The matrix.
    pub matrix: MatrixId,
    /// Baby-step count n1, as [`crate::linear::groups`] takes it: diagonals are split into babies and
    /// giants at multiples of it.
    pub baby: usize,
}

/// An instruction with the layer it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Where its result goes; each register is written once.
    pub dst: Reg,
    /// The layer of the source model.
    pub layer: LayerId,
    /// The operation.
    pub op: Op,
}

/// Operations on registers. Levels and scales follow from the operands, and are re-derived by the
/// verifier; where an operation chooses a scale it is stated and must come out exactly.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A fresh input, by index.
    Input(usize),
    /// `Σ matrix·src + bias`, as double-hoisted baby-step giant-step sums, rescaled once, with
    /// scale exactly `out_scale` afterwards: diagonals are encoded at `out_scale · q_ℓ / scale(src)`.
    /// Rotate-and-add of the hybrid method and the bias come after the rescale, one level lower.
    LinearMap {
        /// Summands; all sources have one level.
        terms: Vec<LinearTerm>,
        /// Added last.
        bias: Option<VectorId>,
        /// Scale of the result.
        out_scale: Scale,
    },
    /// A Chebyshev polynomial, elementwise, of values in [-1, 1].
    Polynomial {
        /// Input register.
        src: Reg,
        /// The polynomial.
        poly: PolyId,
        /// Scale of the result.
        out_scale: Scale,
    },
    /// Sum of equal scales and levels.
    Add(Reg, Reg),
    /// Difference of equal scales and levels.
    Sub(Reg, Reg),
    /// Negation.
    Negate(Reg),
    /// Elementwise product, degree 2 until relinearised; scales multiply. Where a slot holds two images it is the product of
    /// the real and that of the imaginary parts, at four times that scale ([`LOG2_PARTS`](crate::LOG2_PARTS)), and operands are conjugated.
    Mul(Reg, Reg),
    /// Product with one real constant, encoded at `scale`.
    MulScalar {
        /// Input register.
        src: Reg,
        /// The constant.
        value: f64,
        /// Scale of the constant.
        scale: Scale,
    },
    /// Product with a vector, encoded at `scale`.
    MulVector {
        /// Input register.
        src: Reg,
        /// The vector.
        vector: VectorId,
        /// Scale of the vector.
        scale: Scale,
    },
    /// Sum with one real constant.
    AddScalar {
        /// Input register.
        src: Reg,
        /// The constant.
        value: f64,
    },
    /// Sum with a vector.
    AddVector {
        /// Input register.
        src: Reg,
        /// The vector.
        vector: VectorId,
    },
    /// Left rotation of the slots of every ciphertext.
    Rotate {
        /// Input register.
        src: Reg,
        /// Slots.
        steps: i64,
    },
    /// Degree 2 to degree 1.
    Relinearise(Reg),
    /// Division by the last prime; the level falls by one.
    Rescale(Reg),
    /// Limbs dropped down to `level`; the scale stays.
    LevelDrop {
        /// Input register.
        src: Reg,
        /// New level.
        level: usize,
    },
    /// The same values at a higher level: every ciphertext is bootstrapped, two at a time where there are two
    /// ([`fhec_math::bootstrap`]). Values times their scale stay below [`BootstrapSpec::input_scale`].
    Bootstrap {
        /// Input register.
        src: Reg,
        /// New level.
        level: usize,
        /// Scale of the result.
        out_scale: Scale,
    },
    /// An output, by index; the result register equals the source.
    Output {
        /// Source register.
        src: Reg,
        /// Output index.
        output: usize,
    },
}

impl Op {
    /// Registers read, in order.
    pub fn sources(&self) -> Vec<Reg> {
        match self {
            Op::Input(_) => vec![],
            Op::LinearMap { terms, .. } => terms.iter().map(|t| t.src).collect(),
            Op::Add(a, b) | Op::Sub(a, b) | Op::Mul(a, b) => vec![*a, *b],
            Op::Negate(a) | Op::Relinearise(a) | Op::Rescale(a) => vec![*a],
            Op::Polynomial { src, .. }
            | Op::MulScalar { src, .. }
            | Op::MulVector { src, .. }
            | Op::AddScalar { src, .. }
            | Op::AddVector { src, .. }
            | Op::Rotate { src, .. }
            | Op::LevelDrop { src, .. }
            | Op::Bootstrap { src, .. }
            | Op::Output { src, .. } => vec![*src],
        }
    }

    /// Short lower-case name for listings and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::LinearMap { .. } => "linear",
            Op::Polynomial { .. } => "poly",
            Op::Add(..) => "add",
            Op::Sub(..) => "sub",
            Op::Negate(_) => "neg",
            Op::Mul(..) => "mul",
            Op::MulScalar { .. } => "mul_scalar",
            Op::MulVector { .. } => "mul_vector",
            Op::AddScalar { .. } => "add_scalar",
            Op::AddVector { .. } => "add_vector",
            Op::Rotate { .. } => "rotate",
            Op::Relinearise(_) => "relin",
            Op::Rescale(_) => "rescale",
            Op::LevelDrop { .. } => "drop",
            Op::Bootstrap { .. } => "bootstrap",
            Op::Output { .. } => "output",
        }
    }
}

/// What the compiler predicts; every figure is compared with reality in tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Estimated security in bits (classical), at least the asked level.
    pub security_bits: f64,
    /// Seconds for one evaluation on one thread of the cost table's machine.
    pub seconds: f64,
    /// Part of them that more threads do not shorten.
    pub sequential: f64,
    /// Peak bytes of `fhec run` on one thread with one input; with several, [`Plan::kept_bytes`] come on top.
    pub peak_memory: u64,
    /// Whether `fhec run` with one input keeps the uniform halves of Galois keys; otherwise it makes them at every use.
    pub keeps_keys: bool,
    /// Bytes of freed memory that `fhec run` keeps for reuse beyond what it ever had in use at once; they are part of the peak. `None`
    /// without a memory budget: as many as the engine does by itself.
    pub freed_bytes: Option<u64>,
    /// Bytes of the evaluation keys on disk and in memory.
    pub key_bytes_disk: u64,
    /// See `key_bytes_disk`.
    pub key_bytes_memory: u64,
    /// Bytes of one encrypted input and one encrypted output.
    pub input_bytes: u64,
    /// See `input_bytes`.
    pub output_bytes: u64,
    /// Memory budget for cached plaintexts that the compiler assumed, bytes.
    pub plaintext_budget: u64,
    /// Precision of the worst output, bits of its range, predicted standard deviation.
    ///
    /// For inputs encrypted under the secret key.
    pub output_bits: f64,
    /// The same for inputs encrypted under the public key, whose noise is larger.
    pub output_bits_public: f64,
    /// Per layer of the source model.
    pub layers: Vec<LayerReport>,
    /// What the user must know: approximations, ranges without data, work left to the client.
    pub notes: Vec<String>,
    /// Why each bootstrap is there, in the order of the program.
    pub bootstraps: Vec<BootstrapReport>,
}

impl Report {
    /// Seconds for one evaluation on so many threads, as far as the machine has as many cores (Amdahl's law).
    pub fn seconds_on(&self, threads: usize) -> f64 {
        let sequential = self.sequential.clamp(0.0, 1.0);
        self.seconds * (sequential + (1.0 - sequential) / threads.max(1) as f64)
    }
}

/// What a bootstrap costs, and what it saves.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapReport {
    /// The register that it writes.
    pub reg: Reg,
    /// Level of the value before it; what is above the levels that the bootstrap takes is left unused.
    pub level_in: u32,
    /// Level of the value after it.
    pub level_out: u32,
    /// Seconds on one thread.
    pub seconds: f64,
    /// Seconds by which the best placement without this bootstrap is slower; `None` where there is none.
    pub without: Option<f64>,
    /// The registers that are bootstrapped in that placement and not in this.
    pub instead: Vec<Reg>,
}

/// Where the result of a layer is, for those who want to look inside a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerValue {
    /// The register.
    pub reg: Reg,
    /// Where the elements of the layer's result are. They may be scaled and shifted, the same for all.
    pub layout: Layout,
}

/// Predicted figures of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerReport {
    /// Layout of its result, for people.
    pub layout: String,
    /// Level at which it runs and level of its result.
    pub level_in: u32,
    /// See `level_in`.
    pub level_out: u32,
    /// Degree of its polynomial, 0 for linear layers.
    pub degree: u32,
    /// Rotations.
    pub rotations: u32,
    /// Key switches (rotations that are not hoisted away, and relinearisations).
    pub key_switches: u32,
    /// Plaintext products (diagonals).
    pub plaintext_products: u32,
    /// Seconds on one thread.
    pub seconds: f64,
    /// Standard deviation of the encryption error in its result, in the units of the layer.
    pub error_std: f64,
    /// Error of the activation approximation on calibration data (root mean square), 0 if exact.
    pub approximation_rms: f64,
    /// Where its result is.
    pub value: Option<LayerValue>,
}
