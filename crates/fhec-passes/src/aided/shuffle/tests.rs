use super::super::networks::{Net, any, pool, residual, same_outputs, values};
use super::*;
use fhec_ir::nn::Activation;

fn relu6() -> Activation {
    Activation::Clip { min: 0.0, max: 6.0 }
}

/// A function that leaves no two channels alike.
fn injective() -> Activation {
    Activation::LeakyRelu { alpha: 0.25 }
}

/// Where each channel along axis 1 has gone, seen from its values alone; `None` where it is nowhere.
fn places(old: &Tensor, new: &Tensor) -> Option<Vec<usize>> {
    assert_eq!(old.shape(), new.shape());
    let inner: usize = old.shape()[2..].iter().product();
    let channels = |t: &Tensor| t.values().chunks(inner).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let (old, new) = (channels(old), channels(new));
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
    old.iter().map(|a| new.iter().position(|b| close(a, b))).collect()
}

/// A shuffled network: where channels of each of its values went, and how many were said to be moved.
struct Shuffled {
    places: Vec<Option<Vec<usize>>>,
    count: usize,
}

impl Shuffled {
    /// Of a network that it leaves all outputs of.
    fn of(plain: &Graph) -> Self {
        let (graph, count) = shuffle(plain);
        same_outputs(plain, &graph);
        assert_eq!(shuffle(plain), (graph.clone(), count), "deterministic");
        let (a, b) = (values(plain), values(&graph));
        assert_eq!(a.len(), b.len());
        Shuffled { places: a.iter().zip(&b).map(|(a, b)| places(a, b)).collect(), count }
    }

    fn at(&self, v: ValueId) -> &[usize] {
        self.places[v.index()].as_deref().expect("a permutation of channels")
    }

    fn moved(&self, v: ValueId) -> bool {
        self.at(v).iter().enumerate().any(|(k, &to)| k != to)
    }
}

#[test]
fn residual_sums_and_concatenations_share_an_order_that_functions_leave() {
    let shuffled = Shuffled::of(&residual(&injective()));
    assert_eq!(shuffled.count, 8 + 8 + 6);
    assert_eq!(Shuffled::of(&residual(&relu6())).count, shuffled.count, "whatever the function");
    let [x, first, act, grouped, sum, after, second, _, both, pooled, flat, y] =
        std::array::from_fn(|i| ValueId(i as u32));
    for fixed in [x, y] {
        assert!(!shuffled.moved(fixed), "{fixed:?}");
    }
    for moved in [first, second, both, pooled, flat] {
        assert!(shuffled.moved(moved), "{moved:?}");
    }
    for same in [act, grouped, sum, after] {
        assert_eq!(shuffled.at(same), shuffled.at(first));
    }
    // The grouped convolution reads the halves of its operand separately.
    assert!(shuffled.at(first).iter().enumerate().all(|(k, &to)| k / 4 == to / 4));
    // Concatenated ones stay with their own.
    assert_eq!(shuffled.at(both)[..8], *shuffled.at(first));
    let behind: Vec<usize> = shuffled.at(second).iter().map(|to| to + 8).collect();
    assert_eq!(shuffled.at(both)[8..], behind);
    // Features of a channel move together.
    for (feature, to) in shuffled.at(flat).iter().enumerate() {
        assert_eq!(*to, shuffled.at(both)[feature / 9] * 9 + feature % 9);
    }
}

#[test]
fn depthwise_convolutions_pass_an_order_on() {
    let (mut n, x) = Net::new(&[1, 3, 4, 4]);
    // Of the input nothing moves, but the results of its channels do, each among its own.
    let wide = n.conv(x, 12, 3);
    let wide = n.act(wide, relu6());
    let a = n.conv(wide, 8, 1);
    let depthwise = n.conv(a, 8, 8);
    let act = n.act(depthwise, Activation::Sigmoid);
    let doubled = n.conv(act, 16, 8);
    let act = n.act(doubled, Activation::HardSwish);
    let y = n.conv(act, 2, 1);
    let shuffled = Shuffled::of(&n.finish(&[y]));
    assert_eq!(shuffled.count, 12 + 8 + 8 + 16);
    assert!(shuffled.moved(wide) && shuffled.at(wide).iter().enumerate().all(|(k, &to)| k / 4 == to / 4));
    assert!(shuffled.moved(a));
    assert_eq!(shuffled.at(a), shuffled.at(depthwise));
    for (k, to) in shuffled.at(doubled).iter().enumerate() {
        assert_eq!(*to, shuffled.at(a)[k / 2] * 2 + k % 2);
    }
}

