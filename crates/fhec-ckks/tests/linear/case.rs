//! A matrix, and a run of the map that stands for it in all ways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fhec_ckks::linear::{
    BsgsPlan, BsgsWeights, DiagonalId, DiagonalIndex, DiagonalSource, Hoisting, LinearMap, LinearOptions,
    PackedDiagonals, rotate_and_sum,
};
use fhec_ckks::plaintext::{CoeffPlaintext, QpPlaintext};
use fhec_ckks::{
    Ciphertext, CkksError, Context, Encoder, Encryptor, EvaluationKeys, Evaluator, InsecureToken, KeyRequest,
    ParameterSpec, SecretKey, Security,
};
use fhec_math::{Scale, SecretRng, galois_element, ntt_primes_near};

pub(crate) const LOG_SCALE: i64 = 40;

/// A small ring without security, everything made from fixed seeds.
pub(crate) struct Setup {
    pub(crate) context: Arc<Context>,
    pub(crate) encoder: Encoder,
    pub(crate) encryptor: Encryptor,
    pub(crate) secret: SecretKey,
}

impl Setup {
    pub(crate) fn new(log_n: u32) -> Self {
        let mut primes = ntt_primes_near(40.0, log_n);
        let mut special = ntt_primes_near(48.0, log_n);
        let mut q = vec![special.next().unwrap()];
        q.extend(primes.by_ref().take(4));
        let spec = ParameterSpec { log_n, q, p: special.take(2).collect(), digits: vec![2, 2, 1] };
        let context = Context::new(spec, Security::Insecure(InsecureToken::for_tests())).unwrap();
        let secret = SecretKey::generate(&context, &mut SecretRng::from_seed(&[7; 32]));
        Self { encoder: Encoder::new(&context), encryptor: Encryptor::new(&context), secret, context }
    }

    pub(crate) fn scale(&self) -> Scale {
        Scale::pow2(LOG_SCALE)
    }

    pub(crate) fn encrypt(&self, values: &[f64], level: usize, scale: &Scale) -> Ciphertext {
        let plaintext = self.encoder.encode(values, level, scale).unwrap();
        let mut rng = SecretRng::from_seed(&[values.len() as u8; 32]);
        self.encryptor.encrypt_sk(&self.secret, &plaintext, &mut rng).unwrap().expand(&self.context).unwrap()
    }

    pub(crate) fn decrypt(&self, ciphertext: &Ciphertext) -> Vec<f64> {
        self.encoder.decode(&self.encryptor.decrypt(&self.secret, ciphertext).unwrap()).unwrap()
    }

    pub(crate) fn evaluator(&self, rotations: impl IntoIterator<Item = i64>, level: usize) -> Evaluator {
        let galois = rotations.into_iter().map(|r| (galois_element(r, self.context.log_n()), level));
        let request =
            KeyRequest { relin_level: None, galois: galois.filter(|g| g.0 != 1).collect(), ..KeyRequest::default() };
        let mut rng = SecretRng::from_seed(&[9; 32]);
        let keys = EvaluationKeys::generate(&self.secret, &request, &mut rng, &|_, _| {}).unwrap();
        Evaluator::new(&self.context, Arc::new(keys)).unwrap()
    }
}

/// A block matrix of `out_blocks × in_blocks` blocks with `h × p` entries, by position.
#[derive(Clone, Default)]
pub(crate) struct Matrix {
    pub(crate) p: usize,
    pub(crate) h: usize,
    pub(crate) in_blocks: usize,
    pub(crate) out_blocks: usize,
    pub(crate) entries: BTreeMap<(usize, usize, usize, usize), f64>,
}

impl Matrix {
    pub(crate) fn new(p: usize, h: usize, in_blocks: usize, out_blocks: usize) -> Self {
        Self { p, h, in_blocks, out_blocks, entries: BTreeMap::new() }
    }

    /// Fills `count` whole diagonals of every block with pseudo-random entries, and leaves rows 3 and 4 empty.
    pub(crate) fn with_diagonals(mut self, count: usize, seed: u64) -> Self {
        let mut rng = Random(seed);
        let modulus = self.p.min(self.h);
        for (o, i) in (0..self.out_blocks).flat_map(|o| (0..self.in_blocks).map(move |i| (o, i))) {
            for _ in 0..count {
                let index = rng.next() as usize % modulus;
                for k in 0..self.p.max(self.h) {
                    let row = k % self.h;
                    if row != 3 && row != 4 {
                        self.entries.insert((o, i, row, (k + index) % self.p), rng.signed());
                    }
                }
            }
        }
        self
    }

