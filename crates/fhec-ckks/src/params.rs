//! Encryption parameters: the checked [`Context`] and the unchecked [`ParameterSpec`] it is made of.

mod check;
mod selection;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fhec_math::bootstrap::LowRing;
use fhec_math::{BaseConverter, Modulus, NttTable, SecurityLevel, log2_product, security_estimate, special_primes};

use crate::error::{CkksError, Result};
use check::{check_digits, check_primes, check_security, check_shape, digit_ranges};

pub(crate) use selection::Selection;

/// Encryption parameters as written down in a plan; unchecked until [`Context::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// log2 of the ring degree `N`.
    pub log_n: u32,
    /// The chain `q_0 … q_L`, bottom first. All primes `≡ 1 mod 2N`, below 2^50, distinct.
    pub q: Vec<u64>,
    /// The special primes with product `P`, used inside key switching only.
    pub p: Vec<u64>,
    /// Number of chain limbs in each key-switching digit, from the bottom. They sum to `q.len()`, and
    /// the product of each digit's primes is below `P` (2019/688 §3), so that the noise of key
    /// switching stays at the level of one rounding.
    pub digits: Vec<usize>,
}

impl ParameterSpec {
    /// Hash over all fields; names the parameters in files.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("fhec 2026 ckks parameters v1");
        hasher.update(&self.log_n.to_le_bytes());
        for list in [&self.q, &self.p] {
            hasher.update(&(list.len() as u64).to_le_bytes());
            for prime in list {
                hasher.update(&prime.to_le_bytes());
            }
        }
        hasher.update(&(self.digits.len() as u64).to_le_bytes());
        for &digit in &self.digits {
            hasher.update(&(digit as u64).to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// Proof that a caller knowingly asks for parameters without security.
#[derive(Clone, Copy, Debug)]
pub struct InsecureToken(());

impl InsecureToken {
    /// The token. Parameters made with it protect nothing: they exist for tests only.
    pub fn for_tests() -> Self {
        Self(())
    }
}

/// How much security [`Context::new`] demands.
#[derive(Clone, Copy, Debug)]
pub enum Security {
    /// At least this level by the table of `fhec_math::security`.
    Level(SecurityLevel),
    /// None at all.
    Insecure(InsecureToken),
}

/// Checked parameters with everything precomputed from them. Shared by `Arc`.
#[derive(Debug)]
pub struct Context {
    spec: ParameterSpec,
    hash: [u8; 32],
    log_qp: f64,
    q: Vec<Modulus>,
    p: Vec<Modulus>,
    q_tables: Vec<Arc<NttTable>>,
    p_tables: Vec<Arc<NttTable>>,
    /// Limb ranges of the digits.
    digit_ranges: Vec<Range<usize>>,
    /// `P mod q_i`, where `P` is the product of all special primes.
    gadget: Vec<u64>,
    /// Special primes that key switches take, by level.
    special_at: Vec<usize>,
    /// Made on first use, one per level.
    levels: Vec<OnceLock<LevelTables>>,
    /// Tables of subrings of the chain limbs, then of the special limbs: `[limb][log2 degree]`. Made on
    /// first use.
    subrings: Vec<Vec<OnceLock<Arc<NttTable>>>>,
    /// See [`raising`](Context::raising); made on first use.
    raising: OnceLock<Arc<Context>>,
    /// See [`low_ring`](Context::low_ring); made on first use.
    low_rings: Mutex<BTreeMap<LowRing, [Arc<Context>; 2]>>,
}

/// One key-switching digit at one level.
pub(crate) struct DigitTables {
    /// Chain limbs of the digit that exist at this level.
    pub(crate) range: Range<usize>,
    /// From the digit's limbs to all other limbs of the level, then the special primes; multiplies with `unused_inv` on the way.
    pub(crate) mod_up: BaseConverter,
}

/// Constants that depend on the level.
pub(crate) struct LevelTables {
    pub(crate) digits: Vec<DigitTables>,
    /// From the special primes to `q_0 … q_ℓ`.
    pub(crate) mod_down: BaseConverter,
    /// `P_ℓ mod q_i` for `i ≤ ℓ`.
    pub(crate) p: Vec<u64>,
    /// `P_ℓ^-1 mod q_i` for `i ≤ ℓ`.
    pub(crate) p_inv: Vec<u64>,
    /// `(P/P_ℓ)^-1 mod q_i` for `i ≤ ℓ`, where not all special primes are used.
    pub(crate) unused_inv: Option<Vec<u64>>,
    /// Constants of a division by `q_ℓ`; none at level 0.
    pub(crate) rescale: Option<RescaleTables>,
}

/// Constants of a division by the last prime, alone or together with `P`.
pub(crate) struct RescaleTables {
    /// `q_ℓ^-1 mod q_i` for `i < ℓ`.
    pub(crate) q_inv: Vec<u64>,
    /// From the special primes, then `q_ℓ`, to `q_0 … q_{ℓ-1}`.
    pub(crate) mod_down: BaseConverter,
    /// `(P_ℓ·q_ℓ)^-1 mod q_i` for `i < ℓ`.
    pub(crate) pq_inv: Vec<u64>,
}

impl std::fmt::Debug for LevelTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LevelTables").finish_non_exhaustive()
    }
}

impl Context {
    /// Checks `spec` and prepares tables.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] for anything malformed, [`CkksError::Insecure`] where the table does
    /// not grant the security asked for.
    pub fn new(spec: ParameterSpec, security: Security) -> Result<Arc<Self>> {
        check_security(&spec, log2_product(&spec.q) + log2_product(&spec.p), security)?;
        Self::prepare(spec)
    }