#[test]
fn constants_follow_their_channels() {
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 8, 1);
    let slope = n.constant(&[8, 1, 1]);
    let a = n.node(Op::PRelu { slope }, &[a]);
    let map = n.constant(&[1, 8, 4, 4]);
    let a = n.node(Op::AddConst(map), &[a]);
    let common = n.constant(&[4]);
    let a = n.node(Op::MulConst(common), &[a]);
    let [scale, bias, mean] = std::array::from_fn(|_| n.constant(&[8]));
    let variance = n.0.constant(Tensor::new(vec![8], (1..9).map(f64::from).collect()));
    let a = n.node(Op::BatchNorm { scale, bias, mean, variance, epsilon: 1e-3 }, &[a]);
    let pooled = n.node(Op::AveragePool(pool(2)), &[a]);
    let y = n.conv(pooled, 3, 1);
    let shuffled = Shuffled::of(&n.finish(&[y]));
    assert_eq!(shuffled.count, 8);
    assert!(shuffled.moved(a));
    assert_eq!(shuffled.at(a), shuffled.at(pooled));
}

#[test]
fn branches_and_gates_share_an_order() {
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 8, 1);
    let a = n.act(a, Activation::Mish);
    let left = n.conv(a, 6, 1);
    let right = n.conv(a, 8, 1);
    // Squeeze and excitation, and a gate of all channels together.
    let mean = n.node(Op::ReduceMean { axes: vec![2, 3], keep: false }, &[right]);
    let gate = n.dense(mean, 8);
    let gate = n.act(gate, Activation::Sigmoid);
    let gate = n.to(Op::Reshape, &[gate], &[1, 8, 1, 1]);
    let gated = n.node(Op::Mul, &[right, gate]);
    let map = n.node(Op::ReduceSum { axes: vec![1], keep: true }, &[gated]);
    let gated = n.node(Op::Mul, &[map, gated]);
    let twice = n.node(Op::Concat { axis: 1 }, &[left, gated]);
    let also = n.conv(twice, 14, 1);
    // The same classes as the concatenation's, in two sets.
    let sum = n.node(Op::Sub, &[also, twice]);
    let soft = n.node(Op::Softmax { axis: 1 }, &[sum]);
    let y = n.conv(soft, 3, 1);
    let shuffled = Shuffled::of(&n.finish(&[y, x]));
    assert_eq!(shuffled.count, 8 + 6 + 8 + 8 + 14);
    assert!(shuffled.moved(a) && shuffled.moved(left) && shuffled.moved(right));
    assert_eq!(shuffled.at(gate), shuffled.at(right));
    assert_eq!(shuffled.at(also), shuffled.at(twice));
    assert!(shuffled.at(also).iter().enumerate().all(|(k, &to)| (k < 6) == (to < 6)));
}

#[test]
fn slices_and_paddings_of_channels_keep_them_apart() {
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 8, 1);
    // As a shortcut to more channels: every second place, and zeros for new channels.
    let half = n.to(Op::Slice { starts: vec![0; 4], steps: vec![1, 1, 2, 2] }, &[a], &[1, 8, 2, 2]);
    let wide = n.node(Op::Pad { before: vec![0, 3, 0, 0], after: vec![0, 4, 0, 0], value: 0.0 }, &[half]);
    let b = n.conv(half, 15, 1);
    let b = n.act(b, injective());
    let sum = n.node(Op::Add, &[wide, b]);
    let front = n.to(Op::Slice { starts: vec![0, 4, 0, 0], steps: vec![1, -1, 1, 1] }, &[sum], &[1, 5, 2, 2]);
    let y = n.conv(front, 3, 1);
    let z = n.conv(sum, 3, 1);
    let shuffled = Shuffled::of(&n.finish(&[y, z]));
    assert!(shuffled.moved(a) && shuffled.moved(b) && shuffled.moved(front));
    // Channels 3 and 4 of the sum are the first two of eight.
    let inside = |k: usize| if (3..11).contains(&k) { 1 } else { 0 };
    let taken = |k: usize| usize::from(k < 5);
    for (k, &to) in shuffled.at(b).iter().enumerate() {
        assert_eq!((inside(k), taken(k)), (inside(to), taken(to)), "{k} went to {to}");
    }
    assert_eq!(shuffled.count, 8 + 15);
}

