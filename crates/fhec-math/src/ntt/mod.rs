//! The negacyclic number-theoretic transform modulo one prime.

#[cfg(target_arch = "x86_64")]
pub(crate) mod ifma;
mod portable;
mod root;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use crate::cpu::{Kernels, kernels};
use crate::{Fetch, MathError, Modulus};
use portable::PortableNtt;

/// log2 of the smallest and largest ring degrees.
pub const LOG_N_RANGE: std::ops::RangeInclusive<u32> = 4..=17;

/// Tables of one prime and ring degree.
///
/// The forward transform takes coefficients in natural order to values in bit-reversed order,
/// `out[i] = a(ψ^(2·brv(i)+1))`, so that a pointwise product of two transforms is the transform of
/// the product modulo `X^N + 1`. `ψ` depends only on the prime and the degree ([`psi`](Self::psi)):
/// values written by one machine mean the same on every other.
pub struct NttTable {
    modulus: Modulus,
    log_n: u32,
    psi: u64,
    kernel: Kernel,
}

/// By prime and log2 of the degree.
type Cache = BTreeMap<(u64, u32), Weak<NttTable>>;

enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Ifma(Box<ifma::IfmaNtt>),
    Portable(PortableNtt),
}

impl NttTable {
    /// The table of `p` and `N = 2^log_n`, shared by everyone in the process who holds it.
    ///
    /// # Errors
    /// [`MathError::BadDegree`], [`MathError::BadModulus`], or [`MathError::NotNttFriendly`] when
    /// `p` is not a prime congruent to 1 modulo `2N`.
    pub fn get(p: u64, log_n: u32) -> Result<Arc<Self>, MathError> {
        // Weak entries: tables go when the last context that uses them goes.
        static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);
        let lookup = || {
            let cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
            cache.get(&(p, log_n)).and_then(Weak::upgrade)
        };
        if let Some(table) = lookup() {
            return Ok(table);
        }
        // Built outside the lock: several tables can be made at once.
        let table = Arc::new(Self::with_kernels(p, log_n, kernels())?);
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = cache.get(&(p, log_n)).and_then(Weak::upgrade) {
            return Ok(first);
        }
        cache.retain(|_, entry| entry.strong_count() != 0);
        cache.insert((p, log_n), Arc::downgrade(&table));
        Ok(table)
    }

    /// A fresh table with the kernels asked for, outside the cache; for tests and measurements. The portable
    /// kernels also stand in where the others do not exist: on other processors, and for degrees below 2^8.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn with_kernels(p: u64, log_n: u32, kernels: Kernels) -> Result<Self, MathError> {
        let modulus = Modulus::new(p)?;
        if !LOG_N_RANGE.contains(&log_n) {
            return Err(MathError::BadDegree { log_n });
        }
        let psi = root::primitive_root(&modulus, log_n)?;
        let kernel = Self::kernel(&modulus, log_n, psi, kernels)?;
        Ok(Self { modulus, log_n, psi, kernel })
    }

    #[cfg(target_arch = "x86_64")]
    fn kernel(m: &Modulus, log_n: u32, psi: u64, kernels: Kernels) -> Result<Kernel, MathError> {
        let wanted = kernels == Kernels::Avx512Ifma && crate::cpu::detect() == Kernels::Avx512Ifma;
        if wanted && log_n >= ifma::MIN_LOG_N {
            // SAFETY: the instructions were just detected.
            return Ok(Kernel::Ifma(Box::new(unsafe { ifma::IfmaNtt::new(m, log_n, psi) })));
        }
        Ok(Kernel::Portable(PortableNtt::new(m, log_n, psi)?))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn kernel(m: &Modulus, log_n: u32, psi: u64, _kernels: Kernels) -> Result<Kernel, MathError> {
        Ok(Kernel::Portable(PortableNtt::new(m, log_n, psi)?))
    }

    /// The prime.
    pub fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// log2 of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.log_n
    }

    /// The ring degree.
    pub fn n(&self) -> usize {
        1 << self.log_n
    }

    /// The primitive `2N`-th root of unity at whose odd powers polynomials are evaluated.
    pub fn psi(&self) -> u64 {
        self.psi
    }

    /// Coefficients to values, in place.
    ///
    /// # Panics
    /// When the length is not `N`.
    pub fn forward(&self, limb: &mut [u64]) {
        self.check(limb);
        match &self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Ifma(k) => k.forward(None, limb, &mut Fetch::new([k.records(false, None)])),
            Kernel::Portable(k) => k.forward(limb),
        }
    }

    /// [`forward`](Self::forward) between two steps of a computation: from `source` if there is one, of loose coefficients as
    /// [`BaseConverter::convert_loose`](crate::BaseConverter::convert_loose) leaves them, to loose values. These are congruent to the
    /// values and below `2^52 − p`, which is all that inner products ask.
    ///
    /// # Panics
    /// When a length is not `N`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only these kernels fetch"))]
    pub fn forward_loose(&self, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        let loose = source.unwrap_or(limb);
        assert!(loose.len() == self.n() && limb.len() == self.n(), "limb length is not the ring degree");
        debug_assert!(loose.iter().all(|&x| x < 4 * self.modulus.value()), "coefficients are not even loosely reduced");
        match &self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Ifma(k) => k.forward_loose(source, limb, fetch),
            Kernel::Portable(k) => {
                if let Some(source) = source {
                    limb.copy_from_slice(source);
                }
                k.forward(limb);
            }
        }
    }

    /// The first half of the values of the polynomial with coefficients `c_0 … c_{N/2−1}, 0, −c_{N/2−1} … −c_1`, which
    /// equals its conjugate `a(1/X)`. Position `N−1−i` of its transform holds the same value as position `i`.
    ///
    /// Encoded real vectors are such polynomials.
    ///
    /// # Panics
    /// When the lengths are not `N/2`.
    pub fn forward_symmetric(&self, coeffs: &[i64], out: &mut [u64]) {
        let half = self.n() / 2;
        assert!(coeffs.len() == half && out.len() == half, "lengths are not half of the ring degree");
        #[cfg(target_arch = "x86_64")]
        if let Kernel::Ifma(k) = &self.kernel
            && self.log_n >= ifma::MIN_LOG_N_SYMMETRIC
        {
            return k.forward_symmetric(coeffs, out);
        }
        let mut limb = vec![0; 2 * half];
        for (k, &c) in coeffs.iter().enumerate() {
            limb[k] = self.modulus.reduce_i64(c);
            if k != 0 {
                limb[2 * half - k] = self.modulus.neg(limb[k]);
            }
        }
        self.forward(&mut limb);
        out.copy_from_slice(&limb[..half]);
    }

    /// Values to coefficients, in place, normalised: the exact inverse of [`forward`](Self::forward).
    ///
    /// # Panics
    /// When the length is not `N`.
    pub fn inverse(&self, limb: &mut [u64]) {
        self.check(limb);
        match &self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Ifma(k) => k.inverse(None, limb, &mut Fetch::new([k.records(true, None)])),
            Kernel::Portable(k) => k.inverse(limb),
        }
    }

    /// [`inverse`](Self::inverse) of values that stay where they are.
    ///
    /// # Panics
    /// When a length is not `N`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only these kernels fetch"))]
    pub fn inverse_from(&self, source: &[u64], limb: &mut [u64], fetch: &mut Fetch) {
        self.check(source);
        assert_eq!(limb.len(), self.n(), "limb length is not the ring degree");
        match &self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Ifma(k) => k.inverse(Some(source), limb, fetch),
            Kernel::Portable(k) => {
                limb.copy_from_slice(source);
                k.inverse(limb);
            }
        }
    }

    /// Whether limbs are transformed in quarters: the first pass of a transform, and the last one of an inverse, can then be left to
    /// [`BaseConverter::convert_quarters`](crate::BaseConverter::convert_quarters).
    pub fn has_quarters(&self) -> bool {
        match &self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Ifma(k) => k.has_quarters() && kernels() == Kernels::Avx512Ifma,
            Kernel::Portable(_) => false,
        }
    }

    /// What is left of [`forward_loose`](Self::forward_loose) after a conversion in quarters, for one of them.
    ///
    /// # Panics
    /// When a length is not `N/4`, or [there is no such quarter](Self::has_quarters).
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only these kernels have quarters"))]
    pub fn forward_quarter(&self, quarter: usize, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        self.check_quarter(quarter, source.unwrap_or(limb));
        self.check_quarter(quarter, limb);
        #[cfg(target_arch = "x86_64")]
        if let Kernel::Ifma(k) = &self.kernel {
            k.forward_quarter(quarter, source, limb, fetch);
        }
    }

    /// As much of [`inverse_from`](Self::inverse_from), or of [`inverse`](Self::inverse) without a source, as comes before a conversion in
    /// quarters, for one of them.
    ///
    /// # Panics
    /// As [`forward_quarter`](Self::forward_quarter).
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only these kernels have quarters"))]
    pub fn inverse_quarter(&self, quarter: usize, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        self.check_quarter(quarter, source.unwrap_or(limb));
        self.check_quarter(quarter, limb);
        debug_assert!(source.unwrap_or(limb).iter().all(|&x| x < self.modulus.value()), "limb is not reduced");
        #[cfg(target_arch = "x86_64")]
        if let Kernel::Ifma(k) = &self.kernel {
            k.inverse_quarter(quarter, source, limb, fetch);
        }
    }

    /// Puts what a transform, or one of a quarter, will read of the table on the list.
    ///
    /// # Panics
    /// When there is no such quarter.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only these kernels fetch"))]
    pub fn fetch(&self, inverse: bool, quarter: Option<usize>, fetch: &mut Fetch) {
        assert!(quarter.is_none_or(|quarter| quarter < 4), "no such quarter");
        #[cfg(target_arch = "x86_64")]
        if let Kernel::Ifma(k) = &self.kernel {
            fetch.push(k.records(inverse, quarter));
        }
    }

    fn check_quarter(&self, quarter: usize, limb: &[u64]) {
        assert!(quarter < 4 && self.has_quarters(), "no such quarter");
        assert_eq!(limb.len(), self.n() / 4, "length is not a quarter of the ring degree");
    }

    /// The kernels of a table with quarters.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn quarters(&self) -> Option<&ifma::IfmaNtt> {
        match &self.kernel {
            Kernel::Ifma(k) if self.has_quarters() => Some(k),
            _ => None,
        }
    }

    fn check(&self, limb: &[u64]) {
        assert_eq!(limb.len(), self.n(), "limb length is not the ring degree");
        debug_assert!(limb.iter().all(|&x| x < self.modulus.value()), "limb is not reduced");
    }
}

impl fmt::Debug for NttTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NttTable").field("p", &self.modulus.value()).field("log_n", &self.log_n).finish_non_exhaustive()
    }
}
