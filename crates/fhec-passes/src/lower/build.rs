//! Builds the skeleton: walks the tensor graph once, keeps linear results symbolic while a following
//! sum or reshape can absorb them, and settles factors and offsets where they cost nothing.

use super::value::*;
use fhec_ir::nn::{self, Activation, ConstId, Op, Range, ValueId};
use fhec_ir::{Diagnostic, Diagnostics, Tensor};
use fhec_math::chebyshev::clenshaw;
use fhec_plan::TensorId;
use std::collections::BTreeMap;

/// A tensor-graph value during the walk.
#[derive(Clone, Debug)]
pub(super) enum Lowered {
    /// Held by ciphertexts.
    Parts(Parts),
    /// A linear result not yet computed; used exactly once.
    Affine(Affine),
    /// Softmax of the value: the client's work.
    Softmax(ValueId, usize),
}

pub(super) struct Builder<'a> {
    pub(super) nn: &'a nn::Graph,
    pub(super) users: Vec<Vec<ValueId>>,
    pub(super) env: Vec<Lowered>,
    pub(super) out: Skeleton,
    pub(super) problems: Vec<Diagnostic>,
    /// Values that stay symbolic for their one user.
    pub(super) lazy: Vec<bool>,
    constants: BTreeMap<ConstId, TensorId>,
}

/// Lowers `nn` to a skeleton.
///
/// # Errors
/// Every operation that an earlier pass should have replaced or that packing does not know.
pub(crate) fn build(nn: &nn::Graph) -> Result<Skeleton, Diagnostics> {
    let users = nn.users();
    let lazy = lazy(nn, &users);
    let out = Skeleton { name: nn.name.clone(), ..Skeleton::default() };
    let mut b = Builder { nn, users, env: Vec::new(), out, problems: Vec::new(), lazy, constants: BTreeMap::new() };
    for id in nn.ids() {
        let lowered = b.lower(id);
        b.env.push(lowered);
    }
    if b.problems.is_empty() {
        b.outputs();
    }
    if b.problems.is_empty() { Ok(b.out) } else { Err(Diagnostics(b.problems)) }
}

/// Which values stay symbolic: results of linear operations whose one user is a sum, a reshape or the
/// like, so that a whole linear region becomes one map.
fn lazy(nn: &nn::Graph, users: &[Vec<ValueId>]) -> Vec<bool> {
    let mut lazy = vec![false; nn.nodes.len()];
    for id in nn.ids() {
        let node = nn.node(id);
        let any = node.inputs.iter().any(|v| lazy[v.index()]);
        let linear = match &node.op {
            Op::Conv(_) | Op::Dense { .. } | Op::AveragePool(_) | Op::ReduceMean { .. } | Op::ReduceSum { .. } => true,
            Op::Add | Op::Sub | Op::Concat { .. } | Op::AddConst(_) | Op::Reshape | Op::Pad { .. } => any,
            Op::MulConst(c) => any && uniform(nn.tensor(*c)).is_some(),
            _ => false,
        };
        let [user] = users[id.index()].as_slice() else { continue };
        let user = nn.node(*user);
        let absorbs = match &user.op {
            Op::Add | Op::Sub | Op::AddConst(_) => user.shape == node.shape,
            Op::Concat { .. } | Op::Reshape => true,
            Op::MulConst(c) => uniform(nn.tensor(*c)).is_some() && user.shape == node.shape,
            Op::Pad { before, after, .. } => before.iter().chain(after).all(|&p| p >= 0),
            _ => false,
        };
        let twice = user.inputs.iter().filter(|&&v| v == id).count() > 1;
        let output = nn.outputs.iter().any(|o| o.value == id);
        lazy[id.index()] = linear && absorbs && !twice && !output;
    }
    lazy
}

/// The value of a constant that is the same everywhere.
pub(super) fn uniform(t: &Tensor) -> Option<f64> {
    let first = *t.values().first()?;
    t.values().iter().all(|&v| v == first).then_some(first)
}

