//! The operator cases of the ONNX project in the shared data: where they are, how their inputs are bound,
//! and how lists of expected refusals are kept.

use fhec_ir::Tensor;
use fhec_ir::nn::Graph;
use fhec_onnx::{DataType, ImportError, Model, Options, read_tensor_proto};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// `PREFIX_0.pb`, `PREFIX_1.pb`, … of a folder.
pub fn tensors(folder: &Path, prefix: &str) -> Vec<Tensor> {
    (0..)
        .map_while(|k| std::fs::read(folder.join(format!("{prefix}_{k}.pb"))).ok())
        .map(|bytes| read_tensor_proto(&bytes).expect("the test data is a tensor"))
        .collect()
}

/// `None` when all values agree, else the first that does not.
pub fn difference(expected: &[Tensor], got: &[Tensor], relative: f64, absolute: f64) -> Option<String> {
    if expected.len() != got.len() {
        return Some(format!("{} outputs instead of {}", got.len(), expected.len()));
    }
    for (k, (e, g)) in expected.iter().zip(got).enumerate() {
        if e.shape() != g.shape() {
            return Some(format!("output {k} has shape {:?} instead of {:?}", g.shape(), e.shape()));
        }
        for (i, (&e, &g)) in e.values().iter().zip(g.values()).enumerate() {
            let same = e == g || (e.is_nan() && g.is_nan()) || (e - g).abs() <= absolute + relative * e.abs();
            if !same {
                return Some(format!("output {k}, element {i}: {g} instead of {e}"));
            }
        }
    }
    None
}

/// All cases with their names, or `None` without the shared data.
pub fn cases() -> Option<Vec<(String, PathBuf)>> {
    let folders = |of: &Path| {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(of).expect("readable").map(|e| e.expect("readable").path()).collect();
        found.retain(|p| p.is_dir());
        found.sort();
        found
    };
    let name = |case: &Path| case.file_name().and_then(|n| n.to_str()).expect("UTF-8").to_owned();
    let root = crate::shared("onnx-node")?;
    Some(folders(&root).iter().flat_map(|source| folders(source)).map(|case| (name(&case), case)).collect())
}

/// One way of importing a case.
pub struct Way {
    /// The graph, or why there is none.
    pub graph: Result<Graph, ImportError>,
    /// The data of the graph's inputs.
    pub inputs: Vec<Tensor>,
}

/// A case with the first input as data and the others bound, and, where that differs, with all
/// floating-point inputs as data; and the expected outputs.
///
/// # Errors
/// When the model cannot be read at all.
pub fn ways(folder: &Path) -> Result<(Vec<Way>, Vec<Tensor>), ImportError> {
    let model = Model::load(folder.join("model.onnx"))?;
    let data = folder.join("test_data_set_0");
    let (inputs, expected) = (tensors(&data, "input"), tensors(&data, "output"));
    let infos = model.inputs();
    let real: Vec<usize> = (0..infos.len()).filter(|&k| infos[k].dtype.is_some_and(DataType::is_float)).collect();
    let choices = match real.len() {
        0 | 1 => vec![real],
        _ => vec![vec![real[0]], real],
    };
    let way = |choice: Vec<usize>| {
        let mut options = Options::default();
        for (k, tensor) in inputs.iter().enumerate().filter(|(k, _)| !choice.contains(k)) {
            options.bind.insert(infos[k].name.clone(), tensor.clone());
        }
        let graph = model.import(&options);
        // Inputs that nothing uses are not among the graph's.
        let named: BTreeMap<&str, &Tensor> = choice.iter().map(|&k| (infos[k].name.as_str(), &inputs[k])).collect();
        let used = |g: &Graph| {
            g.inputs().iter().map(|&v| named[g.node(v).origin.names[0].as_str()].clone()).collect::<Vec<Tensor>>()
        };
        let inputs = graph.as_ref().map(used).unwrap_or_default();
        Way { graph, inputs }
    };
    Ok((choices.into_iter().map(way).collect(), expected))
}

/// What became of a case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The right result.
    Passed,
    /// Refused with a reason of one line.
    Refused(String),
    /// A wrong result, or no reason.
    Failed(String),
}

/// Outcomes held against a list.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases that passed.
    pub passed: usize,
    /// How many cases the list refuses for each kind of reason: its text up to the first colon.
    pub refused: BTreeMap<String, usize>,
    /// Everything that should make a test fail, one line each.
    pub complaints: String,
}

impl Tally {
    /// Number of refused cases.
    pub fn refusals(&self) -> usize {
        self.refused.values().sum()
    }
}

/// Holds outcomes against a list of at most `most` refused cases, lines `case: reason`; comments begin with `#`.
/// Complaints are a refusal that is not listed or listed with another reason, a listed case that passes or does not
/// exist, a list that grew, and every failure.
pub fn against_list(outcomes: &[(String, Outcome)], list: &str, most: usize) -> Tally {
    let listed: BTreeMap<&str, &str> = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(": ").expect("'case: reason'"))
        .collect();
    let mut tally = Tally::default();
    let mut complain = |line: String| writeln!(tally.complaints, "{line}").expect("strings take all");
    if listed.len() > most {
        complain(format!("the list grew from {most} to {} cases: it may only shrink", listed.len()));
    }
    for (name, outcome) in outcomes {
        match (outcome, listed.get(name.as_str())) {
            (Outcome::Passed, None) => tally.passed += 1,
            (Outcome::Refused(now), Some(reason)) if now != reason => {
                complain(format!("{name} is listed with another reason than: {now}"));
            }
            (Outcome::Refused(_), Some(reason)) => {
                let kind = reason.split(": ").next().unwrap_or_default();
                *tally.refused.entry(kind.to_owned()).or_default() += 1;
            }
            (Outcome::Passed, Some(_)) => complain(format!("{name} passes: remove it from the list")),
            (Outcome::Refused(reason), None) => complain(format!("newly refused: {name}: {reason}")),
            (Outcome::Failed(reason), _) => complain(format!("failed: {name}: {reason}")),
        }
    }
    for name in listed.keys().filter(|name| !outcomes.iter().any(|(s, _)| s == *name)) {
        complain(format!("no such case: {name}"));
    }
    tally
}
