//! Which channels of which values belong together: what is done to one to hide it must be done to all.
//!
//! Along one axis of every value, each index belongs to a class. Layers with weights make new classes: weights can undo what was
//! done to the operand's, and do anything to their own. All else hands classes on from operands to results, unites those of
//! values that meet, or fixes them, so that nothing may be done to them; so do the inputs and outputs of the network.

use super::layers::Layer;
use fhec_ir::nn::{Activation, Graph, Op, ValueId};

/// What is done to channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// They are multiplied by positive factors, one for each class.
    Scale,
    /// Classes change places.
    Move,
}

/// The classes of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Along {
    /// The axis that they are along.
    pub(super) axis: usize,
    /// The class of every index.
    pub(super) class: Vec<usize>,
    /// Whether a layer with weights made them.
    pub(super) new: bool,
}

/// The classes of all values.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    values: Vec<Along>,
    fixed: Vec<bool>,
}

impl Channels {
    /// Finds them.
    pub(super) fn of(graph: &Graph, change: Change) -> Self {
        let mut finder = Finder { graph, change, parent: vec![], fixed: vec![], values: vec![] };
        for id in graph.ids() {
            let own = finder.along(id).unwrap_or_else(|| finder.unknown(id));
            finder.values.push(own);
        }
        graph.outputs.iter().for_each(|o| finder.fix(o.value));
        let mut values = std::mem::take(&mut finder.values);
        values.iter_mut().flat_map(|v| &mut v.class).for_each(|c| *c = finder.root(*c));
        Channels { values, fixed: finder.fixed }
    }

    /// The classes of a value.
    pub(super) fn along(&self, id: ValueId) -> &Along {
        &self.values[id.index()]
    }

    /// Whether nothing may be done to a class.
    pub(super) fn fixed(&self, class: usize) -> bool {
        self.fixed[class]
    }
}

/// A forest of classes that grows with every value.
struct Finder<'a> {
    graph: &'a Graph,
    change: Change,
    parent: Vec<usize>,
    /// By root.
    fixed: Vec<bool>,
    values: Vec<Along>,
}

