//! Rebuilding a tensor graph node by node: the one way in which nn passes change a graph.

use fhec_ir::nn::{ConstId, Graph, Node, Output, ValueId};

/// Builds the new graph while the old one is walked in order.
pub(crate) struct Rewriter<'a> {
    /// The graph being rewritten.
    pub(crate) old: &'a Graph,
    /// The graph being built; constants are those of the old one, so old constant ids stay valid.
    pub(crate) new: Graph,
    map: Vec<Option<ValueId>>,
}

impl<'a> Rewriter<'a> {
    /// Rewrites `old`: `f` is called for every live node in order and returns the new value that
    /// stands for it (often [`Rewriter::keep`]). Nodes that no output depends on are dropped, except
    /// inputs, which belong to the signature.
    pub(crate) fn run(old: &'a Graph, mut f: impl FnMut(&mut Self, ValueId) -> ValueId) -> Graph {
        let new = Graph { name: old.name.clone(), constants: old.constants.clone(), ..Graph::default() };
        let mut this = Rewriter { old, new, map: vec![None; old.nodes.len()] };
        let live = live(old);
        for id in old.ids().filter(|id| live[id.index()]) {
            let made = f(&mut this, id);
            this.map[id.index()] = Some(made);
        }
        this.new.outputs =
            old.outputs.iter().map(|o| Output { name: o.name.clone(), value: this.value(o.value) }).collect();
        drop_unused(this.new)
    }

    /// The new value of an old one.
    ///
    /// # Panics
    /// When `old` has not been visited; operands always have.
    pub(crate) fn value(&self, old: ValueId) -> ValueId {
        self.map[old.index()].expect("operands come before users")
    }

    /// Copies a node unchanged.
    pub(crate) fn keep(&mut self, id: ValueId) -> ValueId {
        let node = self.old.node(id).clone();
        let inputs = node.inputs.iter().map(|&v| self.value(v)).collect();
        self.add(Node { inputs, ..node })
    }

    /// Appends a node whose operands are new values.
    pub(crate) fn add(&mut self, node: Node) -> ValueId {
        self.new.nodes.push(node);
        ValueId(self.new.nodes.len() as u32 - 1)
    }
}

/// Which nodes the outputs depend on; inputs always count.
fn live(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.nodes.len()];
    for o in &graph.outputs {
        live[o.value.index()] = true;
    }
    for v in graph.inputs() {
        live[v.index()] = true;
    }
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        if live[id.index()] {
            for v in &graph.node(id).inputs {
                live[v.index()] = true;
            }
        }
    }
    live
}

/// Dead-node and dead-constant elimination after a rewrite.
fn drop_unused(graph: Graph) -> Graph {
    let live = live(&graph);
    let mut at = vec![ValueId(0); graph.nodes.len()];
    let mut nodes = Vec::new();
    for (i, mut node) in graph.nodes.into_iter().enumerate() {
        if live[i] {
            for v in &mut node.inputs {
                *v = at[v.index()];
            }
            at[i] = ValueId(nodes.len() as u32);
            nodes.push(node);
        }
    }
    let outputs = graph.outputs.into_iter().map(|o| Output { value: at[o.value.index()], ..o }).collect();
    let mut graph = Graph { nodes, outputs, name: graph.name, constants: graph.constants };
    drop_constants(&mut graph);
    graph
}

/// Removes constants that no node uses and renumbers the rest in order of first use.
fn drop_constants(graph: &mut Graph) {
    let mut at = vec![None; graph.constants.len()];
    let mut constants = Vec::new();
    let old = std::mem::take(&mut graph.constants);
    for node in &mut graph.nodes {
        for c in node.op.constants_mut() {
            let id = *at[c.index()].get_or_insert_with(|| {
                constants.push(old[c.index()].clone());
                ConstId(constants.len() as u32 - 1)
            });
            *c = id;
        }
    }
    graph.constants = constants;
}
