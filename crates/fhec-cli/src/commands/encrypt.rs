//! `fhec encrypt`: an input to ciphertexts.

use crate::data::{Part, load_batch, load_inputs};
use crate::files::{self, Access, status};
use crate::{format, keys, plan_file};
use anyhow::{Result, ensure};
use clap::Args;
use fhec_runtime::EncryptionKey;
use std::path::PathBuf;

/// Arguments of `fhec encrypt`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec encrypt mnist.plan --secret-key keys/secret.key --input seven.png -o x.ct
  fhec encrypt mnist.plan --public-key keys/public.key --input x.npy -o x.ct
  fhec encrypt mnist.plan --secret-key keys/secret.key --input images.idx.gz --index 7 -o x.ct
  fhec encrypt resnet20.plan --public-key keys/public.key --input test_batch.bin.gz --index 7 -o x.ct
  fhec encrypt two.plan --public-key keys/public.key --input left=a.npy --input right=b.npy -o x.ct
  fhec encrypt batch.plan --secret-key keys/secret.key --input images.idx.gz --limit 4096 -o x.ct

A plan in throughput mode takes all images of the file at once, at most as many as it has slots; --skip
and --limit choose some of them.

Reads npy, npz, idx and CIFAR-10 files (also gzipped), PNG and JPEG. Pictures, idx and CIFAR-10
files and uint8 arrays are raw pixels and get the preprocessing that is stored in the plan; float
arrays are the network's values as they stand. With the secret key the ciphertext is half as large.")]
pub(crate) struct Encrypt {
    /// The plan
    plan: PathBuf,
    #[command(flatten)]
    key: Key,
    /// The input, or NAME=FILE once for each input of a model with several
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    input: Vec<String>,
    /// Which sample of a file that holds several, counted from 0
    #[arg(long, value_name = "N", conflicts_with_all = ["skip", "limit"])]
    index: Option<usize>,
    #[command(flatten)]
    part: Part,
    /// Where the ciphertext goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// The key to encrypt with.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Key {
    /// Encrypt with the secret key (half the size)
    #[arg(long, value_name = "FILE")]
    secret_key: Option<PathBuf>,
    /// Encrypt with the public key
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

impl Encrypt {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let head = plan_file::open_head(&self.plan)?;
        plan_file::in_one_round(head.rounds())?;
        let client = keys::Client::new(&head)?;
        let specs = plan_file::specs(&head.inputs);
        let images = if head.is_batched() && self.index.is_none() {
            load_batch(&self.input, &self.part, head.batch(), &specs)?
        } else {
            ensure!(!self.part.is_given(), "--skip and --limit are for plans in throughput mode; choose with --index");
            vec![load_inputs(&self.input, self.index, &specs)?]
        };
        for (i, input) in head.inputs.iter().enumerate() {
            let values: Vec<&[f64]> = images.iter().map(|image| &image[i][..]).collect();
            if let Some(warning) = plan_file::outside_range(input, &values.concat()) {
                files::warn(&warning);
            }
        }
        let write = |key| files::write(&self.output, Access::Public, |out| client.encrypt_to(&images, key, out));
        match (&self.key.secret_key, &self.key.public_key) {
            (Some(path), _) => write(EncryptionKey::Secret(&client.secret_key(path)?))?,
            (None, Some(path)) => write(EncryptionKey::Public(&client.public_key(path)?))?,
            // The argument parser demands one of the two.
            (None, None) => anyhow::bail!("neither --secret-key nor --public-key"),
        }
        let size = std::fs::metadata(&self.output).map(|m| m.len()).unwrap_or(0);
        let count =
            if head.is_batched() { format!("  {}", format::count(images.len(), "image")) } else { String::new() };
        status(&format!("{}  {}{count}", self.output.display(), format::bytes(size)));
        Ok(())
    }
}
