//! Counts operations without computing anything.

use crate::backend::{Backend, OpResult, Step};
use fhec_math::Scale;
use fhec_math::chebyshev::ChebyshevCost;
use fhec_plan::{LinearTerm, Op, PolyId, VectorId, Verified};
use std::ops::AddAssign;
use std::sync::Mutex;

/// Numbers of operations on ciphertexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rotations that need a key: babies, giants, folds and single ones; and conjugations.
    pub rotations: usize,
    /// Inner products with a switching key: rotations and relinearisations.
    pub key_switches: usize,
    /// Decompositions into digits; hoisted rotations share one.
    pub decompositions: usize,
    /// Products of a ciphertext and an encoded vector.
    pub plaintext_products: usize,
    /// Products with a real constant.
    pub scalar_products: usize,
    /// Products of two ciphertexts; a product of slots with two images takes two.
    pub ciphertext_products: usize,
    /// Relinearisations.
    pub relinearisations: usize,
    /// Rescales, one for each ciphertext.
    pub rescales: usize,
    /// Vectors encoded.
    pub encodings: usize,
    /// Bootstraps, each of one ciphertext or of two at once. What they consist of is not counted.
    pub bootstraps: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, o: Self) {
        self.rotations += o.rotations;
        self.key_switches += o.key_switches;
        self.decompositions += o.decompositions;
        self.plaintext_products += o.plaintext_products;
        self.scalar_products += o.scalar_products;
        self.ciphertext_products += o.ciphertext_products;
        self.relinearisations += o.relinearisations;
        self.rescales += o.rescales;
        self.encodings += o.encodings;
        self.bootstraps += o.bootstraps;
    }
}

/// The counting backend: a value is its number of ciphertexts.
#[derive(Debug)]
pub struct CountBackend {
    layers: Mutex<Vec<Counts>>,
}

impl CountBackend {
    /// A backend for runs of `verified`.
    pub fn new(verified: &Verified) -> Self {
        CountBackend { layers: Mutex::new(vec![Counts::default(); verified.plan().layers.len()]) }
    }

    /// Counts `verified` once.
    ///
    /// # Errors
    /// None for a verified plan.
    pub fn count(verified: &Verified) -> crate::Result<Self> {
        let backend = Self::new(verified);
        crate::run(verified, &backend, vec![(); verified.plan().inputs.len()], &mut |_| ())?;
        Ok(backend)
    }

    /// Counts of each layer since the backend was made.
    pub fn layers(&self) -> Vec<Counts> {
        self.layers.lock().map(|l| l.clone()).unwrap_or_default()
    }

    /// Counts of all layers together.
    pub fn total(&self) -> Counts {
        self.layers().into_iter().fold(Counts::default(), |mut sum, c| {
            sum += c;
            sum
        })
    }

    /// Adds `each` for every ciphertext of `value` and returns the result's number of ciphertexts.
    fn add_each(&self, step: &Step, times: usize, each: Counts) -> OpResult<usize> {
        if let Ok(mut layers) = self.layers.lock() {
            (0..times).for_each(|_| layers[step.instruction.layer.index()] += each);
        }
        Ok(step.result.ciphertexts)
    }
}

const SWITCH: Counts = Counts {
    rotations: 0,
    key_switches: 1,
    decompositions: 1,
    plaintext_products: 0,
    scalar_products: 0,
    ciphertext_products: 0,
    relinearisations: 0,
    rescales: 0,
    encodings: 0,
    bootstraps: 0,
};
const ROTATION: Counts = Counts { rotations: 1, ..SWITCH };
const RELINEARISATION: Counts = Counts { relinearisations: 1, ..SWITCH };

impl Backend for CountBackend {
    type Value = usize;
    type Input = ();
    type Output = ();

    fn bytes(&self, _: &usize) -> usize {
        0
    }

    fn input(&self, step: &Step, _: usize, (): ()) -> OpResult<usize> {
        Ok(step.result.ciphertexts)
    }

    fn output(&self, _: &Step, _: usize, _: &usize) -> OpResult<()> {
        Ok(())
    }

