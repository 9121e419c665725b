//! Runs passes: verifies the graph after each, checks that the signature is unchanged, times it in a
//! tracing span, and shows it to whoever watches.

use crate::plan_bsgs::Counted;
use crate::stage::LastAnalysis;
use fhec_ir::{Diagnostics, he, nn};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A graph after a pass.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// A tensor graph.
    Nn(&'a nn::Graph),
    /// A ciphertext graph.
    He(&'a he::Graph),
}

impl View<'_> {
    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        match self {
            View::Nn(g) => g.nodes.len(),
            View::He(g) => g.nodes.len(),
        }
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            View::Nn(g) => g.fmt(f),
            View::He(g) => g.fmt(f),
        }
    }
}

/// One pass that has run.
#[derive(Clone, Copy, Debug)]
pub struct PassRun<'a> {
    /// Name of the pass.
    pub pass: &'static str,
    /// log2 of the ring degree being tried; `None` for passes on the tensor graph.
    pub log_n: Option<u32>,
    /// Nodes before.
    pub nodes_before: usize,
    /// The graph afterwards.
    pub graph: View<'a>,
    /// Time taken, verification included.
    pub time: Duration,
}

/// A pass broke the graph: a bug of the compiler, named.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// The pass.
    pub pass: &'static str,
    /// What is wrong now.
    pub problem: Problem,
}

/// What a pass broke.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// Invariants of the graph.
    Invariants(Diagnostics),
    /// Names or shapes of inputs and outputs.
    Signature,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "internal error: pass '{}' ", self.pass)?;
        match &self.problem {
            Problem::Invariants(d) => write!(f, "broke the graph: {d}"),
            Problem::Signature => f.write_str("changed the network's inputs or outputs"),
        }
    }
}

/// Runs passes and reports each to a watcher.
pub struct Driver<'a> {
    watch: &'a mut dyn FnMut(PassRun<'_>),
    log_n: Option<u32>,
    /// What was found out about the last graph.
    pub(crate) analysed: LastAnalysis,
    /// Steps of linear maps in this ring.
    pub(crate) counted: Arc<Counted>,
}

impl fmt::Debug for Driver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("log_n", &self.log_n).finish_non_exhaustive()
    }
}

/// What a driver needs to know of a kind of graph.
trait Checked {
    fn check(&self) -> Result<(), Diagnostics>;
    /// Names and shapes of inputs and outputs.
    fn signature(&self) -> Vec<(String, Vec<usize>)>;
    fn view(&self) -> View<'_>;
}

impl Checked for nn::Graph {
    fn check(&self) -> Result<(), Diagnostics> {
        nn::verify(self)
    }

    fn signature(&self) -> Vec<(String, Vec<usize>)> {
        let inputs = self.inputs().into_iter().map(|v| {
            let node = self.node(v);
            let name = if let nn::Op::Input { name } = &node.op { name.clone() } else { String::new() };
            (name, node.shape.clone())
        });
        let outputs = self.outputs.iter().map(|o| (o.name.clone(), self.node(o.value).shape.clone()));
        inputs.chain(outputs).collect()
    }

    fn view(&self) -> View<'_> {
        View::Nn(self)
    }
}

impl Checked for he::Graph {
    fn check(&self) -> Result<(), Diagnostics> {
        he::verify(self)
    }

    fn signature(&self) -> Vec<(String, Vec<usize>)> {
        let inputs = self.inputs.iter().map(|i| (i.name.clone(), i.shape.clone()));
        inputs.chain(self.outputs.iter().map(|o| (o.name.clone(), o.shape.clone()))).collect()
    }

    fn view(&self) -> View<'_> {
        View::He(self)
    }
}

impl<'a> Driver<'a> {
    /// A driver that shows every pass to `watch`.
    pub fn new(watch: &'a mut dyn FnMut(PassRun<'_>)) -> Self {
        Driver { watch, log_n: None, analysed: LastAnalysis::default(), counted: Arc::default() }
    }

    /// From now on passes run for ring degree 2^log_n.
    pub fn for_ring(&mut self, log_n: u32) {
        if self.log_n.replace(log_n) != Some(log_n) {
            self.counted = Arc::default();
        }
    }

    /// Runs a pass on the tensor graph.
    ///
    /// # Errors
    /// When it broke the graph.
    pub fn nn(
        &mut self,
        pass: &'static str,
        graph: &nn::Graph,
        f: impl FnOnce(&nn::Graph) -> nn::Graph,
    ) -> Result<nn::Graph, Broken> {
        self.run(pass, graph, |g| Ok(f(g)))
    }

    /// Runs a pass on the ciphertext graph.
    ///
    /// # Errors
    /// When it broke the graph.
    pub fn he(
        &mut self,
        pass: &'static str,
        graph: &he::Graph,
        f: impl FnOnce(&he::Graph) -> he::Graph,
    ) -> Result<he::Graph, Broken> {
        self.run(pass, graph, |g| Ok(f(g)))
    }

    /// Runs a pass on the tensor graph that may refuse it.
    ///
    /// # Errors
    /// The refusal, or that the pass broke the graph.
    pub fn try_nn<E: From<Broken>>(
        &mut self,
        pass: &'static str,
        graph: &nn::Graph,
        f: impl FnOnce(&nn::Graph) -> Result<nn::Graph, E>,
    ) -> Result<nn::Graph, E> {
        self.run(pass, graph, f)
    }

    /// Runs the pass that turns one graph into the other.
    ///
    /// # Errors
    /// The refusal, or that the result is broken.
    pub fn lower<E: From<Broken>>(
        &mut self,
        pass: &'static str,
        graph: &nn::Graph,
        f: impl FnOnce(&nn::Graph) -> Result<he::Graph, E>,
    ) -> Result<he::Graph, E> {
        self.run(pass, graph, f)
    }

    fn run<A: Checked, B: Checked, E: From<Broken>>(
        &mut self,
        pass: &'static str,
        before: &A,
        f: impl FnOnce(&A) -> Result<B, E>,
    ) -> Result<B, E> {
        let span = tracing::info_span!("pass", name = pass, log_n = self.log_n, before = before.view().nodes());
        let _entered = span.enter();
        let start = Instant::now();
        let after = f(before)?;
        let broken = |problem| E::from(Broken { pass, problem });
        after.check().map_err(|d| broken(Problem::Invariants(d)))?;
        if before.signature() != after.signature() {
            return Err(broken(Problem::Signature));
        }
        let (graph, time) = (after.view(), start.elapsed());
        tracing::debug!(after = graph.nodes(), seconds = time.as_secs_f64(), "done");
        (self.watch)(PassRun { pass, log_n: self.log_n, nodes_before: before.view().nodes(), graph, time });
        Ok(after)
    }
}
