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
