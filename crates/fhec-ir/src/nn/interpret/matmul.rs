//! Matrix products with one fixed order of summation.

use crate::Tensor;

/// Columns of one panel.
pub(super) const PANEL: usize = 8;

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

/// Rows that share each load of a panel.
const ROWS: usize = 4;

/// A matrix packed for products with panels: blocks of [`ROWS`] rows, column by column, the last block filled up with
/// zeros.
pub(super) struct Packed {
    rows: usize,
    inner: usize,
    blocks: Vec<[f64; ROWS]>,
}

impl Packed {
    /// Packs a matrix of `rows` rows and `inner` columns whose entries are `at(row, column)`.
    pub(super) fn new(rows: usize, inner: usize, at: impl Fn(usize, usize) -> f64) -> Self {
        let mut blocks = Vec::with_capacity(rows.div_ceil(ROWS) * inner);
        for first in (0..rows).step_by(ROWS) {
            let entry = |k: usize, r: usize| if first + r < rows { at(first + r, k) } else { 0.0 };
            blocks.extend((0..inner).map(|k| std::array::from_fn::<f64, ROWS, _>(|r| entry(k, r))));
        }
        Packed { rows, inner, blocks }
    }

    /// `emit(r, Σ_k matrix[r][k] · panel[k])` for every row `r`, in order. Sums are taken in the order of `k`, on every
    /// machine.
    ///
    /// # Panics
    /// When the panel does not have one column for each of the matrix.
    pub(super) fn times_panel(&self, panel: &[[f64; PANEL]], mut emit: impl FnMut(usize, &[f64; PANEL])) {
        assert_eq!(panel.len(), self.inner, "the panel fits the matrix");
        if self.inner == 0 {
            (0..self.rows).for_each(|r| emit(r, &[0.0; PANEL]));
            return;
        }
        let block = block();
        for (b, weights) in self.blocks.chunks_exact(self.inner).enumerate() {
            let sums = block(weights, panel);
            for (r, row) in sums.iter().enumerate().take(self.rows - b * ROWS) {
                emit(b * ROWS + r, row);
            }
        }
    }
}

/// Sums of [`ROWS`] rows over one panel.
type Sums = [[f64; PANEL]; ROWS];

/// Multiplies [`ROWS`] rows by one panel.
type Block = fn(&[[f64; ROWS]], &[[f64; PANEL]]) -> Sums;

/// The fastest code of this machine for one block.
fn block() -> Block {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return |weights, panel| unsafe { block_avx2(weights, panel) };
    }
    block_portable
}

fn block_portable(weights: &[[f64; ROWS]], panel: &[[f64; PANEL]]) -> Sums {
    let mut sums = [[0.0; PANEL]; ROWS];
    for (weights, column) in weights.iter().zip(panel) {
        for (sums, w) in sums.iter_mut().zip(weights) {
            for (s, v) in sums.iter_mut().zip(column) {
                *s += w * v;
            }
        }
    }
    sums
}

/// Without fused multiply-add, so that results are those of the portable code to the last bit.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn block_avx2(weights: &[[f64; ROWS]], panel: &[[f64; PANEL]]) -> Sums {
    use std::arch::x86_64::*;
    let mut sums = [[_mm256_setzero_pd(); PANEL / 4]; ROWS];
    for (weights, column) in weights.iter().zip(panel) {
        // SAFETY: a column has two times four numbers.
        let column = unsafe { [_mm256_loadu_pd(column.as_ptr()), _mm256_loadu_pd(column.as_ptr().add(4))] };
        for (sums, &w) in sums.iter_mut().zip(weights) {
            let w = _mm256_set1_pd(w);
            for (s, v) in sums.iter_mut().zip(column) {
                *s = _mm256_add_pd(*s, _mm256_mul_pd(w, v));
            }
        }
    }
    let mut out = [[0.0; PANEL]; ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: a row has two times four numbers.
        unsafe {
            _mm256_storeu_pd(out.as_mut_ptr(), sums[0]);
            _mm256_storeu_pd(out.as_mut_ptr().add(4), sums[1]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panel_products_match_the_definition_on_both_paths() {
        for (rows, inner) in [(1, 1), (3, 5), (4, 9), (7, 16), (9, 3), (2, 0)] {
            let weight = |r: usize, k: usize| ((r * inner + k) as f64 * 0.37).sin();
            let value = |k: usize, p: usize| ((k * PANEL + p) as f64 * 0.73).cos();
            let panel: Vec<[f64; PANEL]> = (0..inner).map(|k| std::array::from_fn(|p| value(k, p))).collect();
            let packed = Packed::new(rows, inner, weight);
            let mut found = Vec::new();
            packed.times_panel(&panel, |r, s| {
                assert_eq!(r, found.len());
                found.push(*s);
            });
            assert_eq!(found.len(), rows);
            for (r, row) in found.iter().enumerate() {
                for (p, &sum) in row.iter().enumerate() {
                    let exact: f64 = (0..inner).map(|k| weight(r, k) * value(k, p)).sum();
                    assert!((sum - exact).abs() < 1e-12, "{rows}x{inner} at {r}, {p}");
                }
            }
            for weights in packed.blocks.chunks_exact(inner.max(1)) {
                assert_eq!(block()(weights, &panel), block_portable(weights, &panel));
            }
        }
    }

    #[test]
    fn dense_adds_the_bias_to_every_row() {
        let x = Tensor::new(vec![2, 1, 9], (0..18).map(f64::from).collect());
        let weight = Tensor::new(vec![2, 9], [vec![1.0; 9], vec![0.0; 9]].concat());
        let bias = Tensor::new(vec![2], vec![0.5, -1.0]);
        let y = dense(&x, &weight, Some(&bias), &[2, 1, 2]);
        assert_eq!(y.values(), [36.5, -1.0, 117.5, -1.0]);
    }
}
