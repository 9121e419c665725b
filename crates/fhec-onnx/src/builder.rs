//! The graph under construction, and how an operator's translation sees its node.

use crate::attributes::Attributes;
use crate::error::{Problem, refuse};
use crate::external::External;
use crate::proto::NodeProto;
use crate::tensor::Constant;
use fhec_ir::nn::shape::{self, elements};
use fhec_ir::nn::{Activation, ConstId, Graph, Op, ValueId};
use fhec_ir::{Origin, Tensor};
use std::cell::Cell;

/// A named value of the model while it is imported.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Depends on an input of the model.
    Data(ValueId),
    /// Known now.
    Constant(Constant),
    /// Made by a node that was refused, with nothing known about it.
    Unknown,
}

/// Constant elements that may still be made: a few bytes of a hostile file can ask for any amount.
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    pub(crate) fn new(elements: usize) -> Self {
        Budget(Cell::new(elements))
    }

    /// Takes room for a constant of this shape.
    pub(crate) fn take(&self, shape: &[usize]) -> Result<(), Problem> {
        match elements(shape).and_then(|n| self.0.get().checked_sub(n)) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => refuse!("a constant of shape {shape:?} exceeds the memory allowed for constants"),
        }
    }
}

/// The graph so far.
pub(crate) struct Builder<'a> {
    pub(crate) graph: Graph,
    /// Origin of the nodes pushed now.
    pub(crate) origin: Origin,
    pub(crate) budget: &'a Budget,
    /// While an operator is folded: the constants that stand as inputs of the graph.
    pub(crate) feeds: Option<Vec<Tensor>>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(budget: &'a Budget) -> Self {
        Builder { graph: Graph::default(), origin: Origin::default(), budget, feeds: None }
    }

    /// A graph for folding one operator.
    pub(crate) fn folding(budget: &'a Budget) -> Self {
        Builder { feeds: Some(Vec::new()), ..Builder::new(budget) }
    }

    pub(crate) fn shape(&self, id: ValueId) -> &[usize] {
        &self.graph.node(id).shape
    }

    /// Appends a node whose shape follows from its operands.
    pub(crate) fn push(&mut self, op: Op, inputs: Vec<ValueId>) -> Result<ValueId, Problem> {
        self.push_shaped(op, inputs, &[])
    }

    /// Appends a node with a stated shape ([`Op::Input`], [`Op::Reshape`], [`Op::Slice`]).
    pub(crate) fn push_shaped(&mut self, op: Op, inputs: Vec<ValueId>, shape: &[usize]) -> Result<ValueId, Problem> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|&v| self.shape(v)).collect();
        let shape = shape::infer(&op, &shapes, &self.graph.constants, shape)?;
        if self.feeds.is_none() && shape.contains(&0) {
            refuse!("the result has no elements: {shape:?}");
        }
        Ok(self.graph.push(op, inputs, shape, self.origin.clone()))
    }

    /// The same elements in another shape.
    pub(crate) fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId, Problem> {
        if self.shape(x) == shape { Ok(x) } else { self.push_shaped(Op::Reshape, vec![x], shape) }
    }

    pub(crate) fn activation(&mut self, a: Activation, x: ValueId) -> Result<ValueId, Problem> {
        self.push(Op::Activation(a), vec![x])
    }

    /// Axes in another order.
    pub(crate) fn transpose(&mut self, x: ValueId, perm: Vec<usize>) -> Result<ValueId, Problem> {
        if perm.is_sorted() { Ok(x) } else { self.push(Op::Transpose { perm }, vec![x]) }
    }

    /// The last two axes exchanged.
    pub(crate) fn transpose_last(&mut self, x: ValueId) -> Result<ValueId, Problem> {
        let rank = self.shape(x).len();
        if rank < 2 {
            refuse!("a matrix was expected, not {:?}", self.shape(x));
        }
        self.transpose(x, (0..rank - 2).chain([rank - 1, rank - 2]).collect())
    }

    pub(crate) fn add_const(&mut self, x: ValueId, c: Tensor) -> Result<ValueId, Problem> {
        let c = self.graph.constant(c);
        self.push(Op::AddConst(c), vec![x])
    }

    pub(crate) fn mul_const(&mut self, x: ValueId, c: Tensor) -> Result<ValueId, Problem> {
        let c = self.graph.constant(c);
        self.push(Op::MulConst(c), vec![x])
    }

    /// Repeats elements to fill `shape`, by numpy rules.
    pub(crate) fn broadcast(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId, Problem> {
        if self.shape(x) == shape {
            return Ok(x);
        }
        self.budget.take(shape)?;
        self.add_const(x, Tensor::full(shape.to_vec(), 0.0))
    }

    /// Elements `start..start + n` of one axis.
    pub(crate) fn narrow(&mut self, x: ValueId, axis: usize, start: usize, n: usize) -> Result<ValueId, Problem> {
        let mut shape = self.shape(x).to_vec();
        let (mut starts, steps) = (vec![0; shape.len()], vec![1; shape.len()]);
        if start == 0 && n == shape[axis] {
            return Ok(x);
        }
        starts[axis] = start;
        shape[axis] = n;
        self.push_shaped(Op::Slice { starts, steps }, vec![x], &shape)
    }
}