    pub(crate) fn diagonals(&self) -> Vec<DiagonalIndex> {
        let modulus = self.p.min(self.h);
        let index = |&(out_block, in_block, row, col): &(usize, usize, usize, usize)| DiagonalIndex {
            out_block,
            in_block,
            index: (col as i64 - row as i64).rem_euclid(modulus as i64),
        };
        self.entries.keys().map(index).collect()
    }

    pub(crate) fn apply(&self, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; self.h]; self.out_blocks];
        for (&(o, i, row, col), &value) in &self.entries {
            out[o][row] += value * inputs[i][col];
        }
        out
    }

    pub(crate) fn fold_steps(&self) -> Vec<usize> {
        std::iter::successors(Some(self.h), |s| Some(s * 2)).take_while(|&s| s < self.p).collect()
    }
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub(crate) fn signed(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
}

pub(crate) struct Source<'a> {
    pub(crate) encoder: &'a Encoder,
    pub(crate) matrix: &'a Matrix,
    pub(crate) terms: Vec<DiagonalId>,
    pub(crate) level: usize,
    pub(crate) scale: Scale,
    pub(crate) asked: AtomicUsize,
}

impl DiagonalSource for Source<'_> {
    fn diagonals(&self) -> &[DiagonalId] {
        &self.terms
    }

    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>, CkksError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(self.encoder.encode_qp(&self.values(index), self.level, &self.scale)?))
    }

    fn plaintext_bytes(&self) -> Option<usize> {
        let context = self.encoder.context();
        Some(2 * self.matrix.p.max(self.matrix.h) * context.qp_limbs(self.level) * 8)
    }
}

impl Source<'_> {
    pub(crate) fn values(&self, index: usize) -> Vec<f64> {
        let (t, m) = (self.terms[index], self.matrix);
        let i = t.index(m.p.min(m.h));
        let entry = |k| {
            let at = t.source_row(k, m.p, m.h);
            m.entries.get(&(t.out_block, t.in_block, at % m.h, (at + i) % m.p)).copied().unwrap_or(0.0)
        };
        (0..m.p.max(m.h)).map(entry).collect()
    }
}

/// The same diagonals, handed out as coefficients.
pub(crate) struct CoefficientSource<'a>(pub(crate) &'a Source<'a>);

impl DiagonalSource for CoefficientSource<'_> {
    fn diagonals(&self) -> &[DiagonalId] {
        self.0.diagonals()
    }

    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>, CkksError> {
        assert!(self.0.encoder.context().n() < 64, "larger rings take coefficients");
        self.0.plaintext(index)
    }

    fn real_coefficients(&self) -> bool {
        true
    }

    fn period(&self) -> Option<usize> {
        Some(self.0.matrix.p.max(self.0.matrix.h))
    }

    fn coefficients(&self, index: usize) -> Result<Arc<CoeffPlaintext>, CkksError> {
        Ok(Arc::new(self.0.encoder.encode_coeffs(&self.0.values(index), &self.0.scale)?))
    }
}

pub(crate) struct PackedSource {
    pub(crate) terms: Vec<DiagonalId>,
    pub(crate) packed: PackedDiagonals,
}

impl DiagonalSource for PackedSource {
    fn diagonals(&self) -> &[DiagonalId] {
        &self.terms
    }

    fn plaintext(&self, _: usize) -> Result<Arc<QpPlaintext>, CkksError> {
        unreachable!("packed diagonals are not asked for one by one")
    }

    fn packed(&self) -> Option<&PackedDiagonals> {
        Some(&self.packed)
    }
}

pub(crate) fn inputs(matrix: &Matrix) -> Vec<Vec<f64>> {
    let mut rng = Random(99);
    (0..matrix.in_blocks).map(|_| (0..matrix.p).map(|_| rng.signed()).collect()).collect()
}

/// Largest error over all slots and outputs, as bits; every output repeats over all slots.
pub(crate) fn bits(got: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    let errors = got.iter().zip(want).flat_map(|(g, w)| g.iter().enumerate().map(|(k, x)| (x - w[k % w.len()]).abs()));
    -errors.fold(f64::MIN_POSITIVE, f64::max).log2()
}

pub(crate) struct Case<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) matrix: Matrix,
    pub(crate) plan: BsgsPlan,
    pub(crate) options: LinearOptions,
    pub(crate) level: usize,
    pub(crate) in_scale: Scale,
}

impl<'a> Case<'a> {
    pub(crate) fn new(setup: &'a Setup, matrix: Matrix) -> Self {
        let modulus = matrix.p.min(matrix.h);
        let plan = BsgsPlan::choose(modulus, &matrix.diagonals(), &BsgsWeights::default());
        Self {
            setup,
            matrix,
            plan,
            options: LinearOptions::default(),
            level: setup.context.max_level(),
            in_scale: setup.scale(),
        }
    }

