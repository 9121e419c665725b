//! The weight tensors of a plan: one aligned blob, memory-mapped by the server, and a table into it.

use crate::TensorId;
use std::fmt;
use std::sync::Arc;

/// Element type of a stored tensor. `F32` is used only where every value is exactly an `f32`, so
/// storing never rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single, little endian.
    F32,
    /// IEEE double, little endian.
    F64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F64 => 8,
        }
    }
}

/// One tensor in the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Byte offset in the blob, a multiple of 64.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
    /// Element type.
    pub dtype: Dtype,
}

/// The blob (owned bytes or a memory map) and its table of tensors.
#[derive(Clone)]
pub struct Weights {
    data: Arc<dyn AsRef<[u8]> + Send + Sync>,
    tensors: Vec<TensorInfo>,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights").field("bytes", &self.bytes().len()).field("tensors", &self.tensors).finish()
    }
}

impl Weights {
    /// A store over `data`.
    ///
    /// # Errors
    /// Names the tensor that does not lie inside `data`, is not aligned to 64 bytes, or does not begin after the one
    /// before it. Disjoint tensors have no more elements together than `data` has room for.
    pub fn new(data: Arc<dyn AsRef<[u8]> + Send + Sync>, tensors: Vec<TensorInfo>) -> Result<Self, String> {
        let size = (*data).as_ref().len();
        let mut before = 0;
        for (i, t) in tensors.iter().enumerate() {
            let end = t.len.checked_mul(t.dtype.bytes()).and_then(|b| b.checked_add(t.offset));
            let Some(end) = end.filter(|&end| t.offset.is_multiple_of(64) && end <= size) else {
                return Err(format!(
                    "weight tensor {i} ({} elements at byte {}) does not fit the {size}-byte weight section",
                    t.len, t.offset
                ));
            };
            if t.offset < before {
                return Err(format!(
                    "weight tensor {i} at byte {} begins before byte {before}, where the last ends",
                    t.offset
                ));
            }
            before = end;
        }
        Ok(Weights { data, tensors })
    }

    /// Builds a store from f64 tensors; each is kept as `f32` exactly where that loses nothing.
    pub fn from_tensors<'a>(tensors: impl IntoIterator<Item = &'a [f64]>) -> Self {
        let mut data = Vec::new();
        let mut table = Vec::new();
        for values in tensors {
            data.resize(data.len().next_multiple_of(64), 0u8);
            let exact = values.iter().all(|&v| f64::from(v as f32).to_bits() == v.to_bits());
            let dtype = if exact { Dtype::F32 } else { Dtype::F64 };
            table.push(TensorInfo { offset: data.len(), len: values.len(), dtype });
            for &v in values {
                match dtype {
                    Dtype::F32 => data.extend_from_slice(&(v as f32).to_le_bytes()),
                    Dtype::F64 => data.extend_from_slice(&v.to_le_bytes()),
                }
            }
        }
        Weights { data: Arc::new(data), tensors: table }
    }

    /// The whole blob.
    pub fn bytes(&self) -> &[u8] {
        (*self.data).as_ref()
    }

    /// The table of tensors.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Number of elements of a tensor; `None` for an unknown id.
    pub fn len_of(&self, id: TensorId) -> Option<usize> {
        self.tensors.get(id.index()).map(|t| t.len)
    }

    /// A tensor as f64 values.
    ///
    /// # Panics
    /// When the id is unknown; the verifier rejects such plans.
    pub fn values(&self, id: TensorId) -> Vec<f64> {
        let t = self.tensors[id.index()];
        let bytes = &self.bytes()[t.offset..t.offset + t.len * t.dtype.bytes()];
        match t.dtype {
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
            }
            Dtype::F64 => bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storing_never_rounds() {
        let tensors: [&[f64]; 3] = [&[1.0, -0.5], &[0.1, 1e300], &[f64::MIN_POSITIVE]];
        let w = Weights::from_tensors(tensors);
        assert_eq!(w.tensors()[0].dtype, Dtype::F32);
        assert_eq!(w.tensors()[1].dtype, Dtype::F64);
        for (i, t) in tensors.iter().enumerate() {
            assert_eq!(w.values(TensorId(i as u32)), *t);
        }
    }

    #[test]
    fn tables_outside_the_blob_are_refused() {
        let info = TensorInfo { offset: 0, len: usize::MAX / 4, dtype: Dtype::F64 };
        assert!(Weights::new(Arc::new(vec![0u8; 64]), vec![info]).is_err());
    }

    #[test]
    fn tensors_are_ascending_and_disjoint() {
        let table = |offsets: [usize; 2]| {
            let tensors = offsets.map(|offset| TensorInfo { offset, len: 20, dtype: Dtype::F32 });
            Weights::new(Arc::new(vec![0u8; 512]), tensors.to_vec())
        };
        assert!(table([0, 128]).is_ok());
        for overlapping in [[0, 0], [0, 64], [128, 0]] {
            assert!(table(overlapping).unwrap_err().contains("tensor 1"));
        }
    }
}
