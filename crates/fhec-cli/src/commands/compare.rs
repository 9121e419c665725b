//! `fhec compare`: the values of an encrypted run, layer by layer, against what they should be. For the holder of the key.

use super::compile;
use super::run::{results, value_file};
use super::simulate::layers::{self, COMPARABLE, Moments};
use super::simulate::same_model;
use crate::data::load_inputs;
use crate::files::{print, status};
use crate::format::{self, Align, Table};
use crate::{keys, plan_file};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fhec_ir::nn::{Graph, Interpreter};
use fhec_plan::Layout;
use fhec_plan::verify::Verified;
use fhec_runtime::ClearBackend;
use fhec_runtime::clear::Slots;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `fhec compare`.
#[derive(Args)]
#[command(after_help = "Example:
  fhec run     net.plan --eval-keys keys/eval.keys --input x.ct -o y.ct --keep-values values
  fhec compare net.plan --secret-key keys/secret.key --values values --model net.onnx --input x.npy

Each layer's decrypted values are held against those of the same layer without encryption (the plan
run in the clear, with its polynomials) and those of the original network. Bits say how far an error
lies below the spread of the layer's values. As in simulate, one factor and one offset for all values
of a layer bring the plan's to the units of the original.

The values are for the eyes of the key's holder: they hold the noise of the encryption.")]
pub(crate) struct Compare {
    /// The plan
    plan: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE")]
    secret_key: PathBuf,
    /// The folder that run --keep-values filled
    #[arg(long, value_name = "DIR")]
    values: PathBuf,
    /// The model that the plan was compiled from
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// What was encrypted, or NAME=FILE once for each input of a model with several
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    input: Vec<String>,
    /// Which sample of a file that holds several, counted from 0
    #[arg(long, value_name = "N")]
    index: Option<usize>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Compare {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let verified = plan_file::open(&self.plan)?;
        let plan = verified.plan();
        let graph = compile::load(&self.model)?;
        plan_file::in_one_round(plan.rounds())?;
        let specs = plan_file::specs(&plan.inputs);
        same_model(&graph, &specs, plan)
            .with_context(|| format!("{} was not compiled from {}", self.plan.display(), self.model.display()))?;
        let client = keys::Client::new(&plan.head())?;
        let secret = client.secret_key(&self.secret_key)?;
        let values = load_inputs(&self.input, self.index, &specs)?;
        let clear = layers::values(&verified, &ClearBackend::new(&verified), values.clone())?;
        let original = originals(&verified, &graph, &compile::tensors(&specs, values)?)
            .with_context(|| self.model.display().to_string())?;
        let mut compared = Vec::new();
        for (reg, layer) in results(&verified) {
            let path = self.values.join(value_file(layer));
            let (true, Some(clear)) = (path.exists(), clear.get(&layer)) else { continue };
            let facts = verified.register(reg);
            let got = client.decrypt_slots(&secret, &path, (facts.ciphertexts, facts.level, &facts.scale))?;
            compared.push(Layer::new(&verified, layer, &got, clear, original.get(&layer).map(Vec::as_slice)));
        }
        ensure!(!compared.is_empty(), "{}: holds no value of the plan's layers", self.values.display());
        compared.sort_by_key(|c| c.layer);
        if self.json {
            return print(&format!("{:#}\n", as_json(&compared)));
        }
        print(&table(&compared))?;
        let missing = results(&verified).len() - compared.len();
        if missing > 0 {
            status(&format!("{} without a file", format::count(missing, "layer")));
        }
        Ok(())
    }
}

/// Values of the original network, by layer.
fn originals(verified: &Verified, graph: &Graph, inputs: &[fhec_ir::Tensor]) -> Result<BTreeMap<usize, Vec<f64>>> {
    let pairs = layers::pairs(verified, graph);
    let mut found = BTreeMap::new();
    Interpreter::new(graph)?.run_with(inputs, |id, tensor| {
        for pair in pairs.iter().filter(|p| p.node == id) {
            found.insert(pair.layer, tensor.values().to_vec());
        }
    })?;
    Ok(found)
}

/// One layer, compared.
struct Layer {
    layer: usize,
    name: String,
    kind: String,
    /// Number of values.
    count: usize,
    /// Standard deviation of the plan's values without encryption.
    spread: f64,
    /// Error of the encrypted values: root mean square, largest, and what the plan predicted.
    error: [f64; 3],
    /// Against the original network.
    original: Option<Original>,
}

/// What separates a layer from the original network, in the units of that.
struct Original {
    /// Standard deviation of the original values.
    spread: f64,
    /// Root mean square error of the plan without encryption, and of the encrypted values.
    rms: [f64; 2],
}