    pub(crate) fn step(mut self, n1: usize) -> Self {
        self.plan = BsgsPlan::new(self.plan.modulus(), &self.matrix.diagonals(), n1);
        self
    }

    pub(crate) fn hoisting(mut self, hoisting: Hoisting) -> Self {
        self.options.hoisting = hoisting;
        self
    }

    pub(crate) fn run(&self, inputs: &[Vec<f64>]) -> Vec<Ciphertext> {
        let setup = self.setup;
        let map = LinearMap::new(self.plan.terms(), self.matrix.in_blocks, self.matrix.out_blocks).unwrap();
        assert_eq!(map.key_switches(), self.plan.baby_switches() + self.plan.giant_switches());
        assert!(map.rotations().iter().eq(&self.plan.rotations()));
        let steps = self.matrix.fold_steps();
        let rotations = map.rotations().into_iter().chain(steps.iter().map(|&s| s as i64));
        let evaluator = setup.evaluator(rotations, self.level);
        let (in_scale, out_scale) = (setup.scale(), Scale::pow2(LOG_SCALE - 1));
        let scale = LinearMap::plaintext_scale(&setup.context, self.level, &in_scale, &out_scale, self.options.rescale);
        let source = Source {
            encoder: &setup.encoder,
            matrix: &self.matrix,
            terms: self.plan.terms().to_vec(),
            level: self.level,
            scale,
            asked: AtomicUsize::new(0),
        };
        let ciphertexts: Vec<Ciphertext> =
            inputs.iter().map(|v| setup.encrypt(v, self.level, &self.in_scale)).collect();
        let references: Vec<&Ciphertext> = ciphertexts.iter().collect();
        let out = map.apply(&evaluator, &references, &source, &[], &out_scale, &self.options).unwrap();
        assert_eq!(source.asked.load(Ordering::Relaxed), self.plan.products(), "every diagonal is asked for once");
        self.check_packed(&map, &evaluator, &references, &source, &out_scale, &out);
        // So do coefficients, all at once or a sum at a time.
        for window in [self.options.plaintext_window, 1] {
            let options = LinearOptions { plaintext_window: window, ..self.options };
            let source = CoefficientSource(&source);
            let streamed = map.apply(&evaluator, &references, &source, &[], &out_scale, &options).unwrap();
            for (a, b) in streamed.iter().zip(&out) {
                assert!(a.c0() == b.c0() && a.c1() == b.c1() && a.scale() == b.scale(), "window of {window}");
            }
        }
        assert_eq!(out.len(), self.matrix.out_blocks);
        for c in &out {
            assert_eq!(*c.scale(), out_scale);
            assert_eq!(c.level(), self.level - usize::from(self.options.rescale));
        }
        out.iter().map(|c| rotate_and_sum(&evaluator, c, &steps).unwrap()).collect()
    }

    /// Packed diagonals give the same result.
    pub(crate) fn check_packed(
        &self,
        map: &LinearMap,
        evaluator: &Evaluator,
        inputs: &[&Ciphertext],
        source: &Source<'_>,
        out_scale: &Scale,
        expected: &[Ciphertext],
    ) {
        let (context, period) = (&self.setup.context, self.matrix.p.max(self.matrix.h));
        let packed = PackedDiagonals::new(context, map, source, period, self.options.hoisting);
        if self.plan.products() == 0 {
            assert!(matches!(packed, Err(CkksError::Parameters(_))));
            return;
        }
        let packed = PackedSource { terms: source.terms.clone(), packed: packed.unwrap() };
        let bytes = PackedDiagonals::bytes_of(context, map, self.level, period, self.options.hoisting);
        assert_eq!(packed.packed.bytes(), bytes);
        let out = map.apply(evaluator, inputs, &packed, &[], out_scale, &self.options).unwrap();
        for (a, b) in out.iter().zip(expected) {
            assert!(a.c0() == b.c0() && a.c1() == b.c1() && a.scale() == b.scale());
        }
        if inputs[0].level() > 1 {
            let low: Vec<Ciphertext> =
                inputs.iter().map(|c| evaluator.drop_to_level(c, c.level() - 1).unwrap()).collect();
            let low: Vec<&Ciphertext> = low.iter().collect();
            assert!(map.apply(evaluator, &low, &packed, &[], out_scale, &self.options).is_err());
        }
    }

    /// Runs on random inputs and asserts the precision.
    pub(crate) fn check(&self, least_bits: f64) {
        let inputs = inputs(&self.matrix);
        let got: Vec<Vec<f64>> = self.run(&inputs).iter().map(|c| self.setup.decrypt(c)).collect();
        let found = bits(&got, &self.matrix.apply(&inputs));
        assert!(found > least_bits, "{found} bits, n1 = {}, {:?}", self.plan.n1(), self.options.hoisting);
    }
}
