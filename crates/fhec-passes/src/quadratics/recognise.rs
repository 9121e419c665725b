//! Which values are quadratics of which others.

use crate::canonicalise::{channel_line, per_index};
use fhec_ir::nn::{Activation, ConstId, Graph, Op, ValueId};

/// `a·x² + b·x + c`, coefficients per index of axis 1, of the value `base`.
#[derive(Clone, Debug)]
pub(super) struct Quadratic {
    pub(super) base: ValueId,
    pub(super) a: Vec<f64>,
    pub(super) b: Vec<f64>,
    pub(super) c: Vec<f64>,
}

impl Quadratic {
    fn itself(base: ValueId, channels: usize) -> Self {
        Quadratic { base, a: vec![0.0; channels], b: vec![1.0; channels], c: vec![0.0; channels] }
    }

    fn affine(&self) -> bool {
        self.a.iter().all(|a| *a == 0.0)
    }

    fn zip(&self, other: &Self, f: impl Fn([f64; 3], [f64; 3]) -> [f64; 3]) -> Self {
        let channels = self.a.len();
        let mut out = Quadratic::itself(self.base, channels);
        for k in 0..channels {
            [out.a[k], out.b[k], out.c[k]] = f([self.a[k], self.b[k], self.c[k]], [other.a[k], other.b[k], other.c[k]]);
        }
        out
    }
}

/// Every value as a quadratic of a value that is none of another: itself, if of no other.
pub(super) struct Forms {
    forms: Vec<Quadratic>,
    users: Vec<Vec<ValueId>>,
}

impl Forms {
    /// Finds the quadratics of a canonical graph.
    pub(super) fn of(graph: &Graph) -> Self {
        let mut forms: Vec<Quadratic> = Vec::with_capacity(graph.nodes.len());
        let users = graph.users();
        for id in graph.ids() {
            let channels = graph.node(id).shape.get(1).copied().unwrap_or(0);
            let found = if channels == 0 { None } else { combine(graph, &forms, &users, id, channels) };
            forms.push(found.unwrap_or_else(|| Quadratic::itself(id, channels)));
        }
        Forms { forms, users }
    }

    /// A value as a quadratic.
    pub(super) fn of_value(&self, v: ValueId) -> &Quadratic {
        &self.forms[v.index()]
    }

    /// True for a quadratic that ends here: an output, or read by an operation that leads out of it.
    fn ends(&self, graph: &Graph, v: ValueId) -> bool {
        let q = self.of_value(v);
        let leads_out = |u: &ValueId| self.of_value(*u).base != q.base;
        q.base != v
            && !q.affine()
            && (self.users[v.index()].iter().any(leads_out) || graph.outputs.iter().any(|o| o.value == v))
    }

    /// True where writing the quadratic anew may save a level: it has a linear part, or a factor for each channel.
    pub(super) fn worth(&self, graph: &Graph, v: ValueId) -> bool {
        let q = self.of_value(v);
        self.ends(graph, v) && (q.b.iter().any(|b| *b != 0.0) || q.a.iter().any(|a| *a != q.a[0]))
    }

    /// True when nothing but the quadratic at `v` needs its base.
    pub(super) fn consumes(&self, graph: &Graph, v: ValueId) -> bool {
        let base = self.of_value(v).base;
        let inside = |u: &ValueId| self.of_value(*u).base == base;
        graph
            .ids()
            .filter(|&u| self.of_value(u).base == base && u != v)
            .all(|u| self.users[u.index()].iter().all(inside) && graph.outputs.iter().all(|o| o.value != u))
    }
}

/// The value at `id` by the forms of its operands; `None` when it is no quadratic of what they are of.
fn combine(
    graph: &Graph,
    forms: &[Quadratic],
    users: &[Vec<ValueId>],
    id: ValueId,
    channels: usize,
) -> Option<Quadratic> {
    let node = graph.node(id);
    let same = |v: &ValueId| graph.node(*v).shape == node.shape;
    if !node.inputs.iter().all(same) {
        return None;
    }
    let form = |i: usize| &forms[node.inputs[i].index()];
    let constant = |c: ConstId| per_index(graph.tensor(c), &node.shape, 1);
    let both = || -> Option<(&Quadratic, &Quadratic)> {
        let (x, y) = (form(0), form(1));
        (x.base == y.base).then_some((x, y))
    };
    let product = |x: &Quadratic, y: &Quadratic| {
        (x.affine() && y.affine()).then(|| x.zip(y, |[_, b, c], [_, d, e]| [b * d, b * e + c * d, c * e]))
    };
    let times = |x: &Quadratic, by: Vec<f64>| {
        let by = Quadratic { a: by.clone(), b: by.clone(), c: by, base: id };
        x.zip(&by, |x, by| [x[0] * by[0], x[1] * by[1], x[2] * by[2]])
    };
    let plus = |x: &Quadratic, c: Vec<f64>| {
        let by = Quadratic { c, ..Quadratic::itself(id, channels) };
        x.zip(&by, |x, by| [x[0], x[1], x[2] + by[2]])
    };
    Some(match node.op {
        Op::MulConst(c) => times(form(0), constant(c)?),
        Op::AddConst(c) => plus(form(0), constant(c)?),
        // Factors per channel, as frameworks without another layer for them have it. Those of a quadratic that others read
        // too stay a layer: it would be evaluated twice.
        Op::Conv(ref conv) => {
            let source = node.inputs[0];
            let alone = users[source.index()].len() == 1 && graph.outputs.iter().all(|o| o.value != source);
            let (by, offsets) = channel_line(graph, conv).filter(|_| alone || form(0).affine())?;
            plus(&times(form(0), by), offsets)
        }
        Op::Add => both().map(|(x, y)| x.zip(y, |x, y| [x[0] + y[0], x[1] + y[1], x[2] + y[2]]))?,
        Op::Sub => both().map(|(x, y)| x.zip(y, |x, y| [x[0] - y[0], x[1] - y[1], x[2] - y[2]]))?,
        Op::Mul => both().and_then(|(x, y)| product(x, y))?,
        Op::Activation(Activation::Power { exponent: 2 }) => product(form(0), form(0))?,
        _ => return None,
    })
}
