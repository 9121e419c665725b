//! The operations of the tensor graph, each as what it does to parts and linear maps.

use super::build::{Builder, Lowered, map_range, term, to_one, uniform};
use super::nonlinear::with_hidden;
use super::value::*;
use fhec_ir::Tensor;
use fhec_ir::nn::refusals::{MAXIMUM, MAXIMUM_HELP};
use fhec_ir::nn::{Activation, ConstId, Conv, Op, Pool, Range, ValueId};

/// What to do about a batch.
const ONE_IMAGE: &str = "packing takes one image at a time: shape 1xCxHxW";

impl Builder<'_> {
    /// Lowers node `v`; its operands have been.
    pub(super) fn lower(&mut self, v: ValueId) -> Lowered {
        let node = self.nn.node(v);
        match &node.op {
            Op::Input { name } => self.input(v, name),
            Op::Conv(conv) => self.conv(v, conv),
            Op::AveragePool(pool) => self.pool(v, pool),
            Op::Dense { weight, bias } => self.dense(v, *weight, *bias),
            Op::ReduceMean { axes, .. } => self.reduce(v, axes, true),
            Op::ReduceSum { axes, .. } => self.reduce(v, axes, false),
            Op::Add => self.sum(v, 1.0),
            Op::Sub => self.sum(v, -1.0),
            Op::Mul => self.product(v),
            Op::AddConst(c) => self.add_const(v, *c),
            Op::MulConst(c) => self.mul_const(v, *c),
            Op::Reshape => self.reshape(v),
            Op::Transpose { perm } => {
                let (shape, perm) = (self.nn.node(node.inputs[0]).shape.clone(), perm.clone());
                self.viewed(v, ViewStep::Transpose { shape, perm })
            }
            Op::Slice { starts, steps } => {
                let shape = self.nn.node(node.inputs[0]).shape.clone();
                let (starts, steps, extents) = (starts.clone(), steps.clone(), node.shape.clone());
                self.viewed(v, ViewStep::Slice { shape, starts, steps, extents })
            }
            Op::Concat { axis } => self.concat(v, *axis),
            Op::Pad { before, after, value } => self.pad(v, before, after, *value),
            Op::Activation(Activation::Power { exponent }) => self.power(v, *exponent),
            Op::Polynomial { chebyshev, interval, label } => self.polynomial(v, chebyshev, *interval, label),
            Op::Softmax { axis } => Lowered::Softmax(node.inputs[0], *axis),
            Op::Activation(_) | Op::PRelu { .. } | Op::BatchNorm { .. } => {
                self.problem(v, "has not been replaced by a polynomial or folded", "run the earlier passes first");
                self.broken(v)
            }
            Op::MaxPool(_) => {
                self.problem(v, MAXIMUM, MAXIMUM_HELP);
                self.broken(v)
            }
        }
    }

    fn input(&mut self, v: ValueId, name: &str) -> Lowered {
        let node = self.nn.node(v);
        let range = self.range(v);
        let (factor, _) = self.wanted(v);
        let index = self.out.inputs.len();
        let (name, shape) = (name.to_string(), node.shape.clone());
        self.out.inputs.push(SkeletonInput { name, shape: shape.clone(), factor, range });
        let packed = self.pack(Make::Input(index), shape.clone(), map_range(range, factor, 0.0), v);
        Lowered::Parts(Parts::single(&shape, Operand { packed, view: vec![], mul: 1.0 / factor, add: 0.0 }))
    }

    /// The map `op` of all parts of `parts`, without bias.
    fn map_of(&self, v: ValueId, parts: &Parts, op: &Linear, kind: String) -> Affine {
        let node = self.nn.node(v);
        let whole = Place::whole(&node.shape);
        let terms = parts.parts.iter().map(|(place, o)| term(o, place.clone(), op.clone(), whole.clone())).collect();
        Affine { terms, biases: vec![], shape: node.shape.clone(), origin: node.origin.clone(), kind }
    }

    /// Channels, height and width of a batch-of-one image, or a problem.
    fn image(&mut self, v: ValueId, of: ValueId) -> Option<[usize; 3]> {
        match *self.nn.node(of).shape.as_slice() {
            [1, c, h, w] => Some([c, h, w]),
            ref other => {
                let message = format!("works on a tensor of shape {other:?}");
                // A batch reaches every layer: telling it once is enough.
                let batch = matches!(other, [n, _, _, _] if *n != 1);
                if !batch || self.problems.iter().all(|p| p.help != ONE_IMAGE) {
                    self.problem(v, message, ONE_IMAGE);
                }
                None
            }
        }
    }

    fn conv(&mut self, v: ValueId, conv: &Conv) -> Lowered {
        let source = self.nn.node(v).inputs[0];
        let (Some(input), Some(output)) = (self.image(v, source), self.image(v, v)) else { return self.broken(v) };
        let parts = self.framed(source);
        let kernel = self.nn.tensor(conv.weight).shape().to_vec();
        let window = Window {
            input,
            output,
            kernel: [kernel[2], kernel[3]],
            strides: conv.strides,
            dilations: conv.dilations,
            pads: [conv.pads[0], conv.pads[1]],
        };
        let depthwise = if conv.groups > 1 { " depthwise" } else { "" };
        let kind = format!("Conv{depthwise} {}x{}{}", kernel[2], kernel[3], stride(conv.strides));
        let weight = self.tensor(conv.weight);
        let mut affine = self.map_of(v, &parts, &Linear::Conv { window, groups: conv.groups, weight }, kind);
        if let Some(bias) = conv.bias {
            let tensor = (self.tensor(bias), vec![output[0], 1, 1]);
            affine.biases.push(Bias { tensor: Some(tensor), factor: 1.0, place: Place::whole(&affine.shape) });
        }
        self.finish(v, affine)
    }

    fn pool(&mut self, v: ValueId, pool: &Pool) -> Lowered {
        let source = self.nn.node(v).inputs[0];
        let (Some(input), Some(output)) = (self.image(v, source), self.image(v, v)) else { return self.broken(v) };
        let parts = self.framed(source);
        let window = Window {
            input,
            output,
            kernel: pool.kernel,
            strides: pool.strides,
            dilations: pool.dilations,
            pads: [pool.pads[0], pool.pads[1]],
        };
        let divisors = divisors(pool, &window);
        let (weight, factor) = match uniform(&divisors) {
            Some(factor) => (None, factor),
            None => (Some(self.own_tensor(divisors)), 1.0),
        };
        let kind = format!("AveragePool {}x{}{}", pool.kernel[0], pool.kernel[1], stride(pool.strides));
        let mut affine = self.map_of(v, &parts, &Linear::Pool { window, weight }, kind);
        affine.scale(factor);
        self.finish(v, affine)
    }

    fn dense(&mut self, v: ValueId, weight: ConstId, bias: Option<ConstId>) -> Lowered {
        let source = self.nn.node(v).inputs[0];
        let shape = self.nn.node(source).shape.clone();
        let [rows, inner] = *self.nn.tensor(weight).shape() else { return self.broken(v) };
        let lead: usize = shape[..shape.len() - 1].iter().product();
        let mut parts = self.parts(source);
        if parts.shape != shape && lead != 1 {
            parts = self.framed(source);
        }
        let op = Linear::Dense { weight: self.tensor(weight), lead, inner, rows };
        let mut affine = self.map_of(v, &parts, &op, format!("Dense {inner}->{rows}"));
        if let Some(bias) = bias {
            let tensor = (self.tensor(bias), vec![rows]);
            affine.biases.push(Bias { tensor: Some(tensor), factor: 1.0, place: Place::whole(&affine.shape) });
        }
        self.finish(v, affine)
    }

    fn reduce(&mut self, v: ValueId, axes: &[usize], mean: bool) -> Lowered {
        let source = self.nn.node(v).inputs[0];
        let parts = self.framed(source);
        let count: usize = axes.iter().map(|&a| parts.shape[a]).product();
        let kind = if mean { "ReduceMean" } else { "ReduceSum" };
        let mut affine = self.map_of(v, &parts, &Linear::Reduce { axes: axes.to_vec() }, kind.into());
        if mean {
            affine.scale(1.0 / count as f64);
        }
        self.finish(v, affine)
    }

    fn sum(&mut self, v: ValueId, sign: f64) -> Lowered {
        let node = self.nn.node(v);
        let (x, y) = (node.inputs[0], node.inputs[1]);
        if !self.lazy[x.index()] && !self.lazy[y.index()] {
            let (px, py) = (self.framed(x), self.framed(y));
            if px.shape == py.shape
                && let (Some(a), Some(b)) = (px.as_single(), py.as_single())
                && a.view == b.view
                && (a.mul == b.mul || a.mul == -b.mul)
                && self.elements(a) == self.elements(b)
            {
                let plain = (a.mul == b.mul) == (sign > 0.0);
                let make = if plain { Make::Add(a.packed, b.packed) } else { Make::Sub(a.packed, b.packed) };
                let range = map_range(self.range(v), 1.0 / a.mul, -(a.add + sign * b.add) / a.mul);
                let (x, y) = (self.out.get(a.packed).range, self.out.get(b.packed).range);
                let y = map_range(y, if plain { 1.0 } else { -1.0 }, 0.0);
                let range = with_hidden(&a.view, range, Range { lo: x.lo + y.lo, hi: x.hi + y.hi });
                let shape = self.out.get(a.packed).shape.clone();
                let packed = self.pack(make, shape, range, v);
                let operand = Operand { packed, view: a.view.clone(), mul: a.mul, add: a.add + sign * b.add };
                return Lowered::Parts(Parts::single(&px.shape, operand));
            }
        }
        let mut left = self.affine(x, &node.shape);
        let mut right = self.affine(y, &node.shape);
        right.scale(sign);
        left.origin = left.origin.join(&right.origin).join(&node.origin);
        left.kind = match (left.kind.as_str(), right.kind.as_str()) {
            ("Copy", "Copy") => node.op.name().into(),
            ("Copy", other) | (other, "Copy") => format!("{other} + Add"),
            (a, b) => format!("{a} + {b}"),
        };
        left.terms.append(&mut right.terms);
        left.biases.append(&mut right.biases);
        self.finish(v, left)
    }

    pub(super) fn elements(&self, operand: &Operand) -> usize {
        self.out.get(operand.packed).shape.iter().product()
    }

    /// Computes a map whose values are those of `x`, rearranged, at magnitude 1.
    pub(super) fn hold_scaled(&mut self, x: ValueId, mut affine: Affine) -> Operand {
        let range = self.range(x);
        let magnitude = range.lo.abs().max(range.hi.abs());
        let a = to_one(magnitude);
        affine.scale(a);
        let shape = affine.shape.clone();
        let packed = self.pack(Make::Map(affine), shape, map_range(range, a, 0.0), x);
        Operand { packed, view: vec![], mul: 1.0 / a, add: 0.0 }
    }

    fn add_const(&mut self, v: ValueId, c: ConstId) -> Lowered {
        let node = self.nn.node(v);
        let source = node.inputs[0];
        let constant = self.nn.tensor(c);
        if self.lazy[source.index()] || self.nn.node(source).shape != node.shape {
            let mut affine = self.affine(source, &node.shape);
            let tensor = match uniform(constant) {
                Some(_) => None,
                None => Some((self.tensor(c), constant.shape().to_vec())),
            };
            let factor = if tensor.is_some() { 1.0 } else { constant.values()[0] };
            affine.biases.push(Bias { tensor, factor, place: Place::whole(&node.shape) });
            affine.origin = affine.origin.join(&node.origin);
            return self.finish(v, affine);
        }
        if let Some(by) = uniform(constant) {
            let mut parts = self.parts(source);
            if parts.covers() {
                for (_, operand) in &mut parts.parts {
                    operand.add += by;
                }
                return Lowered::Parts(parts);
            }
        }
        let operand = self.single(source);
        let tensor = Some((self.tensor(c), constant.shape().to_vec()));
        let bias = Bias { tensor, factor: 1.0 / operand.mul, place: Place::whole(&node.shape) };
        let range = map_range(self.range(v), 1.0 / operand.mul, -operand.add / operand.mul);
        let range = with_hidden(&operand.view, range, self.out.get(operand.packed).range);
        let make = Make::AddTensor(operand.packed, operand.view.clone(), bias);
        let packed = self.pack(make, self.out.get(operand.packed).shape.clone(), range, v);
        Lowered::Parts(Parts::single(&node.shape, Operand { packed, ..operand }))
    }

    fn mul_const(&mut self, v: ValueId, c: ConstId) -> Lowered {
        let node = self.nn.node(v);
        let source = node.inputs[0];
        let constant = self.nn.tensor(c);
        let same_shape = self.nn.node(source).shape == node.shape;
        if let (Some(by), true) = (uniform(constant), same_shape) {
            if self.lazy[source.index()] {
                let mut affine = self.affine(source, &node.shape);
                affine.scale(by);
                return self.finish(v, affine);
            }
            let mut parts = self.parts(source);
            for (_, operand) in &mut parts.parts {
                operand.mul *= by;
                operand.add *= by;
            }
            if by != 0.0 {
                return Lowered::Parts(parts);
            }
        }
        let operand = if same_shape {
            self.single(source)
        } else {
            let affine = self.affine(source, &node.shape);
            self.hold_scaled(source, affine)
        };
        let (from, mul) = self.settled(&operand, v);
        let tensor = Some((self.tensor(c), constant.shape().to_vec()));
        let bias = Bias { tensor, factor: 1.0, place: Place::whole(&node.shape) };
        let range = map_range(self.range(v), 1.0 / mul, 0.0);
        let range = with_hidden(&operand.view, range, Range { lo: 0.0, hi: 0.0 });
        let make = Make::MulTensor(from, operand.view.clone(), bias);
        let packed = self.pack(make, self.out.get(from).shape.clone(), range, v);
        Lowered::Parts(Parts::single(&node.shape, Operand { packed, view: operand.view, mul, add: 0.0 }))
    }

    fn reshape(&mut self, v: ValueId) -> Lowered {
        let node = self.nn.node(v);
        let source = node.inputs[0];
        if self.lazy[source.index()]
            && let Lowered::Affine(affine) = self.env[source.index()].clone()
        {
            // Terms keep the frame they were made in: the row-major order is the same.
            return self.finish(v, Affine { shape: node.shape.clone(), ..affine });
        }
        let parts = self.parts(source);
        Lowered::Parts(match parts.as_single() {
            Some(operand) => Parts::single(&node.shape, operand.clone()),
            None => parts,
        })
    }

    fn viewed(&mut self, v: ValueId, step: ViewStep) -> Lowered {
        let node = self.nn.node(v);
        let mut operand = self.single(node.inputs[0]);
        operand.view.push(step);
        Lowered::Parts(Parts::single(&node.shape, operand))
    }

    fn concat(&mut self, v: ValueId, axis: usize) -> Lowered {
        let node = self.nn.node(v);
        let shift = |place: &Place, at: usize| {
            let mut before = place.before.clone();
            before[axis] += at;
            Place { before, shape: place.shape.clone(), full: node.shape.clone() }
        };
        let mut at = 0;
        if node.inputs.iter().any(|x| self.lazy[x.index()]) {
            let origin = node.origin.clone();
            let mut whole =
                Affine { terms: vec![], biases: vec![], shape: node.shape.clone(), origin, kind: "Concat".into() };
            for &x in &node.inputs {
                let shape = self.nn.node(x).shape.clone();
                let mut part = self.affine(x, &shape);
                if !movable(&part, &shape) {
                    part = self.forced(x, part);
                }
                whole.origin = part.origin.join(&whole.origin);
                for t in &mut part.terms {
                    t.place = shift(&t.place, at);
                }
                for b in &mut part.biases {
                    b.place = shift(&b.place, at);
                }
                whole.terms.append(&mut part.terms);
                whole.biases.append(&mut part.biases);
                at += shape[axis];
            }
            return self.finish(v, whole);
        }
        let mut parts = Parts { shape: node.shape.clone(), parts: vec![] };
        for &x in &node.inputs {
            for (place, operand) in self.framed(x).parts {
                parts.parts.push((shift(&place, at), operand));
            }
            at += self.nn.node(x).shape[axis];
        }
        Lowered::Parts(parts)
    }

    /// Computes a symbolic value whose frame does not fit and copies it.
    fn forced(&mut self, x: ValueId, affine: Affine) -> Affine {
        let shape = affine.shape.clone();
        let operand = self.hold_scaled(x, affine);
        let parts = Parts::single(&shape, operand);
        self.copied(x, &parts)
    }

    fn pad(&mut self, v: ValueId, before: &[i64], after: &[i64], value: f64) -> Lowered {
        let node = self.nn.node(v);
        let source = node.inputs[0];
        let shape = self.nn.node(source).shape.clone();
        let front: Vec<usize> = before.iter().map(|&p| p.max(0) as usize).collect();
        // What remains of the source after negative padding.
        let starts: Vec<usize> = before.iter().map(|&p| (-p).max(0) as usize).collect();
        let extents: Vec<usize> = (0..shape.len())
            .map(|d| (shape[d] as i64 - starts[d] as i64 - (-after[d]).max(0)).max(0) as usize)
            .collect();
        let place_in = |place: &Place| {
            let before = place.before.iter().zip(&front).map(|(a, b)| a + b).collect();
            Place { before, shape: place.shape.clone(), full: node.shape.clone() }
        };
        let cropped = extents != shape;
        let mut affine = if self.lazy[source.index()] && !cropped {
            let mut affine = self.affine(source, &shape);
            if !movable(&affine, &shape) {
                affine = self.forced(source, affine);
            }
            for t in &mut affine.terms {
                t.place = place_in(&t.place);
            }
            for b in &mut affine.biases {
                b.place = place_in(&b.place);
            }
            affine.shape = node.shape.clone();
            affine
        } else {
            let parts = if cropped {
                let mut operand = self.single(source);
                let steps = vec![1; shape.len()];
                operand.view.push(ViewStep::Slice { shape, starts, steps, extents: extents.clone() });
                Parts::single(&extents, operand)
            } else {
                self.framed(source)
            };
            let parts = Parts {
                shape: node.shape.clone(),
                parts: parts.parts.into_iter().map(|(p, o)| (place_in(&p), o)).collect(),
            };
            if value == 0.0 {
                return Lowered::Parts(parts);
            }
            self.copied(v, &parts)
        };
        if value != 0.0 {
            affine.shift(value);
            let inner = Place { before: front, shape: extents, full: node.shape.clone() };
            affine.biases.push(Bias { tensor: None, factor: -value, place: inner });
        }
        affine.origin = affine.origin.join(&node.origin);
        self.finish(v, affine)
    }
}

