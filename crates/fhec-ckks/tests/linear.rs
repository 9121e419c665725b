//! Linear maps against dense matrix-vector products in `f64`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fhec_ckks::linear::{
    BsgsPlan, BsgsWeights, DiagonalId, DiagonalIndex, DiagonalSource, Hoisting, LinearMap, LinearOptions,
    PackedDiagonals, rotate_and_sum,
};
use fhec_ckks::plaintext::{CoeffPlaintext, Plaintext, QpPlaintext};
use fhec_ckks::{
    Ciphertext, CkksError, Context, Encoder, Encryptor, EvaluationKeys, Evaluator, InsecureToken, KeyRequest,
    ParameterSpec, SecretKey, Security,
};
use fhec_math::{Scale, SecretRng, galois_element, ntt_primes_near};

const LOG_SCALE: i64 = 40;

/// A small ring without security, everything made from fixed seeds.
struct Setup {
    context: Arc<Context>,
    encoder: Encoder,
    encryptor: Encryptor,
    secret: SecretKey,
}

impl Setup {
    fn new(log_n: u32) -> Self {
        let mut primes = ntt_primes_near(40.0, log_n);
        let mut special = ntt_primes_near(48.0, log_n);
        let mut q = vec![special.next().unwrap()];
        q.extend(primes.by_ref().take(4));
        let spec = ParameterSpec { log_n, q, p: special.take(2).collect(), digits: vec![2, 2, 1] };
        let context = Context::new(spec, Security::Insecure(InsecureToken::for_tests())).unwrap();
        let secret = SecretKey::generate(&context, &mut SecretRng::from_seed(&[7; 32]));
        Self { encoder: Encoder::new(&context), encryptor: Encryptor::new(&context), secret, context }
    }

    fn scale(&self) -> Scale {
        Scale::pow2(LOG_SCALE)
    }

    fn encrypt(&self, values: &[f64], level: usize, scale: &Scale) -> Ciphertext {
        let plaintext = self.encoder.encode(values, level, scale).unwrap();
        let mut rng = SecretRng::from_seed(&[values.len() as u8; 32]);
        self.encryptor.encrypt_sk(&self.secret, &plaintext, &mut rng).unwrap().expand(&self.context).unwrap()
    }

    fn decrypt(&self, ciphertext: &Ciphertext) -> Vec<f64> {
        self.encoder.decode(&self.encryptor.decrypt(&self.secret, ciphertext).unwrap()).unwrap()
    }

