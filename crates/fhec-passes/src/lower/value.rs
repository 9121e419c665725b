//! The lowered network before layouts are chosen: packed values and linear maps between them, with all
//! free changes of view and factor kept symbolic.

use crate::layouts::positions::Positions;
use fhec_ir::nn::Range;
use fhec_ir::{Origin, Tensor};
use fhec_plan::TensorId;

/// A packed value of the skeleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PackedId(pub(crate) usize);

/// One free change of view: which elements of a packed value are meant, and in which order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ViewStep {
    /// Axis `d` of the result is axis `perm[d]` of a tensor of `shape`.
    Transpose { shape: Vec<usize>, perm: Vec<usize> },
    /// A box of a tensor of `shape`.
    Slice { shape: Vec<usize>, starts: Vec<usize>, steps: Vec<i64>, extents: Vec<usize> },
}

/// Changes of view in order. Reshapes leave no trace: positions number elements.
pub(crate) type View = Vec<ViewStep>;

/// The positions of a viewed value.
pub(crate) fn apply_view(positions: &Positions, view: &View) -> Positions {
    view.iter().fold(positions.clone(), |p, step| match step {
        ViewStep::Transpose { shape, perm } => p.transposed(shape, perm),
        ViewStep::Slice { shape, starts, steps, extents } => p.sliced(shape, starts, steps, extents),
    })
}

/// `mul · packed + add`, elementwise, seen through a view.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub(crate) packed: PackedId,
    pub(crate) view: View,
    pub(crate) mul: f64,
    pub(crate) add: f64,
}

/// A box of a larger tensor: the part `before[d] … before[d] + shape[d]` of every axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// First index, per axis.
    pub(crate) before: Vec<usize>,
    /// Extents of the part.
    pub(crate) shape: Vec<usize>,
    /// Extents of the whole.
    pub(crate) full: Vec<usize>,
}

impl Place {
    /// The whole tensor.
    pub(crate) fn whole(shape: &[usize]) -> Self {
        Place { before: vec![0; shape.len()], shape: shape.to_vec(), full: shape.to_vec() }
    }

    /// True when nothing is left out.
    pub(crate) fn is_whole(&self) -> bool {
        self.shape == self.full
    }
}

/// A tensor made of parts side by side; elements that no part covers are zero.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Extents of the whole, in the frame of the parts' places.
    pub(crate) shape: Vec<usize>,
    pub(crate) parts: Vec<(Place, Operand)>,
}

impl Parts {
    /// One operand that is the whole.
    pub(crate) fn single(shape: &[usize], operand: Operand) -> Self {
        Parts { shape: shape.to_vec(), parts: vec![(Place::whole(shape), operand)] }
    }

    /// The operand when there is one part that is the whole.
    pub(crate) fn as_single(&self) -> Option<&Operand> {
        match self.parts.as_slice() {
            [(place, operand)] if place.is_whole() => Some(operand),
            _ => None,
        }
    }

    /// True when every element belongs to a part.
    pub(crate) fn covers(&self) -> bool {
        let covered: usize = self.parts.iter().map(|(p, _)| p.shape.iter().product::<usize>()).sum();
        covered == self.shape.iter().product::<usize>()
    }
}

/// A sliding window over an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    /// Channels, height, width of the whole input.
    pub(crate) input: [usize; 3],
    /// Channels, height, width of the output.
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 2],
    pub(crate) strides: [usize; 2],
    pub(crate) dilations: [usize; 2],
    /// Padding above and to the left; the output extents imply the rest.
    pub(crate) pads: [usize; 2],
}

/// A linear operation on one tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Linear {
    /// Convolution with weights `[c_out, c_in / groups, kh, kw]`.
    Conv { window: Window, groups: usize, weight: TensorId },
    /// Window sums per channel, with one weight per output pixel or none.
    Pool { window: Window, weight: Option<TensorId> },
    /// `[…, in] → […, out]` with weights `[out, in]`; `full` is the shape of the whole input.
    Dense { weight: TensorId, lead: usize, inner: usize, rows: usize },
    /// Sum over axes of the input.
    Reduce { axes: Vec<usize> },
    /// The elements themselves, repeated by numpy rules up to `target`.
    Copy { target: Vec<usize> },
}

