//! The structural verifier: what holds for every ciphertext graph, before and after levels are placed.
//!
//! * Operands come before users; every operation has its number of operands.
//! * Every id points into its table; tables of matrices and vectors agree with the layouts around them.
//! * Layouts have power-of-two periods that divide the slots, and no two elements share a slot.
//! * Sums and products have operands of one layout.
//! * The rows and weight indices of a nest stay inside the output and its tensor; its loops and guards fit.
//! * Outputs have as many elements as their shape.
//!
//! Levels, scales and degrees are facts of [`super::facts`].

use super::graph::{Graph, Node, Op};
use crate::{Diagnostic, Diagnostics, Tensor};
use fhec_plan::{Layout, Matrix, Nest, Offsets};

/// Checks the invariants of the module.
///
/// # Errors
/// All violations, each with the layer it belongs to.
pub fn verify(graph: &Graph) -> Result<(), Diagnostics> {
    let mut problems = Vec::new();
    for (number, node) in graph.nodes.iter().enumerate() {
        if let Err(message) = check(graph, number, node) {
            problems.push(Diagnostic {
                origin: node.origin.clone(),
                what: node.kind.clone(),
                message: format!("%{number}: {message}"),
                help: String::new(),
            });
        }
    }
    let mut table = |what: String, result: Result<(), String>| {
        if let Err(message) = result {
            let origin = crate::Origin::default();
            problems.push(Diagnostic { origin, what, message, help: String::new() });
        }
    };
    for (i, m) in graph.matrices.iter().enumerate() {
        table(format!("matrix {i}"), check_matrix(m, graph));
    }
    for (i, v) in graph.vectors.iter().enumerate() {
        let result = check_nests(&v.nests, v.ciphertexts, v.slots, v.period, &graph.tensors);
        table(format!("vector {i}"), result);
    }
    for output in &graph.outputs {
        table(format!("output {:?}", output.name), check_output(graph, output));
    }
    if problems.is_empty() { Ok(()) } else { Err(Diagnostics(problems)) }
}

fn check_output(graph: &Graph, output: &super::Output) -> Result<(), String> {
    let node = graph.nodes.get(output.value.index()).ok_or("is not a value of the graph")?;
    let elements: usize = output.shape.iter().product();
    if node.layout.elements() != elements {
        return Err(format!("has {elements} elements, its layout {}", node.layout.elements()));
    }
    Ok(())
}

fn check(graph: &Graph, number: usize, node: &Node) -> Result<(), String> {
    let operands = match &node.op {
        Op::Input(_) => 0,
        Op::LinearMap { terms, .. } => terms.len(),
        Op::Add | Op::Sub | Op::Mul => 2,
        _ => 1,
    };
    if node.inputs.len() != operands {
        return Err(format!("{} operands, {operands} expected", node.inputs.len()));
    }
    if let Some(late) = node.inputs.iter().find(|v| v.index() >= number) {
        return Err(format!("operand %{} does not come before its user", late.0));
    }
    check_layout(&node.layout, graph.slots)?;
    let layout = |i: usize| &graph.node(node.inputs[i]).layout;
    match &node.op {
        Op::Input(i) => {
            let input = graph.inputs.get(*i).ok_or_else(|| format!("there is no input {i}"))?;
            if node.layout.elements() != input.shape.iter().product::<usize>() {
                return Err("layout and shape of the input differ".into());
            }
        }
        Op::LinearMap { terms, bias, .. } => {
            if terms.is_empty() {
                return Err("a linear map needs an operand".into());
            }
            for (i, term) in terms.iter().enumerate() {
                let m = graph.matrices.get(term.matrix.index()).ok_or("no such matrix")?;
                let (from, to) = (layout(i), &node.layout);
                let input = (m.slots, m.in_ciphertexts, m.in_period) == (from.slots, from.ciphertexts, from.period);
                let output = (m.out_ciphertexts, m.out_period) == (to.ciphertexts, to.period);
                if !input || !output {
                    return Err(format!("matrix {} does not fit the layouts of operand and result", term.matrix));
                }
            }
            if let Some(v) = bias {
                check_vector(graph, *v, &node.layout)?;
            }
        }
        Op::AddVector(v) | Op::MulVector { vector: v, .. } => {
            same_layout(layout(0), &node.layout)?;
            check_vector(graph, *v, &node.layout)?;
        }
        Op::Add | Op::Sub | Op::Mul => {
            same_layout(layout(0), layout(1))?;
            same_layout(layout(0), &node.layout)?;
        }
        Op::Rotate(_) => {}
        Op::Polynomial { poly, .. } => {
            graph.polynomials.get(poly.index()).ok_or("no such polynomial")?;
            same_layout(layout(0), &node.layout)?;
        }
        _ => same_layout(layout(0), &node.layout)?,
    }
    let range = node.range;
    if range.lo.is_nan() || range.hi.is_nan() || range.lo > range.hi {
        return Err(format!("range [{}, {}] is empty", range.lo, range.hi));
    }
    Ok(())
}

