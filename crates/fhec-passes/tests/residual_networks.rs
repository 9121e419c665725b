//! Residual networks of many shapes mean the same after the passes that pack them, in one ciphertext or in several,
//! and no join costs a level of its own.

mod common;

use common::{Net, compare, same_meaning};
use fhec_ir::he;
use fhec_ir::nn::{Op, ValueId};
use fhec_passes::common_subexpressions::common_subexpressions;
use fhec_passes::layouts::LinearCost;
use fhec_passes::lower::lower;
use fhec_passes::merge_linear::merge_linear;

/// The only input of a network.
const INPUT: ValueId = ValueId(0);

/// Slots of the ciphertexts: all that a network has in one, or its first tensors in several.
const SLOTS: [usize; 3] = [256, 1024, 4096];

fn conv(net: &mut Net, x: ValueId, out: usize, kernel: usize, stride: usize) -> ValueId {
    net.conv(x, out, [kernel; 2], [stride; 2], [kernel / 2; 4], [1, 1], 1)
}

/// A polynomial of degree 3: two levels.
fn activation(net: &mut Net, x: ValueId) -> ValueId {
    net.polynomial(x, &[0.2, 0.4, 0.3, 0.05])
}

/// Two convolutions; `shortcut` makes the other summand.
fn block(net: &mut Net, x: ValueId, out: usize, stride: usize, shortcut: impl Fn(&mut Net) -> ValueId) -> ValueId {
    let y = conv(net, x, out, 3, stride);
    let y = activation(net, y);
    let y = conv(net, y, out, 3, 1);
    let other = shortcut(net);
    let sum = net.push(Op::Add, &[y, other]);
    activation(net, sum)
}

/// Every second pixel, and zeros for the new channels: the parameter-free shortcut.
fn sliced(net: &mut Net, x: ValueId, out: usize) -> ValueId {
    let [_, c, h, w] = net.shape(x)[..] else { panic!("an image") };
    let half = net.slice(x, &[0; 4], &[1, 1, 2, 2], &[1, c, h.div_ceil(2), w.div_ceil(2)]);
    let (front, behind) = ((out - c) / 2, (out - c).div_ceil(2));
    let before = vec![0, front as i64, 0, 0];
    net.push(Op::Pad { before, after: vec![0, behind as i64, 0, 0], value: 0.0 }, &[half])
}

fn head(net: &mut Net, x: ValueId) {
    let x = net.push(Op::ReduceMean { axes: vec![2, 3], keep: false }, &[x]);
    let x = net.dense(x, 3);
    net.output(x);
}

fn depth(graph: &he::Graph) -> usize {
    let mut depths: Vec<usize> = Vec::new();
    for node in &graph.nodes {
        let own = match node.op {
            he::Op::LinearMap { .. } | he::Op::Mul | he::Op::MulVector { .. } | he::Op::MulScalar { .. } => 1,
            he::Op::Polynomial { .. } => 2,
            _ => 0,
        };
        depths.push(own + node.inputs.iter().map(|v| depths[v.index()]).max().unwrap_or(0));
    }
    graph.outputs.iter().map(|o| depths[o.value.index()]).max().unwrap_or(0)
}

/// Packs, compares, and holds the depth against `want`.
fn run(net: Net, want: usize) {
    let graph = net.finish();
    for slots in SLOTS {
        let cost = LinearCost::default();
        let merged = merge_linear(&graph, slots, &cost).unwrap_or_else(|e| panic!("{slots} slots: {e}")).graph;
        same_meaning(&graph, &merged);
        let he = lower(&merged, slots, &cost).unwrap_or_else(|e| panic!("{slots} slots: {e}"));
        let he = common_subexpressions(&he);
        compare(&graph, &he);
        assert_eq!(depth(&he), want, "{slots} slots\n{graph}\n{he}");
    }
}