/// A node with its operands resolved, and the graph that its translation goes to.
pub(crate) struct Node<'a, 'b> {
    pub(crate) proto: &'a NodeProto,
    pub(crate) opset: i64,
    pub(crate) inputs: Vec<Option<Value>>,
    pub(crate) attributes: Attributes<'a>,
    pub(crate) builder: &'a mut Builder<'b>,
    pub(crate) external: &'a External,
}

impl Node<'_, '_> {
    /// Operand `i` unless omitted.
    pub(crate) fn input(&self, i: usize) -> Option<&Value> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// Operand `i` as a value of the graph.
    pub(crate) fn data(&mut self, i: usize) -> Result<ValueId, Problem> {
        match self.input(i) {
            Some(Value::Data(id)) => Ok(*id),
            Some(Value::Constant(c)) => {
                let tensor = c.tensor.clone();
                let Some(feeds) = &mut self.builder.feeds else {
                    refuse!("operand {i} is a constant where a value computed from the input is expected");
                };
                feeds.push(tensor.clone());
                let op = Op::Input { name: feeds.len().to_string() };
                self.builder.push_shaped(op, vec![], tensor.shape())
            }
            Some(Value::Unknown) | None => refuse!("operand {i} is missing"),
        }
    }

    /// Operand `i`, if present, as a constant.
    pub(crate) fn constant(&self, i: usize, what: &str) -> Result<Option<Constant>, Problem> {
        match self.input(i) {
            None => Ok(None),
            Some(Value::Constant(c)) => Ok(Some(c.clone())),
            Some(_) => Err(Problem::new(format!("{what} (operand {i}) is computed from the encrypted input"))
                .help(format!("make {what} an initializer or a Constant of the model"))),
        }
    }

    /// Operand `i` as a constant.
    pub(crate) fn required(&self, i: usize, what: &str) -> Result<Constant, Problem> {
        match self.constant(i, what)? {
            Some(c) => Ok(c),
            None => refuse!("{what} (operand {i}) is missing"),
        }
    }

    /// Operand `i`, if present, as a list of integers.
    pub(crate) fn integers(&self, i: usize, what: &str) -> Result<Option<Vec<i64>>, Problem> {
        // `as` saturates: the largest integers mean "to the end".
        Ok(self.constant(i, what)?.map(|c| c.tensor.values().iter().map(|&v| v as i64).collect()))
    }

    /// Operand `i`, if present, as a single number.
    pub(crate) fn scalar(&self, i: usize, what: &str) -> Result<Option<f64>, Problem> {
        match self.constant(i, what)? {
            None => Ok(None),
            Some(c) => match c.tensor.as_single() {
                Some(v) => Ok(Some(v)),
                None => refuse!("{what} (operand {i}) has shape {:?} and should be one number", c.tensor.shape()),
            },
        }
    }

    /// A constant of the graph.
    pub(crate) fn weight(&mut self, tensor: Tensor) -> ConstId {
        self.builder.graph.constant(tensor)
    }

    /// Shape of a value.
    pub(crate) fn shape(&self, x: ValueId) -> Vec<usize> {
        self.builder.shape(x).to_vec()
    }

    /// Axes that an attribute gives in old operator sets and operand `i` since `version`.
    pub(crate) fn axes(&self, i: usize, version: i64) -> Result<Option<Vec<i64>>, Problem> {
        if self.opset >= version { self.integers(i, "axes") } else { self.attributes.ints("axes") }
    }
}

/// An axis counted from the front; negative ones count from the back.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Problem> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    match from_front.and_then(|a| usize::try_from(a).ok()) {
        Some(a) if a < rank => Ok(a),
        _ => refuse!("axis {axis} of {rank} dimensions"),
    }
}

/// Axes counted from the front, sorted, each once.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Problem> {
    let mut axes: Vec<usize> = list.iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|w| w[0] == w[1]) {
        refuse!("axes {list:?} repeat");
    }
    Ok(axes)
}

/// One result.
pub(crate) fn one(id: ValueId) -> Result<Vec<Value>, Problem> {
    Ok(vec![Value::Data(id)])
}