/// Equality of everything but `clean`.
fn same_layout(a: &Layout, b: &Layout) -> Result<(), String> {
    let shape = |l: &Layout| (l.slots, l.ciphertexts, l.period);
    if shape(a) == shape(b) && a.dims == b.dims {
        Ok(())
    } else {
        Err(format!("layouts differ: {} and {}", a.describe(), b.describe()))
    }
}

fn check_layout(layout: &Layout, slots: usize) -> Result<(), String> {
    let Layout { period, ciphertexts, .. } = *layout;
    if layout.slots != slots || !slots.is_power_of_two() || !period.is_power_of_two() || period > slots {
        return Err(format!("layout {} does not fit {slots} slots", layout.describe()));
    }
    if ciphertexts == 0 || (ciphertexts > 1 && period != slots) {
        return Err(format!("layout {} of several ciphertexts has a period", layout.describe()));
    }
    for dim in &layout.dims {
        if let Offsets::Table(t) = &dim.offsets
            && t.len() != dim.extent
        {
            return Err(format!("a table of {} offsets for {} indices", t.len(), dim.extent));
        }
    }
    let mut used = vec![false; ciphertexts * slots];
    for at in layout.positions() {
        if at >= used.len() || at % slots >= period {
            return Err(format!("layout {} puts an element at slot {at}", layout.describe()));
        }
        if std::mem::replace(&mut used[at], true) {
            return Err(format!("layout {} puts two elements at slot {at}", layout.describe()));
        }
    }
    Ok(())
}

fn check_vector(graph: &Graph, id: fhec_plan::VectorId, layout: &Layout) -> Result<(), String> {
    let v = graph.vectors.get(id.index()).ok_or("no such vector")?;
    if (v.slots, v.ciphertexts, v.period) != (layout.slots, layout.ciphertexts, layout.period) {
        return Err(format!("vector {id} does not fit the layout {}", layout.describe()));
    }
    Ok(())
}

fn check_matrix(m: &Matrix, graph: &Graph) -> Result<(), String> {
    let single = |ciphertexts: usize, period: usize| ciphertexts == 1 || period == graph.slots;
    if m.slots != graph.slots || !single(m.in_ciphertexts, m.in_period) || !single(m.out_ciphertexts, m.out_period) {
        return Err("slots or periods do not fit the graph".into());
    }
    check_nests(&m.nests, m.out_ciphertexts, m.slots, m.out_period, &graph.tensors)
}

fn check_nests(
    nests: &[Nest],
    ciphertexts: usize,
    slots: usize,
    period: usize,
    tensors: &[Tensor],
) -> Result<(), String> {
    for (i, nest) in nests.iter().enumerate() {
        for dim in &nest.dims {
            for offsets in [&dim.row, &dim.col, &dim.weight] {
                if matches!(offsets, Offsets::Table(t) if t.len() != dim.extent) {
                    return Err(format!("nest {i}: table and extent of a loop differ"));
                }
            }
        }
        if nest.guards.iter().any(|g| g.coefficients.len() != nest.dims.len()) {
            return Err(format!("nest {i}: a guard does not have one coefficient per loop"));
        }
        let (low, high) = reach(nest, nest.row, |d| &d.row);
        // Guards may exclude points, so these bounds are checked only where there are none.
        if nest.guards.is_empty() {
            let last = ((ciphertexts - 1) * slots + period) as i64;
            if low < 0 || high >= last {
                return Err(format!("nest {i}: rows {low}…{high} leave the output"));
            }
        }
        if let Some(t) = nest.tensor {
            let tensor = tensors.get(t.index()).ok_or_else(|| format!("nest {i}: no tensor {t}"))?;
            let (low, high) = reach(nest, nest.weight, |d| &d.weight);
            if nest.guards.is_empty() && (low < 0 || high >= tensor.len() as i64) {
                return Err(format!("nest {i}: weights {low}…{high} of a tensor of {}", tensor.len()));
            }
        }
    }
    Ok(())
}

