//! Rebuilding a ciphertext graph node by node: the skeleton of every pass that inserts nodes.

use fhec_ir::he::{Graph, Node, Op, Output, ValueId};
use fhec_ir::nn::Range;

/// A graph being rebuilt from an old one.
pub(crate) struct Rebuild<'a> {
    old: &'a Graph,
    new: Graph,
    map: Vec<ValueId>,
    /// The old value that each new node holds, shifted perhaps.
    before: Vec<ValueId>,
}

impl<'a> Rebuild<'a> {
    /// Calls `f` for every node of `old` in order; `f` returns the new value that stands for it. Afterwards
    /// outputs are mapped by `finish`, which may append nodes too.
    pub(crate) fn run(
        old: &'a Graph,
        f: impl FnMut(&mut Self, ValueId) -> ValueId,
        finish: impl FnMut(&mut Self, ValueId) -> ValueId,
    ) -> Graph {
        Self::run_tracing(old, f, finish).0
    }

    /// The same; also which old value each new node holds.
    pub(crate) fn run_tracing(
        old: &'a Graph,
        mut f: impl FnMut(&mut Self, ValueId) -> ValueId,
        mut finish: impl FnMut(&mut Self, ValueId) -> ValueId,
    ) -> (Graph, Vec<ValueId>) {
        let new = Graph {
            name: old.name.clone(),
            slots: old.slots,
            complex: old.complex,
            nodes: Vec::with_capacity(old.nodes.len()),
            inputs: old.inputs.clone(),
            outputs: Vec::new(),
            matrices: old.matrices.clone(),
            vectors: old.vectors.clone(),
            polynomials: old.polynomials.clone(),
            tensors: old.tensors.clone(),
        };
        let mut this = Rebuild { old, new, map: Vec::with_capacity(old.nodes.len()), before: Vec::new() };
        for id in old.ids() {
            let made = f(&mut this, id);
            this.map.push(made);
        }
        let outputs = old.outputs.iter().map(|o| Output { value: finish(&mut this, o.value), ..o.clone() }).collect();
        this.new.outputs = outputs;
        (this.new, this.before)
    }

    /// The old graph.
    pub(crate) fn old(&self) -> &'a Graph {
        self.old
    }

    /// The new value of an old one that has been visited.
    pub(crate) fn value(&self, old: ValueId) -> ValueId {
        self.map[old.index()]
    }

    /// Copies an old node with the given new operands.
    pub(crate) fn copy(&mut self, id: ValueId, inputs: Vec<ValueId>) -> ValueId {
        self.before.push(id);
        let node = Node { inputs, ..self.old.node(id).clone() };
        self.new.push(node)
    }

    /// Appends an operation on a new value that keeps layout, range and origin.
    pub(crate) fn derive(&mut self, op: Op, of: ValueId) -> ValueId {
        self.before.push(self.before[of.index()]);
        let node = Node { op, inputs: vec![of], ..self.new.node(of).clone() };
        self.new.push(node)
    }

    /// Appends the sum of a new value and a constant.
    pub(crate) fn shift(&mut self, of: ValueId, by: f64) -> ValueId {
        let shifted = self.derive(Op::AddScalar(by), of);
        let Range { lo, hi } = self.range(of);
        self.new.nodes[shifted.index()].range = Range { lo: lo + by, hi: hi + by };
        shifted
    }

    /// Range of a new value.
    pub(crate) fn range(&self, of: ValueId) -> Range {
        self.new.node(of).range
    }
}
