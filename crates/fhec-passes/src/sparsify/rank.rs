//! The order in which units go.
//!
//! A unit's loss costs what is left of its contribution after the best correction by the others: with the inverse `H` of the
//! features' covariance and the weights `w` of the unit, `wᵀ·(H_uu)⁻¹·w` for every sum of the layer (optimal brain surgeon,
//! Hassibi and Stork 1992, with a block for each unit). The cheapest unit goes, weights and inverse are corrected, and so on.

use super::covariance::{Covariance, factor, inverse, solve};
use super::sites::Site;
use rayon::prelude::*;

/// Most features that are ranked with corrections; of more those that contribute least go first, by variance alone.
const MOST_FEATURES: usize = 1536;

/// Units in the order in which they go, and the error that there is once they are gone.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    order: Vec<usize>,
    /// Share of the variance of the layer's sums, for each length of the order.
    errors: Vec<f64>,
}

impl Ranking {
    /// Ranks the units that a layer of these weights reads.
    pub(super) fn of(weights: &[f64], site: &Site, covariance: &Covariance) -> Self {
        let width = site.width();
        let outputs = weights.len() / width.max(1);
        let alone = |unit: usize| -> f64 {
            let features = site.features(unit);
            let of_output = |o: usize| {
                let own = &weights[o * width..];
                let row = |i: usize| features.clone().map(|j| own[j] * covariance.at(i, j)).sum::<f64>();
                features.clone().map(|i| own[i] * row(i)).sum::<f64>()
            };
            (0..outputs).map(of_output).sum()
        };
        let scores: Vec<f64> = (0..site.units).into_par_iter().map(alone).collect();
        let mut sorted: Vec<usize> = (0..site.units).collect();
        sorted.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
        let first = site.units - site.units.min((MOST_FEATURES / site.each).max(1));
        let total = variance(weights, width, covariance).max(f64::MIN_POSITIVE);
        let mut ranking = Ranking { order: Vec::new(), errors: Vec::new() };
        let mut error = 0.0;
        for &unit in &sorted[..first] {
            error += scores[unit] / total;
            ranking.order.push(unit);
            ranking.errors.push(error);
        }
        let mut rest = sorted[first..].to_vec();
        rest.sort_unstable();
        let mut surgeon = Surgeon::new(weights, width, site, covariance, rest);
        while surgeon.units.len() > 1 {
            let (unit, cost) = surgeon.remove_cheapest();
            error += cost / total;
            ranking.order.push(unit);
            ranking.errors.push(error);
        }
        ranking
    }

    /// The most units that can go for an error of at most `error`.
    pub(super) fn within(&self, error: f64) -> &[usize] {
        &self.order[..self.errors.partition_point(|&e| e <= error)]
    }
}

/// The variance of all sums together.
fn variance(weights: &[f64], width: usize, covariance: &Covariance) -> f64 {
    let of_output = |own: &[f64]| {
        let row = |i: usize| (0..width).map(|j| own[j] * covariance.at(i, j)).sum::<f64>();
        (0..width).map(|i| if own[i] == 0.0 { 0.0 } else { own[i] * row(i) }).sum::<f64>()
    };
    weights.par_chunks(width.max(1)).map(of_output).collect::<Vec<_>>().iter().sum()
}

/// The weights and the inverse covariance of the units that are left.
struct Surgeon {
    /// Numbers of the units left.
    units: Vec<usize>,
    each: usize,
    /// By feature: one weight for every output.
    weights: Vec<f64>,
    outputs: usize,
    inverse: Vec<f64>,
}

impl Surgeon {
    fn new(weights: &[f64], width: usize, site: &Site, covariance: &Covariance, units: Vec<usize>) -> Self {
        let features: Vec<usize> = units.iter().flat_map(|&u| site.features(u)).collect();
        let outputs = weights.len() / width.max(1);
        let own = features.iter().flat_map(|&f| (0..outputs).map(move |o| weights[o * width + f])).collect();
        let mut l = covariance.part(&features, &features);
        factor(&mut l, features.len());
        let inverse = inverse(&l, features.len());
        Surgeon { units, each: site.each, weights: own, outputs, inverse }
    }

    fn size(&self) -> usize {
        self.units.len() * self.each
    }

    /// `(H_uu)⁻¹·w_u`, by feature of the unit, and the cost of losing it.
    fn correction(&self, at: usize) -> (Vec<f64>, f64) {
        let (n, k) = (self.size(), self.each);
        let block = |i: usize, j: usize| self.inverse[(at * k + i) * n + at * k + j];
        let mut l: Vec<f64> = (0..k * k).map(|i| block(i / k, i % k)).collect();
        factor(&mut l, k);
        let own = &self.weights[at * k * self.outputs..][..k * self.outputs];
        let mut out = vec![0.0; own.len()];
        let mut column = vec![0.0; k];
        for o in 0..self.outputs {
            column.iter_mut().enumerate().for_each(|(i, c)| *c = own[i * self.outputs + o]);
            solve(&l, k, &mut column);
            column.iter().enumerate().for_each(|(i, c)| out[i * self.outputs + o] = *c);
        }
        let cost = own.iter().zip(&out).map(|(a, b)| a * b).sum();
        (out, cost)
    }

