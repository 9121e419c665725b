//! Graph and plan in one form, a list of items: what is asked of the engine, one thing after the other.

use crate::noise::Model;
use fhec_ir::he::{Op, ValueId};
use fhec_math::chebyshev::ChebyshevPlan;
use fhec_plan::linear::LinearGroup;
use fhec_plan::verify::Verified;
use fhec_plan::{Diagonals, Matrix, Vector, bootstrap_slots};

/// What a node or an instruction asks of the engine.
pub(super) enum Work<'a> {
    /// Nothing: an input, an output, or something that another item does.
    Nothing,
    /// Groups of terms, and a bias.
    Linear(Vec<Group<'a>>, Option<&'a Vector>),
    Polynomial(&'a ChebyshevPlan),
    /// Sums and products with scalars of so many polynomials a ciphertext.
    Elementwise(usize),
    /// The same with an encoded vector.
    Vector(usize, &'a Vector),
    Multiply,
    /// Products of the parts of slots, with so many conjugations.
    MultiplyParts(usize),
    Rotate(i64),
    Relinearise,
    RelineariseRescale,
    Rescale,
    /// Bootstraps of 2^this slots.
    Bootstrap(u32),
}

/// Terms of a linear map that are evaluated together.
pub(super) struct Group<'a> {
    pub(super) group: &'a LinearGroup,
    /// The first matrix.
    pub(super) matrix: &'a Matrix,
    /// Where images share ciphertexts: products with weights that are not zero.
    pub(super) products: usize,
}

/// A node or an instruction.
pub(super) struct Item<'a> {
    pub(super) work: Work<'a>,
    /// Level of the operands.
    pub(super) level: usize,
    /// Level of the result.
    pub(super) result: usize,
    /// Ciphertexts of the result.
    pub(super) count: usize,
    /// Ciphertexts of the result that are ever in memory together.
    pub(super) kept: usize,
    /// The last item that reads the result.
    pub(super) last_use: usize,
    /// Whether the result is in memory before the evaluation begins.
    pub(super) given: bool,
}

/// How many operands must be conjugated for a product of parts: a square has one.
fn conjugations<T: PartialEq>(operands: &[T]) -> usize {
    1 + usize::from(operands.first() != operands.get(1))
}

/// What a node of a graph asks of the engine.
pub(super) fn work<'a>(model: &'a Model<'_>, id: ValueId) -> Work<'a> {
    let graph = model.graph();
    match &graph.node(id).op {
        Op::Input(_) => Work::Nothing,
        Op::LinearMap { terms, bias, .. } => {
            let group = |group: &'a LinearGroup| {
                let products = group.terms.iter().map(|&t| model.matrices()[terms[t].matrix.index()].products);
                let matrix = &graph.matrices[terms[group.terms[0]].matrix.index()];
                Group { group, matrix, products: products.sum() }
            };
            let groups = model.groups()[id.index()].iter().map(group);
            Work::Linear(groups.collect(), bias.map(|b| &graph.vectors[b.index()]))
        }
        Op::Polynomial { .. } => model.plan(id).map_or(Work::Nothing, Work::Polynomial),
        Op::Add | Op::Sub | Op::Negate | Op::LevelDrop(_) | Op::MulScalar { .. } => Work::Elementwise(2),
        Op::AddScalar(_) => Work::Elementwise(1),
        Op::MulVector { vector, .. } => Work::Vector(2, &graph.vectors[vector.index()]),
        Op::AddVector(vector) => Work::Vector(1, &graph.vectors[vector.index()]),
        Op::Mul if graph.complex => Work::MultiplyParts(conjugations(&graph.node(id).inputs)),
        Op::Mul => Work::Multiply,
        Op::Rotate(steps) => Work::Rotate(*steps),
        Op::Relinearise if model.rescaled_at_once(id) => Work::RelineariseRescale,
        Op::Relinearise => Work::Relinearise,
        Op::Rescale if graph.node(id).inputs.first().is_some_and(|&v| model.rescaled_at_once(v)) => Work::Nothing,
        Op::Rescale => Work::Rescale,
        Op::Bootstrap { .. } => Work::Bootstrap(bootstrap_slots(graph.node(id).layout.period)),
    }
}