impl Builder<'_> {
    /// Reports a problem of node `v`.
    pub(super) fn problem(&mut self, v: ValueId, message: impl Into<String>, help: &str) {
        let node = self.nn.node(v);
        self.problems.push(Diagnostic {
            origin: node.origin.clone(),
            what: node.op.name().to_string(),
            message: message.into(),
            help: help.to_string(),
        });
    }

    /// A stand-in after a problem, so that the walk can go on and find the others.
    pub(super) fn broken(&mut self, v: ValueId) -> Lowered {
        let node = self.nn.node(v);
        let make = Make::Input(usize::MAX);
        let range = Range { lo: -1.0, hi: 1.0 };
        let packed = self.pack(make, node.shape.clone(), range, v);
        Lowered::Parts(Parts::single(&node.shape, Operand { packed, view: vec![], mul: 1.0, add: 0.0 }))
    }

    /// The weight tensor of a constant.
    pub(super) fn tensor(&mut self, c: ConstId) -> TensorId {
        if let Some(&t) = self.constants.get(&c) {
            return t;
        }
        let t = self.own_tensor(self.nn.tensor(c).clone());
        self.constants.insert(c, t);
        t
    }

    /// A weight tensor of our own.
    pub(super) fn own_tensor(&mut self, tensor: Tensor) -> TensorId {
        self.out.tensors.push(tensor);
        TensorId(self.out.tensors.len() as u32 - 1)
    }

    /// The range of a value of the tensor graph.
    pub(super) fn range(&mut self, v: ValueId) -> Range {
        match self.nn.node(v).range {
            Some(range) => range,
            None => {
                self.problem(v, "the range of its values is unknown", "calibrate, or declare an input range");
                Range { lo: -1.0, hi: 1.0 }
            }
        }
    }

    /// Appends a packed value that is part of `v`.
    pub(super) fn pack(&mut self, make: Make, shape: Vec<usize>, range: Range, v: ValueId) -> PackedId {
        let (origin, kind) = match &make {
            Make::Map(affine) => (affine.origin.clone(), affine.kind.clone()),
            _ => (self.nn.node(v).origin.clone(), self.called(v)),
        };
        let blank = self.blank(&make);
        // Zero never matters for the magnitude, other fillings may.
        let range = if blank == 0.0 { range } else { Range { lo: range.lo.min(blank), hi: range.hi.max(blank) } };
        self.out.packed.push(Packed { make, shape, range, blank, origin, kind });
        PackedId(self.out.packed.len() - 1)
    }

    /// What people call `v`; whatever it takes to compute it is called so too.
    fn called(&self, v: ValueId) -> String {
        let node = self.nn.node(v);
        match (&node.origin.what, &node.op) {
            (Some(what), _) => what.clone(),
            (None, Op::Polynomial { label, .. }) => label.clone(),
            (None, Op::Activation(Activation::Power { exponent: 2 })) => "Square".into(),
            (None, Op::Activation(Activation::Power { exponent })) => format!("Pow {exponent}"),
            (None, op) => op.name().into(),
        }
    }

    /// What an operation makes of the slots without an element.
    fn blank(&self, make: &Make) -> f64 {
        let of = |p: &PackedId| self.out.get(*p).blank;
        match make {
            Make::Input(_) | Make::Map(_) | Make::MulTensor(..) => 0.0,
            Make::Polynomial { source, chebyshev, .. } => clenshaw(chebyshev, of(source)),
            Make::Add(a, b) => of(a) + of(b),
            Make::Sub(a, b) => of(a) - of(b),
            Make::Mul(a, b) => of(a) * of(b),
            Make::AddScalar(a, by) => of(a) + by,
            Make::MulScalar(a, by) => of(a) * by,
            Make::AddTensor(a, ..) => of(a),
        }
    }

    /// The form `a·x + b` in which a new value `v` is best held: what a following polynomial needs, or
    /// scaled to magnitude 1, so that all values have one precision.
    pub(super) fn wanted(&mut self, v: ValueId) -> (f64, f64) {
        let mut stack = vec![v];
        let mut joined = false;
        while let Some(at) = stack.pop() {
            for &user in &self.users[at.index()] {
                let node = self.nn.node(user);
                match &node.op {
                    Op::Polynomial { interval, .. } => return normalising(*interval),
                    Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } => stack.push(user),
                    // A sum of two held values needs equal factors.
                    Op::Add | Op::Sub => joined |= !node.inputs.iter().any(|i| *i != at && self.lazy[i.index()]),
                    _ => {}
                }
            }
        }
        let range = self.range(v);
        let magnitude = range.lo.abs().max(range.hi.abs());
        if joined { (1.0, 0.0) } else { (to_one(magnitude), 0.0) }
    }

    /// Computes a linear result, in the form its users want.
    pub(super) fn hold(&mut self, v: ValueId, mut affine: Affine) -> Operand {
        let (a, b) = self.wanted(v);
        affine.scale(a);
        affine.shift(b);
        let range = map_range(self.range(v), a, b);
        let shape = affine.shape.clone();
        let packed = self.pack(Make::Map(affine), shape, range, v);
        Operand { packed, view: vec![], mul: 1.0 / a, add: -b / a }
    }

    /// Keeps a linear result symbolic or computes it.
    pub(super) fn finish(&mut self, v: ValueId, affine: Affine) -> Lowered {
        if self.lazy[v.index()] {
            return Lowered::Affine(affine);
        }
        let shape = affine.shape.clone();
        let operand = self.hold(v, affine);
        Lowered::Parts(Parts::single(&shape, operand))
    }

    /// Value `v` as parts.
    pub(super) fn parts(&mut self, v: ValueId) -> Parts {
        match self.env[v.index()].clone() {
            Lowered::Parts(parts) => parts,
            Lowered::Affine(affine) => {
                let shape = affine.shape.clone();
                let operand = self.hold(v, affine);
                let parts = Parts::single(&shape, operand);
                self.env[v.index()] = Lowered::Parts(parts.clone());
                parts
            }
            Lowered::Softmax(..) => {
                self.problem(
                    v,
                    "its result is used by another operation",
                    "Softmax is left to the client, so it must come last",
                );
                let broken = self.broken(v);
                self.env[v.index()] = broken;
                self.parts(v)
            }
        }
    }

    /// Value `v` as parts placed in its own shape.
    pub(super) fn framed(&mut self, v: ValueId) -> Parts {
        let parts = self.parts(v);
        if parts.shape == self.nn.node(v).shape {
            return parts;
        }
        let operand = self.single(v);
        Parts::single(&self.nn.node(v).shape.clone(), operand)
    }

    /// Value `v` as one operand.
    pub(super) fn single(&mut self, v: ValueId) -> Operand {
        let parts = self.parts(v);
        if let Some(operand) = parts.as_single() {
            return operand.clone();
        }
        let node = self.nn.node(v);
        let affine = Affine { shape: node.shape.clone(), ..self.copied(v, &parts) };
        let operand = self.hold(v, affine);
        self.env[v.index()] = Lowered::Parts(Parts::single(&self.nn.node(v).shape.clone(), operand.clone()));
        operand
    }

    /// The parts as one linear map.
    pub(super) fn copied(&self, v: ValueId, parts: &Parts) -> Affine {
        let term = |(place, operand): &(Place, Operand)| {
            let op = Linear::Copy { target: place.shape.clone() };
            term(operand, Place::whole(&place.shape), op, place.clone())
        };
        Affine {
            terms: parts.parts.iter().map(term).collect(),
            biases: vec![],
            shape: parts.shape.clone(),
            origin: self.nn.node(v).origin.clone(),
            kind: "Gather".into(),
        }
    }

    /// Value `v`, broadcast to `shape`, as a linear map; symbolic results are consumed.
    pub(super) fn affine(&mut self, v: ValueId, shape: &[usize]) -> Affine {
        if let Lowered::Affine(affine) = &self.env[v.index()]
            && affine.shape == shape
        {
            return affine.clone();
        }
        let parts = self.framed(v);
        match parts.as_single() {
            Some(operand) => {
                let own = parts.shape.clone();
                let op = Linear::Copy { target: shape.to_vec() };
                Affine {
                    terms: vec![term(operand, Place::whole(&own), op, Place::whole(shape))],
                    biases: vec![],
                    shape: shape.to_vec(),
                    origin: self.nn.node(v).origin.clone(),
                    kind: "Copy".into(),
                }
            }
            None if parts.shape == shape => self.copied(v, &parts),
            None => {
                self.single(v);
                self.affine(v, shape)
            }
        }
    }

    /// An operand without offset: `(packed, mul)`.
    pub(super) fn settled(&mut self, operand: &Operand, v: ValueId) -> (PackedId, f64) {
        if operand.add == 0.0 {
            return (operand.packed, operand.mul);
        }
        let by = operand.add / operand.mul;
        (self.shifted(operand.packed, by, v), operand.mul)
    }

    /// A packed value plus a constant.
    pub(super) fn shifted(&mut self, packed: PackedId, by: f64, v: ValueId) -> PackedId {
        let from = self.out.get(packed).clone();
        let range = map_range(from.range, 1.0, by);
        // A scalar also fills the slots without an element, which must not become larger than the others:
        // polynomials explode there, products may overflow.
        let filled = from.blank + by;
        let inside = range.lo <= filled && filled <= range.hi;
        let make = if inside || filled.abs() <= from.blank.abs() {
            Make::AddScalar(packed, by)
        } else {
            let bias = Bias { tensor: None, factor: by, place: Place::whole(&from.shape) };
            Make::AddTensor(packed, vec![], bias)
        };
        self.pack(make, from.shape, range, v)
    }

    fn outputs(&mut self) {
        for output in &self.nn.outputs {
            let (value, softmax) = match self.env[output.value.index()] {
                Lowered::Softmax(of, axis) => (of, vec![axis]),
                _ => (output.value, vec![]),
            };
            let mut operand = self.single(value);
            let shape = self.nn.node(value).shape.clone();
            if !operand.view.is_empty() {
                // Layouts belong to whole packed values, so a view must be computed to become an output.
                let parts = Parts::single(&shape, operand);
                let affine = self.copied(value, &parts);
                operand = self.hold(value, affine);
            }
            let (packed, factor) = self.settled(&operand, value);
            let name = output.name.clone();
            self.out.outputs.push(SkeletonOutput { name, shape, packed, factor, softmax });
        }
    }
}

/// A term of one operand.
pub(super) fn term(operand: &Operand, part: Place, op: Linear, place: Place) -> Term {
    Term {
        source: operand.packed,
        view: operand.view.clone(),
        part,
        op,
        factor: operand.mul,
        offset: operand.add,
        place,
    }
}

/// Magnitudes below this are taken for zero: factors that undo them would soon leave the floating-point numbers.
const SMALLEST: f64 = 1e-60;

/// The factor that takes values of a magnitude to 1.
pub(super) fn to_one(magnitude: f64) -> f64 {
    if (SMALLEST..f64::INFINITY).contains(&magnitude) { 1.0 / magnitude } else { 1.0 }
}

/// `(a, b)` that take the interval to [-1, 1].
pub(super) fn normalising(interval: Range) -> (f64, f64) {
    let width = interval.hi - interval.lo;
    if width > SMALLEST { (2.0 / width, -(interval.lo + interval.hi) / width) } else { (1.0, -interval.lo) }
}

/// The range of `a·x + b`.
pub(super) fn map_range(r: Range, a: f64, b: f64) -> Range {
    let (x, y) = (a * r.lo + b, a * r.hi + b);
    Range { lo: x.min(y), hi: x.max(y) }
}
