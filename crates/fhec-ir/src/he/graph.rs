//! Nodes and tables of the ciphertext graph.

use crate::nn::Range;
use crate::{Origin, Tensor};
use fhec_math::scale::Scale;
use fhec_plan::{Layout, Matrix, MatrixId, PolyId, Polynomial, Postprocess, TensorId, Vector, VectorId};

/// A node and the one packed tensor it makes. Operands have smaller ids than users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One summand of [`Op::LinearMap`]; its source is the node's operand of the same position.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearTerm {
    /// The matrix.
    pub matrix: MatrixId,
    /// Baby-step count; 0 until BSGS is planned.
    pub baby: usize,
}

/// Operations; the meaning of each is that of the plan operation of the same name
/// ([`fhec_plan::Op`]). Scales are `None` until levels are placed.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A fresh input.
    Input(usize),
    /// `Σ matrix_k · operand_k + bias`. Includes one rescale.
    LinearMap {
        /// Summands, one per operand.
        terms: Vec<LinearTerm>,
        /// Bias.
        bias: Option<VectorId>,
        /// Scale of the result.
        out_scale: Option<Scale>,
    },
    /// Chebyshev polynomial of values in [-1, 1]. Consumes ⌈log2(degree + 1)⌉ levels, rescales included.
    Polynomial {
        /// The polynomial.
        poly: PolyId,
        /// Scale of the result.
        out_scale: Option<Scale>,
    },
    /// Sum of two operands.
    Add,
    /// Difference of two operands.
    Sub,
    /// Negation.
    Negate,
    /// Product of two operands (a square has the same one twice).
    Mul,
    /// Product with a constant.
    MulScalar {
        /// The constant.
        value: f64,
        /// Scale of the constant.
        scale: Option<Scale>,
    },
    /// Product with a vector.
    MulVector {
        /// The vector.
        vector: VectorId,
        /// Scale of the vector.
        scale: Option<Scale>,
    },
    /// Sum with a constant.
    AddScalar(f64),
    /// Sum with a vector.
    AddVector(VectorId),
    /// Left rotation.
    Rotate(i64),
    /// Degree 2 to degree 1.
    Relinearise,
    /// Division by the last prime.
    Rescale,
    /// Limbs dropped down to a level.
    LevelDrop(usize),
    /// The same values at a higher level.
    Bootstrap {
        /// The level.
        level: usize,
        /// Scale of the result.
        out_scale: Option<Scale>,
    },
}

impl Op {
    /// Short lower-case name, the one that the plan uses for the operation of the same meaning.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::LinearMap { .. } => "linear",
            Op::Polynomial { .. } => "poly",
            Op::Add => "add",
            Op::Sub => "sub",
            Op::Negate => "neg",
            Op::Mul => "mul",
            Op::MulScalar { .. } => "mul_scalar",
            Op::MulVector { .. } => "mul_vector",
            Op::AddScalar(_) => "add_scalar",
            Op::AddVector(_) => "add_vector",
            Op::Rotate(_) => "rotate",
            Op::Relinearise => "relin",
            Op::Rescale => "rescale",
            Op::LevelDrop(_) => "drop",
            Op::Bootstrap { .. } => "bootstrap",
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Where the elements of the value are.
    pub layout: Layout,
    /// Bound on the slot values.
    pub range: Range,
    /// The model nodes it came from.
    pub origin: Origin,
    /// Layer kind for people ("Conv 5x5 stride 2").
    pub kind: String,
}

/// An input of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Name in the model.
    pub name: String,
    /// Tensor shape.
    pub shape: Vec<usize>,
    /// The client multiplies by this before encrypting.
    pub factor: f64,
    /// Range of the model's values (before `factor`).
    pub range: Range,
}

/// An output of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Name in the model.
    pub name: String,
    /// Tensor shape.
    pub shape: Vec<usize>,
    /// The value.
    pub value: ValueId,
    /// The client multiplies by this after decrypting.
    pub factor: f64,
    /// Left to the client.
    pub postprocess: Vec<Postprocess>,
}

/// A ciphertext graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    /// Slots of a ciphertext.
    pub slots: usize,
    /// Whether a slot holds two images, one in its real and one in its imaginary part. What operations mean for one image
    /// is the same: they act on both parts, and a product is that of the parts, at four times the product of the scales.
    pub complex: bool,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Inputs, indexed by [`Op::Input`].
    pub inputs: Vec<Input>,
    /// Outputs.
    pub outputs: Vec<Output>,
    /// Linear maps, indexed by [`MatrixId`].
    pub matrices: Vec<Matrix>,
    /// Vectors, indexed by [`VectorId`].
    pub vectors: Vec<Vector>,
    /// Polynomials, indexed by [`PolyId`].
    pub polynomials: Vec<Polynomial>,
    /// Weight tensors, indexed by [`TensorId`].
    pub tensors: Vec<Tensor>,
}

impl Graph {
    /// The node that makes a value.
    pub fn node(&self, id: ValueId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Ids of all nodes, in order.
    pub fn ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.nodes.len() as u32).map(ValueId)
    }

    /// Appends a node.
    pub fn push(&mut self, node: Node) -> ValueId {
        self.nodes.push(node);
        ValueId(self.nodes.len() as u32 - 1)
    }

    /// Appends a matrix.
    pub fn matrix(&mut self, matrix: Matrix) -> MatrixId {
        self.matrices.push(matrix);
        MatrixId(self.matrices.len() as u32 - 1)
    }

    /// Appends a vector.
    pub fn vector(&mut self, vector: Vector) -> VectorId {
        self.vectors.push(vector);
        VectorId(self.vectors.len() as u32 - 1)
    }

    /// Appends a polynomial.
    pub fn polynomial(&mut self, polynomial: Polynomial) -> PolyId {
        self.polynomials.push(polynomial);
        PolyId(self.polynomials.len() as u32 - 1)
    }

    /// Appends a weight tensor.
    pub fn tensor(&mut self, tensor: Tensor) -> TensorId {
        self.tensors.push(tensor);
        TensorId(self.tensors.len() as u32 - 1)
    }
}