/// For every node the first one that costs the same at every level.
pub(crate) fn alike(model: &Model<'_>) -> Vec<ValueId> {
    let graph = model.graph();
    let mut known: Vec<ValueId> = Vec::new();
    let first = |id: ValueId| {
        let (own, count) = (work(model, id), graph.node(id).layout.ciphertexts);
        let same = |&&k: &&ValueId| graph.node(k).layout.ciphertexts == count && work(model, k).costs_like(&own);
        known.iter().find(same).copied().unwrap_or_else(|| {
            known.push(id);
            id
        })
    };
    graph.ids().map(first).collect()
}

impl Work<'_> {
    /// Whether it costs the same at every level, for as many ciphertexts; rather false than wrong.
    fn costs_like(&self, other: &Self) -> bool {
        let vector = |v: &Vector| (v.ciphertexts, v.period);
        match (self, other) {
            (Work::Nothing, Work::Nothing)
            | (Work::Multiply, Work::Multiply)
            | (Work::Rotate(_), Work::Rotate(_))
            | (Work::Relinearise, Work::Relinearise)
            | (Work::RelineariseRescale, Work::RelineariseRescale)
            | (Work::Rescale, Work::Rescale) => true,
            (Work::Elementwise(a), Work::Elementwise(b)) | (Work::MultiplyParts(a), Work::MultiplyParts(b)) => a == b,
            (Work::Vector(a, v), Work::Vector(b, w)) => a == b && vector(v) == vector(w),
            (Work::Polynomial(a), Work::Polynomial(b)) => a.operations() == b.operations(),
            (Work::Linear(groups, bias), Work::Linear(others, other)) => {
                let same = |(g, h): (&Group<'_>, &Group<'_>)| {
                    let outer = |m: &Matrix| (m.diagonal_period(), m.out_ciphertexts);
                    let own = |g: &Group<'_>| (outer(g.matrix), g.products);
                    g.group.bsgs == h.group.bsgs && g.group.fold == h.group.fold && own(g) == own(h)
                };
                groups.len() == others.len()
                    && groups.iter().zip(others).all(same)
                    && bias.map(vector) == other.map(vector)
            }
            _ => false,
        }
    }
}

pub(super) fn graph_items<'a>(model: &'a Model<'_>) -> Vec<Item<'a>> {
    let graph = model.graph();
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for id in graph.ids() {
        graph.node(id).inputs.iter().for_each(|v| last_use[v.index()] = id.index());
    }
    graph.outputs.iter().for_each(|o| last_use[o.value.index()] = graph.nodes.len());
    let mut kept: Vec<usize> = graph.nodes.iter().map(|n| n.layout.ciphertexts).collect();
    // Of hundreds of products only a few exist at a time, and none of their relinearised forms.
    for id in graph.ids().filter(|&id| graph.node(id).layout.slots == 1 && model.rescaled_at_once(id)) {
        let (product, rescale) = (graph.node(id).inputs[0], last_use[id.index()]);
        let readers = graph.nodes.iter().filter(|n| n.inputs.contains(&product)).count();
        if graph.node(product).op == Op::Mul && readers == 1 {
            kept[id.index()] = 0;
            kept[product.index()] = 0;
            let factors = graph.node(product).inputs.iter();
            factors.for_each(|f| last_use[f.index()] = last_use[f.index()].max(rescale));
        }
    }
    let item = |id: ValueId| {
        let node = graph.node(id);
        let result = model.levels()[id.index()];
        Item {
            work: work(model, id),
            level: node.inputs.first().map_or(result, |v| model.levels()[v.index()]),
            result,
            count: node.layout.ciphertexts,
            kept: kept[id.index()],
            last_use: last_use[id.index()],
            given: matches!(node.op, Op::Input(_)),
        }
    };
    graph.ids().map(item).collect()
}

