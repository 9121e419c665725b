//! Each value once: equal operations on equal operands are merged, tables lose their repeats, and what no
//! output needs is dropped.

use fhec_ir::he::{Graph, Node, Op, Output, ValueId};
use fhec_ir::{Tensor, he};
use fhec_plan::{MatrixId, Nest, PolyId, TensorId, VectorId};

/// Merges equal values and removes dead ones.
pub fn common_subexpressions(graph: &Graph) -> Graph {
    let live = live(graph);
    let (name, slots, complex) = (graph.name.clone(), graph.slots, graph.complex);
    let mut out = Graph { name, slots, complex, inputs: graph.inputs.clone(), ..Graph::default() };
    let mut tables = Tables { old: graph, tensors: vec![], matrices: vec![], vectors: vec![], polynomials: vec![] };
    let mut map: Vec<Option<ValueId>> = vec![None; graph.nodes.len()];
    for id in graph.ids().filter(|id| live[id.index()]) {
        let node = graph.node(id);
        let inputs = node.inputs.iter().map(|v| map[v.index()].expect("operands of live values are live")).collect();
        let node = Node { op: tables.op(&node.op, &mut out), inputs, ..node.clone() };
        let same = |other: &Node| other.op == node.op && other.inputs == node.inputs && other.layout == node.layout;
        let known = out.ids().find(|&other| same(out.node(other)));
        map[id.index()] = Some(match known {
            Some(other) => {
                let joined = out.node(other).origin.join(&node.origin);
                out.nodes[other.index()].origin = joined;
                other
            }
            None => out.push(node),
        });
    }
    let value = |v: ValueId| map[v.index()].expect("outputs are live");
    out.outputs = graph.outputs.iter().map(|o| Output { value: value(o.value), ..o.clone() }).collect();
    out
}

/// What outputs depend on; inputs always count, they are part of the signature.
fn live(graph: &Graph) -> Vec<bool> {
    let mut live: Vec<bool> = graph.nodes.iter().map(|n| matches!(n.op, Op::Input(_))).collect();
    for o in &graph.outputs {
        live[o.value.index()] = true;
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

/// Old table entries with their new numbers; the new tables have no two equal entries.
struct Tables<'a> {
    old: &'a he::Graph,
    tensors: Vec<(TensorId, TensorId)>,
    matrices: Vec<(MatrixId, MatrixId)>,
    vectors: Vec<(VectorId, VectorId)>,
    polynomials: Vec<(PolyId, PolyId)>,
}

/// The number of `entry` in `table`, appended when it is new.
fn intern<T: PartialEq>(table: &mut Vec<T>, entry: T) -> u32 {
    let at = table.iter().position(|e| *e == entry).unwrap_or_else(|| {
        table.push(entry);
        table.len() - 1
    });
    at as u32
}

/// Looks up or makes the new number of an old one.
fn renumber<K: Copy + PartialEq>(known: &mut Vec<(K, K)>, old: K, make: impl FnOnce() -> K) -> K {
    if let Some((_, new)) = known.iter().find(|(o, _)| *o == old) {
        return *new;
    }
    let new = make();
    known.push((old, new));
    new
}

impl Tables<'_> {
    fn nests(&mut self, nests: &[Nest], out: &mut Graph) -> Vec<Nest> {
        let old = self.old;
        let tensors = &mut self.tensors;
        let mut tensor = |t: TensorId| {
            let values: &Tensor = &old.tensors[t.index()];
            renumber(tensors, t, || TensorId(intern(&mut out.tensors, values.clone())))
        };
        nests.iter().map(|n| Nest { tensor: n.tensor.map(&mut tensor), ..n.clone() }).collect()
    }

    fn vector(&mut self, id: VectorId, out: &mut Graph) -> VectorId {
        if let Some((_, new)) = self.vectors.iter().find(|(o, _)| *o == id) {
            return *new;
        }
        let mut vector = self.old.vectors[id.index()].clone();
        vector.nests = self.nests(&vector.nests, out);
        let new = VectorId(intern(&mut out.vectors, vector));
        self.vectors.push((id, new));
        new
    }

    fn matrix(&mut self, id: MatrixId, out: &mut Graph) -> MatrixId {
        if let Some((_, new)) = self.matrices.iter().find(|(o, _)| *o == id) {
            return *new;
        }
        let mut matrix = self.old.matrices[id.index()].clone();
        matrix.nests = self.nests(&matrix.nests, out);
        let new = MatrixId(intern(&mut out.matrices, matrix));
        self.matrices.push((id, new));
        new
    }

    fn op(&mut self, op: &Op, out: &mut Graph) -> Op {
        let mut op = op.clone();
        match &mut op {
            Op::LinearMap { terms, bias, .. } => {
                for t in terms {
                    t.matrix = self.matrix(t.matrix, out);
                }
                if let Some(v) = bias {
                    *v = self.vector(*v, out);
                }
            }
            Op::Polynomial { poly, .. } => {
                let old = &self.old.polynomials[poly.index()];
                *poly = renumber(&mut self.polynomials, *poly, || PolyId(intern(&mut out.polynomials, old.clone())));
            }
            Op::MulVector { vector, .. } | Op::AddVector(vector) => *vector = self.vector(*vector, out),
            _ => {}
        }
        op
    }
}
