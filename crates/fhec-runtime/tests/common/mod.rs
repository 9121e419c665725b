//! Builds small plans by hand.

#![allow(dead_code, reason = "each test file uses its own part")]

use fhec_ckks::{InsecureToken, SecretKey};
use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::primes::{ntt_primes_below, ntt_primes_near};
use fhec_math::scale::Scale;
use fhec_math::{SecretRng, SecurityLevel};
use fhec_plan::verify::derive;
use fhec_plan::*;
use fhec_runtime::*;
use std::sync::Arc;

pub(crate) const ALLOW: Insecure = Insecure::AllowForTests;

pub(crate) fn token() -> Option<InsecureToken> {
    Some(InsecureToken::for_tests())
}

/// A chain `bits[0], bits[1], …` from the bottom and one special prime.
pub(crate) fn parameters(log_n: u32, bits: &[u32], special: u32, security: Option<SecurityLevel>) -> Parameters {
    let mut q: Vec<u64> = Vec::new();
    for &b in bits {
        let fresh = ntt_primes_near(b, log_n).find(|p| !q.contains(p)).expect("there are enough primes");
        q.push(fresh);
    }
    let p = ntt_primes_below(special, log_n).find(|p| !q.contains(p)).expect("there are enough primes");
    Parameters { log_n, digits: vec![1; q.len()], q, p: vec![p], security, bootstrap: None }
}

/// A chain for bootstraps, with three message levels: fast and insecure.
pub(crate) fn bootstrapped() -> Parameters {
    let spec = BootstrapSpec {
        slots_to_coeffs: vec![vec![3, 2], vec![4]],
        coeffs_to_slots: vec![3, 2, 4],
        least_ring: 6,
        ..BootstrapSpec::default()
    };
    let sections = [(49, 1), (49, 2), (40, 3), (49, spec.eval_mod_levels()), (45, 3)];
    let bits: Vec<u32> = sections.iter().flat_map(|&(bits, count)| std::iter::repeat_n(bits, count)).collect();
    Parameters { bootstrap: Some(spec), ..parameters(10, &bits, 50, None) }
}

/// Parameters for tests: fast and insecure.
pub(crate) fn small(levels: usize) -> Parameters {
    let bits: Vec<u32> = std::iter::once(49).chain(std::iter::repeat_n(40, levels)).collect();
    parameters(9, &bits, 50, None)
}

pub(crate) fn dim(extent: usize, row: i64, col: i64, weight: i64) -> NestDim {
    let stride = Offsets::Stride;
    NestDim { extent, row: stride(row), col: stride(col), weight: stride(weight) }
}

pub(crate) fn pseudo(n: usize, seed: f64) -> Vec<f64> {
    (0..n).map(|i| ((i as f64 + 1.0) * seed * 12.9898).sin() * 0.9).collect()
}

/// A plan in the making.
pub(crate) struct Builder {
    plan: Plan,
    tensors: Vec<Vec<f64>>,
    /// Slots of an image in a ciphertext.
    slots: usize,
    pub(crate) scale: Scale,
}

impl Builder {
    pub(crate) fn new(parameters: Parameters, log2_scale: i64) -> Self {
        let plan = Plan {
            compiler: "test".into(),
            model: "hand-made".into(),
            parameters,
            keys: KeyManifest::default(),
            inputs: vec![],
            outputs: vec![],
            complex: false,
            aided: None,
            layers: vec![],
            matrices: vec![],
            vectors: vec![],
            polynomials: vec![],
            weights: Weights::from_tensors([]),
            instructions: vec![],
            report: Report::default(),
        };
        let slots = plan.parameters.slots();
        Builder { plan, tensors: vec![], slots, scale: Scale::pow2(log2_scale) }
    }