    fn evaluator(&self, rotations: impl IntoIterator<Item = i64>, level: usize) -> Evaluator {
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
struct Matrix {
    p: usize,
    h: usize,
    in_blocks: usize,
    out_blocks: usize,
    entries: BTreeMap<(usize, usize, usize, usize), f64>,
}

impl Matrix {
    fn new(p: usize, h: usize, in_blocks: usize, out_blocks: usize) -> Self {
        Self { p, h, in_blocks, out_blocks, entries: BTreeMap::new() }
    }

    /// Fills `count` whole diagonals of every block with pseudo-random entries, and leaves rows 3 and 4 empty.
    fn with_diagonals(mut self, count: usize, seed: u64) -> Self {
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

    fn diagonals(&self) -> Vec<DiagonalIndex> {
        let modulus = self.p.min(self.h);
        let index = |&(out_block, in_block, row, col): &(usize, usize, usize, usize)| DiagonalIndex {
            out_block,
            in_block,
            index: (col as i64 - row as i64).rem_euclid(modulus as i64),
        };
        self.entries.keys().map(index).collect()
    }

    fn apply(&self, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; self.h]; self.out_blocks];
        for (&(o, i, row, col), &value) in &self.entries {
            out[o][row] += value * inputs[i][col];
        }
        out
    }

    fn fold_steps(&self) -> Vec<usize> {
        std::iter::successors(Some(self.h), |s| Some(s * 2)).take_while(|&s| s < self.p).collect()
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn signed(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
}

struct Source<'a> {
    encoder: &'a Encoder,
    matrix: &'a Matrix,
    terms: Vec<DiagonalId>,
    level: usize,
    scale: Scale,
    asked: AtomicUsize,
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
    fn values(&self, index: usize) -> Vec<f64> {
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
struct CoefficientSource<'a>(&'a Source<'a>);

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

struct PackedSource {
    terms: Vec<DiagonalId>,
    packed: PackedDiagonals,
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

fn inputs(matrix: &Matrix) -> Vec<Vec<f64>> {
    let mut rng = Random(99);
    (0..matrix.in_blocks).map(|_| (0..matrix.p).map(|_| rng.signed()).collect()).collect()
}

/// Largest error over all slots and outputs, as bits; every output repeats over all slots.
fn bits(got: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    let errors = got.iter().zip(want).flat_map(|(g, w)| g.iter().enumerate().map(|(k, x)| (x - w[k % w.len()]).abs()));
    -errors.fold(f64::MIN_POSITIVE, f64::max).log2()
}

struct Case<'a> {
    setup: &'a Setup,
    matrix: Matrix,
    plan: BsgsPlan,
    options: LinearOptions,
    level: usize,
    in_scale: Scale,
}

impl<'a> Case<'a> {
    fn new(setup: &'a Setup, matrix: Matrix) -> Self {
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

    fn step(mut self, n1: usize) -> Self {
        self.plan = BsgsPlan::new(self.plan.modulus(), &self.matrix.diagonals(), n1);
        self
    }

    fn hoisting(mut self, hoisting: Hoisting) -> Self {
        self.options.hoisting = hoisting;
        self
    }

    fn run(&self, inputs: &[Vec<f64>]) -> Vec<Ciphertext> {
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
    fn check_packed(
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
    fn check(&self, least_bits: f64) {
        let inputs = inputs(&self.matrix);
        let got: Vec<Vec<f64>> = self.run(&inputs).iter().map(|c| self.setup.decrypt(c)).collect();
        let found = bits(&got, &self.matrix.apply(&inputs));
        assert!(found > least_bits, "{found} bits, n1 = {}, {:?}", self.plan.n1(), self.options.hoisting);
    }
}

#[test]
fn random_sparse_matrices_of_every_step_and_hoisting() {
    let setup = Setup::new(9);
    let slots = setup.context.slots();
    for (n1, hoisting) in [(1, Hoisting::Double), (4, Hoisting::Double), (7, Hoisting::Single), (16, Hoisting::Auto)] {
        for n1 in [n1, n1 * 4] {
            let matrix = Matrix::new(slots, slots, 1, 1).with_diagonals(20, 3);
            Case::new(&setup, matrix).step(n1).hoisting(hoisting).check(22.0);
        }
    }
}

#[test]
fn simple_matrices() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    let mut identity = Matrix::new(slots, slots, 1, 1);
    let mut shift = identity.clone();
    for k in 0..slots {
        identity.entries.insert((0, 0, k, k), 1.0);
        shift.entries.insert((0, 0, k, (k + 5) % slots), -0.5);
    }
    let mut one = Matrix::new(slots, slots, 1, 1);
    one.entries.insert((0, 0, 2, slots - 1), 1.0);
    for hoisting in [Hoisting::Auto, Hoisting::Double, Hoisting::Single] {
        Case::new(&setup, identity.clone()).hoisting(hoisting).check(25.0);
        Case::new(&setup, shift.clone()).hoisting(hoisting).check(25.0);
        Case::new(&setup, shift.clone()).step(1).hoisting(hoisting).check(25.0);
        Case::new(&setup, one.clone()).hoisting(hoisting).check(25.0);
        Case::new(&setup, Matrix::new(slots, slots, 1, 2)).hoisting(hoisting).check(40.0);
    }
}

/// A diagonal of zeros is one like all others, wherever sums begin: first of the map, of a giant, of an output, or
/// alone.
#[test]
fn first_diagonals_of_zeros() {
    let setup = Setup::new(7);
    let slots = setup.context.slots();
    let mut rng = Random(41);
    for zeros in [vec![0], vec![0, 1, 8], vec![0, 1, 3, 8, 9, 20]] {
        let mut matrix = Matrix::new(slots, slots, 2, 2);
        for (o, i) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for index in [0, 1, 3, 8, 9, 20] {
                // The second output has no diagonal but zeros in its first block.
                let zero = zeros.contains(&index) || (o, i) == (1, 0);
                for row in 0..slots {
                    let value = if zero { 0.0 } else { rng.signed() };
                    matrix.entries.insert((o, i, row, (row + index) % slots), value);
                }
            }
        }
        for hoisting in [Hoisting::Double, Hoisting::Single] {
            for n1 in [1, 4, slots] {
                let case = Case::new(&setup, matrix.clone()).step(n1).hoisting(hoisting);
                assert_eq!(case.plan.products(), 4 * 6, "zeros are diagonals");
                case.check(22.0);
            }
        }
    }
}

#[test]
fn periods_and_folds() {
    let setup = Setup::new(9);
    let slots = setup.context.slots();
    for (p, h) in [(64, 64), (1, 1), (8, 8), (slots, 16), (64, 8), (16, 64), (8, slots)] {
        let count = p.min(h).min(12);
        Case::new(&setup, Matrix::new(p, h, 1, 1).with_diagonals(count, 5)).check(20.0);
        if p.min(h) > 3 {
            // A step that does not divide the modulus.
            Case::new(&setup, Matrix::new(p, h, 1, 1).with_diagonals(count, 5)).step(3).check(20.0);
        }
    }
}

#[test]
fn blocks() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    let mut matrix = Matrix::new(slots, slots, 3, 2).with_diagonals(9, 21);
    // One block is empty.
    matrix.entries.retain(|e, _| (e.0, e.1) != (1, 2));
    for hoisting in [Hoisting::Double, Hoisting::Single] {
        Case::new(&setup, matrix.clone()).step(8).hoisting(hoisting).check(20.0);
    }
    let mut case = Case::new(&setup, matrix);
    // Every sum is a group of its own.
    case.options.plaintext_window = 1;
    case.check(20.0);
}

#[test]
fn every_level_and_without_rescale() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    for level in 0..=setup.context.max_level() {
        let mut case = Case::new(&setup, Matrix::new(slots, slots, 1, 1).with_diagonals(6, 8)).step(4);
        case.level = level;
        case.options.rescale = level > 0;
        if level == 0 {
            continue;
        }
        case.check(20.0);
        case.options.rescale = false;
        // Without a rescale the diagonals carry a scale of 1/2: nothing is left of them but their signs.
        assert!(
            LinearMap::plaintext_scale(&setup.context, level, &setup.scale(), &Scale::pow2(39), false).log2() < 0.0
        );
    }
}

#[test]
fn one_hot_inputs_and_constants() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    let matrix = Matrix::new(slots, slots, 1, 1).with_diagonals(11, 4);
    let case = Case::new(&setup, matrix.clone()).step(5);
    for hot in [0, 1, slots / 2, slots - 1] {
        let mut input = vec![0.0; slots];
        input[hot] = 1.0;
        let inputs = [input];
        let got: Vec<Vec<f64>> = case.run(&inputs).iter().map(|c| setup.decrypt(c)).collect();
        assert!(bits(&got, &matrix.apply(&inputs)) > 22.0);
    }
    for constant in [1.0, -1.0, 0.0] {
        let inputs = [vec![constant; slots]];
        let got: Vec<Vec<f64>> = case.run(&inputs).iter().map(|c| setup.decrypt(c)).collect();
        assert!(bits(&got, &matrix.apply(&inputs)) > 22.0);
    }
}

#[test]
fn bias_before_and_after_the_rescale() {
    let setup = Setup::new(8);
    let (context, slots, level) = (&setup.context, setup.context.slots(), setup.context.max_level());
    let matrix = Matrix::new(slots, slots, 1, 2).with_diagonals(5, 6);
    let plan = BsgsPlan::new(slots, &matrix.diagonals(), 4);
    let map = LinearMap::new(plan.terms(), 1, 2).unwrap();
    let evaluator = setup.evaluator(map.rotations(), level);
    // Low enough for a bias at the scale before the rescale to fit the encoder's 62 bits.
    let out_scale = Scale::pow2(21);
    let scale = LinearMap::plaintext_scale(context, level, &setup.scale(), &out_scale, true);
    let source = Source {
        encoder: &setup.encoder,
        matrix: &matrix,
        terms: plan.terms().to_vec(),
        level,
        scale: scale.clone(),
        asked: AtomicUsize::new(0),
    };
    let values = inputs(&matrix);
    let input = setup.encrypt(&values[0], level, &setup.scale());
    let bias: Vec<f64> = (0..slots).map(|k| k as f64 / slots as f64).collect();
    let before = setup.encoder.encode(&bias, level, &scale.mul(&setup.scale())).unwrap();
    let after = setup.encoder.encode(&bias, level - 1, &out_scale).unwrap();
    let apply = |bias: &[Option<Plaintext>]| {
        map.apply(&evaluator, &[&input], &source, bias, &out_scale, &LinearOptions::default())
    };
    let mut want = matrix.apply(&values);
    for (w, b) in want[1].iter_mut().zip(&bias) {
        *w += b;
    }
    for plaintext in [before, after] {
        let got: Vec<Vec<f64>> = apply(&[None, Some(plaintext)]).unwrap().iter().map(|c| setup.decrypt(c)).collect();
        assert!(bits(&got, &want) > 8.0);
    }
    let wrong = setup.encoder.encode(&bias, level, &setup.scale()).unwrap();
    assert!(apply(&[Some(wrong), None]).is_err());
    assert!(matches!(apply(&[None]), Err(CkksError::Parameters(_))));
}

#[test]
fn results_do_not_depend_on_threads() {
    let setup = Setup::new(9);
    let slots = setup.context.slots();
    let matrix = Matrix::new(slots, slots, 2, 2).with_diagonals(24, 12);
    let values = inputs(&matrix);
    for hoisting in [Hoisting::Double, Hoisting::Single] {
        let case = Case::new(&setup, matrix.clone()).step(6).hoisting(hoisting);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.run(&values))
        };
        let first = run(1);
        for threads in [2, 3] {
            for (a, b) in first.iter().zip(run(threads)) {
                assert!(a.c0() == b.c0() && a.c1() == b.c1(), "{threads} threads");
            }
        }
    }
}

