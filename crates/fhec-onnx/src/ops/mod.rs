//! Operators: one file per family.

mod activation;
mod arithmetic;
mod constant;
mod conv;
mod dense;
mod layout;
mod norm;
mod pad;
mod pool;
mod reduce;
mod slice;
mod window;

use crate::builder::{Node, Value};
use crate::error::Problem;

/// Translates a node into the graph and returns its results.
pub(crate) type Translate = fn(&mut Node<'_, '_>) -> Result<Vec<Value>, Problem>;

/// An operator: its translation and how many operands it takes.
pub(crate) struct Operator {
    pub(crate) translate: Translate,
    pub(crate) least: usize,
    pub(crate) most: usize,
}

/// The operator of this name.
pub(crate) fn find(name: &str) -> Option<Operator> {
    const ANY: usize = usize::MAX;
    let (translate, least, most): (Translate, usize, usize) = match name {
        "Conv" => (conv::conv, 2, 3),
        "Gemm" => (dense::gemm, 2, 3),
        "MatMul" => (dense::matmul, 2, 2),
        "BatchNormalization" => (norm::batch_normalization, 5, 5),

        "Add" => (arithmetic::add, 2, 2),
        "Sub" => (arithmetic::sub, 2, 2),
        "Mul" => (arithmetic::mul, 2, 2),
        "Div" => (arithmetic::div, 2, 2),
        "Neg" => (arithmetic::neg, 1, 1),
        "Pow" => (arithmetic::pow, 2, 2),
        "Sum" => (arithmetic::sum, 1, ANY),
        "Mean" => (arithmetic::mean, 1, ANY),
        "Max" => (arithmetic::max, 1, ANY),
        "Min" => (arithmetic::min, 1, ANY),
        "Where" => (arithmetic::select, 3, 3),

        "AveragePool" => (pool::average, 1, 1),
        "GlobalAveragePool" => (pool::global_average, 1, 1),
        "MaxPool" => (pool::maximum, 1, 1),
        "GlobalMaxPool" => (pool::global_maximum, 1, 1),
        "ReduceMean" => (reduce::mean, 1, 2),
        "ReduceSum" => (reduce::sum, 1, 2),
        "ReduceSumSquare" => (reduce::sum_square, 1, 2),

        "Flatten" => (layout::flatten, 1, 1),
        "Reshape" => (layout::reshape, 2, 2),
        "Squeeze" => (layout::squeeze, 1, 2),
        "Unsqueeze" => (layout::unsqueeze, 1, 2),
        "Transpose" => (layout::transpose, 1, 1),
        "DepthToSpace" => (layout::depth_to_space, 1, 1),
        "SpaceToDepth" => (layout::space_to_depth, 1, 1),
        "Expand" => (layout::expand, 2, 2),
        "Identity" => (layout::identity, 1, 1),
        "Dropout" => (layout::dropout, 1, 3),
        "Cast" => (layout::cast, 1, 1),
        "CastLike" => (layout::cast_like, 2, 2),

        "Concat" => (slice::concat, 1, ANY),
        "Split" => (slice::split, 1, 2),
        "Slice" => (slice::slice, 1, 5),
        "Gather" => (slice::gather, 2, 2),
        "Tile" => (slice::tile, 2, 2),
        "Pad" => (pad::pad, 1, 4),

        "Constant" => (constant::constant, 0, 0),
        "ConstantOfShape" => (constant::constant_of_shape, 1, 1),
        "Shape" => (constant::shape, 1, 1),
        "Size" => (constant::size, 1, 1),
        "Range" => (constant::range, 3, 3),

        "Clip" => (activation::clip, 1, 3),
        "PRelu" => (activation::prelu, 2, 2),
        "Softmax" => (activation::softmax, 1, 1),
        _ if activation::is_activation(name) => (activation::activation, 1, 1),
        _ => return None,
    };
    Some(Operator { translate, least, most })
}