    /// The same with an image in every slot; all periods are 1.
    pub(crate) fn batched(parameters: Parameters, log2_scale: i64) -> Self {
        Builder { slots: 1, ..Builder::new(parameters, log2_scale) }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn layer(&mut self, name: &str) {
        self.plan.layers.push(Layer { name: name.into(), kind: "test".into() });
    }

    pub(crate) fn push(&mut self, op: Op) -> Reg {
        if self.plan.layers.is_empty() {
            self.layer("first");
        }
        let dst = Reg(self.plan.instructions.len() as u32);
        let layer = LayerId(self.plan.layers.len() as u32 - 1);
        self.plan.instructions.push(Instruction { dst, layer, op });
        dst
    }

    pub(crate) fn input_with(&mut self, layout: Layout, level: usize, factor: f64) -> Reg {
        let index = self.plan.inputs.len();
        self.plan.inputs.push(Input {
            name: format!("x{index}"),
            shape: vec![1, layout.elements()],
            layout,
            level,
            scale: self.scale.clone(),
            factor,
            range: (-1.0, 1.0),
            preprocess: None,
        });
        self.push(Op::Input(index))
    }

    /// A dense vector at the top of the chain.
    pub(crate) fn input(&mut self, len: usize, period: usize) -> Reg {
        let layout = Layout::dense(len, self.slots(), period);
        self.input_with(layout, self.plan.parameters.message_level(), 1.0)
    }

    pub(crate) fn tensor(&mut self, values: Vec<f64>) -> TensorId {
        self.tensors.push(values);
        self.plan.weights = Weights::from_tensors(self.tensors.iter().map(Vec::as_slice));
        TensorId(self.tensors.len() as u32 - 1)
    }

    pub(crate) fn matrix(&mut self, matrix: Matrix) -> MatrixId {
        self.plan.matrices.push(matrix);
        MatrixId(self.plan.matrices.len() as u32 - 1)
    }

    /// A dense layer's matrix, rows × columns.
    pub(crate) fn dense(
        &mut self,
        rows: usize,
        cols: usize,
        in_period: usize,
        out_period: usize,
        seed: f64,
    ) -> MatrixId {
        let values = pseudo(rows * cols, seed);
        let tensor = Some(self.tensor(values));
        let slots = self.slots();
        let dims = vec![dim(rows, 1, 0, cols as i64), dim(cols, 0, 1, 1)];
        let factor = 1.0 / (cols as f64).sqrt();
        let nest = Nest { dims, row: 0, col: 0, weight: 0, tensor, factor, guards: vec![] };
        self.matrix(Matrix {
            slots,
            in_ciphertexts: cols.div_ceil(slots),
            in_period,
            out_ciphertexts: rows.div_ceil(slots),
            out_period,
            nests: vec![nest],
        })
    }

    pub(crate) fn vector(&mut self, len: usize, period: usize, seed: f64) -> VectorId {
        let tensor = Some(self.tensor(pseudo(len, seed)));
        let nest =
            Nest { dims: vec![dim(len, 1, 0, 1)], row: 0, col: 0, weight: 0, tensor, factor: 1.0, guards: vec![] };
        let ciphertexts = len.div_ceil(self.slots());
        self.plan.vectors.push(Vector { slots: self.slots(), ciphertexts, period, nests: vec![nest] });
        VectorId(self.plan.vectors.len() as u32 - 1)
    }

    pub(crate) fn polynomial(&mut self, chebyshev: Vec<f64>) -> PolyId {
        self.plan.polynomials.push(Polynomial { chebyshev, label: "test".into() });
        PolyId(self.plan.polynomials.len() as u32 - 1)
    }

    pub(crate) fn linear(&mut self, terms: &[(Reg, MatrixId, usize)], bias: Option<VectorId>) -> Reg {
        let terms = terms.iter().map(|&(src, matrix, baby)| LinearTerm { src, matrix, baby }).collect();
        let out_scale = self.scale.clone();
        self.push(Op::LinearMap { terms, bias, out_scale })
    }

    /// A relinearised and rescaled square.
    pub(crate) fn square(&mut self, x: Reg) -> Reg {
        let product = self.push(Op::Mul(x, x));
        let linear = self.push(Op::Relinearise(product));
        self.push(Op::Rescale(linear))
    }

    /// Facts of a register as things stand.
    pub(crate) fn facts(&self, reg: Reg) -> RegisterFacts {
        derive(&self.plan, ALLOW).expect("sound so far").register(reg).expect("written").clone()
    }

    /// Declares and writes the next output.
    pub(crate) fn output(&mut self, src: Reg, layout: Layout) {
        let (facts, index) = (self.facts(src), self.plan.outputs.len());
        self.plan.outputs.push(Output {
            name: format!("y{index}"),
            shape: vec![1, layout.elements()],
            layout,
            level: facts.level,
            scale: facts.scale,
            factor: 1.0,
            range: (-2.0, 2.0),
            error_std: 1e-6,
            postprocess: vec![],
        });
        self.push(Op::Output { src, output: index });
    }

    /// Finishes with the given outputs: register and layout of each.
    pub(crate) fn finish(mut self, outputs: &[(Reg, Layout)]) -> Arc<Verified> {
        outputs.iter().for_each(|(src, layout)| self.output(*src, layout.clone()));
        self.verified()
    }

    /// Adds the client's part.
    pub(crate) fn aided(&mut self, aided: Aided) {
        self.plan.aided = Some(aided);
    }

    /// Finishes with the outputs written so far.
    pub(crate) fn verified(mut self) -> Arc<Verified> {
        let insecure = if self.plan.parameters.security.is_some() { Insecure::Refuse } else { ALLOW };
        self.plan.keys = derive(&self.plan, insecure).expect("sound").keys().clone();
        Arc::new(Verified::new(self.plan, insecure).expect("sound"))
    }
}

/// Both parties of one plan.
pub(crate) struct Parties {
    pub(crate) client: Client,
    pub(crate) secret: SecretKey,
    pub(crate) server: Server,
    pub(crate) rng: SecretRng,
}

impl Parties {
    pub(crate) fn new(verified: &Arc<Verified>, budget: u64) -> Self {
        let insecure = verified.plan().parameters.security.is_none().then(InsecureToken::for_tests);
        let client = Client::new(verified.plan().head(), insecure).expect("client");
        let mut rng = SecretRng::from_seed(&[7; 32]);
        let secret = client.generate_secret(&mut rng);
        let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| ()).expect("keys");
        let context = server_context(verified, insecure).expect("context");
        let server = Server::new(Arc::clone(verified), &context, Arc::new(keys), budget).expect("server");
        Parties { client, secret, server, rng }
    }

