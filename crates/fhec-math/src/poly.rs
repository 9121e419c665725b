//! Polynomials in RNS form, with the representation in the type.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use rayon::prelude::*;
use zeroize::Zeroize;

use crate::{AlignedVec, MathError, NttTable};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Eval {}
    impl Sealed for super::Coeff {}
}

/// The representation of a polynomial: [`Eval`] or [`Coeff`].
pub trait Form: sealed::Sealed + Send + Sync + 'static {
    /// Name for messages.
    const NAME: &'static str;
}

/// Values at the odd powers of `ψ`, in bit-reversed order: products are element-wise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eval;

/// Coefficients in natural order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coeff;

impl Form for Eval {
    const NAME: &'static str = "Eval";
}

impl Form for Coeff {
    const NAME: &'static str = "Coeff";
}

/// A polynomial of `n` coefficients modulo several primes, stored limb by limb.
///
/// It does not know its primes: the caller pairs limb `i` with its modulus.
pub struct Poly<F> {
    data: AlignedVec,
    n: usize,
    form: PhantomData<F>,
}

impl<F: Form> Poly<F> {
    /// The zero polynomial.
    pub fn zero(n: usize, limbs: usize) -> Self {
        let words = n.checked_mul(limbs).expect("polynomial size overflows the address space");
        Self { data: AlignedVec::zeroed(words), n, form: PhantomData }
    }

    /// A polynomial of any residues and words, for callers that overwrite all of them.
    pub fn scratch(n: usize, limbs: usize) -> Self {
        let words = n.checked_mul(limbs).expect("polynomial size overflows the address space");
        Self { data: AlignedVec::scratch(words), n, form: PhantomData }
    }

    /// A polynomial from limb-major words.
    ///
    /// # Errors
    /// [`MathError::BadLength`] when the words are not a whole number of limbs of `n`.
    pub fn from_data(n: usize, data: AlignedVec) -> Result<Self, MathError> {
        if n == 0 || !data.len().is_multiple_of(n) {
            return Err(MathError::BadLength { len: data.len(), n });
        }
        Ok(Self { data, n, form: PhantomData })
    }

    /// Number of coefficients.
    #[inline]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of limbs.
    #[inline]
    pub fn limbs(&self) -> usize {
        self.data.len().checked_div(self.n).unwrap_or(0)
    }

    /// Limb `i`.
    #[inline]
    pub fn limb(&self, i: usize) -> &[u64] {
        &self.data[i * self.n..(i + 1) * self.n]
    }

    /// Limb `i`, to change.
    #[inline]
    pub fn limb_mut(&mut self, i: usize) -> &mut [u64] {
        &mut self.data[i * self.n..(i + 1) * self.n]
    }

    /// The limbs in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, u64> {
        self.data.chunks_exact(self.n.max(1))
    }

    /// The limbs in order, to change.
    pub fn iter_mut(&mut self) -> std::slice::ChunksExactMut<'_, u64> {
        self.data.chunks_exact_mut(self.n.max(1))
    }

    /// The limbs in order, to change in parallel.
    pub fn par_iter_mut(&mut self) -> rayon::slice::ChunksExactMut<'_, u64> {
        self.data.par_chunks_exact_mut(self.n.max(1))
    }

    /// All words, limb after limb.
    #[inline]
    pub fn data(&self) -> &[u64] {
        &self.data
    }

    /// All words, to change.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u64] {
        &mut self.data
    }

    /// The buffer.
    pub fn into_data(self) -> AlignedVec {
        self.data
    }

    /// Keeps the first `limbs` limbs; more than there are: no effect. The memory stays allocated
    /// until the polynomial is dropped.
    pub fn drop_limbs_to(&mut self, limbs: usize) {
        self.data.truncate(limbs.saturating_mul(self.n));
    }

    /// A copy of the first `limbs` limbs.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn prefix(&self, limbs: usize) -> Self {
        Self { data: AlignedVec::from(&self.data[..limbs * self.n]), n: self.n, form: PhantomData }
    }

    /// The same words read in the representation `G`, for callers that transform limbs themselves.
    pub fn into_form<G: Form>(self) -> Poly<G> {
        Poly { data: self.data, n: self.n, form: PhantomData }
    }

    fn check_tables(&self, tables: &[Arc<NttTable>]) {
        assert!(tables.len() >= self.limbs(), "fewer NTT tables than limbs");
        assert!(tables[..self.limbs()].iter().all(|t| t.n() == self.n), "NTT table of another ring degree");
    }
}

impl Poly<Coeff> {
    /// Transforms every limb with the table of the same index (further tables are ignored).
    ///
    /// # Panics
    /// When tables are missing or of another degree.
    pub fn to_eval(mut self, tables: &[Arc<NttTable>]) -> Poly<Eval> {
        self.check_tables(tables);
        self.par_iter_mut().zip(tables).for_each(|(limb, table)| table.forward(limb));
        self.into_form()
    }
}

impl Poly<Eval> {
    /// Transforms every limb back with the table of the same index (further tables are ignored).
    ///
    /// # Panics
    /// When tables are missing or of another degree.
    pub fn to_coeff(mut self, tables: &[Arc<NttTable>]) -> Poly<Coeff> {
        self.check_tables(tables);
        self.par_iter_mut().zip(tables).for_each(|(limb, table)| table.inverse(limb));
        self.into_form()
    }
}

impl<F> Zeroize for Poly<F> {
    fn zeroize(&mut self) {
        self.data.zeroize();
    }
}

impl<F> Clone for Poly<F> {
    fn clone(&self) -> Self {
        Self { data: self.data.clone(), n: self.n, form: PhantomData }
    }
}

impl<F> PartialEq for Poly<F> {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n && self.data == other.data
    }
}

impl<F> Eq for Poly<F> {}

impl<F: Form> fmt::Debug for Poly<F> {
    /// Only the shape: polynomials may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Poly<{}>({} limbs of {})", F::NAME, self.limbs(), self.n)
    }
}