pub(super) fn plan_items<'v>(verified: &'v Verified) -> Vec<Item<'v>> {
    use fhec_plan::Op;
    let plan = verified.plan();
    // Relinearisations that are only read by a rescale are done with it.
    let mut readers = vec![0; plan.instructions.len()];
    let mut rescaled = vec![false; plan.instructions.len()];
    let writer = |&source: &fhec_plan::Reg| verified.register(source).written;
    for instruction in &plan.instructions {
        for source in instruction.op.sources() {
            let at = writer(&source);
            readers[at] += 1;
            rescaled[at] = readers[at] == 1 && matches!(instruction.op, Op::Rescale(_));
        }
    }
    let at_once = |number: usize| matches!(plan.instructions[number].op, Op::Relinearise(_)) && rescaled[number];
    let work = |number: usize| match &plan.instructions[number].op {
        Op::Input(_) | Op::Output { .. } => Work::Nothing,
        Op::LinearMap { terms, bias, .. } => {
            let nonzero = |&t: &usize| {
                let (id, matrix) = (terms[t].matrix, &plan.matrices[terms[t].matrix.index()]);
                let rows = verified.facts().diagonals(id).rows();
                rows.map_or(0, |rows| rows.nonzero(matrix, &Diagonals::tensors(matrix, &plan.weights)))
            };
            let group = |group: &'v LinearGroup| {
                let own = &group.terms;
                let matrix = &plan.matrices[terms[own[0]].matrix.index()];
                Group { group, matrix, products: own.iter().map(nonzero).sum() }
            };
            let groups = verified.facts().groups(number).iter().map(group);
            Work::Linear(groups.collect(), bias.map(|b| &plan.vectors[b.index()]))
        }
        Op::Polynomial { poly, .. } => Work::Polynomial(verified.facts().polynomial(*poly)),
        Op::Add(..) | Op::Sub(..) | Op::Negate(_) | Op::LevelDrop { .. } | Op::MulScalar { .. } => Work::Elementwise(2),
        Op::AddScalar { .. } => Work::Elementwise(1),
        Op::MulVector { vector, .. } => Work::Vector(2, &plan.vectors[vector.index()]),
        Op::AddVector { vector, .. } => Work::Vector(1, &plan.vectors[vector.index()]),
        Op::Mul(a, b) if plan.complex => Work::MultiplyParts(conjugations(&[*a, *b])),
        Op::Mul(..) => Work::Multiply,
        Op::Rotate { steps, .. } => Work::Rotate(*steps),
        Op::Relinearise(_) if at_once(number) => Work::RelineariseRescale,
        Op::Relinearise(_) => Work::Relinearise,
        Op::Rescale(source) if at_once(writer(source)) => Work::Nothing,
        Op::Rescale(_) => Work::Rescale,
        Op::Bootstrap { .. } => {
            Work::Bootstrap(bootstrap_slots(verified.register(plan.instructions[number].dst).period))
        }
    };
    let item = |(number, instruction): (usize, &fhec_plan::Instruction)| {
        let facts = verified.register(instruction.dst);
        let output = matches!(instruction.op, Op::Output { .. });
        Item {
            work: work(number),
            level: instruction.op.sources().first().map_or(facts.level, |&r| verified.register(r).level),
            result: facts.level,
            // An output is the register that it names.
            count: if output { 0 } else { facts.ciphertexts },
            kept: if output { 0 } else { facts.ciphertexts },
            last_use: facts.last_read,
            given: matches!(instruction.op, Op::Input(_)),
        }
    };
    plan.instructions.iter().enumerate().map(item).collect()
}