    /// Encrypts, runs and decrypts.
    pub(crate) fn run(&mut self, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let bundle = self.client.encrypt(inputs, EncryptionKey::Secret(&self.secret), &mut self.rng).expect("encrypt");
        let (outputs, trace) = self.server.run(&bundle, &mut |_| ()).expect("run");
        assert_eq!(trace.events.len(), self.server.backend().verified().plan().instructions.len());
        (0..self.client.head().outputs.len())
            .map(|i| self.client.decrypt_output(i, &outputs, &self.secret).expect("decrypt"))
            .collect()
    }
}

/// Squares a vector with two ciphertexts and one with a period until no level is left, bootstraps both, and goes on.
pub(crate) fn refreshed() -> Arc<Verified> {
    let mut b = Builder::new(bootstrapped(), 40);
    let (slots, scale) = (b.slots(), b.scale.clone());
    let wide = b.input(slots + 100, slots);
    let short = b.input(20, 32);
    let mut outputs = Vec::new();
    for (x, layout) in [(wide, Layout::dense(slots + 100, slots, slots)), (short, Layout::dense(20, slots, 32))] {
        let mut x = x;
        for _ in 0..3 {
            x = b.square(x);
        }
        let x = b.push(Op::Bootstrap { src: x, level: 5, out_scale: scale.clone() });
        let x = b.square(x);
        outputs.push((b.push(Op::Bootstrap { src: x, level: 3, out_scale: scale.clone() }), layout));
    }
    b.finish(&outputs)
}

/// Outputs of the clear backend.
pub(crate) fn clear(verified: &Verified, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
    run(verified, &ClearBackend::new(verified), inputs.to_vec(), &mut |_| ()).expect("clear").outputs
}

/// Inputs for a plan: pseudo-random in [-1, 1].
pub(crate) fn inputs(verified: &Verified, seed: f64) -> Vec<Vec<f64>> {
    let input = |(i, input): (usize, &Input)| pseudo(input.layout.elements(), seed + i as f64);
    verified.plan().inputs.iter().enumerate().map(input).collect()
}

/// Largest difference.
pub(crate) fn distance(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.iter().map(Vec::len).collect::<Vec<_>>(), b.iter().map(Vec::len).collect::<Vec<_>>());
    a.iter().flatten().zip(b.iter().flatten()).fold(0.0, |m, (x, y)| f64::max(m, (x - y).abs()))
}

/// Largest magnitude.
pub(crate) fn largest(a: &[Vec<f64>]) -> f64 {
    a.iter().flatten().fold(0.0, |m, x| f64::max(m, x.abs()))
}

/// Two dense layers with a square between.
pub(crate) fn mlp() -> Arc<Verified> {
    let mut b = Builder::new(small(3), 40);
    b.layer("fc1");
    let x = b.input(16, 16);
    let m = b.dense(6, 16, 16, 8, 0.31);
    let bias = b.vector(6, 8, 0.77);
    let y = b.linear(&[(x, m, 4)], Some(bias));
    b.layer("square");
    let y = b.square(y);
    b.layer("fc2");
    let m = b.dense(3, 6, 8, 4, 0.53);
    let bias = b.vector(3, 4, 0.11);
    let y = b.linear(&[(y, m, 2)], Some(bias));
    let layout = Layout::dense(3, b.slots(), 4);
    b.finish(&[(y, layout)])
}

