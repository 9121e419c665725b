//! The slot transform as a product of sparse matrices.
//!
//! With `n` slots a polynomial in `X^(N/2n)` has the coefficients `b_0 … b_{2n−1}`, and its slots are `z = F·c` with
//! `c_k = b_k + i·b_{k+n}` and `F_jk = ω^(k·5^j)`, `ω = exp(iπ/2n)`. The radix-2 algorithm writes `F = L_m ⋯ L_1·R` with the
//! bit reversal `R` and layers (2020/1203 §5.1)
//!
//! ```text
//! L_k:  (u, v) → (u + w_p·v, u − w_p·v),   w_p = exp(2πi·5^p / 2^(k+2)),
//! ```
//!
//! at distance `2^(k−1)`, where `p` is the position within a block of `2^k`. `R` is never applied: coefficients stay in
//! bit-reversed order between the two transforms of a bootstrap, where nobody looks at them.
//!
//! Layers do not depend on `n`, so all numbers of slots share them.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use num_complex::Complex64;

/// A matrix by its diagonals: `out[k] = Σ_d d[k mod period]·in[k + d]`.
#[derive(Clone, Debug)]
pub(crate) struct SparseMatrix {
    /// Number of entries of every diagonal.
    pub(crate) period: usize,
    pub(crate) diagonals: BTreeMap<i64, Vec<Complex64>>,
}

/// The way of a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// From the slots `x` to the slots of the polynomial whose coefficients are `x`: `F`.
    SlotsToCoeffs,
    /// Back: `F⁻¹`.
    CoeffsToSlots,
}

impl SparseMatrix {
    /// Layer `k ≥ 1` or its inverse.
    fn layer(k: u32, direction: Direction) -> Self {
        let (len, half) = (1usize << k, 1usize << (k - 1));
        let mut twiddles = Vec::with_capacity(half);
        let mut power = 1usize;
        for _ in 0..half {
            twiddles.push(Complex64::cis(TAU * power as f64 / (4 * len) as f64));
            power = power * 5 % (4 * len);
        }
        let zero = || vec![Complex64::default(); len];
        let (mut here, mut ahead, mut back) = (zero(), zero(), zero());
        for (p, w) in twiddles.into_iter().enumerate() {
            match direction {
                Direction::SlotsToCoeffs => {
                    here[p] = 1.0.into();
                    ahead[p] = w;
                    here[p + half] = -w;
                    back[p + half] = 1.0.into();
                }
                Direction::CoeffsToSlots => {
                    here[p] = 0.5.into();
                    ahead[p] = 0.5.into();
                    here[p + half] = -0.5 * w.conj();
                    back[p + half] = 0.5 * w.conj();
                }
            }
        }
        let half = half as i64;
        Self { period: len, diagonals: BTreeMap::from([(-half, back), (0, here), (half, ahead)]) }
    }

    /// Layers `first + 1 … last` or the inverse of their product.
    pub(crate) fn layers(first: u32, last: u32, direction: Direction) -> Self {
        let mut layers: Vec<Self> = (first + 1..=last).map(|k| Self::layer(k, direction)).collect();
        if direction == Direction::CoeffsToSlots {
            layers.reverse();
        }
        let mut layers = layers.into_iter();
        let identity = Self { period: 1, diagonals: BTreeMap::from([(0, vec![1.0.into()])]) };
        let inner = layers.next().unwrap_or(identity);
        layers.fold(inner, |inner, outer| outer.times(&inner))
    }

    /// `self · inner`.
    fn times(&self, inner: &Self) -> Self {
        let period = self.period.max(inner.period);
        let mut diagonals: BTreeMap<i64, Vec<Complex64>> = BTreeMap::new();
        for (&d, outer) in &self.diagonals {
            for (&e, inner_diagonal) in &inner.diagonals {
                let sum = diagonals.entry(d + e).or_insert_with(|| vec![Complex64::default(); period]);
                for (k, value) in sum.iter_mut().enumerate() {
                    let at = (k as i64 + d).rem_euclid(inner.period as i64) as usize;
                    *value += outer[k % self.period] * inner_diagonal[at];
                }
            }
        }
        Self { period, diagonals }
    }

