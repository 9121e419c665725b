//! Merged graphs mean the same, have fewer maps, and lower to what they mean.

mod common;

use common::{Net, compare, same_meaning};
use fhec_ir::nn::{Graph, Op};
use fhec_passes::layouts::LinearCost;
use fhec_passes::lower::lower;
use fhec_passes::merge_linear::{Merged, merge_linear};

fn merge(net: Net, slots: usize) -> (Graph, Merged) {
    let graph = net.finish();
    let merged = merge_linear(&graph, slots, &LinearCost::default()).unwrap_or_else(|e| panic!("{e}"));
    same_meaning(&graph, &merged.graph);
    let he = lower(&merged.graph, slots, &LinearCost::default()).unwrap_or_else(|e| panic!("{e}"));
    compare(&graph, &he);
    (graph, merged)
}

fn ops(graph: &Graph) -> Vec<&'static str> {
    graph.nodes.iter().map(|n| n.op.name()).collect()
}

/// Window, strides, pads.
type Shape = ([usize; 2], [usize; 2], [usize; 4]);

#[test]
fn pools_and_convolutions_compose_where_that_is_exact() {
    let cases: [(Shape, Shape, bool); 7] = [
        // pool 2x2, then convolution: without padding, and with padding over whole windows
        (([2, 2], [2, 2], [0; 4]), ([3, 3], [1, 1], [0; 4]), true),
        (([2, 2], [2, 2], [0; 4]), ([3, 3], [1, 1], [1; 4]), true),
        // 13 rows: the window beyond the last would see row 12
        (([2, 4], [2, 4], [0; 4]), ([3, 3], [1, 1], [1; 4]), false),
        (([3, 2], [1, 2], [0; 4]), ([3, 3], [2, 1], [0; 4]), true),
        // overlapping windows: one beyond the first sees pixels
        (([3, 3], [2, 2], [0; 4]), ([3, 3], [1, 1], [1; 4]), false),
        (([3, 3], [2, 2], [1, 1, 1, 1]), ([2, 3], [2, 2], [0; 4]), true),
        (([2, 2], [2, 2], [0; 4]), ([1, 1], [1, 1], [0; 4]), true),
    ];
    for (case, (pool, conv, exact)) in cases.into_iter().enumerate() {
        let height = if case == 2 { 13 } else { 12 };
        let mut net = Net::new(&[1, 2, height, 12]);
        let x = net.square(net.input());
        let x = net.average_pool(x, pool.0, pool.1, pool.2, true);
        let x = net.conv(x, 3, conv.0, conv.1, conv.2, [1, 1], 1);
        let x = net.square(x);
        net.output(x);
        let (_, merged) = merge(net, 1024);
        let want = if exact { 1 } else { 0 };
        assert_eq!(merged.decisions.len(), want, "case {case}: {:?}", merged.decisions);
    }
}

#[test]
fn convolutions_take_the_pool_after_them() {
    for groups in [1, 2] {
        let mut net = Net::new(&[1, 4, 10, 10]);
        let x = net.conv(net.input(), 4, [3, 3], [1, 1], [1; 4], [2, 1], groups);
        let x = net.average_pool(x, [2, 2], [2, 2], [0; 4], false);
        net.output(x);
        let (_, merged) = merge(net, 512);
        assert_eq!(ops(&merged.graph), ["Input", "Conv"], "{:?}", merged.decisions);
    }
}

#[test]
fn dense_layers_take_what_is_before_them() {
    let mut net = Net::new(&[1, 3, 8, 8]);
    let x = net.square(net.input());
    let x = net.conv(x, 4, [3, 3], [1, 1], [1; 4], [1, 1], 1);
    let x = net.average_pool(x, [2, 2], [2, 2], [0; 4], false);
    let x = net.reshape(x, &[1, 64]);
    let x = net.dense(x, 9);
    let x = net.dense(x, 5);
    net.output(x);
    let (_, merged) = merge(net, 512);
    assert_eq!(ops(&merged.graph), ["Input", "Pow", "Reshape", "Dense"]);
    assert_eq!(merged.decisions.iter().filter(|d| d.merged()).count(), 3);

    let mut net = Net::new(&[1, 8, 4, 4]);
    let x = net.square(net.input());
    let x = net.push(Op::ReduceMean { axes: vec![2, 3], keep: false }, &[x]);
    let x = net.dense(x, 5);
    net.output(x);
    let (_, merged) = merge(net, 256);
    assert_eq!(ops(&merged.graph), ["Input", "Pow", "Reshape", "Dense"]);
}

#[test]
fn constants_and_padding_are_absorbed() {
    let mut net = Net::new(&[1, 4, 6, 6]);
    let x = net.square(net.input());
    let x = net.mul_const(x, &[4, 1, 1]);
    let x = net.push(Op::Pad { before: vec![0, 0, 1, 0], after: vec![0, 0, 2, 1], value: 0.0 }, &[x]);
    let x = net.conv(x, 4, [3, 3], [1, 1], [1, 0, 0, 1], [1, 1], 2);
    let x = net.square(x);
    let x = net.push(Op::Pad { before: vec![0, 0, 0, 1], after: vec![0, 0, 1, 0], value: 0.0 }, &[x]);
    let x = net.average_pool(x, [2, 2], [2, 2], [0; 4], false);
    let x = net.square(x);
    let flat: usize = net.shape(x).iter().product();
    let x = net.reshape(x, &[1, flat]);
    let x = net.add_const(x, &[flat]);
    let x = net.mul_const(x, &[1, flat]);
    let x = net.dense(x, 3);
    net.output(x);
    let (_, merged) = merge(net, 512);
    assert_eq!(ops(&merged.graph), ["Input", "Pow", "Conv", "Pow", "AveragePool", "Pow", "Reshape", "Dense"]);
}

#[test]
fn values_with_other_users_stay() {
    let mut net = Net::new(&[1, 2, 6, 6]);
    let x = net.square(net.input());
    let x = net.average_pool(x, [2, 2], [2, 2], [0; 4], false);
    let y = net.conv(x, 2, [3, 3], [1, 1], [1; 4], [1, 1], 1);
    net.output(x);
    net.output(y);
    let (graph, merged) = merge(net, 256);
    assert_eq!(graph, merged.graph);
    assert!(merged.decisions.is_empty());
}
