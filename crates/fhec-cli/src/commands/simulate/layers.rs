//! The error of every layer against the same layer of the original network.
//!
//! A plan scales and shifts the values of a layer as it likes (ranges are normalised, factors move into
//! neighbouring matrices). So each layer's values are first fitted to the original ones by one factor and one
//! offset over all samples; what the fit leaves is the error.

use super::super::compile::tensors;
use super::super::run::results;
use super::probe::Probe;
use crate::data::{DataSet, InputSpec};
use crate::format::{self, Align, Table};
use crate::progress::Progress;
use anyhow::Result;
use fhec_ir::nn::{Graph, Interpreter, ValueId};
use fhec_plan::Layout;
use fhec_plan::verify::Verified;
use fhec_runtime::Backend;
use fhec_runtime::clear::Slots;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Below this part of explained variance the values of a layer are not those of its ONNX node in another
/// scale, but something else (a merged view of them); no error is given then.
pub(crate) const COMPARABLE: f64 = 0.5;

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
pub(crate) struct Moments {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Moments {
    /// Those of some pairs of plan value and original value.
    pub(crate) fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
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

    /// The best line through the pairs.
    pub(crate) fn line(&self) -> Line {
        let n = self.n.max(1.0);
        let (mx, my) = (self.x / n, self.y / n);
        let variance = self.xx / n - mx * mx;
        let factor = if variance > 0.0 { (self.xy / n - mx * my) / variance } else { 0.0 };
        Line { factor, offset: my - factor * mx, variance: (self.yy / n - my * my).max(0.0) }
    }
}

/// The best line, and the variance of the original values.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    factor: f64,
    offset: f64,
    /// Variance of the original values.
    pub(crate) variance: f64,
}

impl Line {
    /// Sum of the squares of what the line leaves. Taken value by value: as a difference of moments it would drown in
    /// rounding where the fit is good.
    pub(crate) fn squares(&self, pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
        pairs.map(|(x, y)| (y - self.factor * x - self.offset).powi(2)).sum()
    }
}

/// A layer of the plan and its node of the original graph.
pub(crate) struct Pair<'a> {
    /// Number of the layer.
    pub(crate) layer: usize,
    /// The node whose value is the layer's result.
    pub(crate) node: ValueId,
    /// Where the elements are.
    pub(crate) layout: &'a Layout,
    /// The slots of the elements, in row-major order.
    pub(crate) positions: Vec<usize>,
}

/// Results of the layers of one run, by layer.
pub(crate) type LayerValues = BTreeMap<usize, Slots>;

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
    let compare = Compare { original, set, specs, samples, pairs: &pairs, evaluate: &evaluate };
    let moments = compare.each_layer("fitting layers", |_, values| Moments::of(values), Moments::and)?;
    let lines: Vec<Line> = moments.iter().map(Moments::line).collect();
    let squares = compare.each_layer("layers", |pair, values| lines[pair].squares(values), |a, b| a + b)?;
    let layers = &verified.plan().layers;
    let error = |(i, pair): (usize, &Pair<'_>)| {
        let left = squares[i] / moments[i].n.max(1.0);
        LayerError {
            name: layers[pair.layer].name.clone(),
            kind: layers[pair.layer].kind.clone(),
            elements: pair.positions.len(),
            rms: left.sqrt(),
            spread: lines[i].variance.sqrt(),
            explained: if lines[i].variance > 0.0 { 1.0 - left / lines[i].variance } else { 1.0 },
        }
    };
    Ok(pairs.iter().enumerate().map(error).collect())
}

/// Runs plan and original network side by side.
struct Compare<'a, E> {
    original: &'a Interpreter<'a>,
    set: &'a DataSet,
    specs: &'a [InputSpec],
    samples: usize,
    pairs: &'a [Pair<'a>],
    evaluate: &'a E,
}

/// Values of one layer in both networks, element by element.
type Both<'a> = Box<dyn Iterator<Item = (f64, f64)> + 'a>;

