//! Pooling over one to three spatial axes.

use super::window::{Window, kernel_shape};
use crate::builder::{Node, Value, one};
use crate::error::{Problem, refuse};
use fhec_ir::nn::{Op, Pool, ValueId};

pub(super) fn average(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let include = node.attributes.flag("count_include_pad", false)?;
    let (x, window, declared) = read(node)?;
    // Padding that ceil_mode adds never counts.
    let counted = if include { declared } else { zeros(&window) };
    if !include {
        let extents = node.shape(x)[2..].to_vec();
        window.check_covered(&extents)?;
    }
    one(pool(node, x, &window, &counted, Op::AveragePool)?)
}

pub(super) fn maximum(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    node.attributes.ignore(&["storage_order"]);
    if node.proto.output.get(1).is_some_and(|o| !o.is_empty()) {
        refuse!("the indices of the maxima are used");
    }
    let (x, window, _) = read(node)?;
    let extents = node.shape(x)[2..].to_vec();
    window.check_covered(&extents)?;
    let counted = zeros(&window);
    one(pool(node, x, &window, &counted, Op::MaxPool)?)
}

pub(super) fn global_average(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let x = node.data(0)?;
    let rank = node.shape(x).len();
    if rank < 3 {
        refuse!("an operand of rank {rank} has no spatial axes");
    }
    one(node.builder.push(Op::ReduceMean { axes: (2..rank).collect(), keep: true }, vec![x])?)
}

pub(super) fn global_maximum(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let x = node.data(0)?;
    let shape = node.shape(x);
    if shape.len() < 3 {
        refuse!("an operand of rank {} has no spatial axes", shape.len());
    }
    // All spatial axes as one row.
    let elements: usize = shape[2..].iter().product();
    let row = node.builder.reshape(x, &[shape[0], shape[1], 1, elements])?;
    let y = node.builder.push(Op::MaxPool(plain([1, elements], [1, 1])), vec![row])?;
    one(node.builder.reshape(y, &[&shape[..2], &vec![1; shape.len() - 2]].concat())?)
}

/// Padding in front and behind, per axis.
type Pads = (Vec<usize>, Vec<usize>);

/// Operand, window and the padding before `ceil_mode` extended it.
fn read(node: &mut Node<'_, '_>) -> Result<(ValueId, Window, Pads), Problem> {
    let x = node.data(0)?;
    let shape = node.shape(x);
    let rank = shape.len().saturating_sub(2);
    if !(1..=3).contains(&rank) {
        refuse!("pooling over {rank} spatial axes of {shape:?}; one to three are supported");
    }
    let Some(kernel) = kernel_shape(node, rank)? else {
        return Err(Problem::new("is missing").of("kernel_shape"));
    };
    let mut window = Window::read(node, kernel, &shape[2..])?;
    let declared = (window.before.clone(), window.after.clone());
    if node.attributes.flag("ceil_mode", false)? {
        window.ceil(&shape[2..])?;
    }
    Ok((x, window, declared))
}

fn zeros(window: &Window) -> Pads {
    (vec![0; window.kernel.len()], vec![0; window.kernel.len()])
}

fn plain(kernel: [usize; 2], strides: [usize; 2]) -> Pool {
    Pool { kernel, strides, pads: [0; 4], dilations: [1, 1], counted_pads: [0; 4] }
}

/// The two-dimensional pool over two of the window's axes; `None` is an axis that is left alone.
fn over(window: &Window, counted: &Pads, axes: [Option<usize>; 2]) -> Pool {
    let each = |list: &[usize], default: usize| axes.map(|a| a.map_or(default, |a| list[a]));
    let four = |before: &[usize], after: &[usize]| {
        let ([top, left], [bottom, right]) = (each(before, 0), each(after, 0));
        [top, left, bottom, right]
    };
    Pool {
        kernel: each(&window.kernel, 1),
        strides: each(&window.strides, 1),
        dilations: each(&window.dilations, 1),
        pads: four(&window.before, &window.after),
        counted_pads: four(&counted.0, &counted.1),
    }
}

/// Pools over the last two axes, after bringing one or three spatial axes into that form. Maxima, and
/// means whose divisor is a product over the axes, may be taken axis by axis.
fn pool(
    node: &mut Node<'_, '_>,
    x: ValueId,
    window: &Window,
    counted: &Pads,
    make: fn(Pool) -> Op,
) -> Result<ValueId, Problem> {
    let shape = node.shape(x);
    let b = &mut *node.builder;
    match shape[..] {
        [n, c, length] => {
            let row = b.reshape(x, &[n, c, 1, length])?;
            let y = b.push(make(over(window, counted, [None, Some(0)])), vec![row])?;
            let out = b.shape(y)[3];
            b.reshape(y, &[n, c, out])
        }
        [_, _, _, _] => b.push(make(over(window, counted, [Some(0), Some(1)])), vec![x]),
        [n, c, d, h, w] => {
            let planes = b.reshape(x, &[n, c * d, h, w])?;
            let y = b.push(make(over(window, counted, [Some(1), Some(2)])), vec![planes])?;
            let (h, w) = (b.shape(y)[2], b.shape(y)[3]);
            let columns = b.reshape(y, &[n, c, d, h * w])?;
            let z = b.push(make(over(window, counted, [Some(0), None])), vec![columns])?;
            let d = b.shape(z)[2];
            b.reshape(z, &[n, c, d, h, w])
        }
        _ => refuse!("pooling of {shape:?}"),
    }
}
