//! From a lowered ciphertext graph to a plan, for one ring degree: the back half of the pipeline.

use crate::bootstrapped::Chosen;
use crate::cost::CostTable;
use crate::emit::{Extras, emit};
use crate::levels::{self, Placed};
use crate::matrices::{self, MatrixInfo};
use crate::noise::{Model, Plans};
use crate::parameters::{Demands, Selected, Unfit, select, select_bootstrapped};
use crate::report::{self, report};
use crate::rescale::Adapters;
use crate::scales::{self, Symbolic};
use crate::sensitivity::{self, Sensitivity};
use crate::shape::Shape;
use crate::{compose, errors, relinearise, rescale, rotation_keys};
use fhec_ir::Tensor;
use fhec_ir::he::Graph;
use fhec_ir::he::facts::{Chain, FactError, Facts, derive};
use fhec_ir::nn::InputError;
use fhec_plan::{KeyManifest, Parameters, Plan, Preprocess};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is known of a graph wherever its levels and bootstraps are placed: neither changes a value.
#[derive(Clone, Debug)]
pub struct Analysis {
    pub(crate) matrices: Arc<Vec<MatrixInfo>>,
    pub(crate) plans: Plans,
    sensitivity: Arc<Sensitivity>,
}

impl Analysis {
    /// Analyses a graph.
    ///
    /// # Errors
    /// When a sample does not fit the inputs.
    pub fn new(graph: &Graph, samples: &[Vec<Tensor>]) -> Result<Self, InputError> {
        Self::without_samples(graph).with_samples(graph, samples)
    }

    /// What prices depend on, but not errors.
    pub(crate) fn without_samples(graph: &Graph) -> Self {
        let sensitivity = Arc::new(Sensitivity::unknown(graph.nodes.len()));
        Analysis { matrices: Arc::new(matrices::analyse(graph)), plans: Plans::of(graph), sensitivity }
    }

    /// The rest.
    ///
    /// # Errors
    /// When a sample does not fit the inputs.
    pub(crate) fn with_samples(self, graph: &Graph, samples: &[Vec<Tensor>]) -> Result<Self, InputError> {
        let sensitivity = Arc::new(sensitivity::analyse(graph, &self.matrices, samples)?);
        Ok(Analysis { sensitivity, ..self })
    }

    /// The same for the graph with bootstraps and level drops.
    #[must_use]
    pub fn placed(&self, placed: &Placed) -> Self {
        Analysis { sensitivity: Arc::new(self.sensitivity.placed(placed)), ..self.clone() }
    }
}

/// The analysis of the last graph before levels were placed. A graph whose ciphertexts hold one element each is the same for
/// every ring, and others may be bootstrapped in the same ring: they are not analysed again.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastAnalysis(Option<(Graph, Vec<Vec<Tensor>>, Analysis)>);

impl LastAnalysis {
    /// [`Analysis::new`].
    pub(crate) fn of(&mut self, graph: &Graph, samples: &[Vec<Tensor>]) -> Result<Analysis, InputError> {
        if let Some(known) = self.known(graph, samples) {
            return Ok(known);
        }
        self.0 = None;
        let graph = single(graph);
        let analysis = Analysis::new(&graph, samples)?;
        self.0 = Some((graph, samples.to_vec(), analysis.clone()));
        Ok(analysis)
    }

    /// Forgets a graph that no other ring can have: its analysis may be large.
    pub(crate) fn keep_single(&mut self) {
        self.0.take_if(|(graph, ..)| graph.slots != 1);
    }

    /// The analysis of this graph, if it was the last one.
    pub(crate) fn known(&self, graph: &Graph, samples: &[Vec<Tensor>]) -> Option<Analysis> {
        let (last, with, analysis) = self.0.as_ref()?;
        (*last == single(graph) && with == samples).then(|| analysis.clone())
    }
}

/// Values do not depend on how many images a slot holds.
fn single(graph: &Graph) -> Graph {
    Graph { complex: false, ..graph.clone() }
}

/// A graph with levels, and all that selection and emission need to know of it.
#[derive(Clone, Debug)]
pub struct Stage {
    placed: Placed,
    symbolic: Symbolic,
    analysis: Analysis,
}

/// A graph with levels and scales, its facts, and its plan.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The plan.
    pub plan: Plan,
    /// The graph that it was emitted from.
    pub graph: Graph,
    /// Its facts.
    pub facts: Facts,
}

impl Stage {
    /// Analyses a placed graph.
    ///
    /// # Errors
    /// When a sample does not fit the inputs.
    ///
    /// # Panics
    /// When scales cannot be chosen; [`scales::adapters`] sees to it that they can.
    pub fn new(placed: Placed, samples: &[Vec<Tensor>]) -> Result<Self, InputError> {
        let analysis = Analysis::new(&placed.graph, samples)?;
        Ok(Self::analysed(placed, analysis))
    }