    fn linear_map(
        &self,
        step: &Step,
        _: &[LinearTerm],
        _: &[&usize],
        bias: Option<VectorId>,
        _: &Scale,
    ) -> OpResult<usize> {
        let outputs = step.result.ciphertexts;
        for group in step.verified.facts().groups(step.number) {
            let (babies, giants) = (group.bsgs.baby_switches(), group.bsgs.giant_switches());
            let products = group.products;
            let counts = Counts {
                rotations: babies + giants,
                key_switches: babies + giants,
                decompositions: group.bsgs.decompositions() + giants,
                plaintext_products: products,
                rescales: outputs,
                encodings: products,
                ..Counts::default()
            };
            self.add_each(step, 1, counts)?;
            self.add_each(step, outputs * group.fold.len(), ROTATION)?;
        }
        let biases = if bias.is_some() { outputs } else { 0 };
        self.add_each(step, biases, Counts { encodings: 1, ..Counts::default() })
    }

    fn polynomial(&self, step: &Step, _: &usize, poly: PolyId, _: &Scale) -> OpResult<usize> {
        let ChebyshevCost { multiplications, scalar_multiplications, relinearisations, rescales, .. } =
            step.verified.facts().polynomial(poly).cost();
        let each = Counts {
            key_switches: relinearisations,
            decompositions: relinearisations,
            scalar_products: scalar_multiplications,
            ciphertext_products: multiplications,
            relinearisations,
            rescales,
            ..Counts::default()
        };
        self.add_each(step, step.result.ciphertexts, each)
    }

    fn add(&self, step: &Step, _: &usize, _: &usize) -> OpResult<usize> {
        Ok(step.result.ciphertexts)
    }

    fn sub(&self, step: &Step, _: &usize, _: &usize) -> OpResult<usize> {
        Ok(step.result.ciphertexts)
    }

    fn negate(&self, step: &Step, _: &usize) -> OpResult<usize> {
        Ok(step.result.ciphertexts)
    }

    fn mul(&self, step: &Step, a: &usize, _: &usize) -> OpResult<usize> {
        let product = Counts { ciphertext_products: 1, ..Counts::default() };
        if step.verified.plan().complex {
            let square = matches!(step.instruction.op, Op::Mul(x, y) if x == y);
            self.add_each(step, if square { *a } else { 2 * a }, ROTATION)?;
            self.add_each(step, *a, product)?;
        }
        self.add_each(step, *a, product)
    }

    fn mul_scalar(&self, step: &Step, a: &usize, _: f64, _: &Scale) -> OpResult<usize> {
        self.add_each(step, *a, Counts { scalar_products: 1, ..Counts::default() })
    }

    fn mul_vector(&self, step: &Step, a: &usize, _: VectorId, _: &Scale) -> OpResult<usize> {
        self.add_each(step, *a, Counts { plaintext_products: 1, encodings: 1, ..Counts::default() })
    }

    fn add_scalar(&self, step: &Step, _: &usize, _: f64) -> OpResult<usize> {
        Ok(step.result.ciphertexts)
    }

    fn add_vector(&self, step: &Step, a: &usize, _: VectorId) -> OpResult<usize> {
        self.add_each(step, *a, Counts { encodings: 1, ..Counts::default() })
    }

    fn rotate(&self, step: &Step, a: &usize, steps: i64) -> OpResult<usize> {
        let slots = step.verified.plan().parameters.slots() as i64;
        self.add_each(step, if steps % slots == 0 { 0 } else { *a }, ROTATION)
    }

    fn relinearise(&self, step: &Step, a: &usize) -> OpResult<usize> {
        self.add_each(step, *a, RELINEARISATION)
    }

    fn rescale(&self, step: &Step, a: &usize) -> OpResult<usize> {
        self.add_each(step, *a, Counts { rescales: 1, ..Counts::default() })
    }

    fn level_drop(&self, step: &Step, _: &usize, _: usize) -> OpResult<usize> {
        Ok(step.result.ciphertexts)
    }

    fn bootstrap(&self, step: &Step, a: &usize, _: usize, _: &Scale) -> OpResult<usize> {
        self.add_each(step, a.div_ceil(2), Counts { bootstraps: 1, ..Counts::default() })
    }
}
