//! Matrix products with one fixed order of summation, panel by panel.

/// Columns of one panel.
pub const PANEL: usize = 8;

/// Rows that share each load of a panel.
const ROWS: usize = 8;

/// A matrix packed for products with panels: blocks of `ROWS` rows, column by column, the last block filled up with
/// zeros.
#[derive(Clone, Debug)]
pub struct Packed {
    rows: usize,
    inner: usize,
    blocks: Vec<[f64; ROWS]>,
}

impl Packed {
    /// Packs a matrix of `rows` rows and `inner` columns whose entries are `at(row, column)`.
    pub fn new(rows: usize, inner: usize, at: impl Fn(usize, usize) -> f64) -> Self {
        let mut blocks = Vec::with_capacity(rows.div_ceil(ROWS) * inner);
        for first in (0..rows).step_by(ROWS) {
            let entry = |k: usize, r: usize| if first + r < rows { at(first + r, k) } else { 0.0 };
            blocks.extend((0..inner).map(|k| std::array::from_fn::<f64, ROWS, _>(|r| entry(k, r))));
        }
        Packed { rows, inner, blocks }
    }

    /// `emit(r, Σ_k matrix[r][k] · panel[k])` for every row `r`, in order. Sums are taken in the order of `k`, with fused
    /// multiply-add, on every machine.
    ///
    /// # Panics
    /// When the panel does not have one row for each column of the matrix.
    pub fn times_panel(&self, panel: &[[f64; PANEL]], emit: impl FnMut(usize, &[f64; PANEL])) {
        self.times(&panel, emit);
    }

    /// The same for a panel whose row `k` is what `numbers` has from `first + offsets[k]` on.
    ///
    /// # Panics
    /// As [`times_panel`](Self::times_panel), and when a row is not inside the numbers.
    pub fn times_rows_of(
        &self,
        numbers: &[f64],
        first: usize,
        offsets: &[usize],
        emit: impl FnMut(usize, &[f64; PANEL]),
    ) {
        self.times(&RowsOf { numbers: &numbers[first..], offsets }, emit);
    }

    fn times<P: Panel>(&self, panel: &P, mut emit: impl FnMut(usize, &[f64; PANEL])) {
        assert_eq!(panel.len(), self.inner, "the panel fits the matrix");
        if self.inner == 0 {
            (0..self.rows).for_each(|r| emit(r, &[0.0; PANEL]));
            return;
        }
        let block = block::<P>();
        for (b, weights) in self.blocks.chunks_exact(self.inner).enumerate() {
            let rows = ROWS.min(self.rows - b * ROWS);
            let sums = block(weights, panel, rows);
            for (r, row) in sums.iter().enumerate().take(rows) {
                emit(b * ROWS + r, row);
            }
        }
    }
}

/// Rows of [`PANEL`] numbers.
trait Panel {
    fn len(&self) -> usize;
    fn row(&self, k: usize) -> &[f64; PANEL];
}

impl Panel for &[[f64; PANEL]] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    #[inline(always)]
    fn row(&self, k: usize) -> &[f64; PANEL] {
        &self[k]
    }
}

/// Rows that are somewhere in a list, and may overlap.
struct RowsOf<'a> {
    numbers: &'a [f64],
    offsets: &'a [usize],
}

impl Panel for RowsOf<'_> {
    fn len(&self) -> usize {
        self.offsets.len()
    }

    #[inline(always)]
    fn row(&self, k: usize) -> &[f64; PANEL] {
        self.numbers[self.offsets[k]..].first_chunk().expect("a row is inside")
    }
}

/// Sums of [`ROWS`] rows over one panel.
type Sums = [[f64; PANEL]; ROWS];

/// Multiplies the first few of [`ROWS`] rows by one panel; what it says of the others is not used.
type Block<P> = fn(&[[f64; ROWS]], &P, usize) -> Sums;

/// The fastest code of this machine for one block.
fn block<P: Panel>() -> Block<P> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected;
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512.
            return |weights, panel, _| unsafe { x86::block_avx512(weights, panel) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            return |weights, panel, rows| unsafe { x86::block_fma(weights, panel, rows) };
        }
    }
    block_portable
}