#[test]
fn shortcuts_of_both_kinds_odd_channels_and_odd_sizes() {
    for (size, parameter_free) in [(8, true), (8, false), (7, true), (7, false), (9, true)] {
        let mut net = Net::new(&[1, 3, size, size]);
        let mut x = conv(&mut net, INPUT, 5, 3, 1);
        x = activation(&mut net, x);
        x = block(&mut net, x, 5, 1, |_| x);
        for out in [7, 11] {
            x = block(
                &mut net,
                x,
                out,
                2,
                |net| {
                    if parameter_free { sliced(net, x, out) } else { conv(net, x, out, 1, 2) }
                },
            );
        }
        head(&mut net, x);
        // A first layer with activation, three blocks, the last layer.
        run(net, 3 + 3 * 6 + 1);
    }
}

#[test]
fn residuals_inside_residuals() {
    let mut net = Net::new(&[1, 2, 6, 6]);
    let outer = conv(&mut net, INPUT, 4, 3, 1);
    let outer = activation(&mut net, outer);
    let x = block(&mut net, outer, 4, 1, |_| outer);
    let middle = block(&mut net, x, 4, 1, |_| x);
    let x = net.push(Op::Add, &[middle, outer]);
    let y = block(&mut net, x, 4, 1, |net| conv(net, outer, 4, 1, 1));
    let y = conv(&mut net, y, 4, 3, 1);
    let sum = net.push(Op::Add, &[y, x]);
    let sum = net.push(Op::Add, &[sum, middle]);
    head(&mut net, sum);
    // First layer and activation, two blocks, the held sum that two read, a block, and two layers that do not merge.
    run(net, 3 + 2 * 6 + 6 + 1 + 1);
}

/// DenseNet: every layer reads all before it; a transition halves channels and size.
#[test]
fn concatenations_of_all_layers_before() {
    for size in [8, 7] {
        let mut net = Net::new(&[1, 3, size, size]);
        let mut all = conv(&mut net, INPUT, 4, 3, 1);
        for _ in 0..2 {
            for _ in 0..2 {
                let y = activation(&mut net, all);
                let y = conv(&mut net, y, 3, 3, 1);
                all = net.push(Op::Concat { axis: 1 }, &[all, y]);
            }
            let y = activation(&mut net, all);
            let y = conv(&mut net, y, 5, 1, 1);
            all = net.average_pool(y, [2, 2], [2, 2], [0; 4], false);
        }
        let all = activation(&mut net, all);
        head(&mut net, all);
        let graph = net.finish();
        for slots in SLOTS {
            let cost = LinearCost::default();
            let merged = merge_linear(&graph, slots, &cost).unwrap_or_else(|e| panic!("{slots} slots: {e}")).graph;
            same_meaning(&graph, &merged);
            compare(&graph, &lower(&merged, slots, &cost).unwrap_or_else(|e| panic!("{slots} slots: {e}")));
        }
    }
}

/// MobileNet: depthwise and pointwise layers, in images of an odd size.
#[test]
fn depthwise_layers_with_strides() {
    let mut net = Net::new(&[1, 3, 9, 9]);
    let mut x = conv(&mut net, INPUT, 4, 3, 2);
    x = activation(&mut net, x);
    for (out, stride) in [(6, 1), (10, 2)] {
        let channels = net.shape(x)[1];
        x = net.conv(x, channels, [3; 2], [stride; 2], [1; 4], [1, 1], channels);
        x = activation(&mut net, x);
        x = conv(&mut net, x, out, 1, 1);
        x = activation(&mut net, x);
    }
    head(&mut net, x);
    run(net, 3 * 5 + 1);
}

/// Twenty channels of 16 x 16 pixels are 5120 values: more than any of the ciphertexts holds.
#[test]
fn tensors_wider_than_a_ciphertext() {
    let mut net = Net::new(&[1, 3, 16, 16]);
    let mut x = conv(&mut net, INPUT, 20, 3, 1);
    x = activation(&mut net, x);
    x = block(&mut net, x, 20, 1, |_| x);
    x = block(&mut net, x, 24, 2, |net| sliced(net, x, 24));
    head(&mut net, x);
    run(net, 3 + 2 * 6 + 1);
}
