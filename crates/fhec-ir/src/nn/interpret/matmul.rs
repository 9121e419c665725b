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

/// `out[r][p] += Σ_k weight[r · inner + k] · panel[k · PANEL + p]` for every row `r`: one panel of
/// [`PANEL`] columns. `emit(r, sums)` takes each row's sums.
pub(super) fn times_panel(weight: &[f64], inner: usize, panel: &[f64], emit: impl FnMut(usize, &[f64; PANEL])) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { times_panel_avx2(weight, inner, panel, emit) };
    }
    times_panel_portable(weight, inner, panel, emit)
}

/// The portable code, compiled for 256-bit vectors. Without fused multiply-add, so that results are
/// those of the portable path to the last bit.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn times_panel_avx2(weight: &[f64], inner: usize, panel: &[f64], emit: impl FnMut(usize, &[f64; PANEL])) {
    times_panel_portable(weight, inner, panel, emit)
}

#[inline(always)]
fn times_panel_portable(weight: &[f64], inner: usize, panel: &[f64], mut emit: impl FnMut(usize, &[f64; PANEL])) {
    // Four rows share each load of the panel.
    let rows = weight.len().checked_div(inner).unwrap_or(0);
    let whole = rows / 4 * 4;
    for r in (0..whole).step_by(4) {
        let sums = block::<4>(&weight[r * inner..(r + 4) * inner], inner, panel);
        for (i, row) in sums.iter().enumerate() {
            emit(r + i, row);
        }
    }
    for r in whole..rows {
        let [row] = block::<1>(&weight[r * inner..(r + 1) * inner], inner, panel);
        emit(r, &row);
    }
}

#[inline(always)]
fn block<const R: usize>(weight: &[f64], inner: usize, panel: &[f64]) -> [[f64; PANEL]; R] {
    let mut sums = [[0.0; PANEL]; R];
    for (k, column) in panel.chunks_exact(PANEL).take(inner).enumerate() {
        for (r, sums) in sums.iter_mut().enumerate() {
            let w = weight[r * inner + k];
            for (s, v) in sums.iter_mut().zip(column) {
                *s += w * v;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panel_products_match_the_definition_on_both_paths() {
        for (rows, inner) in [(1, 1), (3, 5), (4, 9), (7, 16), (9, 3)] {
            let weight: Vec<f64> = (0..rows * inner).map(|i| (i as f64 * 0.37).sin()).collect();
            let panel: Vec<f64> = (0..inner * PANEL).map(|i| (i as f64 * 0.73).cos()).collect();
            let mut portable = vec![[0.0; PANEL]; rows];
            times_panel_portable(&weight, inner, &panel, |r, s| portable[r] = *s);
            let mut dispatched = vec![[0.0; PANEL]; rows];
            times_panel(&weight, inner, &panel, |r, s| dispatched[r] = *s);
            assert_eq!(portable, dispatched);
            for (r, row) in portable.iter().enumerate() {
                for (p, &sum) in row.iter().enumerate() {
                    let exact: f64 = (0..inner).map(|k| weight[r * inner + k] * panel[k * PANEL + p]).sum();
                    assert!((sum - exact).abs() < 1e-12, "{rows}x{inner} at {r}, {p}");
                }
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
