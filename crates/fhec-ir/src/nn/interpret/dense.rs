//! Dense layers.

use crate::Tensor;

/// `y[…, o] = Σ_i x[…, i] · weight[o, i] + bias[o]`.
pub(super) fn dense(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: &[usize]) -> Tensor {
    let &[out, inner] = weight.shape() else { panic!("weight of shape {:?}", weight.shape()) };
    let rows = shape[..shape.len() - 1].iter().product();
    let mut values = Vec::with_capacity(rows * out);
    for r in 0..rows {
        let row = &x.values()[r * inner..(r + 1) * inner];
        for o in 0..out {
            let start = bias.map_or(0.0, |b| b.values()[o]);
            values.push(start + dot(row, &weight.values()[o * inner..(o + 1) * inner]));
        }
    }
    Tensor::new(shape.to_vec(), values)
}

/// Scalar product in eight interleaved sums, which is what vector units like.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0; 8];
    for (x, y) in a.zip(b) {
        for (s, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *s += x * y;
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_adds_the_bias_to_every_row() {
        let x = Tensor::new(vec![2, 1, 9], (0..18).map(f64::from).collect());
        let weight = Tensor::new(vec![2, 9], [vec![1.0; 9], vec![0.0; 9]].concat());
        let bias = Tensor::new(vec![2], vec![0.5, -1.0]);
        let y = dense(&x, &weight, Some(&bias), &[2, 1, 2]);
        assert_eq!(y.values(), [36.5, -1.0, 117.5, -1.0]);
    }
}