impl Layer {
    fn new(verified: &Verified, layer: usize, got: &Slots, clear: &Slots, original: Option<&[f64]>) -> Self {
        let plan = verified.plan();
        let report = &plan.report.layers[layer];
        let values = |slots: &Slots, layout: &Layout| -> Vec<f64> {
            layers::unpack(slots, layout, &layout.positions()).collect()
        };
        let (got, clear) = match &report.value {
            Some(value) => (values(got, &value.layout), values(clear, &value.layout)),
            None => (Vec::new(), Vec::new()),
        };
        let n = clear.len().max(1) as f64;
        let mean = clear.iter().sum::<f64>() / n;
        let spread = (clear.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let differences = || got.iter().zip(&clear).map(|(g, c)| (g - c).abs());
        let rms = (differences().map(|d| d * d).sum::<f64>() / n).sqrt();
        Layer {
            layer,
            name: plan.layers[layer].name.clone(),
            kind: plan.layers[layer].kind.clone(),
            count: clear.len(),
            spread,
            error: [rms, differences().fold(0.0, f64::max), report.error_std],
            original: original.and_then(|o| Original::new(&got, &clear, o)),
        }
    }
}

impl Original {
    /// `None` where the layer's values are not those of its node in another scale, but something else.
    fn new(got: &[f64], clear: &[f64], original: &[f64]) -> Option<Self> {
        let pairs = |plan: &[f64]| plan.iter().copied().zip(original.iter().copied()).collect::<Vec<_>>();
        let line = Moments::of(pairs(clear).into_iter()).line();
        let left = [clear, got].map(|plan| line.squares(pairs(plan).into_iter()) / original.len().max(1) as f64);
        let comparable = line.variance > 0.0 && 1.0 - left[0] / line.variance >= COMPARABLE;
        comparable.then(|| Original { spread: line.variance.sqrt(), rms: left.map(f64::sqrt) })
    }
}

/// How many bits an error lies below the spread; `None` for no error.
fn bits(spread: f64, error: f64) -> Option<f64> {
    (error > 0.0).then(|| (spread / error).log2())
}

fn table(layers: &[Layer]) -> String {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("kind", Align::Left),
        ("values", Align::Right),
        ("spread", Align::Right),
        ("error (rms)", Align::Right),
        ("bits", Align::Right),
        ("worst", Align::Right),
        ("bits", Align::Right),
        ("predicted", Align::Right),
        ("bits", Align::Right),
        ("original: plan", Align::Right),
        ("encrypted", Align::Right),
    ]);
    for l in layers {
        let in_bits = |spread: f64, error: f64| bits(spread, error).map_or("exact".into(), |b| format!("{b:.1}"));
        let mut row = vec![l.name.clone(), l.kind.clone(), l.count.to_string(), format::figures(l.spread)];
        row.extend(l.error.iter().flat_map(|&error| [format::small(error), in_bits(l.spread, error)]));
        match &l.original {
            Some(o) => row.extend(o.rms.map(|rms| in_bits(o.spread, rms))),
            None => row.extend(["?".to_owned(), "?".to_owned()]),
        }
        table.row(row);
    }
    table.render()
}

fn as_json(layers: &[Layer]) -> Value {
    let entry = |l: &Layer| {
        let [rms, worst, predicted] = l.error;
        json!({
            "layer": l.layer, "name": l.name, "kind": l.kind, "values": l.count, "spread": l.spread,
            "rms": rms, "bits": bits(l.spread, rms),
            "worst": worst, "worst_bits": bits(l.spread, worst),
            "predicted_rms": predicted, "predicted_bits": bits(l.spread, predicted),
            "original": l.original.as_ref().map(|o| json!({
                "spread": o.spread,
                "plan_rms": o.rms[0], "plan_bits": bits(o.spread, o.rms[0]),
                "encrypted_rms": o.rms[1], "encrypted_bits": bits(o.spread, o.rms[1]),
            })),
        })
    };
    layers.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_against_the_original_are_in_its_units() {
        let clear: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        let original: Vec<f64> = clear.iter().map(|v| 4.0 * v + 1.0).collect();
        let got: Vec<f64> = clear.iter().enumerate().map(|(i, v)| v + if i % 2 == 0 { 1e-3 } else { -1e-3 }).collect();
        let o = Original::new(&got, &clear, &original).expect("comparable");
        assert!(o.rms[0] < 1e-12 && (o.rms[1] / 4e-3 - 1.0).abs() < 1e-6, "{:?}", o.rms);
        let other: Vec<f64> = (0..50).map(|i| f64::from(i * i % 7)).collect();
        assert!(Original::new(&got, &clear, &other).is_none());
        assert_eq!(bits(1.0, 0.25), Some(2.0));
        assert_eq!(bits(1.0, 0.0), None);
    }
}