    /// The same for a graph that was analysed before.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn analysed(placed: Placed, analysis: Analysis) -> Self {
        let symbolic = scales::solve(&placed).expect("adapters make every sum solvable");
        Stage { placed, symbolic, analysis }
    }

    /// The same with other baby-step counts, on which no analysis depends.
    #[must_use]
    pub fn with_babies(&self, graph: Graph) -> Self {
        Stage { placed: Placed { graph, ..self.placed.clone() }, ..self.clone() }
    }

    /// The graph with its levels.
    pub fn placed(&self) -> &Placed {
        &self.placed
    }

    fn model(&self) -> Model<'_> {
        let Analysis { matrices, plans, sensitivity } = &self.analysis;
        Model::new(&self.placed.graph, &self.placed.levels, matrices, sensitivity, plans)
    }

    /// The cheapest parameters of ring degree 2^log_n, and the keys needed.
    ///
    /// # Errors
    /// Why there are none.
    pub fn select(&self, log_n: u32, demands: &Demands, table: &CostTable) -> Result<(Selected, KeyManifest), Unfit> {
        let model = self.model();
        let keys = rotation_keys::manifest(&model, log_n);
        let attempt = |model: &Model<'_>, keys: &KeyManifest| {
            select(&self.placed, &self.symbolic, model, keys, log_n, demands, table)
        };
        compose::fitted(&model, keys, (log_n, &BTreeSet::new()), attempt)
    }

    /// Parameters for the chain that bootstraps were placed for, and the keys needed.
    ///
    /// # Errors
    /// Why there are none; precision is not looked at.
    pub fn select_bootstrapped(
        &self,
        chosen: &Chosen,
        demands: &Demands,
        table: &CostTable,
    ) -> Result<(Selected, KeyManifest), Unfit> {
        let model = self.model();
        select_bootstrapped(&self.placed, &self.symbolic, &model, chosen, demands, table)
    }

    /// Standard deviation of the error of every value, predicted on some samples.
    ///
    /// # Errors
    /// When a sample does not fit the inputs.
    pub fn errors(
        &self,
        selected: &Selected,
        keys: &KeyManifest,
        samples: &[Vec<Tensor>],
    ) -> Result<Vec<f64>, InputError> {
        let shape = Shape::of(&selected.parameters);
        let scales = self.symbolic.log2_scales(&selected.exponents, &shape.log2_q);
        let injections = self.model().composing(keys).injections(&shape, &scales);
        errors::carried(&self.placed.graph, &self.analysis.matrices, samples, &injections)
    }

    /// The plan.
    ///
    /// # Errors
    /// When the scales contradict each other or a value overflows: a bug of this crate, reported all the same.
    pub fn emit(
        &self,
        selected: &Selected,
        keys: KeyManifest,
        table: &CostTable,
        context: &report::Context,
        preprocess: Vec<Option<Preprocess>>,
    ) -> Result<Emitted, Box<FactError>> {
        let (graph, inputs) = self.symbolic.apply(&self.placed, &selected.exponents, &selected.parameters.q);
        let Parameters { q, bootstrap, .. } = &selected.parameters;
        let facts = derive(&graph, Chain { q, bootstrap: bootstrap.as_ref() }, &inputs)?;
        let report = report(&self.model().composing(&keys), selected, &keys, table, context);
        let extras = Extras {
            parameters: selected.parameters.clone(),
            keys,
            report,
            preprocess,
            output_errors: selected.prediction.outputs.clone(),
        };
        let plan = emit(&graph, &facts, extras);
        Ok(Emitted { plan, graph, facts })
    }
}

/// The passes between lowering and selection, without a driver: rescales, relinearisations, levels.
pub fn place(graph: &Graph) -> Placed {
    let adapters: Adapters = scales::adapters(graph);
    levels::run(&relinearise::run(&rescale::run(graph, &adapters)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_analysed_once() {
        let input = |name: &str| fhec_ir::he::Input {
            name: name.into(),
            shape: vec![2],
            factor: 1.0,
            range: fhec_ir::nn::Range { lo: -1.0, hi: 1.0 },
        };
        let graph = Graph { slots: 1, inputs: vec![input("x")], ..Graph::default() };
        let sample = |v: f64| vec![vec![Tensor::new(vec![2], vec![v; 2])]];
        let mut last = LastAnalysis::default();
        let mut of = |graph: &Graph, v: f64| last.of(graph, &sample(v)).expect("the sample fits").matrices;
        let first = of(&graph, 0.5);
        assert!(Arc::ptr_eq(&first, &of(&Graph { complex: true, ..graph.clone() }, 0.5)));
        assert!(!Arc::ptr_eq(&first, &of(&graph, 0.25)), "another sample");
        let first = of(&graph, 0.5);
        assert!(!Arc::ptr_eq(&first, &of(&Graph { inputs: vec![input("z")], ..graph.clone() }, 0.5)), "another graph");
        assert!(!Arc::ptr_eq(&first, &of(&Graph { slots: 8, ..graph }, 0.5)), "more elements a ciphertext");
    }
}