/// Three rounds: a dense layer each, with the client's ReLU between them, and a shortcut around them all that lives on in the
/// server. With `batched` an image has one slot.
pub(crate) fn aided(batched: bool) -> Arc<Verified> {
    let mut b = if batched { Builder::batched(small(1), 40) } else { Builder::new(small(1), 40) };
    let period = |len: usize| if batched { 1 } else { len.next_power_of_two() };
    let dense = |b: &mut Builder, x: Reg, from: usize, to: usize, seed: f64| {
        let m = b.dense(to, from, period(from), period(to), seed);
        let bias = b.vector(to, period(to), seed + 0.1);
        b.linear(&[(x, m, if batched { 1 } else { 2 })], Some(bias))
    };
    let layout = |b: &Builder, len: usize| Layout::dense(len, b.slots(), period(len));
    let x = b.input(16, period(16));
    let y = dense(&mut b, x, 16, 6, 0.31);
    let shortcut = dense(&mut b, x, 16, 3, 0.53);
    let six = layout(&b, 6);
    b.output(y, six.clone());
    let x = b.input(6, period(6));
    let y = dense(&mut b, x, 6, 6, 0.77);
    b.output(y, six);
    let x = b.input(6, period(6));
    let y = dense(&mut b, x, 6, 3, 0.41);
    let y = b.push(Op::Add(y, shortcut));
    let three = layout(&b, 3);
    b.output(y, three);
    let step = |op: ClientOp, operands: Vec<u32>, len: usize| ClientStep { op, operands, shape: vec![1, len] };
    let relu = || ClientOp::Function(Activation::Relu);
    let result =
        |step| ClientResult { name: "y".into(), step, range: (-2.0, 2.0), error_std: 1e-6, postprocess: vec![] };
    b.plan.aided = Some(Aided {
        rounds: 3,
        network_inputs: 1,
        steps: vec![
            step(ClientOp::Given(0), vec![], 16),
            step(ClientOp::Received(0), vec![], 6),
            step(relu(), vec![1], 6),
            step(ClientOp::Received(1), vec![], 6),
            step(relu(), vec![3], 6),
            step(ClientOp::Received(2), vec![], 3),
        ],
        sends: [(0, 0), (2, 1), (4, 2)].map(|(step, round)| fhec_plan::Send { step, round }).to_vec(),
        receives: vec![0, 1, 2],
        results: vec![result(5)],
    });
    b.verified()
}

/// A padded 3×3 convolution of 4 channels of 8×8 and an odd polynomial; `slots` decide how many ciphertexts it takes.
pub(crate) fn convolution(log_n: u32) -> Arc<Verified> {
    let bits = [49, 40, 40, 40, 40];
    let mut b = Builder::new(parameters(log_n, &bits, 50, None), 40);
    let slots = b.slots();
    let channels = 4;
    let m = fhec_plan::layout::Multiplexed { shape: [channels, 8, 8], gap: [1, 1], row: 8, plane: 64 };
    let layout = Layout::multiplexed(&m, slots, slots.min(256));
    let x = b.input_with(layout.clone(), 4, 0.5);
    let tensor = Some(b.tensor(pseudo(channels * channels * 9, 0.21)));
    let zero = Offsets::Stride(0);
    let by_channel = layout.dims[0].offsets.clone();
    let guard = |y: usize, k: usize| {
        let mut coefficients = vec![0; 6];
        coefficients[y] = 1;
        coefficients[k] = 1;
        Guard { coefficients, constant: -1, extent: 8 }
    };
    let per_output = Offsets::Stride(9 * channels as i64);
    let nest = Nest {
        dims: vec![
            NestDim { extent: channels, row: by_channel.clone(), col: zero.clone(), weight: per_output },
            NestDim { extent: channels, row: zero, col: by_channel, weight: Offsets::Stride(9) },
            dim(3, 0, 8, 3),
            dim(3, 0, 1, 1),
            dim(8, 8, 8, 0),
            dim(8, 1, 1, 0),
        ],
        row: 0,
        col: -9,
        weight: 0,
        tensor,
        factor: 1.0 / 36.0,
        guards: vec![guard(4, 2), guard(5, 3)],
    };
    let matrix = b.matrix(Matrix {
        slots,
        in_ciphertexts: layout.ciphertexts,
        in_period: layout.period,
        out_ciphertexts: layout.ciphertexts,
        out_period: layout.period,
        nests: vec![nest],
    });
    let y = b.linear(&[(x, matrix, 3)], None);
    let poly = b.polynomial(vec![0.0, 1.1, 0.0, -0.2, 0.0, 0.05]);
    let out_scale = b.scale.clone();
    let y = b.push(Op::Polynomial { src: y, poly, out_scale });
    b.finish(&[(y, layout)])
}