#[test]
fn zeros_beside_channels_take_no_place_of_theirs() {
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 6, 1);
    let padded = n.node(Op::Pad { before: vec![0, 3, 0, 0], after: vec![0, 3, 0, 0], value: 0.0 }, &[a]);
    // Three meet a zero first and then a channel of `a`, and three the other way round.
    let b = n.conv(x, 6, 1);
    let twice = n.node(Op::Concat { axis: 1 }, &[b, b]);
    let sum = n.node(Op::Add, &[padded, twice]);
    let y = n.conv(sum, 3, 1);
    let shuffled = Shuffled::of(&n.finish(&[y]));
    assert_eq!(shuffled.count, 6 + 6);
    for v in [a, b] {
        assert!(shuffled.moved(v) && shuffled.at(v).iter().enumerate().all(|(k, &to)| (k < 3) == (to < 3)));
    }
}

#[test]
fn a_channel_that_is_there_twice_moves_twice_or_not_at_all() {
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 6, 1);
    let twice = n.node(Op::Concat { axis: 1 }, &[a, a]);
    let b = n.conv(twice, 12, 1);
    let sum = n.node(Op::Add, &[b, twice]);
    let act = n.act(sum, relu6());
    let y = n.conv(act, 2, 1);
    let moving = Shuffled::of(&n.finish(&[y]));
    assert_eq!(moving.count, 6 + 12);
    let both: Vec<usize> = (0..12).map(|k| moving.at(a)[k % 6] + k / 6 * 6).collect();
    assert!(moving.moved(a));
    assert_eq!(moving.at(b), both);

    // Five of both: the last of the first half is taken, that of the second is not.
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 6, 1);
    let left = n.act(a, Activation::Tanh);
    let right = n.act(a, relu6());
    let both = n.node(Op::Concat { axis: 1 }, &[left, right]);
    let slice = n.to(Op::Slice { starts: vec![0, 4, 0, 0], steps: vec![1; 4] }, &[both], &[1, 4, 4, 4]);
    let y = n.conv(slice, 2, 1);
    let apart = Shuffled::of(&n.finish(&[y]));
    let kind = |k: usize| [1, 1, 0, 0, 2, 2][k];
    assert!(apart.at(a).iter().enumerate().all(|(k, &to)| kind(k) == kind(to)), "{:?}", apart.at(a));
}

#[test]
fn channels_that_are_last_are_followed() {
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 8, 1);
    let turned = n.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[a]);
    let row = n.constant(&[8]);
    let act = n.node(Op::AddConst(row), &[turned]);
    let mixed = n.dense(act, 6);
    let act = n.act(mixed, injective());
    let flat = n.flat(act);
    let y = n.dense(flat, 4);
    let shuffled = Shuffled::of(&n.finish(&[y]));
    assert_eq!(shuffled.count, 8 + 6);
    assert!(shuffled.moved(a) && shuffled.moved(flat));
    assert!(shuffled.at(flat).iter().enumerate().all(|(k, &to)| k / 6 == to / 6), "places stay");
}

#[test]
fn what_is_not_known_stays() {
    let (mut n, x) = Net::new(&[1, 2, 4, 4]);
    let a = n.conv(x, 8, 1);
    // Channels become places.
    let mixed = n.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[a]);
    let b = n.conv(mixed, 8, 1);
    let halves = n.to(Op::Reshape, &[b], &[1, 4, 2, 32]);
    let y = n.node(Op::ReduceSum { axes: vec![3], keep: false }, &[halves]);
    let plain = n.finish(&[y]);
    assert_eq!(shuffle(&plain), (plain, 0));
}

#[test]
fn any_network_is_the_same_when_shuffled() {
    let mut moved = 0;
    for seed in 0..1000 {
        let plain = any(seed);
        let (graph, count) = shuffle(&plain);
        same_outputs(&plain, &graph);
        moved += usize::from(count > 7);
    }
    assert!(moved > 500, "{moved} networks have shuffled convolutions");
}