/// " stride 2", or nothing for stride 1.
fn stride(s: [usize; 2]) -> String {
    match s {
        [1, 1] => String::new(),
        [a, b] if a == b => format!(" stride {a}"),
        [a, b] => format!(" stride {a}x{b}"),
    }
}

/// The weight of each output pixel of an average pooling: one over the elements under its window.
fn divisors(pool: &Pool, window: &Window) -> Tensor {
    let counts = [0, 1].map(|d| -> Vec<usize> {
        let extent = window.input[1 + d] as i64;
        let (front, behind) = (pool.counted_pads[d] as i64, pool.counted_pads[2 + d] as i64);
        let first = |y: usize| (y * pool.strides[d]) as i64 - pool.pads[d] as i64;
        let inside = |y: usize| {
            (0..pool.kernel[d])
                .map(|k| first(y) + (k * pool.dilations[d]) as i64)
                .filter(|at| (-front..extent + behind).contains(at))
                .count()
        };
        (0..window.output[1 + d]).map(inside).collect()
    });
    let values = counts[0].iter().flat_map(|&a| counts[1].iter().map(move |&b| 1.0 / (a * b).max(1) as f64)).collect();
    Tensor::new(vec![counts[0].len(), counts[1].len()], values)
}

/// True when all places of a symbolic value are boxes of its shape, so that it can be moved into a larger one;
/// after a reshape they are not.
fn movable(affine: &Affine, shape: &[usize]) -> bool {
    let mut places = affine.terms.iter().map(|t| &t.place).chain(affine.biases.iter().map(|b| &b.place));
    places.all(|p| p.full == shape)
}