impl<E: Fn(usize, Vec<Vec<f64>>) -> Result<LayerValues> + Sync> Compare<'_, E> {
    /// `of` of every pair of layers on every sample, joined over the samples in their order, so that results do not
    /// depend on the number of threads.
    fn each_layer<T: Send + Default>(
        &self,
        label: &str,
        of: impl Fn(usize, Both<'_>) -> T + Sync,
        join: impl Fn(T, T) -> T,
    ) -> Result<Vec<T>> {
        let (progress, done) = (Progress::new(label), AtomicUsize::new(0));
        let one = |sample: usize| -> Result<Vec<T>> {
            let values = self.set.sample(sample)?;
            let seen = (self.evaluate)(sample, values.clone())?;
            let mut nodes = BTreeMap::new();
            self.original.run_with(&tensors(self.specs, values)?, |id, tensor| {
                if self.pairs.iter().any(|p| p.node == id) {
                    nodes.insert(id, tensor.clone());
                }
            })?;
            progress.set(done.fetch_add(1, Ordering::Relaxed) + 1, self.samples);
            let pair = |(i, pair): (usize, &Pair<'_>)| match (seen.get(&pair.layer), nodes.get(&pair.node)) {
                (Some(slots), Some(tensor)) => {
                    let packed = unpack(slots, pair.layout, &pair.positions);
                    of(i, Box::new(packed.zip(tensor.values().iter().copied())))
                }
                _ => T::default(),
            };
            Ok(self.pairs.iter().enumerate().map(pair).collect())
        };
        let all: Vec<Vec<T>> = (0..self.samples).into_par_iter().map(one).collect::<Result<_>>()?;
        let total = all.into_iter().reduce(|a, b| a.into_iter().zip(b).map(|(x, y)| join(x, y)).collect());
        Ok(total.unwrap_or_default())
    }
}

/// The results of all layers for one sample.
pub(super) fn values<B>(verified: &Verified, backend: &B, values: Vec<Vec<f64>>) -> Result<LayerValues>
where
    B: Backend<Value = Slots, Input = Vec<f64>, Output = Vec<f64>>,
{
    Ok(run(verified, backend, values)?.0)
}

/// The results of all layers for one sample, and the outputs before postprocessing.
pub(crate) fn run<B>(verified: &Verified, backend: &B, values: Vec<Vec<f64>>) -> Result<(LayerValues, Vec<Vec<f64>>)>
where
    B: Backend<Value = Slots, Input = Vec<f64>, Output = Vec<f64>>,
{
    let wanted = results(verified);
    let probe = Probe::new(backend, &wanted);
    let outputs = fhec_runtime::evaluate(verified, &probe, values, 1)?;
    Ok((probe.into_values(), outputs))
}

/// Elements of a layer's tensor out of slots; the layout is the plan's word only, so nothing it says is
/// used as an index unchecked.
pub(crate) fn unpack<'a>(slots: &'a Slots, layout: &Layout, positions: &'a [usize]) -> impl Iterator<Item = f64> + 'a {
    let (own, period) = (layout.slots.max(1), slots.period());
    positions.iter().map(move |&at| slots.values().get(at / own * period + at % own % period).copied().unwrap_or(0.0))
}

/// The layers whose last ONNX node is in the original graph with as many elements.
pub(crate) fn pairs<'a>(verified: &'a Verified, graph: &Graph) -> Vec<Pair<'a>> {
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

    /// What the best line leaves, root mean square.
    fn left(pairs: &[(f64, f64)]) -> f64 {
        let moments = Moments::of(pairs.iter().copied());
        (moments.line().squares(pairs.iter().copied()) / moments.n).sqrt()
    }

    #[test]
    fn a_scaled_and_shifted_copy_has_no_error() {
        let x: Vec<f64> = (0..100).map(|i| (f64::from(i) * 0.7).sin()).collect();
        let exact: Vec<(f64, f64)> = x.iter().map(|&x| (x, 3.0 * x - 2.0)).collect();
        assert!(left(&exact) < 1e-13);
        let noise = |i: usize| if i.is_multiple_of(2) { 1e-6 } else { -1e-6 };
        let noisy: Vec<(f64, f64)> = x.iter().enumerate().map(|(i, &x)| (x, 3.0 * x + noise(i))).collect();
        assert!((left(&noisy) / 1e-6 - 1.0).abs() < 0.05, "{}", left(&noisy));
    }

    #[test]
    fn constant_values_explain_nothing() {
        assert_eq!(left(&[(1.0, 1.0), (1.0, 3.0)]), 1.0);
    }
}
