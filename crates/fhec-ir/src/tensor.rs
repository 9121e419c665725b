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
        let values = match (self.as_single(), other.as_single()) {
            (_, Some(b)) if self.shape == shape => self.values.iter().map(|&x| f(x, b)).collect(),
            (Some(a), _) if other.shape == shape => other.values.iter().map(|&y| f(a, y)).collect(),
            _ => {
                let (a, b) = (self.broadcast(&shape)?, other.broadcast(&shape)?);
                a.values.iter().zip(b.values.iter()).map(|(&x, &y)| f(x, y)).collect()
            }
        };
        Some(Tensor::new(shape, values))
    }

    /// The only value of a tensor with one element.
    pub fn as_single(&self) -> Option<f64> {
        if self.values.len() == 1 { Some(self.values[0]) } else { None }
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
        let mut steps = vec![0isize; shape.len()];
        for (d, &extent) in self.shape.iter().enumerate() {
            if extent == shape[lead + d] {
                steps[lead + d] = own[d] as isize;
            } else if extent != 1 {
                return None;
            }
        }
        Some(Tensor::new(shape.to_vec(), strided(&self.values, 0, shape, &steps)))
    }

    /// Axis `d` of the result is axis `perm[d]` of this tensor.
    ///
    /// # Panics
    /// When `perm` is no permutation of the axes.
    pub fn transposed(&self, perm: &[usize]) -> Tensor {
        let own = self.strides();
        let shape: Vec<usize> = perm.iter().map(|&p| self.shape[p]).collect();
        let steps: Vec<isize> = perm.iter().map(|&p| own[p] as isize).collect();
        let values = strided(&self.values, 0, &shape, &steps);
        Tensor::new(shape, values)
    }
}

/// The elements of a strided view in row-major order: element `(i_0, i_1, …)` of a view of extents
/// `shape` is `values[offset + Σ i_d · steps[d]]`.
///
/// # Panics
/// When the view leaves the values.
pub fn strided(values: &[f64], offset: isize, shape: &[usize], steps: &[isize]) -> Vec<f64> {
    let total: usize = shape.iter().product();
    let mut out = Vec::with_capacity(total);
    if total == 0 {
        return out;
    }
    let (inner, inner_step) = match shape.last() {
        Some(&n) => (n, steps[shape.len() - 1]),
        None => (1, 1),
    };
    let outer = shape.len().saturating_sub(1);
    let mut index = vec![0usize; outer];
    let mut at = offset;
    loop {
        if inner_step == 1 {
            out.extend_from_slice(&values[at as usize..at as usize + inner]);
        } else {
            out.extend((0..inner as isize).map(|i| values[(at + i * inner_step) as usize]));
        }
        // Odometer over the outer axes.
        let mut d = outer;
        loop {
            if d == 0 {
                return out;
            }
            d -= 1;
            index[d] += 1;
            at += steps[d];
            if index[d] < shape[d] {
                break;
            }
            at -= steps[d] * shape[d] as isize;
            index[d] = 0;
        }
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

    #[test]
    fn a_single_value_broadcasts_from_either_side_and_keeps_the_larger_rank() {
        let a = Tensor::new(vec![2], vec![1.0, 2.0]);
        let one = Tensor::new(vec![1, 1], vec![10.0]);
        for (c, sign) in [(a.zip(&one, |x, y| x - y), 1.0), (one.zip(&a, |x, y| x - y), -1.0)] {
            let c = c.expect("fits");
            assert_eq!(c.shape(), [1, 2]);
            assert_eq!(c.values(), [sign * -9.0, sign * -8.0]);
        }
    }

    #[test]
    fn views_step_over_scalars_empty_axes_and_backwards() {
        assert_eq!(strided(&[7.0], 0, &[], &[]), [7.0]);
        assert!(strided(&[], 0, &[2, 0], &[0, 1]).is_empty());
        let v: Vec<f64> = (0..6).map(f64::from).collect();
        assert_eq!(strided(&v, 5, &[2, 3], &[-3, -1]), [5., 4., 3., 2., 1., 0.]);
        let t = Tensor::new(vec![1, 2, 3], v);
        let u = t.transposed(&[2, 0, 1]);
        assert_eq!(u.shape(), [3, 1, 2]);
        assert_eq!(u.values(), [0., 3., 1., 4., 2., 5.]);
    }
}
