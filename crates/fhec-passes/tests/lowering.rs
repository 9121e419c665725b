//! Lowered graphs mean what the tensor graphs mean, for many operations, layouts and slot counts; and the
//! facts they state (ranges, clean slots) hold.

mod common;

use common::{Net, check, check_all};
use fhec_ir::nn::Op;

#[test]
fn dense_layers_of_all_proportions() {
    for (inner, rows) in [(5, 13), (13, 5), (16, 16), (1, 7), (7, 1), (40, 9)] {
        let mut net = Net::new(&[1, inner]);
        let y = net.dense(net.input(), rows);
        net.output(y);
        check_all(net, &[64, 256]);
    }
}

#[test]
fn mlp_with_squares() {
    let mut net = Net::new(&[1, 1, 6, 6]);
    let x = net.reshape(net.input(), &[1, 36]);
    let x = net.dense(x, 20);
    let x = net.square(x);
    let x = net.dense(x, 11);
    let x = net.square(x);
    let x = net.dense(x, 4);
    net.output(x);
    let he = check_all(net, &[64, 128, 512]);
    assert_eq!(he.nodes.len(), 6, "an input, three maps, two squares");
}

#[test]
fn convolutions_of_every_attribute() {
    type Case = ([usize; 3], usize, [usize; 2], [usize; 2], [usize; 4], [usize; 2], usize);
    let cases: [Case; 10] = [
        ([1, 8, 8], 3, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1),
        ([2, 7, 9], 4, [5, 3], [2, 1], [2, 0, 1, 2], [1, 1], 1),
        ([3, 8, 8], 5, [3, 3], [2, 2], [0, 0, 1, 1], [1, 1], 1),
        ([4, 8, 8], 6, [3, 3], [1, 1], [2, 2, 2, 2], [2, 2], 2),
        ([6, 5, 5], 6, [3, 3], [1, 2], [1, 1, 1, 1], [1, 1], 6),
        ([6, 5, 5], 12, [2, 2], [1, 1], [0, 0, 0, 0], [1, 1], 3),
        ([4, 6, 6], 4, [1, 1], [1, 1], [0, 0, 0, 0], [1, 1], 1),
        ([4, 6, 6], 8, [1, 1], [2, 2], [0, 0, 0, 0], [1, 1], 1),
        ([2, 1, 12], 3, [1, 4], [1, 3], [0, 2, 0, 1], [1, 1], 1),
        ([3, 6, 6], 2, [6, 6], [1, 1], [0, 0, 0, 0], [1, 1], 1),
    ];
    for (shape, out, kernel, strides, pads, dilations, groups) in cases {
        let mut net = Net::new(&[1, shape[0], shape[1], shape[2]]);
        let y = net.conv(net.input(), out, kernel, strides, pads, dilations, groups);
        let y = net.square(y);
        let flat: usize = net.shape(y).iter().product();
        let y = net.reshape(y, &[1, flat]);
        let y = net.dense(y, 3);
        net.output(y);
        check_all(net, &[64, 256, 1024]);
    }
}

#[test]
fn strided_convolutions_keep_the_grid() {
    let mut net = Net::new(&[1, 1, 16, 16]);
    let x = net.conv(net.input(), 4, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 1);
    let x = net.square(x);
    let x = net.conv(x, 8, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 1);
    let x = net.square(x);
    let x = net.average_pool(x, [2, 2], [2, 2], [0; 4], false);
    net.output(x);
    let he = check_all(net, &[256, 2048]);
    assert_eq!(he.nodes.len(), 6);
}

#[test]
fn pools_count_what_lies_under_the_window() {
    for (pads, counted) in [([0; 4], false), ([1, 1, 1, 1], false), ([1, 0, 1, 2], true), ([0, 0, 1, 1], false)] {
        let mut net = Net::new(&[1, 3, 7, 6]);
        let x = net.average_pool(net.input(), [3, 2], [2, 2], pads, counted);
        net.output(x);
        check_all(net, &[64, 512]);
    }
}

