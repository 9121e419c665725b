//! Nodes, values and constants of the tensor graph.

use crate::{Origin, Tensor, nn::Activation};

/// A node and the one value it makes. Operands have smaller ids than users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// A constant tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConstId(pub u32);

impl ValueId {
    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ConstId {
    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A two-dimensional convolution (one-dimensional ones are imported with height 1). Input
/// `[n, c, h, w]`, weight `[c_out, c/groups, kh, kw]`, bias `[c_out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Kernel.
    pub weight: ConstId,
    /// Bias.
    pub bias: Option<ConstId>,
    /// Vertical and horizontal stride.
    pub strides: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Vertical and horizontal dilation.
    pub dilations: [usize; 2],
    /// Channel groups.
    pub groups: usize,
}

/// Average pooling, as a fixed divisor or divided by the number of real elements under the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Window.
    pub kernel: [usize; 2],
    /// Stride.
    pub strides: [usize; 2],
    /// Padding: top, left, bottom, right (`ceil_mode` already added to bottom and right).
    pub pads: [usize; 4],
    /// Dilation.
    pub dilations: [usize; 2],
    /// Padding that counts as elements: top, left, bottom, right (all zero unless `count_include_pad`;
    /// what `ceil_mode` added never counts).
    pub counted_pads: [usize; 4],
}

/// Operations. Shapes are those of [`Node::shape`]; all are static.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A model input.
    Input {
        /// Name in the model.
        name: String,
    },
    /// Convolution.
    Conv(Conv),
    /// `y[…, o] = Σ_i x[…, i] · weight[o, i] + bias[o]`: Gemm and MatMul by a constant.
    Dense {
        /// `[out, in]`.
        weight: ConstId,
        /// `[out]`.
        bias: Option<ConstId>,
    },
    /// Batch normalisation at inference, over axis 1.
    BatchNorm {
        /// `[c]` each.
        scale: ConstId,
        /// Added last.
        bias: ConstId,
        /// Subtracted first.
        mean: ConstId,
        /// Variance.
        variance: ConstId,
        /// Added to the variance.
        epsilon: f64,
    },
    /// Sum of two values (numpy broadcasting).
    Add,
    /// Difference of two values (numpy broadcasting).
    Sub,
    /// Product of two values (numpy broadcasting).
    Mul,
    /// Value plus constant (numpy broadcasting).
    AddConst(ConstId),
    /// Value times constant (numpy broadcasting).
    MulConst(ConstId),
    /// Average pooling over the last two axes.
    AveragePool(Pool),
    /// Mean over axes.
    ReduceMean {
        /// Sorted, non-negative.
        axes: Vec<usize>,
        /// Keep reduced axes with extent 1.
        keep: bool,
    },
    /// Sum over axes.
    ReduceSum {
        /// Sorted, non-negative.
        axes: Vec<usize>,
        /// Keep reduced axes with extent 1.
        keep: bool,
    },
    /// Same row-major order, other shape (Reshape, Flatten, Squeeze, Unsqueeze).
    Reshape,
    /// Axis `d` of the result is axis `perm[d]` of the operand.
    Transpose {
        /// The permutation.
        perm: Vec<usize>,
    },
    /// Operands side by side.
    Concat {
        /// Axis.
        axis: usize,
    },
    /// Every axis `d` from `starts[d]`, `shape[d]` elements, in steps of `steps[d]` (may be negative).
    Slice {
        /// First index, per axis.
        starts: Vec<usize>,
        /// Step, per axis.
        steps: Vec<i64>,
    },
    /// Constant padding.
    Pad {
        /// Elements added in front, per axis (negative crops).
        before: Vec<i64>,
        /// Elements added behind, per axis (negative crops).
        after: Vec<i64>,
        /// The constant.
        value: f64,
    },
    /// Elementwise function.
    Activation(Activation),
    /// Parametric ReLU: x for x ≥ 0, slope·x below (slope broadcasts).
    PRelu {
        /// Slopes.
        slope: ConstId,
    },
    /// Elementwise polynomial: `Σ c_k T_k((2x − lo − hi)/(hi − lo))`, made by the approximation pass
    /// or found in the model.
    Polynomial {
        /// Coefficients in the Chebyshev basis of the interval.
        chebyshev: Vec<f64>,
        /// Interval it is fitted on.
        interval: Range,
        /// What it stands for.
        label: String,
    },
    /// Softmax; compiled only as the last operation, and left to the client.
    Softmax {
        /// Axis.
        axis: usize,
    },
    /// Maximum pooling: for modes that can evaluate it; window as in [`Op::AveragePool`].
    MaxPool(Pool),
}

impl Op {
    /// The constants the operation refers to.
    pub fn constants(&self) -> Vec<ConstId> {
        self.clone().constants_mut().into_iter().map(|c| *c).collect()
    }

    /// The same, to renumber them.
    pub fn constants_mut(&mut self) -> Vec<&mut ConstId> {
        match self {
            Op::Conv(Conv { weight, bias, .. }) | Op::Dense { weight, bias } => {
                std::iter::once(weight).chain(bias.as_mut()).collect()
            }
            Op::BatchNorm { scale, bias, mean, variance, .. } => vec![scale, bias, mean, variance],
            Op::AddConst(c) | Op::MulConst(c) | Op::PRelu { slope: c } => vec![c],
            _ => vec![],
        }
    }
}

/// A closed interval of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

/// What calibration saw of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Counts over equal bins of the node's range; empty where no activation reads the value.
    pub histogram: Vec<u64>,
}

/// A node and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Shape of the value, batch first.
    pub shape: Vec<usize>,
    /// The model nodes it came from.
    pub origin: Origin,
    /// Values seen in calibration or derived by interval arithmetic, with margin.
    pub range: Option<Range>,
    /// Distribution of the values; only from calibration data.
    pub distribution: Option<Distribution>,
}

/// A model output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Name in the model.
    pub name: String,
    /// The value.
    pub value: ValueId,
}

/// A tensor graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Constants.
    pub constants: Vec<Tensor>,
    /// Outputs in the model's order.
    pub outputs: Vec<Output>,
}

impl Graph {
    /// Appends a node.
    pub fn push(&mut self, op: Op, inputs: Vec<ValueId>, shape: Vec<usize>, origin: Origin) -> ValueId {
        self.nodes.push(Node { op, inputs, shape, origin, range: None, distribution: None });
        ValueId(self.nodes.len() as u32 - 1)
    }

    /// Appends a constant.
    pub fn constant(&mut self, tensor: Tensor) -> ConstId {
        self.constants.push(tensor);
        ConstId(self.constants.len() as u32 - 1)
    }

    /// The node that makes a value.
    pub fn node(&self, id: ValueId) -> &Node {
        &self.nodes[id.index()]
    }

    /// A constant's tensor.
    pub fn tensor(&self, id: ConstId) -> &Tensor {
        &self.constants[id.index()]
    }

    /// Ids of all nodes, in order.
    pub fn ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.nodes.len() as u32).map(ValueId)
    }

    /// Ids of the input nodes, in order.
    pub fn inputs(&self) -> Vec<ValueId> {
        self.ids().filter(|&v| matches!(self.node(v).op, Op::Input { .. })).collect()
    }

    /// Users of every value, in order.
    pub fn users(&self) -> Vec<Vec<ValueId>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for id in self.ids() {
            for input in &self.node(id).inputs {
                users[input.index()].push(id);
            }
        }
        users
    }
}
