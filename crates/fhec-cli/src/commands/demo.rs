//! `fhec demo`: the whole road on a bundled network, telling what each party holds and sees.

use super::digit::draw;
use super::run::{Job, set_threads};
use super::{compile, keygen, results};
use crate::data::load_inputs;
use crate::files::{self, Access, print};
use crate::format::{self, seconds};
use crate::{keys, memory, plan_file};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use fhec_ir::nn::{Graph, Interpreter};
use fhec_plan::PlanHead;
use fhec_runtime::EncryptionKey;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `fhec demo`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec demo
  fhec demo --model lola --digits 20
  fhec demo --keep demo-files

The networks, the calibration pictures and the digits (from MNIST's test set) are part of the program.")]
pub(crate) struct Demo {
    /// The network
    #[arg(long, value_enum, default_value_t = Model::Cryptonets)]
    model: Model,
    /// How many digits to classify, at most 20
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    digits: u8,
    /// Keep all files in this folder, to look at or to try the other commands on
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Threads to use; all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// The bundled networks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Model {
    /// Convolution, square, two dense layers (nGraph-HE2's CryptoNets)
    Cryptonets,
    /// Convolution, square, dense, square, dense
    Lola,
    /// Three dense layers with squares
    MlpSquare,
}

impl Model {
    fn file(self) -> (&'static str, &'static [u8]) {
        match self {
            Model::Cryptonets => ("cryptonets", include_bytes!("../../../../models/cryptonets.onnx")),
            Model::Lola => ("lola", include_bytes!("../../../../models/lola.onnx")),
            Model::MlpSquare => ("mlp_square", include_bytes!("../../../../models/mlp_square.onnx")),
        }
    }
}

const CALIBRATION: &[u8] = include_bytes!("../../../../models/calibration.npy");
const LABELS: &str = include_str!("../../../../models/digits/labels.txt");

/// Bundled files of `models/digits`, in order.
macro_rules! digits {
    ($($name:literal)*) => {
        [$(include_bytes!(concat!("../../../../models/digits/", $name, ".png")) as &[u8]),*]
    };
}
const DIGITS: [&[u8]; 20] =
    digits!("00" "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11" "12" "13" "14" "15" "16" "17" "18" "19");

impl Demo {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        if let Some(threads) = self.threads {
            set_threads(threads.into())?;
        }
        let temporary;
        let folder = match &self.keep {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
                folder.as_path()
            }
            None => {
                temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
                temporary.path()
            }
        };
        let stage = Stage::new(folder);
        let graph = stage.model_owner(self.model)?;
        let (head, client) = stage.client_keys()?;
        let job = stage.server()?;
        let mut right = 0;
        for index in self.chosen() {
            right += usize::from(stage.classify(index, &graph, &head, &client, &job)?);
        }
        print(&format!(
            "\n{right} of {} right. The server never held a key, a pixel or a result it could read.\n",
            self.digits
        ))?;
        if let Some(folder) = &self.keep {
            print(&format!(
                "All files are in {}; `fhec explain {}` shows the plan.\n",
                folder.display(),
                stage.plan.display()
            ))?;
        }
        Ok(())
    }

    /// Digits spread over the bundled ones: they are sorted by class.
    fn chosen(&self) -> impl Iterator<Item = usize> {
        let n = usize::from(self.digits);
        // From the middle of each share, so that three digits are not 0, 3, 6.
        (0..n).map(move |i| (2 * i + 1) * DIGITS.len() / (2 * n))
    }
}

/// The files of the play.
struct Stage {
    folder: PathBuf,
    plan: PathBuf,
    secret: PathBuf,
    evaluation: PathBuf,
    public: PathBuf,
}

/// Size of a file, for people.
fn size(path: &Path) -> String {
    std::fs::metadata(path).map_or("?".into(), |m| format::bytes(m.len()))
}

impl Stage {
    fn new(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name);
        Stage {
            folder: folder.to_owned(),
            plan: at("model.plan"),
            secret: at("secret.key"),
            evaluation: at("eval.keys"),
            public: at("public.key"),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(name);
        files::write(&path, Access::Public, |out| Ok(out.write_all(bytes)?))?;
        Ok(path)
    }

    /// Compiles the network.
    fn model_owner(&self, model: Model) -> Result<Graph> {
        let (name, bytes) = model.file();
        let onnx = self.put(&format!("{name}.onnx"), bytes)?;
        let calibration = self.put("calibration.npy", CALIBRATION)?;
        print(&format!("THE MODEL OWNER has a trained network, {name}.onnx ({}).\n", size(&onnx)))?;
        let start = Instant::now();
        let graph = compile::load(&onnx)?;
        let compiled = compile::Settings::calibrated(calibration).compile(&graph, &onnx, &mut |_| {})?;
        files::write(&self.plan, Access::Public, |out| Ok(compiled.plan.write_to(out)?))?;
        let (p, r) = (&compiled.plan.parameters, &compiled.plan.report);
        print(&format!(
            "  fhec compile: a plan of {} in {}. It fixes ring degree 2^{}, a modulus of {:.0} bits,\n\
             \x20 {:.0}-bit security, and predicts {} a picture on one thread and {:.0} bits of precision.\n\n",
            size(&self.plan),
            seconds(start.elapsed().as_secs_f64()),
            p.log_n,
            p.log_qp(),
            r.security_bits,
            seconds(r.seconds),
            r.output_bits
        ))?;
        Ok(graph)
    }