#[test]
fn polynomials_get_values_in_their_interval() {
    let mut net = Net::new(&[1, 2, 6, 6]);
    let x = net.conv(net.input(), 3, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let x = net.polynomial(x, &[0.3, 0.5, 0.2, -0.1]);
    let x = net.average_pool(x, [2, 2], [2, 2], [0; 4], false);
    let x = net.conv(x, 4, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let x = net.polynomial(x, &[0.1, 0.4, 0.3]);
    let x = net.reshape(x, &[1, 36]);
    let x = net.dense(x, 5);
    net.output(x);
    let he = check_all(net, &[128, 1024]);
    let scalars = he.nodes.iter().filter(|n| matches!(n.op, fhec_ir::he::Op::MulScalar { .. })).count();
    assert_eq!(scalars, 0, "intervals are folded into the maps");
}

#[test]
fn residual_blocks_sum_in_one_map() {
    let mut net = Net::new(&[1, 2, 8, 8]);
    let x = net.conv(net.input(), 4, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let x = net.polynomial(x, &[0.2, 0.5, 0.3]);
    let y = net.conv(x, 4, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let y = net.polynomial(y, &[0.1, 0.5, 0.3]);
    let y = net.conv(y, 4, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let x = net.push(Op::Add, &[y, x]);
    let x = net.polynomial(x, &[0.1, 0.5, 0.3]);
    // a down-sampling block with a convolution on the shortcut
    let y = net.conv(x, 8, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 1);
    let y = net.polynomial(y, &[0.1, 0.5, 0.3]);
    let y = net.conv(y, 8, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let z = net.conv(x, 8, [1, 1], [2, 2], [0; 4], [1, 1], 1);
    let x = net.push(Op::Sub, &[y, z]);
    let x = net.polynomial(x, &[0.1, 0.5, 0.3]);
    let x = net.push(Op::ReduceMean { axes: vec![2, 3], keep: true }, &[x]);
    let x = net.reshape(x, &[1, 8]);
    let x = net.dense(x, 3);
    net.output(x);
    let he = check_all(net, &[256, 1024]);
    let maps = he.nodes.iter().filter(|n| matches!(n.op, fhec_ir::he::Op::LinearMap { .. })).count();
    assert_eq!(maps, 7, "five convolutions or sums, the mean, the dense layer");
}

#[test]
fn several_ciphertexts() {
    let mut net = Net::new(&[1, 3, 8, 8]);
    let x = net.conv(net.input(), 8, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let x = net.square(x);
    let x = net.conv(x, 6, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 1);
    let x = net.square(x);
    let x = net.reshape(x, &[1, 96]);
    let x = net.dense(x, 70);
    let x = net.square(x);
    let x = net.dense(x, 5);
    net.output(x);
    check_all(net, &[64, 128, 256]);
}

#[test]
fn views_are_free() {
    let mut net = Net::new(&[1, 6, 5, 4]);
    let x = net.push(Op::Transpose { perm: vec![0, 3, 1, 2] }, &[net.input()]);
    let x = net.conv(x, 3, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let x = net.square(x);
    let x = net.slice(x, &[0, 1, 0, 1], &[1, 1, 2, 1], &[1, 2, 3, 3]);
    let x = net.square(x);
    let x = net.push(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[x]);
    let x = net.reshape(x, &[1, 18]);
    let x = net.dense(x, 4);
    net.output(x);
    let he = check_all(net, &[128, 512]);
    assert_eq!(he.nodes.len(), 5, "an input, two maps, two squares");
}

#[test]
fn concatenations_and_paddings() {
    let mut net = Net::new(&[1, 2, 6, 6]);
    let a = net.conv(net.input(), 3, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let b = net.conv(net.input(), 2, [1, 1], [1, 1], [0; 4], [1, 1], 1);
    // of symbolic results: one map with four terms' worth of rows
    let x = net.push(Op::Concat { axis: 1 }, &[a, b]);
    let x = net.square(x);
    let c = net.conv(x, 3, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let c = net.square(c);
    let d = net.conv(x, 2, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let d = net.square(d);
    // of held values: the next convolution reads both
    let x = net.push(Op::Concat { axis: 1 }, &[c, d]);
    let x = net.push(Op::Pad { before: vec![0, 0, 1, 2], after: vec![0, 0, 0, 1], value: 0.0 }, &[x]);
    let x = net.square(x);
    let x = net.conv(x, 3, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 1);
    net.output(x);
    check_all(net, &[256, 1024]);

    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.square(net.input());
    let x = net.push(Op::Pad { before: vec![0, 0, -1, 1], after: vec![0, 1, 1, 0], value: 0.5 }, &[x]);
    let x = net.square(x);
    let flat: usize = net.shape(x).iter().product();
    let y = net.reshape(x, &[1, flat]);
    let a = net.dense(y, 4);
    let a = net.square(a);
    let b = net.dense(y, 3);
    let b = net.square(b);
    let x = net.push(Op::Concat { axis: 1 }, &[a, b]);
    let x = net.dense(x, 2);
    net.output(x);
    check_all(net, &[64, 256]);
}

#[test]
fn constants_and_products() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.add_const(net.input(), &[2, 1, 1]);
    let x = net.mul_const(x, &[1, 2, 1, 1]);
    let y = net.conv(x, 2, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let y = net.add_const(y, &[1]);
    let y = net.mul_const(y, &[1]);
    let z = net.push(Op::Mul, &[x, y]);
    let z = net.add_const(z, &[4, 4]);
    let z = net.add_const(z, &[1]);
    let z = net.push(Op::Mul, &[z, z]);
    let w = net.push(Op::Sub, &[z, x]);
    let w = net.power(w, 5);
    // squeeze and excite: a broadcast product
    let s = net.push(Op::ReduceMean { axes: vec![2, 3], keep: true }, &[w]);
    let x = net.push(Op::Mul, &[w, s]);
    net.output(x);
    check_all(net, &[64, 256]);
}

#[test]
fn outputs_may_be_views_inner_values_and_softmax() {
    let mut net = Net::new(&[1, 3, 4]);
    let x = net.dense(net.input(), 5);
    let y = net.square(x);
    let z = net.push(Op::Transpose { perm: vec![0, 2, 1] }, &[y]);
    let s = net.push(Op::Softmax { axis: 1 }, &[y]);
    net.output(x);
    net.output(z);
    net.output(s);
    check_all(net, &[32, 64]);
}

#[test]
fn problems_are_listed_together() {
    let mut net = Net::new(&[2, 1, 4, 4]);
    let x = net.conv(net.input(), 2, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    let x = net.push(Op::Activation(fhec_ir::nn::Activation::Relu), &[x]);
    net.output(x);
    let graph = net.finish();
    let error = fhec_passes::lower::lower(&graph, 64, &Default::default()).expect_err("two problems");
    assert_eq!(error.0.len(), 2, "{error}");
    let mut net = Net::new(&[1, 1, 32, 32]);
    let x = net.conv(net.input(), 2, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1);
    net.output(x);
    let error = fhec_passes::lower::lower(&net.finish(), 256, &Default::default()).expect_err("too large");
    assert!(error.to_string().contains("a ciphertext has 256"), "{error}");
}

#[test]
fn lowering_is_deterministic() {
    let build = || {
        let mut net = Net::new(&[1, 1, 8, 8]);
        let x = net.conv(net.input(), 3, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 1);
        let x = net.square(x);
        net.output(x);
        check(net, 256).to_string()
    };
    assert_eq!(build(), build());
}
