//! The error of every layer against the same layer of the original network.
//!
//! A plan scales and shifts the values of a layer as it likes (ranges are normalised, factors move into
//! neighbouring matrices). So each layer's values are first fitted to the original ones by one factor and one
//! offset over all samples; what the fit leaves is the error.

use super::probe::{Probe, results};
use crate::data::{DataSet, InputSpec};
use crate::format::{self, Align, Table};
use crate::progress::Progress;
use anyhow::Result;
use fhec_ir::nn::{Graph, Interpreter, ValueId};
use fhec_plan::Layout;
use fhec_plan::verify::Verified;
use fhec_runtime::clear::Slots;
use fhec_runtime::{Backend, run};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Below this part of explained variance the values of a layer are not those of its ONNX node in another
/// scale, but something else (a merged view of them); no error is given then.
const COMPARABLE: f64 = 0.5;

/// The error of one layer.
pub(super) struct LayerError {
    name: String,
    kind: String,
    elements: usize,
    /// Root mean square of the error, in the units of the original layer.
    rms: f64,
    /// Standard deviation of the original layer's values.
    spread: f64,
    /// Part of the variance that the fit explains.
    explained: f64,
}

/// Sums for a least-squares line from plan values to original values.
#[derive(Clone, Copy, Default)]
struct Moments {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Moments {
    fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        pairs.fold(Moments::default(), |m, (x, y)| m.and(Moments { n: 1.0, x, y, xx: x * x, xy: x * y, yy: y * y }))
    }

    fn and(self, o: Moments) -> Self {
        Moments {
            n: self.n + o.n,
            x: self.x + o.x,
            y: self.y + o.y,
            xx: self.xx + o.xx,
            xy: self.xy + o.xy,
            yy: self.yy + o.yy,
        }
    }

    /// Variance of y, and the variance that the best line leaves.
    fn residual(&self) -> (f64, f64) {
        let (mx, my) = (self.x / self.n, self.y / self.n);
        let (vx, vy) = (self.xx / self.n - mx * mx, self.yy / self.n - my * my);
        let covariance = self.xy / self.n - mx * my;
        if vx <= 0.0 {
            return (vy.max(0.0), vy.max(0.0));
        }
        (vy.max(0.0), (vy - covariance * covariance / vx).max(0.0))
    }
}

/// A layer of the plan and its node of the original graph.
struct Pair<'a> {
    layer: usize,
    node: ValueId,
    layout: &'a Layout,
    positions: Vec<usize>,
}

/// Results of the layers of one run, by layer.
pub(super) type LayerValues = BTreeMap<usize, Slots>;

/// Errors of all layers that can be compared, in the plan's order. `evaluate` runs the plan on one sample, see
/// [`values`].
pub(super) fn errors(
    verified: &Verified,
    original: &Interpreter<'_>,
    graph: &Graph,
    set: &DataSet,
    specs: &[InputSpec],
    samples: usize,
    evaluate: impl Fn(usize, Vec<Vec<f64>>) -> Result<LayerValues> + Sync,
) -> Result<Vec<LayerError>> {
    let pairs = pairs(verified, graph);
    let (progress, done) = (Progress::new("layers"), AtomicUsize::new(0));
    let per_sample: Vec<Vec<Moments>> = (0..samples)
        .into_par_iter()
        .map(|i| {
            let values = set.sample(i)?;
            let seen = evaluate(i, values.clone())?;
            let mut nodes = BTreeMap::new();
            let inputs = super::super::compile::tensors(specs, values)?;
            original.run_with(&inputs, |id, tensor| {
                if pairs.iter().any(|p| p.node == id) {
                    nodes.insert(id, tensor.clone());
                }
            })?;
            let moments = pairs.iter().map(|pair| match (seen.get(&pair.layer), nodes.get(&pair.node)) {
                (Some(slots), Some(tensor)) => {
                    let packed = unpack(slots, pair.layout, &pair.positions);
                    Moments::of(packed.zip(tensor.values().iter().copied()))
                }
                _ => Moments::default(),
            });
            let moments = moments.collect();
            progress.set(done.fetch_add(1, Ordering::Relaxed) + 1, samples);
            Ok(moments)
        })
        .collect::<Result<_>>()?;
    // Sample by sample in order, so that sums do not depend on the number of threads.
    let total = per_sample.into_iter().reduce(|a, b| a.into_iter().zip(b).map(|(x, y)| x.and(y)).collect());
    let layers = &verified.plan().layers;
    let error = |(pair, moments): (&Pair<'_>, Moments)| {
        let (variance, left) = moments.residual();
        LayerError {
            name: layers[pair.layer].name.clone(),
            kind: layers[pair.layer].kind.clone(),
            elements: pair.positions.len(),
            rms: left.sqrt(),
            spread: variance.sqrt(),
            explained: if variance > 0.0 { 1.0 - left / variance } else { 1.0 },
        }
    };
    Ok(pairs.iter().zip(total.unwrap_or_default()).map(error).collect())
}