    /// The checked context, whatever its security.
    fn prepare(spec: ParameterSpec) -> Result<Arc<Self>> {
        check_shape(&spec)?;
        check_primes(&spec)?;
        check_digits(&spec)?;
        Self::build(spec)
    }

    /// The context over primes that were checked, however large its digits are.
    fn build(spec: ParameterSpec) -> Result<Arc<Self>> {
        let digit_ranges = digit_ranges(&spec)?;
        let log_qp = log2_product(&spec.q) + log2_product(&spec.p);
        let modulus =
            |primes: &[u64]| -> Result<Vec<Modulus>> { primes.iter().map(|&p| Ok(Modulus::new(p)?)).collect() };
        let tables = |primes: &[u64]| -> Result<Vec<Arc<NttTable>>> {
            primes.iter().map(|&p| Ok(NttTable::get(p, spec.log_n)?)).collect()
        };
        let (q, p) = (modulus(&spec.q)?, modulus(&spec.p)?);
        let (q_tables, p_tables) = (tables(&spec.q)?, tables(&spec.p)?);
        let gadget = q.iter().map(|m| product_mod(m, &spec.p)).collect();
        let special_at = special_by_level(&spec, &digit_ranges);
        Ok(Arc::new(Self {
            hash: spec.hash(),
            levels: (0..spec.q.len()).map(|_| OnceLock::new()).collect(),
            subrings: (0..spec.q.len() + spec.p.len())
                .map(|_| (0..spec.log_n).map(|_| OnceLock::new()).collect())
                .collect(),
            spec,
            log_qp,
            q,
            p,
            q_tables,
            p_tables,
            digit_ranges,
            gadget,
            special_at,
            raising: OnceLock::new(),
            low_rings: Mutex::default(),
        }))
    }

    /// Ring degree `N`.
    pub fn n(&self) -> usize {
        1 << self.spec.log_n
    }

    /// log2 of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.spec.log_n
    }

    /// Number of complex slots, `N/2`.
    pub fn slots(&self) -> usize {
        self.n() / 2
    }

    /// Highest level `L`.
    pub fn max_level(&self) -> usize {
        self.q.len() - 1
    }

    /// Chain prime `q_i`.
    ///
    /// # Panics
    /// Where `i` exceeds [`max_level`](Self::max_level).
    pub fn q(&self, i: usize) -> &Modulus {
        &self.q[i]
    }

    /// The chain, bottom first.
    pub fn moduli_q(&self) -> &[Modulus] {
        &self.q
    }

    /// The special primes.
    pub fn moduli_p(&self) -> &[Modulus] {
        &self.p
    }

    /// Number of special primes.
    pub fn special(&self) -> usize {
        self.p.len()
    }

    /// Number `α` of special primes that a key switch at `level` takes, the first ones ([`fhec_math::special_primes`]). It never
    /// falls with the level. Their product is called `P_ℓ`, or `P` where the level is understood.
    pub fn special_at(&self, level: usize) -> usize {
        self.special_at[level]
    }

    /// Security by the estimate of [`fhec_math::security`], in bits; 0 for ring degrees outside its table.
    pub fn security_bits(&self) -> f64 {
        security_estimate(self.spec.log_n, self.log_qp).unwrap_or(0.0)
    }

    /// log2 of the product of all primes, special ones included.
    pub fn log_qp(&self) -> f64 {
        self.log_qp
    }