/// Every operation that is not in the others: sums of products, constants, vectors, rotations, level drops.
pub(crate) fn everything() -> Arc<Verified> {
    let mut b = Builder::new(small(4), 40);
    let scale = b.scale.clone();
    let x = b.input(32, 32);
    let z = b.input(32, 32);
    let v = b.vector(64, 64, 0.4);
    let xz = b.push(Op::Mul(x, z));
    let xx = b.push(Op::Mul(x, x));
    let sum = b.push(Op::Add(xz, xx));
    let zz = b.push(Op::Mul(z, z));
    let difference = b.push(Op::Sub(sum, zz));
    let negative = b.push(Op::Negate(difference));
    let dropped = b.push(Op::LevelDrop { src: negative, level: 3 });
    let linear = b.push(Op::Relinearise(dropped));
    let turned = b.push(Op::Rotate { src: linear, steps: -5 });
    let both = b.push(Op::Add(linear, turned));
    let y = b.push(Op::Rescale(both));
    let scaled = b.push(Op::MulScalar { src: y, value: -0.375, scale: scale.clone() });
    let scaled = b.push(Op::Rescale(scaled));
    let masked = b.push(Op::MulVector { src: scaled, vector: v, scale });
    let masked = b.push(Op::Rescale(masked));
    let shifted = b.push(Op::AddScalar { src: masked, value: 0.625 });
    let biased = b.push(Op::AddVector { src: shifted, vector: v });
    let low = b.push(Op::LevelDrop { src: scaled, level: 0 });
    let whole = b.push(Op::Rotate { src: low, steps: 256 });
    let negated = b.push(Op::Negate(whole));
    let layout = |period| Layout::dense(period, 256, period);
    b.finish(&[(biased, layout(64)), (negated, layout(32)), (scaled, layout(32))])
}

/// Sums of linear maps: two terms that share their giants, and a third of another period.
pub(crate) fn several_terms() -> Arc<Verified> {
    let mut b = Builder::new(small(2), 40);
    let (x, y, z) = (b.input(16, 16), b.input(16, 16), b.input(4, 4));
    let (mx, my, mz) = (b.dense(8, 16, 16, 8, 0.3), b.dense(8, 16, 16, 8, 0.7), b.dense(8, 4, 4, 8, 0.9));
    let bias = b.vector(8, 8, 0.2);
    let sum = b.linear(&[(x, mx, 4), (z, mz, 2), (y, my, 4)], Some(bias));
    let layout = Layout::dense(8, b.slots(), 8);
    b.finish(&[(sum, layout)])
}

/// Vectors over two and three ciphertexts.
pub(crate) fn wide() -> Arc<Verified> {
    let mut b = Builder::new(small(2), 40);
    let slots = b.slots();
    let x = b.input(600, slots);
    let m = b.dense(300, 600, slots, slots, 0.17);
    let bias = b.vector(300, slots, 0.6);
    let y = b.linear(&[(x, m, 16)], Some(bias));
    let y = b.square(y);
    let layout = Layout::dense(300, slots, slots);
    b.finish(&[(y, layout)])
}

/// The network 784-128-128-10 with squares, at 128-bit security.
pub(crate) fn mnist_mlp() -> Arc<Verified> {
    let parameters = parameters(13, &[36, 28, 28, 28, 28, 28], 37, Some(SecurityLevel::Bits128));
    let mut b = Builder::new(parameters, 28);
    b.layer("fc1");
    let x = b.input(784, 1024);
    let m = b.dense(128, 784, 1024, 128, 0.31);
    let bias = b.vector(128, 128, 0.77);
    let y = b.linear(&[(x, m, 16)], Some(bias));
    b.layer("square1");
    let y = b.square(y);
    b.layer("fc2");
    let m = b.dense(128, 128, 128, 128, 0.53);
    let bias = b.vector(128, 128, 0.11);
    let y = b.linear(&[(y, m, 16)], Some(bias));
    b.layer("square2");
    let y = b.square(y);
    b.layer("fc3");
    let m = b.dense(10, 128, 128, 16, 0.43);
    let bias = b.vector(10, 16, 0.19);
    let y = b.linear(&[(y, m, 4)], Some(bias));
    let layout = Layout::dense(10, b.slots(), 16);
    b.finish(&[(y, layout)])
}