/// For other processors. Those without fused multiply-add compute it digit by digit, many times slower: results come first.
fn block_portable<P: Panel>(weights: &[[f64; ROWS]], panel: &P, rows: usize) -> Sums {
    let mut sums = [[0.0; PANEL]; ROWS];
    for (k, weights) in weights.iter().enumerate() {
        let column = panel.row(k);
        for (sums, w) in sums.iter_mut().zip(weights).take(rows) {
            for (s, v) in sums.iter_mut().zip(column) {
                *s = w.mul_add(*v, *s);
            }
        }
    }
    sums
}

/// The same with vectors: fused multiply-add is rounded alike everywhere, so results are the same to the last bit.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{PANEL, Panel, ROWS, Sums};
    use std::arch::x86_64::*;

    /// A row of the panel is one vector.
    #[target_feature(enable = "avx512f")]
    pub(super) fn block_avx512<P: Panel>(weights: &[[f64; ROWS]], panel: &P) -> Sums {
        let mut sums = [_mm512_setzero_pd(); ROWS];
        for (k, weights) in weights.iter().enumerate() {
            // SAFETY: a row has eight numbers.
            let column = unsafe { _mm512_loadu_pd(panel.row(k).as_ptr()) };
            for (s, &w) in sums.iter_mut().zip(weights) {
                *s = _mm512_fmadd_pd(_mm512_set1_pd(w), column, *s);
            }
        }
        let mut out = [[0.0; PANEL]; ROWS];
        for (out, sums) in out.iter_mut().zip(sums) {
            // SAFETY: a row has eight numbers.
            unsafe { _mm512_storeu_pd(out.as_mut_ptr(), sums) };
        }
        out
    }

    /// Rows that fit the registers at once.
    const HALF: usize = ROWS / 2;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn block_fma<P: Panel>(weights: &[[f64; ROWS]], panel: &P, rows: usize) -> Sums {
        let mut out = [[0.0; PANEL]; ROWS];
        for (half, out) in out.chunks_exact_mut(HALF).enumerate().take(rows.div_ceil(HALF)) {
            let mut sums = [[_mm256_setzero_pd(); PANEL / 4]; HALF];
            for (k, weights) in weights.iter().enumerate() {
                let column = panel.row(k);
                // SAFETY: a row has two times four numbers.
                let column = unsafe { [_mm256_loadu_pd(column.as_ptr()), _mm256_loadu_pd(column.as_ptr().add(4))] };
                for (sums, &w) in sums.iter_mut().zip(&weights[half * HALF..]) {
                    let w = _mm256_set1_pd(w);
                    for (s, v) in sums.iter_mut().zip(column) {
                        *s = _mm256_fmadd_pd(w, v, *s);
                    }
                }
            }
            for (out, sums) in out.iter_mut().zip(sums) {
                // SAFETY: a row has two times four numbers.
                unsafe {
                    _mm256_storeu_pd(out.as_mut_ptr(), sums[0]);
                    _mm256_storeu_pd(out.as_mut_ptr().add(4), sums[1]);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this machine can run.
    fn every_block<P: Panel>() -> Vec<Block<P>> {
        let mut all: Vec<Block<P>> = vec![block()];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            all.push(|weights, panel, rows| unsafe { x86::block_fma(weights, panel, rows) });
        }
        all
    }

    #[test]
    fn panel_products_match_the_definition_on_every_path() {
        for (rows, inner) in [(1, 1), (3, 5), (4, 9), (7, 16), (9, 3), (21, 2), (2, 0)] {
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
            // The same rows, from the back of a list on.
            let list: Vec<f64> = std::iter::once(0.5).chain(panel.iter().rev().flatten().copied()).collect();
            let offsets: Vec<usize> = (0..inner).rev().map(|k| k * PANEL).collect();
            packed.times_rows_of(&list, 1, &offsets, |r, s| assert_eq!(found[r], *s));
            for (r, row) in found.iter().enumerate() {
                for (p, &sum) in row.iter().enumerate() {
                    let exact: f64 = (0..inner).map(|k| weight(r, k) * value(k, p)).sum();
                    assert!((sum - exact).abs() < 1e-12, "{rows}x{inner} at {r}, {p}");
                }
            }
            for (b, weights) in packed.blocks.chunks_exact(inner.max(1)).enumerate() {
                let rows = ROWS.min(rows - b * ROWS);
                let portable = block_portable(weights, &&panel[..], rows);
                for block in every_block() {
                    assert_eq!(block(weights, &&panel[..], rows)[..rows], portable[..rows]);
                }
            }
        }
    }
}
