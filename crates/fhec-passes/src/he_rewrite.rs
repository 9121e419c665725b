//! Rebuilding a ciphertext graph node by node: the skeleton of every pass that inserts nodes.

use fhec_ir::he::{Graph, Node, Op, Output, ValueId};

/// A graph being rebuilt from an old one.
pub(crate) struct Rebuild<'a> {
    old: &'a Graph,
    new: Graph,
    map: Vec<ValueId>,
}

impl<'a> Rebuild<'a> {
    /// Calls `f` for every node of `old` in order; `f` returns the new value that stands for it. Afterwards
    /// outputs are mapped by `finish`, which may append nodes too.
    pub(crate) fn run(
        old: &'a Graph,
        mut f: impl FnMut(&mut Self, ValueId) -> ValueId,
        mut finish: impl FnMut(&mut Self, ValueId) -> ValueId,
    ) -> Graph {
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
        let mut this = Rebuild { old, new, map: Vec::with_capacity(old.nodes.len()) };
        for id in old.ids() {
            let made = f(&mut this, id);
            this.map.push(made);
        }
        let outputs = old.outputs.iter().map(|o| Output { value: finish(&mut this, o.value), ..o.clone() }).collect();
        this.new.outputs = outputs;
        this.new
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
        let node = Node { inputs, ..self.old.node(id).clone() };
        self.new.push(node)
    }

    /// Appends an operation on a new value that keeps layout, range and origin.
    pub(crate) fn derive(&mut self, op: Op, of: ValueId) -> ValueId {
        let node = Node { op, inputs: vec![of], ..self.new.node(of).clone() };
        self.new.push(node)
    }
}