    /// Removes the unit that costs least; its number and its cost.
    fn remove_cheapest(&mut self) -> (usize, f64) {
        let costs: Vec<f64> = (0..self.units.len()).into_par_iter().map(|at| self.correction(at).1).collect();
        let at = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or(0);
        let (n, k, outputs) = (self.size(), self.each, self.outputs);
        let (correction, cost) = self.correction(at);
        let gone = at * k..(at + 1) * k;
        let left: Vec<usize> = (0..n).filter(|i| !gone.contains(i)).collect();
        // Weights: w −= H_·u · (H_uu)⁻¹ · w_u.
        let mut weights = Vec::with_capacity(left.len() * outputs);
        for &i in &left {
            let mut row = self.weights[i * outputs..(i + 1) * outputs].to_vec();
            for (f, correction) in gone.clone().zip(correction.chunks(outputs)) {
                let h = self.inverse[i * n + f];
                row.iter_mut().zip(correction).for_each(|(w, c)| *w -= h * c);
            }
            weights.extend(row);
        }
        // Inverse: H −= H_·u · (H_uu)⁻¹ · H_u·.
        let mut l: Vec<f64> = gone
            .clone()
            .flat_map(|i| gone.clone().map(move |j| (i, j)))
            .map(|(i, j)| self.inverse[i * n + j])
            .collect();
        factor(&mut l, k);
        let mut solved = vec![0.0; k * left.len()];
        let mut column = vec![0.0; k];
        for (c, &j) in left.iter().enumerate() {
            column.iter_mut().zip(gone.clone()).for_each(|(x, i)| *x = self.inverse[i * n + j]);
            solve(&l, k, &mut column);
            column.iter().enumerate().for_each(|(i, x)| solved[i * left.len() + c] = *x);
        }
        let mut inverse = vec![0.0; left.len() * left.len()];
        inverse.par_chunks_mut(left.len().max(1)).zip(&left).for_each(|(row, &i)| {
            let old = &self.inverse[i * n..(i + 1) * n];
            row[..gone.start].copy_from_slice(&old[..gone.start]);
            row[gone.start..].copy_from_slice(&old[gone.end..]);
            for (f, solved) in gone.clone().zip(solved.chunks(left.len())) {
                let h = old[f];
                row.iter_mut().zip(solved).for_each(|(x, s)| *x -= h * s);
            }
        });
        self.weights = weights;
        self.inverse = inverse;
        (self.units.remove(at), cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_ir::nn::ValueId;

    /// What is left of the variance of `w·x` after the best fit by the other features, by the normal equations.
    fn residual(covariance: &Covariance, weights: &[f64], kept: &[usize]) -> f64 {
        let n = weights.len();
        let all: Vec<usize> = (0..n).collect();
        let target: Vec<f64> =
            all.iter().map(|&i| all.iter().map(|&j| covariance.at(i, j) * weights[j]).sum()).collect();
        let mut l = covariance.part(kept, kept);
        factor(&mut l, kept.len());
        let mut fit: Vec<f64> = kept.iter().map(|&i| target[i]).collect();
        solve(&l, kept.len(), &mut fit);
        let total: f64 = weights.iter().zip(&target).map(|(w, t)| w * t).sum();
        total - kept.iter().zip(&fit).map(|(&i, f)| target[i] * f).sum::<f64>()
    }

    #[test]
    fn errors_are_those_of_the_best_fit_at_every_step() {
        for each in [1, 2] {
            let units = 5;
            let n = units * each;
            let value = |i: usize, j: usize| ((i * n + j) as f64 * 0.71).sin() + 0.3 * ((i * j) as f64).cos();
            let rows = (0..60).map(|i| (0..n).map(|j| value(i, j)).collect()).collect();
            let covariance = Covariance::of_rows(rows, n);
            let site = Site { source: ValueId(0), reader: ValueId(1), units, each };
            let weights: Vec<f64> = (0..n).map(|i| 1.0 + (i as f64).sin()).collect();
            let ranking = Ranking::of(&weights, &site, &covariance);
            assert_eq!(ranking.order.len(), units - 1);
            let total = variance(&weights, n, &covariance);
            for gone in 1..units {
                let removed = &ranking.order[..gone];
                let kept: Vec<usize> =
                    (0..units).filter(|u| !removed.contains(u)).flat_map(|u| site.features(u)).collect();
                let want = residual(&covariance, &weights, &kept) / total;
                let got = ranking.errors[gone - 1];
                assert!((got - want).abs() < 1e-9, "{each} {gone}: {got} {want}");
            }
            // The first to go is the one that is missed least.
            let cost = |u: usize| {
                let kept: Vec<usize> = (0..units).filter(|&v| v != u).flat_map(|v| site.features(v)).collect();
                residual(&covariance, &weights, &kept)
            };
            assert!((0..units).all(|u| cost(ranking.order[0]) <= cost(u) + 1e-12));
        }
    }
}
