//! What is measured: parameters with keys, ciphertexts and a linear map.

use crate::Result;
use fhec_ckks::linear::{DiagonalId, DiagonalSource, LinearMap};
use fhec_ckks::{
    Ciphertext, CkksError, CoeffPlaintext, Context, Encoder, Encryptor, EvaluationKeys, Evaluator, KeyRequest,
    ParameterSpec, QpPlaintext, SecretKey, Security,
};
use fhec_math::bsgs::{BsgsPlan, DiagonalIndex};
use fhec_math::{Scale, SecretRng, SecurityLevel, galois_element, ntt_primes_near};
use fhec_passes::cost::CostTable;
use fhec_passes::shape::Shape;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Sizes of parameters.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// log2 of the ring degree.
    pub(crate) log_n: u32,
    /// Bits of each prime of the chain.
    pub(crate) bits: u32,
    /// Primes of the chain.
    pub(crate) limbs: usize,
    /// Special primes.
    pub(crate) special: usize,
    /// Bits of each special prime.
    pub(crate) special_bits: u32,
    /// Limbs of each digit.
    pub(crate) digits: Vec<usize>,
}

impl Sizes {
    /// Real parameters of these sizes. Where all primes have the same, the largest are special: a digit may have as many primes as are.
    pub(crate) fn spec(&self) -> ParameterSpec {
        let Self { log_n, limbs, special, .. } = *self;
        let (q, p) = if self.bits == self.special_bits {
            let mut q: Vec<u64> = ntt_primes_near(self.bits, log_n).take(limbs + special).collect();
            q.sort_unstable();
            let p = q.split_off(limbs);
            (q, p)
        } else {
            let q: Vec<u64> = ntt_primes_near(self.bits, log_n).take(limbs).collect();
            let p = ntt_primes_near(self.special_bits, log_n).filter(|p| !q.contains(p)).take(special).collect();
            (q, p)
        };
        ParameterSpec { log_n, q, p, digits: self.digits.clone() }
    }
}

/// A server with keys at the top level, and the client's means to give it something to do.
pub(crate) struct Subject {
    pub(crate) context: Arc<Context>,
    pub(crate) shape: Shape,
    pub(crate) evaluator: Evaluator,
    pub(crate) encoder: Encoder,
    /// Scale of the ciphertexts.
    pub(crate) scale: Scale,
    /// Fresh ciphertexts, more than one, at the top level.
    pub(crate) fresh: Vec<Ciphertext>,
    /// Rotations that there are keys for.
    pub(crate) rotations: Vec<i64>,
}

impl Subject {
    /// Makes keys for products and for some rotations. Times do not depend on secrets and nobody sees the ciphertexts, so the
    /// generator's seed is a constant; the parameters have to be secure all the same, or the times would mean nothing.
    pub(crate) fn new(sizes: &Sizes, rotations: &BTreeSet<i64>) -> Result<Self> {
        let spec = sizes.spec();
        let shape = shape(&spec);
        let context = Context::new(spec, Security::Level(SecurityLevel::Bits128))?;
        let top = context.max_level();
        let mut rng = SecretRng::from_seed(&[7; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let galois = rotations.iter().map(|&r| (galois_element(r, sizes.log_n), top)).collect();
        let request = KeyRequest { relin_level: Some(top), galois, ..KeyRequest::default() };
        let keys = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ())?;
        let evaluator = Evaluator::new(&context, Arc::new(keys))?;
        let encoder = Encoder::new(&context);
        let scale = Scale::pow2(i64::from(sizes.bits));
        let encryptor = Encryptor::new(&context);
        let mut fresh = Vec::new();
        for k in 0..3 {
            let values: Vec<f64> = (0..context.slots()).map(|i| ((i + k) as f64).sin()).collect();
            let plaintext = encoder.encode(&values, top, &scale)?;
            fresh.push(encryptor.encrypt_sk(&secret, &plaintext, &mut rng)?.expand(&context)?);
        }
        let rotations = rotations.iter().copied().collect();
        Ok(Subject { context, shape, evaluator, encoder, scale, fresh, rotations })
    }
}

/// The sizes that the cost model looks at.
pub(crate) fn shape(spec: &ParameterSpec) -> Shape {
    let log2 = |primes: &[u64]| primes.iter().map(|&q| (q as f64).log2()).collect();
    Shape {
        log_n: spec.log_n,
        log2_q: log2(&spec.q),
        log2_p: log2(&spec.p),
        digits: spec.digits.clone(),
        bootstrap: None,
    }
}

/// A linear map of `count` diagonals that go from one ciphertext to one.
pub(crate) struct Diagonals {
    pub(crate) bsgs: BsgsPlan,
    pub(crate) map: LinearMap,
}

impl Diagonals {
    /// With the split that the compiler would choose at these sizes.
    pub(crate) fn choose(sizes: &Sizes, count: usize) -> Result<Self> {
        let shape = shape(&sizes.spec());
        let weights = CostTable::default().prices(&shape).linear_weights(sizes.limbs - 1);
        let indices: Vec<DiagonalIndex> =
            (0..count as i64).map(|index| DiagonalIndex { out_block: 0, in_block: 0, index }).collect();
        let bsgs = BsgsPlan::choose(count, &indices, &weights);
        let map = LinearMap::new(bsgs.terms(), 1, 1)?;
        Ok(Diagonals { bsgs, map })
    }