    /// log2 of `q_0 · … · q_ℓ`.
    pub fn log_q(&self, level: usize) -> f64 {
        log2_product(&self.spec.q[..=level])
    }

    /// The parameters this context was made of.
    pub fn spec(&self) -> &ParameterSpec {
        &self.spec
    }

    /// Hash over all parameters, for files.
    pub fn params_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Short form of [`params_hash`](Self::params_hash) that every ciphertext carries.
    pub fn id(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.hash[..8]);
        u64::from_le_bytes(bytes)
    }

    /// Table of chain prime `i`.
    pub fn q_table(&self, i: usize) -> &Arc<NttTable> {
        &self.q_tables[i]
    }

    /// Table of special prime `j`.
    pub fn p_table(&self, j: usize) -> &Arc<NttTable> {
        &self.p_tables[j]
    }

    /// `P_ℓ mod q_i`.
    pub fn p_mod_q(&self, level: usize, i: usize) -> u64 {
        self.level(level).p[i]
    }

    /// The product of all special primes modulo `q_i`: what keys are made with, however few special primes they have.
    pub(crate) fn gadget(&self, i: usize) -> u64 {
        self.gadget[i]
    }

    /// Modulus of limb `i` in the order `q_0 … q_level, p_0 … p_{α-1}`.
    pub fn qp_modulus(&self, level: usize, i: usize) -> &Modulus {
        if i <= level { &self.q[i] } else { &self.p[i - level - 1] }
    }

    /// NTT table of limb `i` in the order `q_0 … q_level, p_0 … p_{α-1}`.
    pub fn qp_table(&self, level: usize, i: usize) -> &Arc<NttTable> {
        if i <= level { &self.q_tables[i] } else { &self.p_tables[i - level - 1] }
    }

    /// NTT table of the subring of degree `2^log_len` for limb `i` in the order of
    /// [`qp_table`](Self::qp_table); its root is the one that the whole ring implies.
    pub(crate) fn subring_table(&self, level: usize, i: usize, log_len: u32) -> &Arc<NttTable> {
        if log_len == self.spec.log_n {
            return self.qp_table(level, i);
        }
        let row = if i <= level { i } else { self.q.len() + i - level - 1 };
        self.subrings[row][log_len as usize].get_or_init(|| {
            let p = self.qp_modulus(level, i).value();
            NttTable::get(p, log_len).expect("a prime that is 1 mod 2N suits every subring")
        })
    }

    /// The same chain with the first special prime alone and one digit: for key switches of what is below `q_0`, such as a raised
    /// polynomial, which the digit holds although the special prime is far below the chain.
    pub(crate) fn raising(&self) -> &Arc<Context> {
        self.raising.get_or_init(|| {
            let digits = vec![self.spec.q.len()];
            let spec = ParameterSpec { p: vec![self.spec.p[0]], digits, ..self.spec.clone() };
            Self::build(spec).expect("a part of primes that were checked")
        })
    }

    /// The first primes of the same chain with one digit for each, in the same ring and in a smaller one: for the switch to a [`LowRing`] and
    /// for what happens there.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`], [`CkksError::Parameters`] for a ring that is not smaller, and [`CkksError::Insecure`] for one without 128
    /// bits of security where the whole ring has them.
    pub(crate) fn low_ring(&self, ring: LowRing) -> Result<[Arc<Context>; 2]> {
        self.check_level("low ring", ring.level, 0)?;
        if ring.log_n >= self.log_n() {
            let (low, whole) = (ring.log_n, self.log_n());
            return Err(CkksError::Parameters(format!("a ring of degree 2^{low} below one of 2^{whole}")));
        }
        let log2 = |primes: &[u64]| -> Vec<f64> { primes.iter().map(|&p| (p as f64).log2()).collect() };
        let special = ring.special(&log2(&self.spec.q), &log2(&self.spec.p));
        let (q, p) = (self.spec.q[..=ring.level].to_vec(), self.spec.p[..special].to_vec());
        let log_qp = log2_product(&q) + log2_product(&p);
        let inner = ParameterSpec { log_n: ring.log_n, q, p, digits: vec![1; ring.level + 1] };
        let security = Security::Level(SecurityLevel::Bits128);
        if check_security(&self.spec, self.log_qp, security).is_ok() {
            check_security(&inner, log_qp, security)?;
        }
        let mut known = self.low_rings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(contexts) = known.get(&ring) {
            return Ok(contexts.clone());
        }
        let entry = ParameterSpec { log_n: self.log_n(), ..inner.clone() };
        let contexts = [Self::prepare(entry)?, Self::prepare(inner)?];
        known.insert(ring, contexts.clone());
        Ok(contexts)
    }

    /// Number of limbs `level + 1 + α`.
    pub fn qp_limbs(&self, level: usize) -> usize {
        level + 1 + self.special_at[level]
    }

    /// Number of key-switching digits that a ciphertext at `level` has.
    pub fn digits_at(&self, level: usize) -> usize {
        self.digit_ranges.iter().filter(|r| r.start <= level).count()
    }

    /// Chain limbs of digit `d`, at the top level.
    pub(crate) fn digit_range(&self, d: usize) -> Range<usize> {
        self.digit_ranges[d].clone()
    }

    /// Refuses operands made under other parameters.
    pub(crate) fn check_id(&self, op: &'static str, found: u64) -> Result<()> {
        if found == self.id() { Ok(()) } else { Err(CkksError::ContextMismatch { op, expected: self.id(), found }) }
    }

    /// Refuses levels outside `min … max_level`.
    pub(crate) fn check_level(&self, op: &'static str, level: usize, min: usize) -> Result<()> {
        if (min..=self.max_level()).contains(&level) {
            Ok(())
        } else {
            Err(CkksError::LevelRange { op, level, min, max: self.max_level() })
        }
    }

    /// Constants of `level`, made on first use.
    pub(crate) fn level(&self, level: usize) -> &LevelTables {
        self.levels[level].get_or_init(|| self.make_level(level))
    }

    fn make_level(&self, level: usize) -> LevelTables {
        let (used, unused) = self.spec.p.split_at(self.special_at[level]);
        let special = &self.p[..used.len()];
        let p: Vec<u64> = self.q[..=level].iter().map(|m| product_mod(m, used)).collect();
        let unused_inv: Option<Vec<u64>> =
            (!unused.is_empty()).then(|| self.q[..=level].iter().map(|m| inverse(m, product_mod(m, unused))).collect());
        let digits = self
            .digit_ranges
            .iter()
            .filter(|r| r.start <= level)
            .map(|r| {
                let range = r.start..r.end.min(level + 1);
                let mut to = self.q[..range.start].to_vec();
                to.extend_from_slice(&self.q[range.end..=level]);
                to.extend_from_slice(special);
                let mut mod_up = BaseConverter::new(&self.q[range.clone()], &to);
                if let Some(factors) = &unused_inv {
                    mod_up = mod_up.multiplied(&factors[range.clone()]);
                }
                DigitTables { range, mod_up }
            })
            .collect();
        let rescale = (level > 0).then(|| {
            let last = self.q[level];
            let lower = &self.q[..level];
            let mut from = special.to_vec();
            from.push(last);
            RescaleTables {
                q_inv: lower.iter().map(|m| inverse(m, m.reduce(last.value()))).collect(),
                mod_down: BaseConverter::new(&from, lower),
                pq_inv: (0..level)
                    .map(|i| {
                        let m = &self.q[i];
                        inverse(m, m.mul(p[i], m.reduce(last.value())))
                    })
                    .collect(),
            }
        });
        LevelTables {
            digits,
            mod_down: BaseConverter::new(special, &self.q[..=level]),
            p_inv: p.iter().zip(&self.q).map(|(&p, m)| inverse(m, p)).collect(),
            unused_inv,
            p,
            rescale,
        }
    }
}

/// Special primes that key switches take, by level: those that the largest digit of the level asks for.
fn special_by_level(spec: &ParameterSpec, digits: &[Range<usize>]) -> Vec<usize> {
    let log2_p: Vec<f64> = spec.p.iter().map(|&p| (p as f64).log2()).collect();
    let at = |level: usize| {
        let present = digits.iter().filter(|r| r.start <= level);
        let largest = present.map(|r| log2_product(&spec.q[r.start..r.end.min(level + 1)])).fold(0.0, f64::max);
        special_primes(largest, &log2_p)
    };
    (0..spec.q.len()).map(at).collect()
}

/// Product of `primes` modulo `m`.
fn product_mod(m: &Modulus, primes: &[u64]) -> u64 {
    primes.iter().fold(1, |acc, &p| m.mul(acc, m.reduce(p)))
}

/// Inverse of a product of primes distinct from `m`, which exists because all are distinct primes.
fn inverse(m: &Modulus, value: u64) -> u64 {
    m.inv(value).expect("distinct primes are invertible modulo each other")
}
