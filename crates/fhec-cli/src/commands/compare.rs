//! `fhec compare`: the values and the result of an encrypted run against what they should be. For the holder of the key.

mod rows;

use super::compile;
use super::run::{results, value_file};
use super::simulate::layers::{self, LayerValues};
use super::simulate::same_model;
use crate::data::{InputSpec, load_inputs, named};
use crate::files::{is_container, print, status};
use crate::{format, keys, plan_file};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fhec_ckks::SecretKey;
use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, Interpreter};
use fhec_plan::verify::Verified;
use fhec_runtime::ClearBackend;
use rows::Row;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of `fhec compare`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec compare net.plan --secret-key keys/secret.key --result y.ct --model net.onnx --input x.npy
  fhec compare net.plan --secret-key keys/secret.key --result y.ct --model net.onnx --input x.ct

  fhec run     net.plan --eval-keys keys/eval.keys --input x.ct -o y.ct --keep-values values
  fhec compare net.plan --secret-key keys/secret.key --values values --model net.onnx --input x.npy

Each output of --result and each layer of --values is decrypted and held against the same without
encryption (the plan run in the clear, with its polynomials) and against the original network. Bits
say how far an error lies below the spread of the values. Outputs are in the original's units; a
softmax at the end is done before they are held against the original. As in simulate, one factor and
one offset for all values of a layer bring the plan's to the units of the original.

The encrypted input serves as --input too, for those who have nothing else: it is decrypted with the
secret key, and what noise it has counts as part of the input. Of a plan in throughput mode the
first image is compared.

The values are for the eyes of the key's holder: they hold the noise of the encryption.")]
pub(crate) struct Compare {
    /// The plan
    plan: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE")]
    secret_key: PathBuf,
    #[command(flatten)]
    of: Run,
    /// The model that the plan was compiled from
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// What was encrypted, or NAME=FILE once for each input of a model with several; or the encrypted input
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    input: Vec<String>,
    /// Which sample of a file that holds several, counted from 0
    #[arg(long, value_name = "N")]
    index: Option<usize>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What is there of the run.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Run {
    /// The encrypted result of the run
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// The folder that run --keep-values filled
    #[arg(long, value_name = "DIR")]
    values: Option<PathBuf>,
}

impl Compare {
    /// The comparison of an encrypted result alone.
    pub(crate) fn of_result(plan: &Path, secret_key: &Path, result: &Path, model: &Path, input: &[String]) -> Self {
        Compare {
            plan: plan.to_owned(),
            secret_key: secret_key.to_owned(),
            of: Run { result: Some(result.to_owned()), values: None },
            model: model.to_owned(),
            input: input.to_owned(),
            index: None,
            json: false,
        }
    }

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
        let inputs = self.inputs(&client, &secret, &specs)?;
        let (layers, outputs) = layers::run(&verified, &ClearBackend::new(&verified), inputs.clone())?;
        let original = Original::of(&verified, &graph, &compile::tensors(&specs, inputs)?)
            .with_context(|| self.model.display().to_string())?;
        let run = Opened { verified: &verified, client, secret };
        let mut rows = Vec::new();
        if let Some(folder) = &self.of.values {
            rows.extend(run.layers(folder, &layers, &original)?);
        }
        let missing = results(&verified).len() - rows.len();
        if let Some(result) = &self.of.result {
            rows.extend(run.outputs(result, outputs, &original)?);
        }
        rows::sort(&mut rows);
        if self.json {
            return print(&format!("{:#}\n", rows::as_json(&rows)));
        }
        print(&rows::table(&rows))?;
        if missing > 0 && self.of.values.is_some() {
            status(&format!("{} without a file", format::count(missing, "layer")));
        }
        Ok(())
    }

    /// What went into the run: a row-major tensor for each input.
    fn inputs(&self, client: &keys::Client, secret: &SecretKey, specs: &[InputSpec]) -> Result<Vec<Vec<f64>>> {
        let file = |text: &str| match named(text, specs) {
            Some((_, path)) if !Path::new(text).exists() => PathBuf::from(path),
            _ => PathBuf::from(text),
        };
        for text in &self.input {
            let path = file(text);
            if is_container(&path)? {
                let alone = self.input.len() == 1 && self.index.is_none();
                ensure!(alone, "{}: is encrypted and holds all inputs; give it alone, without --index", path.display());
                return client.decrypt_inputs(secret, &path);
            }
        }
        load_inputs(&self.input, self.index, specs)
    }
}

/// A run whose ciphertexts can be read.
struct Opened<'a> {
    verified: &'a Verified,
    client: keys::Client,
    secret: SecretKey,
}

impl Opened<'_> {
    /// The layers whose values are in a folder.
    fn layers(&self, folder: &Path, clear: &LayerValues, original: &Original) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (reg, layer) in results(self.verified) {
            let path = folder.join(value_file(layer));
            let (true, Some(clear)) = (path.exists(), clear.get(&layer)) else { continue };
            let facts = self.verified.register(reg);
            let got = self.client.decrypt_slots(&self.secret, &path, (facts.ciphertexts, facts.level, &facts.scale))?;
            rows.push(Row::layer(self.verified, layer, &got, clear, original.layers.get(&layer).map(Vec::as_slice)));
        }
        ensure!(!rows.is_empty(), "{}: holds no value of the plan's layers", folder.display());
        Ok(rows)
    }

    /// The outputs in a file.
    fn outputs(&self, path: &Path, clear: Vec<Vec<f64>>, original: &Original) -> Result<Vec<Row>> {
        let outputs = self.verified.plan().outputs.iter().zip(clear).zip(&original.outputs).enumerate();
        let row = |(index, ((output, clear), original)): (usize, ((&fhec_plan::Output, Vec<f64>), &Tensor))| {
            let images = self.client.decrypt(&self.secret, path, index)?;
            let got = images.into_iter().next().unwrap_or_default();
            Ok(Row::output(index, output, got, clear, original.values()))
        };
        outputs.map(row).collect()
    }
}

/// Values of the original network.
struct Original {
    /// By layer of the plan.
    layers: BTreeMap<usize, Vec<f64>>,
    outputs: Vec<Tensor>,
}

impl Original {
    fn of(verified: &Verified, graph: &Graph, inputs: &[Tensor]) -> Result<Self> {
        let pairs = layers::pairs(verified, graph);
        let mut layers = BTreeMap::new();
        let outputs = Interpreter::new(graph)?.run_with(inputs, |id, tensor| {
            for pair in pairs.iter().filter(|p| p.node == id) {
                layers.insert(pair.layer, tensor.values().to_vec());
            }
        })?;
        Ok(Original { layers, outputs })
    }
}