/// The results of all layers for one sample.
pub(super) fn values<B>(verified: &Verified, backend: &B, values: Vec<Vec<f64>>) -> Result<LayerValues>
where
    B: Backend<Value = Slots, Input = Vec<f64>, Output = Vec<f64>>,
{
    let wanted = results(verified);
    let probe = Probe::new(backend, &wanted);
    run(verified, &probe, values, &mut |_| {})?;
    Ok(probe.into_values())
}

/// Elements of a layer's tensor out of slots; the layout is the plan's word only, so nothing it says is
/// used as an index unchecked.
fn unpack<'a>(slots: &'a Slots, layout: &Layout, positions: &'a [usize]) -> impl Iterator<Item = f64> + 'a {
    let (own, period) = (layout.slots.max(1), slots.period());
    positions.iter().map(move |&at| slots.values().get(at / own * period + at % own % period).copied().unwrap_or(0.0))
}

/// The layers whose last ONNX node is in the original graph with as many elements.
fn pairs<'a>(verified: &'a Verified, graph: &Graph) -> Vec<Pair<'a>> {
    let plan = verified.plan();
    let layers = plan.layers.iter().zip(&plan.report.layers).enumerate();
    layers
        .filter_map(|(layer, (named, report))| {
            let layout = &report.value.as_ref()?.layout;
            let is_last = |id: &ValueId| {
                let origin = graph.node(*id).origin.to_string();
                let suffix = named.name.strip_suffix(&origin);
                suffix.is_some_and(|front| front.is_empty() || front.ends_with('+'))
            };
            let node = graph.ids().filter(is_last).last()?;
            let elements: usize = graph.node(node).shape.iter().product();
            (elements == layout.elements()).then(|| Pair { layer, node, layout, positions: layout.positions() })
        })
        .collect()
}

/// The errors as a table.
pub(super) fn table(errors: &[LayerError]) -> String {
    let heads = [
        ("layer", Align::Left),
        ("kind", Align::Left),
        ("values", Align::Right),
        ("error (rms)", Align::Right),
        ("spread", Align::Right),
        ("bits", Align::Right),
    ];
    let mut table = Table::new(&heads);
    for e in errors {
        let comparable = e.explained >= COMPARABLE;
        let or = |text: String| if comparable { text } else { "?".into() };
        table.row(vec![
            e.name.clone(),
            e.kind.clone(),
            e.elements.to_string(),
            or(format::small(e.rms)),
            format::figures(e.spread),
            or(bits(e).map_or("exact".into(), |b| format!("{b:.1}"))),
        ]);
    }
    table.render()
}

/// How many bits of the spread are right; `None` where the error is zero.
fn bits(e: &LayerError) -> Option<f64> {
    (e.rms > 0.0).then(|| (e.spread / e.rms).log2())
}

/// The errors for scripts.
pub(super) fn as_json(errors: &[LayerError]) -> Value {
    let entry = |e: &LayerError| {
        let comparable = e.explained >= COMPARABLE;
        json!({
            "name": e.name, "kind": e.kind, "values": e.elements, "spread": e.spread,
            "rms": comparable.then_some(e.rms), "bits": if comparable { bits(e) } else { None },
        })
    };
    errors.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_and_shifted_copy_has_no_error() {
        let x: Vec<f64> = (0..100).map(|i| (f64::from(i) * 0.7).sin()).collect();
        let exact = Moments::of(x.iter().map(|&x| (x, 3.0 * x - 2.0)));
        let (variance, left) = exact.residual();
        assert!(variance > 1.0 && left < 1e-12, "{variance} {left}");
        let noisy = Moments::of(x.iter().enumerate().map(|(i, &x)| (x, x + if i % 2 == 0 { 0.1 } else { -0.1 })));
        assert!((noisy.residual().1 - 0.01).abs() < 1e-3);
    }

    #[test]
    fn constant_values_are_no_explanation() {
        let (variance, left) = Moments::of([(1.0, 1.0), (1.0, 3.0)].into_iter()).residual();
        assert_eq!((variance, left), (1.0, 1.0));
    }
}
