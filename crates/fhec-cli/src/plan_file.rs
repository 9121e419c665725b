//! Opening plan files, with messages that name the file.

use crate::data::InputSpec;
use crate::files;
use anyhow::{Context, Result};
use fhec_plan::verify::{Insecure, Verified};
use fhec_plan::{Plan, PlanHead};
use std::path::Path;

/// Reads a whole plan, its weights memory-mapped, and verifies it.
pub(crate) fn open(path: &Path) -> Result<Verified> {
    let context = || path.display().to_string();
    let plan = Plan::read(files::map(path)?).with_context(context)?;
    Verified::new(plan, Insecure::Refuse).with_context(context)
}

/// Reads what a client needs: parameters, keys, inputs and outputs.
pub(crate) fn open_head(path: &Path) -> Result<PlanHead> {
    let file = files::map(path)?;
    head((*file).as_ref()).with_context(|| path.display().to_string())
}

/// [`open_head`] from memory.
pub(crate) fn head(file: &[u8]) -> Result<PlanHead> {
    let head = PlanHead::read(file)?;
    head.check(Insecure::Refuse)?;
    Ok(head)
}

/// Refuses what cannot be done at once.
pub(crate) fn in_one_round(rounds: u32) -> Result<()> {
    anyhow::ensure!(
        rounds == 1,
        "the plan is client-aided: it is evaluated in {rounds} rounds, with work for the client between them; use 'fhec serve' \
         and 'fhec infer'"
    );
    Ok(())
}

/// What the data loaders must know of a plan's inputs.
pub(crate) fn specs(inputs: &[fhec_plan::Input]) -> Vec<InputSpec> {
    let spec = |input: &fhec_plan::Input| InputSpec {
        name: input.name.clone(),
        shape: input.shape.clone(),
        preprocess: input.preprocess.clone(),
    };
    inputs.iter().map(spec).collect()
}

/// The first half of a hash: enough to tell two plans apart.
pub(crate) fn short_hash(hash: &[u8; 32]) -> String {
    hash[..8].iter().map(|b| format!("{b:02x}")).collect()
}

/// Says which values lie outside of the range that the plan was compiled for; `None` where none does.
pub(crate) fn outside_range(input: &fhec_plan::Input, values: &[f64]) -> Option<String> {
    let (lo, hi) = input.range;
    // The ranges of later layers have margins that cover a little more than calibration saw.
    let slack = 0.05 * (hi - lo).abs();
    let outside = values.iter().filter(|&&v| v < lo - slack || v > hi + slack).count();
    if outside == 0 {
        return None;
    }
    let (least, most) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), &v| (l.min(v), m.max(v)));
    Some(format!(
        "{outside} of {} values of input '{}' lie outside of {lo} … {hi}, for which the plan was compiled \
         (they reach from {least:.4} to {most:.4}); the result may be wrong",
        values.len(),
        input.name
    ))
}
