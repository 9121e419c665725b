//! Prices from measurements.

use crate::samples::Sample;
use fhec_passes::cost::CostTable;
use fhec_passes::cost_file::four_figures;

/// The prices that are fitted, as fields. The others are measured by themselves.
const FIELDS: [fn(&mut CostTable) -> &mut f64; 9] = [
    |t| &mut t.butterfly,
    |t| &mut t.multiply_accumulate,
    |t| &mut t.diagonal,
    |t| &mut t.stream,
    |t| &mut t.pointwise,
    |t| &mut t.convert,
    |t| &mut t.fft_butterfly,
    |t| &mut t.round,
    |t| &mut t.overhead,
];

/// Rounds of coordinate descent; it has converged long before.
const ROUNDS: usize = 5000;

/// A table that costs nothing.
pub(crate) fn free() -> CostTable {
    let mut table = CostTable::default();
    FIELDS.iter().for_each(|field| *field(&mut table) = 0.0);
    (table.fill, table.touch, table.touch_huge, table.expand, table.read_byte) = (0.0, 0.0, 0.0, 0.0, 0.0);
    (table.bootstrap, table.bootstrap_small) = (1.0, None);
    table
}

/// Least squares of relative errors with prices that are not negative, by coordinate descent. Predictions are linear in
/// the prices, so a table with a single one of them gives its column.
pub(crate) fn fit(samples: &[Sample]) -> CostTable {
    let columns: Vec<Vec<f64>> = FIELDS
        .iter()
        .map(|field| {
            let mut table = free();
            *field(&mut table) = 1.0;
            samples.iter().map(|s| (s.predict)(&table.prices(&s.shape)) / s.seconds).collect()
        })
        .collect();
    let mut x = [0.0; FIELDS.len()];
    let mut residual = vec![1.0; samples.len()];
    for _ in 0..ROUNDS {
        for (x, column) in x.iter_mut().zip(&columns) {
            let norm: f64 = column.iter().map(|c| c * c).sum();
            if norm == 0.0 {
                continue;
            }
            let gradient: f64 = column.iter().zip(&residual).map(|(c, r)| c * r).sum();
            let new = (*x + gradient / norm).max(0.0);
            residual.iter_mut().zip(column).for_each(|(r, c)| *r -= (new - *x) * c);
            *x = new;
        }
    }
    let mut table = free();
    FIELDS.iter().zip(&x).for_each(|(field, &x)| *field(&mut table) = four_figures(x));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_passes::cost::Prices;
    use fhec_passes::shape::Shape;

    #[test]
    fn prices_are_found_again() {
        let mut truth = free();
        let prices = [0.2, 0.3, 0.25, 0.05, 0.4, 0.5, 1.5, 1.2, 3000.0];
        FIELDS.iter().zip(prices).for_each(|(field, price)| *field(&mut truth) = price);
        let mut samples = Vec::new();
        for (log_n, limbs) in [(12, 2), (13, 6), (14, 11), (15, 20)] {
            let digits = vec![2; limbs / 2];
            let shape =
                Shape { log_n, log2_q: vec![30.0; limbs], log2_p: vec![49.0; 1 + limbs / 5], digits, bootstrap: None };
            let mut push = |level: usize, predict: fn(&Prices<'_>, usize) -> f64| {
                samples.push(Sample {
                    operation: String::new(),
                    shape: shape.clone(),
                    level,
                    seconds: predict(&truth.prices(&shape), level),
                    bytes: 0,
                    predict: Box::new(move |p| predict(p, level)),
                });
            };
            for level in [0, 1, limbs / 2, limbs - 1] {
                push(level, |p, l| p.rotate(l));
                push(level, |p, l| p.multiply(l));
                push(level, |p, l| p.relinearise_rescale(l));
                push(level, |p, l| p.encode_diagonal(1024, l));
                push(level, |p, l| p.encode_diagonal(64, l));
                push(level, |p, l| p.linear_weights(l).product);
                push(level, |p, l| p.rescale(l, 2));
            }
        }
        let found = fit(&samples);
        for s in &samples {
            let ratio = (s.predict)(&found.prices(&s.shape)) / s.seconds;
            assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
        }
        // What dominates somewhere is found itself.
        assert!((found.multiply_accumulate / 0.3 - 1.0).abs() < 0.05, "{found:?}");
        assert!((found.diagonal / 0.25 - 1.0).abs() < 0.05, "{found:?}");
        assert!((found.butterfly / 0.2 - 1.0).abs() < 0.1, "{found:?}");
    }
}