impl Finder<'_> {
    fn fresh(&mut self, axis: usize, count: usize, fixed: bool) -> Along {
        let first = self.parent.len();
        self.parent.extend(first..first + count);
        self.fixed.resize(first + count, fixed);
        Along { axis, class: (first..first + count).collect(), new: true }
    }

    fn root(&mut self, mut x: usize) -> usize {
        while self.parent[x] != x {
            self.parent[x] = self.parent[self.parent[x]];
            x = self.parent[x];
        }
        x
    }

    fn join(&mut self, a: &[usize], b: &[usize]) {
        for (&a, &b) in a.iter().zip(b) {
            let (a, b) = (self.root(a), self.root(b));
            self.parent[a.max(b)] = a.min(b);
            self.fixed[a.min(b)] |= self.fixed[a.max(b)];
        }
    }

    fn fix(&mut self, v: ValueId) {
        for class in self.values[v.index()].class.clone() {
            let root = self.root(class);
            self.fixed[root] = true;
        }
    }

    /// Whether nothing can be done to a value whatever comes.
    fn all_fixed(&mut self, v: ValueId) -> bool {
        let class = self.values[v.index()].class.clone();
        class.into_iter().all(|c| {
            let root = self.root(c);
            self.fixed[root]
        })
    }

    /// The classes of a value that is made in a way not known here.
    fn unknown(&mut self, id: ValueId) -> Along {
        let node = self.graph.node(id);
        node.inputs.iter().for_each(|&v| self.fix(v));
        let axis = 1.min(node.shape.len().saturating_sub(1));
        let count = node.shape.get(axis).copied().unwrap_or(1);
        Along { new: false, ..self.fresh(axis, count, true) }
    }

    /// The classes of a value, if those of its operands need not be fixed.
    fn along(&mut self, id: ValueId) -> Option<Along> {
        let (graph, moves) = (self.graph, self.change == Change::Move);
        let node = graph.node(id);
        let x = *node.inputs.first()?;
        let from = &graph.node(x).shape;
        let own = Along { new: false, ..self.values[x.index()].clone() };
        let axis = own.axis;
        from.get(axis)?;
        match &node.op {
            Op::Conv(_) => {
                let multiplier = Layer::of(graph, &node.op).and_then(|l| l.depthwise()).filter(|_| moves && axis == 1);
                // New channels of such a layer would have to stay with their group, which stays where its operand is.
                if let Some(multiplier) = multiplier.filter(|_| !self.all_fixed(x)) {
                    let class = own.class.iter().flat_map(|&c| std::iter::repeat_n(c, multiplier)).collect();
                    return Some(Along { class, ..own });
                }
                Some(self.layer(x, 1, node.shape[1]))
            }
            Op::Dense { .. } => {
                let last = node.shape.len().checked_sub(1)?;
                Some(self.layer(x, last, node.shape[last]))
            }
            Op::Activation(f) => {
                let commutes = matches!(f, Activation::Relu | Activation::LeakyRelu { .. });
                (moves || commutes).then_some(own)
            }
            // Windows are over the last two axes.
            Op::MaxPool(_) | Op::AveragePool(_) => (axis + 2 < node.shape.len()).then_some(own),
            Op::PRelu { .. } | Op::MulConst(_) => (node.shape == *from).then_some(own),
            Op::AddConst(_) => (moves && node.shape == *from).then_some(own),
            Op::BatchNorm { .. } | Op::Polynomial { .. } | Op::Softmax { .. } => moves.then_some(own),
            Op::Add | Op::Sub => self.met(x, node.inputs[1]),
            Op::Mul if moves => self.met(x, node.inputs[1]),
            Op::Mul | Op::Input { .. } => None,
            Op::ReduceMean { axes, .. } | Op::ReduceSum { axes, .. } if axes.contains(&axis) => {
                // A sum of all is the same in any order.
                let first = 1.min(node.shape.len().saturating_sub(1));
                let count = node.shape.get(first).copied().unwrap_or(1);
                moves.then(|| Along { new: false, ..self.fresh(first, count, true) })
            }
            Op::ReduceMean { axes, keep } | Op::ReduceSum { axes, keep } => {
                let gone = if *keep { 0 } else { axes.iter().filter(|&&a| a < axis).count() };
                Some(Along { axis: axis - gone, ..own })
            }
            Op::Reshape => reshaped(own, from, &node.shape),
            Op::Transpose { perm } => Some(Along { axis: perm.iter().position(|&p| p == axis)?, ..own }),
            Op::Concat { axis: joint } => {
                let parts: Vec<Along> = node.inputs.iter().map(|v| self.values[v.index()].clone()).collect();
                if parts.iter().any(|p| p.axis != axis) {
                    return None;
                }
                if *joint == axis {
                    let class = parts.into_iter().flat_map(|p| p.class).collect();
                    return Some(Along { class, ..own });
                }
                parts.iter().for_each(|p| self.join(&own.class, &p.class));
                Some(own)
            }
            Op::Slice { starts, steps } => {
                let at = |k: usize| usize::try_from(starts[axis] as i64 + k as i64 * steps[axis]).ok();
                let class = (0..node.shape[axis]).map(|k| own.class.get(at(k)?).copied()).collect::<Option<_>>()?;
                Some(Along { class, ..own })
            }
            Op::Pad { before, after, value } => {
                let before = usize::try_from(before[axis]).ok()?;
                let after = usize::try_from(after[axis]).ok()?;
                if !moves && *value != 0.0 {
                    return None;
                }
                let (before, after) = (self.fresh(axis, before, false), self.fresh(axis, after, false));
                Some(Along { class: [before.class, own.class, after.class].concat(), ..own })
            }
        }
    }

    /// New classes of a layer that reads its operand along `axis`, and makes its result along it.
    fn layer(&mut self, x: ValueId, axis: usize, count: usize) -> Along {
        if self.values[x.index()].axis != axis {
            self.fix(x);
        }
        self.fresh(axis, count, false)
    }

    /// The classes of a sum, a difference or a product.
    fn met(&mut self, a: ValueId, b: ValueId) -> Option<Along> {
        let same_rank = self.graph.node(a).shape.len() == self.graph.node(b).shape.len();
        let (a, b) = (self.values[a.index()].clone(), self.values[b.index()].clone());
        if !same_rank || a.axis != b.axis {
            return None;
        }
        // A single one that meets all of them: it does not matter in which order, but for their sizes.
        let single = self.change == Change::Move;
        match (a.class.len(), b.class.len()) {
            (n, m) if n == m => self.join(&a.class, &b.class),
            (1, _) if single => return Some(Along { new: false, ..b }),
            (_, 1) if single => {}
            _ => return None,
        }
        Some(Along { new: false, ..a })
    }
}

/// The classes after a reshape: along an axis each index of which has elements of one channel only.
fn reshaped(own: Along, from: &[usize], to: &[usize]) -> Option<Along> {
    let inner = |shape: &[usize], axis: usize| shape[axis + 1..].iter().product::<usize>().max(1);
    let (count, run) = (own.class.len().max(1), inner(from, own.axis));
    let fits = |&axis: &usize| {
        let step = inner(to, axis);
        run.is_multiple_of(step) && (to[axis] * step).is_multiple_of(count * run)
    };
    let candidates = Some(own.axis).filter(|&a| a < to.len()).into_iter().chain((0..to.len()).rev());
    let axis = candidates.into_iter().find(fits)?;
    let step = inner(to, axis);
    let class = (0..to[axis]).map(|i| own.class.get(i * step / run % count).copied()).collect::<Option<_>>()?;
    Some(Along { axis, class, ..own })
}