/// Least and greatest value of one of the three coordinates over all points of a nest.
fn reach(nest: &Nest, start: i64, of: impl Fn(&fhec_plan::NestDim) -> &Offsets) -> (i64, i64) {
    let (mut low, mut high) = (start, start);
    for dim in nest.dims.iter().filter(|d| d.extent > 0) {
        let at = (0..dim.extent).map(|i| of(dim).at(i));
        low += at.clone().min().unwrap_or(0);
        high += at.max().unwrap_or(0);
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use crate::he::{Input, LinearTerm, Output, ValueId};
    use crate::nn::Range;
    use fhec_plan::{LayoutDim, MatrixId, NestDim, TensorId, Vector, VectorId};

    /// Four inputs, a 2×4 matrix with bias, a square.
    fn graph() -> Graph {
        let mut g = Graph { slots: 8, ..Graph::default() };
        let range = Range { lo: -1.0, hi: 1.0 };
        let node = |op: Op, inputs: &[u32], layout: &Layout| Node {
            op,
            inputs: inputs.iter().map(|&i| ValueId(i)).collect(),
            layout: layout.clone(),
            range,
            origin: Origin::named("fc"),
            kind: "Dense".into(),
        };
        let (wide, narrow) = (Layout::dense(4, 8, 4), Layout::dense(2, 8, 2));
        let weights = g.tensor(Tensor::new(vec![2, 4], vec![0.5; 8]));
        let dim = |extent, row, col, weight| NestDim {
            extent,
            row: Offsets::Stride(row),
            col: Offsets::Stride(col),
            weight: Offsets::Stride(weight),
        };
        let dims = vec![dim(2, 1, 0, 4), dim(4, 0, 1, 1)];
        let nest = Nest { dims, row: 0, col: 0, weight: 0, tensor: Some(weights), factor: 1.0, guards: vec![] };
        let bias = Nest { dims: vec![dim(2, 1, 0, 0)], tensor: None, ..nest.clone() };
        let matrix = g.matrix(Matrix {
            slots: 8,
            in_ciphertexts: 1,
            in_period: 4,
            out_ciphertexts: 1,
            out_period: 2,
            nests: vec![nest],
        });
        let bias = Some(g.vector(Vector { slots: 8, ciphertexts: 1, period: 2, nests: vec![bias] }));
        g.inputs.push(Input { name: "x".into(), shape: vec![4], factor: 1.0, range });
        g.push(node(Op::Input(0), &[], &wide));
        let terms = vec![LinearTerm { matrix, baby: 0 }];
        g.push(node(Op::LinearMap { terms, bias, out_scale: None }, &[0], &narrow));
        g.push(node(Op::Mul, &[1, 1], &narrow));
        let (name, postprocess) = ("y".into(), vec![]);
        g.outputs.push(Output { name, shape: vec![2], value: ValueId(2), factor: 1.0, postprocess });
        g
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Graph), with: &str) {
        let mut g = graph();
        change(&mut g);
        let error = verify(&g).expect_err("the graph is broken").to_string();
        assert!(error.contains(with), "{error}");
    }

    #[test]
    fn a_sound_graph_passes() {
        verify(&graph()).expect("sound");
    }

    #[test]
    fn every_broken_invariant_is_named() {
        refused(|g| g.nodes[2].inputs = vec![ValueId(1), ValueId(2)], "operand %2 does not come before its user");
        refused(|g| g.nodes[2].inputs.truncate(1), "1 operands, 2 expected");
        refused(|g| g.nodes[2].inputs[1] = ValueId(0), "layouts differ");
        refused(|g| g.nodes[0].layout = Layout::dense(3, 8, 4), "layout and shape of the input differ");
        refused(|g| g.nodes[0].layout.period = 2, "puts an element at slot 2");
        refused(|g| g.nodes[0].layout.dims[0].offsets = Offsets::Stride(0), "two elements at slot 0");
        refused(|g| g.nodes[0].layout.slots = 16, "does not fit 8 slots");
        refused(
            |g| g.nodes[0].layout.dims = vec![LayoutDim { extent: 4, offsets: Offsets::Table(vec![0, 1]) }],
            "a table of 2 offsets for 4 indices",
        );
        refused(|g| g.nodes[1].range = Range { lo: 1.0, hi: -1.0 }, "range [1, -1] is empty");
        refused(|g| g.matrices[0].out_period = 4, "does not fit the layouts");
        refused(|g| g.matrices[0].nests[0].row = 1, "rows 1…2 leave the output");
        refused(|g| g.matrices[0].nests[0].weight = 1, "weights 1…8 of a tensor of 8");
        refused(|g| g.matrices[0].nests[0].tensor = Some(TensorId(5)), "no tensor 5");
        refused(|g| g.outputs[0].shape = vec![3], "has 3 elements, its layout 2");
        refused(|g| g.nodes[2].op = Op::AddVector(VectorId(3)), "2 operands, 1 expected");
        refused(
            |g| {
                let terms = vec![LinearTerm { matrix: MatrixId(7), baby: 0 }];
                g.nodes[1].op = Op::LinearMap { terms, bias: None, out_scale: None };
            },
            "no such matrix",
        );
    }
}