    /// Makes the client's keys.
    fn client_keys(&self) -> Result<(PlanHead, keys::Client)> {
        let head = plan_file::open_head(&self.plan)?;
        let client = keys::Client::new(&head)?;
        let time = keygen::make(&client, [&self.secret, &self.evaluation, &self.public])?;
        print(&format!(
            "THE CLIENT has the plan and makes keys for it.\n\
             \x20 fhec keygen: in {}, a secret key ({}) that never leaves the client,\n\
             \x20 and evaluation keys ({}) for the server, which decrypt nothing.\n\n",
            seconds(time),
            size(&self.secret),
            size(&self.evaluation)
        ))?;
        Ok((head, client))
    }

    /// Starts the server.
    fn server(&self) -> Result<Job> {
        let start = Instant::now();
        let plan = Arc::new(plan_file::open(&self.plan)?);
        let job = Job::open(plan, &self.evaluation, DIGITS.len(), memory::allowance(None))?;
        print(&format!(
            "THE SERVER has the plan and the evaluation keys, read and checked in {}.\n\
             \x20 It runs on {}.\n",
            seconds(start.elapsed().as_secs_f64()),
            format::count(rayon::current_num_threads(), "thread")
        ))?;
        Ok(job)
    }

    /// One digit from picture to class. Returns whether it is right.
    fn classify(&self, index: usize, graph: &Graph, head: &PlanHead, client: &keys::Client, job: &Job) -> Result<bool> {
        let name = format!("{index:02}");
        let picture = self.put(&format!("{name}.png"), DIGITS[index])?;
        let (encrypted, result) = (self.folder.join(format!("{name}.ct")), self.folder.join(format!("{name}.out.ct")));
        let specs = plan_file::specs(&head.inputs);
        let values = load_inputs(&[picture.display().to_string()], None, &specs)?;
        let width = head.inputs.first().and_then(|i| i.shape.last()).copied().unwrap_or(28);
        let colour = std::io::stdout().is_terminal();
        print(&format!("\nThe client has a picture:\n{}", draw(&values[0], width, colour)))?;

        let start = Instant::now();
        let secret = client.secret_key(&self.secret)?;
        let bundle = client.encrypt(std::slice::from_ref(&values), EncryptionKey::Secret(&secret))?;
        files::write(&encrypted, Access::Public, |out| client.write_ciphertexts(&bundle, out))?;
        print(&format!("  fhec encrypt: {} in {}\n", size(&encrypted), seconds(start.elapsed().as_secs_f64())))?;

        print(&format!("The server sees instead:\n{}", draw(&noise(&encrypted)?, width, colour)))?;
        let trace = job.run(&encrypted, &result)?;
        print(&format!(
            "  fhec run: the network on the ciphertext in {}, an encrypted result of {}\n",
            seconds(trace.total.as_secs_f64()),
            size(&result)
        ))?;

        let output = &head.outputs[0];
        let logits = results::finish(output, client.decrypt(&secret, &result, 0)?.concat(), false);
        let clear = Interpreter::new(graph)?.run(&compile::tensors(&specs, values)?)?;
        let best = results::largest(&logits, 2);
        let label = LABELS.lines().nth(index).unwrap_or("?").trim();
        let worst = logits.iter().zip(clear[0].values()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let right = best[0].to_string() == label;
        print(&format!(
            "The client decrypts: it is a {} ({:.3}; next {} with {:.3}). The label says {label}{}\n\
             \x20 The same network in the clear gives logits that differ by at most {}.\n",
            best[0],
            logits[best[0]],
            best[1],
            logits[best[1]],
            if right { "." } else { ", so the network is wrong." },
            format::small(worst)
        ))?;
        Ok(right)
    }
}

/// What a ciphertext looks like: bytes from its middle as a picture.
fn noise(path: &Path) -> Result<Vec<f64>> {
    let bytes = files::read(path)?;
    let from = bytes.len() / 2;
    Ok(bytes[from..].iter().take(784).map(|&b| f64::from(b) / 255.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_digits_gives_different_ones() {
        for digits in 1..=20 {
            let demo = Demo { model: Model::Lola, digits, keep: None, threads: None };
            let mut chosen: Vec<usize> = demo.chosen().collect();
            chosen.dedup();
            assert_eq!(chosen.len(), usize::from(digits));
            assert!(chosen.iter().all(|&i| i < DIGITS.len()));
        }
    }
}
