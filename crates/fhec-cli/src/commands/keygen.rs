//! `fhec keygen`: the keys for a plan.

use crate::files::{Access, stage, status};
use crate::format;
use crate::progress::Progress;
use crate::{keys, plan_file};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `fhec keygen`.
#[derive(Args)]
#[command(after_help = "Example:
  fhec keygen mnist.plan -o keys

Makes three files: secret.key decrypts and stays with the client, only its owner can read it;
eval.keys is for the server; public.key lets others encrypt for the client.")]
pub(crate) struct Keygen {
    /// The plan
    plan: PathBuf,
    /// The folder for the keys; made if need be
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Overwrite a secret key that is there already
    #[arg(long)]
    force: bool,
}

impl Keygen {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let head = plan_file::open_head(&self.plan)?;
        let client = keys::Client::new(&head)?;
        let [secret, evaluation, public] = ["secret.key", "eval.keys", "public.key"].map(|f| self.output.join(f));
        ensure!(
            self.force || !secret.exists(),
            "{} is there already; without it nothing encrypted with it can be read. --force overwrites it",
            secret.display()
        );
        std::fs::create_dir_all(&self.output).with_context(|| format!("cannot make {}", self.output.display()))?;
        status(&format!(
            "making keys: {} of evaluation keys, {} security",
            format::bytes(client.evaluation_key_bytes()?),
            head.parameters.security.map_or("no".into(), |s| format!("{}-bit", s.bits()))
        ));
        let seconds = make(&client, [&secret, &evaluation, &public])?;
        for (path, what) in [
            (&secret, "secret key: keep it, show it to nobody"),
            (&evaluation, "evaluation keys: for the server"),
            (&public, "public key: for whoever may encrypt"),
        ] {
            let size = std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
            status(&format!("{}  {}  {what}", path.display(), format::bytes(size)));
        }
        status(&format!("done in {}", format::seconds(seconds)));
        Ok(())
    }
}

/// Makes secret, evaluation and public key; all three files are complete before the first is put in its place.
/// Returns the seconds it took.
pub(crate) fn make(client: &keys::Client, [secret, evaluation, public]: [&Path; 3]) -> Result<f64> {
    let progress = Progress::new("keys");
    let mut maker = client.generate()?;
    let staged = [
        stage(secret, Access::Secret, |out| maker.write_secret(out))?,
        stage(evaluation, Access::Public, |out| maker.write_evaluation(out, &|done, all| progress.set(done, all)))?,
        stage(public, Access::Public, |out| maker.write_public(out))?,
    ];
    let seconds = progress.elapsed().as_secs_f64();
    drop(progress);
    staged.into_iter().try_for_each(|file| file.commit())?;
    Ok(seconds)
}
