//! Packed tensors as ciphertexts.

use crate::backend::OpResult;
use crate::error::OpError;
use fhec_ckks::{Ciphertext, CkksError, Product};
use rayon::prelude::*;

/// The ciphertexts of a packed tensor, all of one level, scale and degree.
#[derive(Clone, Debug)]
pub enum CkksValue {
    /// Degree 1.
    Ciphertexts(Vec<Ciphertext>),
    /// Degree 2: products before relinearisation.
    Products(Vec<Product>),
}

impl CkksValue {
    /// The ciphertexts of a value of degree 1.
    pub(crate) fn ciphertexts(&self) -> OpResult<&[Ciphertext]> {
        match self {
            CkksValue::Ciphertexts(c) => Ok(c),
            CkksValue::Products(_) => Err(OpError::Kind { expected: "ciphertexts", found: "products" }),
        }
    }

    /// The products of a value of degree 2.
    pub(crate) fn products(&self) -> OpResult<&[Product]> {
        match self {
            CkksValue::Products(p) => Ok(p),
            CkksValue::Ciphertexts(_) => Err(OpError::Kind { expected: "products", found: "ciphertexts" }),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            CkksValue::Ciphertexts(c) => c.iter().map(Ciphertext::bytes).sum(),
            CkksValue::Products(p) => {
                p.iter().flat_map(Product::parts).map(|part| std::mem::size_of_val(part.data())).sum()
            }
        }
    }
}

/// Combines two values of one degree, ciphertext by ciphertext.
pub(super) fn zip(
    a: &CkksValue,
    b: &CkksValue,
    f: impl Fn(&Ciphertext, &Ciphertext) -> Result<Ciphertext, CkksError> + Sync,
    g: impl Fn(&Product, &Product) -> Result<Product, CkksError> + Sync,
) -> OpResult<CkksValue> {
    match a {
        CkksValue::Ciphertexts(x) => {
            let pairs = x.par_iter().zip(b.ciphertexts()?);
            Ok(CkksValue::Ciphertexts(pairs.map(|(x, y)| f(x, y)).collect::<Result<_, _>>()?))
        }
        CkksValue::Products(x) => {
            let pairs = x.par_iter().zip(b.products()?);
            Ok(CkksValue::Products(pairs.map(|(x, y)| g(x, y)).collect::<Result<_, _>>()?))
        }
    }
}