#[test]
fn mismatches_are_errors() {
    let setup = Setup::new(8);
    let (context, slots, level) = (&setup.context, setup.context.slots(), setup.context.max_level());
    let matrix = Matrix::new(slots, slots, 1, 1).with_diagonals(3, 6);
    let plan = BsgsPlan::new(slots, &matrix.diagonals(), 4);
    let map = LinearMap::new(plan.terms(), 1, 1).unwrap();
    let mut backwards = plan.terms().to_vec();
    backwards.reverse();
    assert!(matches!(LinearMap::new(&backwards, 1, 1), Err(CkksError::Parameters(_))));
    assert!(matches!(LinearMap::new(plan.terms(), 1, 0), Err(CkksError::Parameters(_))));
    let scale = LinearMap::plaintext_scale(context, level, &setup.scale(), &setup.scale(), true);
    let source = Source {
        encoder: &setup.encoder,
        matrix: &matrix,
        terms: plan.terms().to_vec(),
        level,
        scale,
        asked: AtomicUsize::new(0),
    };
    let input = setup.encrypt(&inputs(&matrix)[0], level, &setup.scale());
    let options = LinearOptions::default();
    let evaluator = setup.evaluator(map.rotations(), level);
    let run = |evaluator: &Evaluator, inputs: &[&Ciphertext], scale: &Scale| {
        map.apply(evaluator, inputs, &source, &[], scale, &options).map(|_| ())
    };
    assert!(run(&evaluator, &[&input], &setup.scale()).is_ok());
    assert!(matches!(run(&evaluator, &[], &setup.scale()), Err(CkksError::Parameters(_))));
    let other = run(&evaluator, &[&input], &Scale::pow2(30));
    assert!(matches!(other, Err(CkksError::ScaleMismatch { .. })));
    let low = evaluator.drop_to_level(&input, level - 1).unwrap();
    assert!(run(&evaluator, &[&low], &setup.scale()).is_err());
    let bottom = evaluator.drop_to_level(&input, 0).unwrap();
    assert!(matches!(run(&evaluator, &[&bottom], &setup.scale()), Err(CkksError::LevelRange { .. })));
    let keyless = setup.evaluator([], level);
    assert!(matches!(run(&keyless, &[&input], &setup.scale()), Err(CkksError::NoGaloisKey { .. })));
    let short = setup.evaluator(map.rotations(), level - 1);
    assert!(matches!(run(&short, &[&input], &setup.scale()), Err(CkksError::KeyLevel { .. })));
}