    /// Rotations that it needs keys for.
    pub(crate) fn rotations(&self) -> BTreeSet<i64> {
        self.bsgs.rotations().into_iter().collect()
    }

    /// Its diagonals, of some period, encoded for inputs at a level.
    pub(crate) fn encode(&self, subject: &Subject, level: usize, period: usize) -> Result<Encoded> {
        let Filled { terms, values, scale, .. } = self.fill(subject, level, period);
        let one = |values: &Vec<f64>| Ok(Arc::new(subject.encoder.encode_qp(values, level, &scale)?));
        let plaintexts = values.iter().map(one).collect::<Result<_>>()?;
        Ok(Encoded { terms, plaintexts })
    }

    /// Its diagonals, of some period, to be encoded when inputs at a level are multiplied with them.
    pub(crate) fn fill<'a>(&self, subject: &'a Subject, level: usize, period: usize) -> Filled<'a> {
        let scale = LinearMap::plaintext_scale(&subject.context, level, &subject.scale, &subject.scale, true);
        let one = |d: usize| (0..period).map(|k| ((k + d) % 23) as f64 / 2300.0).collect();
        let values = (0..self.bsgs.products()).map(one).collect();
        Filled { encoder: &subject.encoder, level, terms: self.bsgs.terms().to_vec(), values, scale, period }
    }
}

/// Diagonals that are encoded when they are needed, as a run does where weights do not stay.
pub(crate) struct Filled<'a> {
    encoder: &'a Encoder,
    level: usize,
    terms: Vec<DiagonalId>,
    values: Vec<Vec<f64>>,
    scale: Scale,
    period: usize,
}

impl DiagonalSource for Filled<'_> {
    fn diagonals(&self) -> &[DiagonalId] {
        &self.terms
    }

    fn plaintext(&self, index: usize) -> std::result::Result<Arc<QpPlaintext>, CkksError> {
        Ok(Arc::new(self.encoder.encode_qp(&self.values[index], self.level, &self.scale)?))
    }

    fn real_coefficients(&self) -> bool {
        true
    }

    fn period(&self) -> Option<usize> {
        Some(self.period)
    }

    fn coefficients(&self, index: usize) -> std::result::Result<Arc<CoeffPlaintext>, CkksError> {
        Ok(Arc::new(self.encoder.encode_coeffs(&self.values[index], &self.scale)?))
    }
}

/// Diagonals in memory.
pub(crate) struct Encoded {
    terms: Vec<DiagonalId>,
    plaintexts: Vec<Arc<QpPlaintext>>,
}

impl DiagonalSource for Encoded {
    fn diagonals(&self) -> &[DiagonalId] {
        &self.terms
    }

    fn plaintext(&self, index: usize) -> std::result::Result<Arc<QpPlaintext>, CkksError> {
        Ok(Arc::clone(&self.plaintexts[index]))
    }

    fn plaintext_bytes(&self) -> Option<usize> {
        self.plaintexts.iter().map(|p| p.bytes()).max()
    }
}
