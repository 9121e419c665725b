//! Takes units out of a layer's sums and fits its other weights to what the sums were.

use super::covariance::{Covariance, factor, solve};
use super::sites::{Site, constants};
use fhec_ir::Tensor;
use fhec_ir::nn::{Conv, Graph, Op};
use rayon::prelude::*;

/// Sets the weights of the units `removed` to zero, and the others to those with the least expected square of the
/// change: `w_s + w_r·C_rs·C_ss⁻¹` for the covariance `C`; the bias takes the change of the mean.
pub(super) fn remove(graph: &mut Graph, site: &Site, covariance: &Covariance, removed: &[usize]) {
    if removed.is_empty() {
        return;
    }
    let width = site.width();
    let mut gone = vec![false; width];
    for &unit in removed {
        gone[site.features(unit)].fill(true);
    }
    let (r, s): (Vec<usize>, Vec<usize>) = (0..width).partition(|&f| gone[f]);
    let mut l = covariance.part(&s, &s);
    factor(&mut l, s.len());
    let (weight, bias) = constants(graph, site.reader);
    let (shape, mut weights) = (graph.tensor(weight).shape().to_vec(), site.weights(graph));
    let outputs = weights.len() / width;
    let mut biases = bias.map_or(vec![0.0; outputs], |b| graph.tensor(b).values().to_vec());
    weights.par_chunks_mut(width).zip(&mut biases).for_each(|(own, bias)| {
        let mut fit: Vec<f64> = s.iter().map(|&j| r.iter().map(|&i| own[i] * covariance.at(i, j)).sum()).collect();
        solve(&l, s.len(), &mut fit);
        let mut mean = 0.0;
        for &i in &r {
            mean += own[i] * covariance.mean[i];
            own[i] = 0.0;
        }
        for (&j, change) in s.iter().zip(&fit) {
            mean -= change * covariance.mean[j];
            own[j] += change;
        }
        *bias += mean;
    });
    let weight = graph.constant(Tensor::new(shape, weights));
    let bias = Some(graph.constant(Tensor::new(vec![outputs], biases)));
    let op = &mut graph.nodes[site.reader.index()].op;
    *op = match &*op {
        Op::Conv(conv) => Op::Conv(Conv { weight, bias, ..conv.clone() }),
        _ => Op::Dense { weight, bias },
    };
}
