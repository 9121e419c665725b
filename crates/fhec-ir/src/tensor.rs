//! Dense row-major f64 tensors: constants of the graphs and values of the interpreters.

use std::sync::Arc;

/// A dense row-major tensor. Cloning shares the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Arc<Vec<f64>>,
}

impl Tensor {
    /// A tensor of `shape` with row-major `values`.
    ///
    /// # Panics
    /// When the element counts differ.
    pub fn new(shape: Vec<usize>, values: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?} does not fit the values");
        Tensor { shape, values: Arc::new(values) }
    }

    /// A tensor without dimensions.
    pub fn scalar(value: f64) -> Self {
        Tensor::new(vec![], vec![value])
    }

    /// `value` everywhere.
    pub fn full(shape: Vec<usize>, value: f64) -> Self {
        let n = shape.iter().product();
        Tensor::new(shape, vec![value; n])
    }

    /// Extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Row-major values.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True when some dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The same values under another shape.
    ///
    /// # Panics
    /// When the element counts differ.
    pub fn reshaped(&self, shape: Vec<usize>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.len(), "reshape {:?} to {shape:?}", self.shape);
        Tensor { shape, values: Arc::clone(&self.values) }
    }

    /// Row-major strides.
    pub fn strides(&self) -> Vec<usize> {
        strides(&self.shape)
    }

    /// `f` of every value.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Tensor::new(self.shape.clone(), self.values.iter().map(|&v| f(v)).collect())
    }

    /// Elementwise `f` with numpy broadcasting; `None` when the shapes do not broadcast.
    pub fn zip(&self, other: &Tensor, f: impl Fn(f64, f64) -> f64) -> Option<Tensor> {
        let shape = broadcast_shape(&self.shape, &other.shape)?;
        let (a, b) = (self.broadcast(&shape)?, other.broadcast(&shape)?);
        Some(Tensor::new(shape, a.values.iter().zip(b.values.iter()).map(|(&x, &y)| f(x, y)).collect()))
    }

    /// The tensor expanded to `shape` by numpy rules; `None` when it does not fit.
    pub fn broadcast(&self, shape: &[usize]) -> Option<Tensor> {
        if self.shape == shape {
            return Some(self.clone());
        }
        if self.shape.len() > shape.len() {
            return None;
        }
        let lead = shape.len() - self.shape.len();
        let own = self.strides();
        let mut step = vec![0usize; shape.len()];
        for (d, &extent) in self.shape.iter().enumerate() {
            if extent == shape[lead + d] {
                step[lead + d] = own[d];
            } else if extent != 1 {
                return None;
            }
        }
        let out = strides(shape);
        let n: usize = shape.iter().product();
        let values =
            (0..n).map(|i| self.values[(0..shape.len()).map(|d| (i / out[d]) % shape[d] * step[d]).sum::<usize>()]);
        Some(Tensor::new(shape.to_vec(), values.collect()))
    }
}

/// Row-major strides of a shape.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        s[d] = s[d + 1] * shape[d + 1];
    }
    s
}

/// The numpy broadcast of two shapes; `None` when they do not fit.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let n = a.len().max(b.len());
    let at = |s: &[usize], d: usize| if d + s.len() < n { 1 } else { s[d + s.len() - n] };
    (0..n)
        .map(|d| match (at(a, d), at(b, d)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let a = Tensor::new(vec![2, 1, 3], (0..6).map(f64::from).collect());
        let b = Tensor::new(vec![2, 1], vec![10.0, 20.0]);
        let c = a.zip(&b, |x, y| x + y).expect("fits");
        assert_eq!(c.shape(), [2, 2, 3]);
        assert_eq!(c.values(), [10., 11., 12., 20., 21., 22., 13., 14., 15., 23., 24., 25.]);
        assert!(a.zip(&Tensor::full(vec![4], 0.0), |x, _| x).is_none());
    }
}