/// A summand of an affine value: `factor · op(source) + offset · op(1)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Term {
    pub(crate) source: PackedId,
    pub(crate) view: View,
    /// Which box of the operation's input the source is.
    pub(crate) part: Place,
    pub(crate) op: Linear,
    pub(crate) factor: f64,
    pub(crate) offset: f64,
    /// Which box of the result the operation fills.
    pub(crate) place: Place,
}

/// A constant summand of an affine value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bias {
    /// The values, broadcast to `place.shape` from `shape`; `None` means ones.
    pub(crate) tensor: Option<(TensorId, Vec<usize>)>,
    pub(crate) factor: f64,
    pub(crate) place: Place,
}

/// A linear region's result that no ciphertext holds yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Affine {
    pub(crate) terms: Vec<Term>,
    pub(crate) biases: Vec<Bias>,
    pub(crate) shape: Vec<usize>,
    pub(crate) origin: Origin,
    pub(crate) kind: String,
}

impl Affine {
    /// Multiplies by a constant.
    pub(crate) fn scale(&mut self, by: f64) {
        for t in &mut self.terms {
            t.factor *= by;
            t.offset *= by;
        }
        for b in &mut self.biases {
            b.factor *= by;
        }
    }

    /// Adds a constant to every element.
    pub(crate) fn shift(&mut self, by: f64) {
        if by != 0.0 {
            self.biases.push(Bias { tensor: None, factor: by, place: Place::whole(&self.shape) });
        }
    }
}

/// What a packed value is made by.
#[derive(Clone, Debug)]
pub(crate) enum Make {
    /// Model input, by index.
    Input(usize),
    /// A linear map.
    Map(Affine),
    /// A polynomial in the Chebyshev basis of [-1, 1].
    Polynomial {
        source: PackedId,
        chebyshev: Vec<f64>,
        label: String,
    },
    /// Elementwise operations keep the layout of their operands.
    Add(PackedId, PackedId),
    Sub(PackedId, PackedId),
    Mul(PackedId, PackedId),
    AddScalar(PackedId, f64),
    MulScalar(PackedId, f64),
    /// The constants of a tensor added to the viewed elements.
    AddTensor(PackedId, View, Bias),
    /// The viewed elements times the constants of a tensor.
    MulTensor(PackedId, View, Bias),
}

impl Make {
    /// Operands whose layout the result shares.
    pub(crate) fn sharing(&self) -> Vec<PackedId> {
        match *self {
            Make::Input(_) | Make::Map(_) => vec![],
            Make::Add(a, b) | Make::Sub(a, b) | Make::Mul(a, b) => vec![a, b],
            Make::Polynomial { source: a, .. }
            | Make::AddScalar(a, _)
            | Make::MulScalar(a, _)
            | Make::AddTensor(a, ..)
            | Make::MulTensor(a, ..) => vec![a],
        }
    }

    /// All operands.
    pub(crate) fn sources(&self) -> Vec<PackedId> {
        match self {
            Make::Map(affine) => affine.terms.iter().map(|t| t.source).collect(),
            other => other.sharing(),
        }
    }
}

/// A packed value.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) make: Make,
    /// Shape of the tensor that its layout numbers.
    pub(crate) shape: Vec<usize>,
    /// Bound on the slot values, those without an element included.
    pub(crate) range: Range,
    /// What the slots without an element hold, all the same.
    pub(crate) blank: f64,
    pub(crate) origin: Origin,
    pub(crate) kind: String,
}

/// An input of the network and what the client multiplies it by.
#[derive(Clone, Debug)]
pub(crate) struct SkeletonInput {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) factor: f64,
    pub(crate) range: Range,
}

/// An output of the network and what the client multiplies it by.
#[derive(Clone, Debug)]
pub(crate) struct SkeletonOutput {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) packed: PackedId,
    pub(crate) factor: f64,
    pub(crate) softmax: Vec<usize>,
}

/// The network as packed values, before layouts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skeleton {
    pub(crate) name: String,
    pub(crate) packed: Vec<Packed>,
    pub(crate) inputs: Vec<SkeletonInput>,
    pub(crate) outputs: Vec<SkeletonOutput>,
    pub(crate) tensors: Vec<Tensor>,
}

impl Skeleton {
    /// A packed value.
    pub(crate) fn get(&self, id: PackedId) -> &Packed {
        &self.packed[id.0]
    }

    /// Ids of all packed values, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PackedId> + use<> {
        (0..self.packed.len()).map(PackedId)
    }
}
