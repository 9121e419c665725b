//! Results of layers, kept as files of ciphertexts for whoever holds the key to look at.

use crate::files::{self, Access};
use anyhow::{Context, Result};
use fhec_ckks::container::write_ciphertexts;
use fhec_plan::Reg;
use fhec_plan::verify::Verified;
use fhec_runtime::{Evaluation, Held};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file with the result of a layer.
pub(crate) fn file_name(layer: usize) -> String {
    format!("layer-{layer:04}.ct")
}

/// The register that holds the result of each layer; layers of which the plan does not say are left out.
pub(crate) fn results(verified: &Verified) -> BTreeMap<Reg, usize> {
    let layers = verified.plan().report.layers.iter().take(verified.plan().layers.len()).enumerate();
    layers
        .filter_map(|(layer, report)| Some((report.value.as_ref()?.reg, layer)))
        .filter(|(reg, _)| verified.facts().register(*reg).is_some())
        .collect()
}

/// A folder that collects results.
pub(super) struct Values {
    folder: PathBuf,
    wanted: BTreeMap<Reg, usize>,
}

impl Values {
    /// Makes the folder.
    pub(super) fn create(folder: &Path, verified: &Verified) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Values { folder: folder.to_owned(), wanted: results(verified) })
    }

    /// Keeps what an instruction wrote, if that is the result of a layer.
    pub(super) fn keep(&self, verified: &Verified, number: usize, evaluation: &mut Evaluation<'_>) -> Result<()> {
        let reg = verified.plan().instructions[number].dst;
        let Some(&layer) = self.wanted.get(&reg) else { return Ok(()) };
        let path = self.folder.join(file_name(layer));
        let context = evaluation.context();
        let written = evaluation.lend(Held::Register(reg), |bundle| {
            files::write(&path, Access::Public, |out| Ok(write_ciphertexts(bundle, &context, verified.hash(), out)?))
        });
        written.unwrap_or(Ok(()))
    }
}