    /// The matrix for vectors that repeat after `n` entries: indices count modulo `n`.
    pub(crate) fn wrapped(self, n: usize) -> Self {
        let mut diagonals: BTreeMap<i64, Vec<Complex64>> = BTreeMap::new();
        for (d, diagonal) in self.diagonals {
            let sum =
                diagonals.entry(d.rem_euclid(n as i64)).or_insert_with(|| vec![Complex64::default(); self.period]);
            for (sum, value) in sum.iter_mut().zip(diagonal) {
                *sum += value;
            }
        }
        Self { period: self.period, diagonals }
    }

    /// All entries times a factor.
    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        self.diagonals.values_mut().flatten().for_each(|value| *value *= factor);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(matrix: &SparseMatrix, x: &[Complex64]) -> Vec<Complex64> {
        let n = x.len() as i64;
        let row = |k: i64| {
            let term = |(d, diagonal): (&i64, &Vec<Complex64>)| {
                diagonal[k as usize % matrix.period] * x[(k + d).rem_euclid(n) as usize]
            };
            matrix.diagonals.iter().map(term).sum()
        };
        (0..n).map(row).collect()
    }

    fn distance(a: &[Complex64], b: &[Complex64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max)
    }

    fn input(n: usize) -> Vec<Complex64> {
        (0..n).map(|k| Complex64::new((k as f64 * 0.7).sin(), (k as f64 * 1.3).cos())).collect()
    }

    /// All ways to write `log_n` as an ordered sum of at most `parts` positive parts.
    fn splits(log_n: u32, parts: usize) -> Vec<Vec<u32>> {
        if parts == 1 || log_n == 1 {
            return vec![vec![log_n]];
        }
        let mut all = vec![vec![log_n]];
        for head in 1..log_n {
            all.extend(splits(log_n - head, parts - 1).into_iter().map(|tail| [vec![head], tail].concat()));
        }
        all
    }

    fn groups(split: &[u32]) -> Vec<(u32, u32)> {
        let mut first = 0;
        let group = |&layers| {
            first += layers;
            (first - layers, first)
        };
        split.iter().map(group).collect()
    }

    #[test]
    fn every_split_is_the_transform_and_its_inverse() {
        for log_n in 1..=8 {
            let n = 1usize << log_n;
            let x = input(n);
            let coefficients: Vec<Complex64> =
                (0..n).map(|k: usize| x[k.reverse_bits() >> (usize::BITS - log_n)]).collect();
            let mut power = 1;
            let direct: Vec<Complex64> = (0..n)
                .map(|_| {
                    let root = |k: usize| Complex64::cis(TAU * (k * power % (4 * n)) as f64 / (4 * n) as f64);
                    let sum = coefficients.iter().enumerate().map(|(k, c)| c * root(k)).sum();
                    power = power * 5 % (4 * n);
                    sum
                })
                .collect();
            for split in splits(log_n, 4) {
                let groups = groups(&split);
                let matrix = |&(first, last): &(u32, u32), direction| {
                    let matrix = SparseMatrix::layers(first, last, direction);
                    let count = (2usize << (last - first)) - 1;
                    assert_eq!(matrix.diagonals.len(), count);
                    let wrapped = matrix.wrapped(n);
                    assert_eq!(wrapped.diagonals.len(), if last == log_n { count.div_ceil(2) } else { count });
                    wrapped
                };
                let there = |x: Vec<_>, g| apply(&matrix(g, Direction::SlotsToCoeffs), &x);
                let back = |x: Vec<_>, g| apply(&matrix(g, Direction::CoeffsToSlots), &x);
                let forward = groups.iter().fold(x.clone(), there);
                assert!(distance(&forward, &direct) < 1e-11, "{split:?}");
                let returned = groups.iter().rev().fold(forward, back);
                assert!(distance(&returned, &x) < 1e-12, "{split:?}");
            }
        }
    }
}
