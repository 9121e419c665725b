//! Predicted errors against real ones, and data that approximation must survive.

use super::target::{clipped, replace};
use super::*;
use crate::calibrate::calibrate;
use crate::calibrate::observe;
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, Conv, Interpreter, Output};

/// A repeatable number in [-1, 1).
fn noise(seed: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn tensor(shape: &[usize], seed: u64, size: f64) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..n as u64).map(|i| size * noise(seed * 1_000_003 + i)).collect())
}

/// `blocks` residual blocks of two convolutions, then the mean of each channel and a dense layer with `classes` outputs.
fn residual(blocks: usize, classes: usize) -> Graph {
    let (channels, side) = (6, 8);
    let mut g = Graph { name: "residual".into(), ..Graph::default() };
    let shape = vec![1, channels, side, side];
    let mut x = g.push(Op::Input { name: "x".into() }, vec![], shape.clone(), Origin::named("x"));
    let mut seed = 0;
    let mut conv = |g: &mut Graph, x: ValueId| {
        seed += 2;
        let weight = g.constant(tensor(&[channels, channels, 3, 3], seed, 0.35));
        let bias = Some(g.constant(tensor(&[channels], seed + 1, 0.3)));
        let op = Op::Conv(Conv { weight, bias, strides: [1, 1], pads: [1; 4], dilations: [1, 1], groups: 1 });
        g.push(op, vec![x], shape.clone(), Origin::named(format!("conv{seed}")))
    };
    let relu = |g: &mut Graph, x: ValueId| {
        let name = format!("relu{}", g.nodes.len());
        g.push(Op::Activation(Activation::Relu), vec![x], vec![1, channels, side, side], Origin::named(name))
    };
    for _ in 0..blocks {
        let a = conv(&mut g, x);
        let a = relu(&mut g, a);
        let b = conv(&mut g, a);
        let sum = g.push(Op::Add, vec![b, x], shape.clone(), Origin::named("sum"));
        x = relu(&mut g, sum);
    }
    let mean = Op::ReduceMean { axes: vec![2, 3], keep: false };
    let mean = g.push(mean, vec![x], vec![1, channels], Origin::named("mean"));
    let weight = g.constant(tensor(&[classes, channels], 999, 1.0));
    let value = g.push(Op::Dense { weight, bias: None }, vec![mean], vec![1, classes], Origin::named("classes"));
    g.outputs.push(Output { name: "y".into(), value });
    g
}

fn images(n: u64) -> Vec<Vec<Tensor>> {
    (0..n).map(|s| vec![tensor(&[1, 6, 8, 8], 7000 + s, 1.0 + noise(s).abs())]).collect()
}

/// The graph with ranges, and what the search is made of.
fn ready(graph: &Graph, samples: &Samples) -> (Graph, BTreeMap<ValueId, Range>) {
    let graph = calibrate(graph, samples).expect("fits");
    let ids: Vec<ValueId> = graph.ids().filter(|&v| function(graph.node(v)).is_some()).collect();
    let intervals = ids.iter().map(|&v| (v, operand_range(&graph, v))).collect();
    (graph, intervals)
}

#[test]
fn the_error_of_the_outputs_is_what_was_predicted() {
    let samples = images(32);
    let (graph, intervals) = ready(&residual(3, 5), &samples);
    let ids: Vec<ValueId> = intervals.keys().copied().collect();
    let search = Search::new(&graph, &samples, &ids).expect("fits");
    let targets = targets(&graph, &intervals, &DEGREES[..USUAL]);
    let choices = search.choices(&targets);
    // All layers at once, and one layer alone with the others nearly exact.
    let last = targets[0].fits.len() - 1;
    let mut trials: Vec<Vec<usize>> = [2, 3, 4].map(|back| vec![last - back + 1; ids.len()]).to_vec();
    for at in 0..ids.len() {
        let mut picks = vec![last; ids.len()];
        picks[at] = last - 3;
        trials.push(picks);
    }
    for picks in trials {
        let predicted: f64 = choices.iter().zip(&picks).map(|(list, &p)| list[p].error).sum();
        let real = search.measure(&search.replaced(&targets, &picks).graph).expect("runs");
        let ratio = real / predicted.sqrt();
        assert!((0.6..1.7).contains(&ratio), "{picks:?}: {} predicted, {real}", predicted.sqrt());
    }
}

#[test]
fn constants_per_channel_take_errors_away() {
    let samples = images(32);
    let (graph, intervals) = ready(&residual(3, 5), &samples);
    let ids: Vec<ValueId> = intervals.keys().copied().collect();
    let search = Search::new(&graph, &samples, &ids).expect("fits");
    let targets = targets(&graph, &intervals, &DEGREES[..USUAL]);
    // Low degrees err on one side in many channels; high ones have next to nothing to take away.
    for (pick, at_most) in [(0, 0.5), (1, 0.95), (2, 1.05), (3, 1.05), (4, 1.05)] {
        let picks = vec![pick; ids.len()];
        let with = search.measure(&search.replaced(&targets, &picks).graph).expect("runs");
        let without = search.measure(&replace(&graph, &targets, &picks, &[]).graph).expect("runs");
        assert!(with < at_most * without, "{pick}: {with} with constants, {without} without");
    }
}

#[test]
fn a_tighter_tolerance_is_met_with_more_levels() {
    let samples = images(24);
    let (graph, _) = ready(&residual(2, 5), &samples);
    let mut last = 0;
    for tolerance in [0.3, 0.1, 0.03, 0.01] {
        let options = ApproximateOptions { tolerance, ..Default::default() };
        let found = approximate(&graph, &samples, &options).expect("approximates");
        assert!(found.output_error <= tolerance, "{} of {tolerance}", found.output_error);
        let depth: usize = found.approximations.iter().map(|a| target::depth(a.degree)).sum();
        assert!(depth >= last, "{depth} levels for {tolerance}, {last} before");
        last = depth;
        // Ranges of the arguments of polynomials are their intervals at most.
        for node in &found.graph.nodes {
            if let Op::Polynomial { interval, .. } = &node.op {
                let range = found.graph.node(node.inputs[0]).range.expect("set");
                assert!(interval.lo <= range.lo && range.hi <= interval.hi);
            }
        }
    }
}

#[test]
fn an_accuracy_budget_sets_the_tolerance() {
    let samples = images(60);
    let (graph, _) = ready(&residual(2, 5), &samples);
    let mut errors = Vec::new();
    for share in [0.2, 0.05, 0.01] {
        let options = ApproximateOptions { accuracy_drop: Some(share), ..Default::default() };
        let found = approximate(&graph, &samples, &options).expect("approximates");
        let class = |g: &Graph, s: &Vec<Tensor>| {
            let y = Interpreter::new(g).expect("valid").run(s).expect("fits").remove(0);
            (0..5).max_by(|&a, &b| y.values()[a].total_cmp(&y.values()[b]))
        };
        let changed = samples.iter().filter(|s| class(&graph, s) != class(&found.graph, s)).count() as f64 / 60.0;
        assert!(changed <= 0.75 * share, "{changed} of {share}");
        assert_eq!(found.notes.len(), 1);
        errors.push(found.output_error);
    }
    assert!(errors.is_sorted_by(|a, b| a >= b), "{errors:?}");
    // One output is no choice between classes.
    let (single, _) = ready(&residual(1, 1), &samples);
    let options = ApproximateOptions { accuracy_drop: Some(0.1), ..Default::default() };
    assert_eq!(approximate(&single, &samples, &options).err(), Some(ApproximateError::NoClasses));
    assert_eq!(approximate(&graph, &[], &options).err(), Some(ApproximateError::NoClasses));
}

#[test]
fn minimax_composites_keep_the_network() {
    let samples = images(24);
    let (graph, _) = ready(&residual(2, 5), &samples);
    let search = |g: &Graph| {
        let interpreter = Interpreter::new(g).expect("valid");
        samples.iter().flat_map(|s| interpreter.run(s).expect("fits")[0].values().to_vec()).collect::<Vec<f64>>()
    };
    let exact = search(&graph);
    let mut last = f64::INFINITY;
    for alpha in [6, 9, 12] {
        let options = ApproximateOptions { method: Method::Minimax(alpha), ..Default::default() };
        let found = approximate(&graph, &samples, &options).expect("approximates");
        assert_eq!(found.approximations.len(), 4);
        let worst = exact.iter().zip(search(&found.graph)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < last / 2.0, "{alpha} bits: {worst} after {last}");
        last = worst;
    }
    assert!(last < 0.01, "{last}");
    let keep = ApproximateOptions { method: Method::Keep, ..Default::default() };
    assert!(matches!(approximate(&graph, &samples, &keep), Err(ApproximateError::Kept(list)) if list.len() == 4));
}

#[test]
fn a_dead_layer_becomes_a_constant() {
    // A bias so low that no argument is ever positive.
    let mut dead = residual(1, 5);
    let Some(Op::Conv(Conv { bias: Some(bias), .. })) = dead.nodes.get(1).map(|n| n.op.clone()) else {
        panic!("a convolution comes first")
    };
    dead.constants[bias.index()] = Tensor::full(vec![6], -100.0);
    let samples = images(8);
    let (graph, _) = ready(&dead, &samples);
    let found = approximate(&graph, &samples, &ApproximateOptions::default()).expect("approximates");
    assert_eq!(found.approximations[0].degree, 1);
    let flat =
        found.graph.nodes.iter().filter(|n| matches!(n.op, Op::MulConst(c) if found.graph.tensor(c).values() == [0.0]));
    assert_eq!(flat.count(), 1);
    let options = crate::Options { samples, ..crate::Options::default() };
    let compiled = crate::compile(&dead, &options);
    assert!(compiled.is_ok(), "{:?}", compiled.err());
}

#[test]
fn values_that_drift_widen_intervals_or_are_refused() {
    let samples = images(8);
    let (graph, mut intervals) = ready(&residual(1, 5), &samples);
    let targets = targets(&graph, &intervals, &DEGREES[..USUAL]);
    let picks = vec![targets[0].fits.len() - 1; targets.len()];
    let replaced = replace(&graph, &targets, &picks, &[]);
    let mut seen = observe(&replaced.graph, &samples).expect("runs").summaries;
    assert_eq!(widen_where_needed(&mut intervals, &replaced.operands, &seen), None);
    // Up to the very end of the interval: the margin is gone.
    let (target, operand, interval) = replaced.operands[1];
    seen[operand.index()].range.hi = interval.hi;
    let seen_range = seen[operand.index()].range;
    assert_eq!(widen_where_needed(&mut intervals, &replaced.operands, &seen), Some((target, seen_range)));
    assert!(intervals[&target].hi >= 1.4 * interval.hi);
    let refusal = unbounded(&graph, Some((target, seen_range))).to_string();
    assert!(refusal.contains(&graph.node(target).origin.to_string()), "{refusal}");
    // What is not a number is never inside.
    seen[operand.index()].range.hi = f64::NAN;
    assert!(widen_where_needed(&mut intervals, &replaced.operands, &seen).is_some());
}

#[test]
fn what_leaves_an_interval_does_not_hide_what_later_layers_see() {
    let samples = images(8);
    let (graph, intervals) = ready(&residual(8, 5), &samples);
    // Everything that runs sees: as it is, and held within the intervals.
    let both = |intervals: &BTreeMap<ValueId, Range>| {
        let targets = targets(&graph, intervals, &DEGREES[..USUAL]);
        let replaced = replace(&graph, &targets, &vec![3; targets.len()], &[]);
        let (held, values) = clipped(&replaced);
        let of = |graph: &Graph| observe(graph, &samples).expect("runs").summaries;
        let (plain, held) = (of(&replaced.graph), of(&held));
        let held: Vec<Range> = values.iter().map(|value| held[value.index()].range).collect();
        (plain.iter().map(|s| s.range).collect::<Vec<_>>(), held)
    };
    let (plain, held) = both(&intervals);
    assert_eq!(plain, held);
    // The first interval is much too narrow.
    let mut narrow = intervals.clone();
    let first = narrow.values_mut().next().expect("activations");
    *first = Range { lo: first.lo / 4.0, hi: first.hi / 4.0 };
    let (away, seen) = both(&narrow);
    let last = plain.len() - 1;
    let far = away[last].hi.abs();
    assert!(far.is_nan() || far > 1e6 * plain[last].hi, "{:?} after {:?}", away[last], plain[last]);
    assert!(seen.iter().zip(&plain).all(|(s, p)| s.hi - s.lo < 3.0 * (p.hi - p.lo)), "{seen:?}");
}

#[test]
fn hostile_samples_end_in_a_result_or_an_error() {
    let graph = residual(1, 5);
    let shape = [1, 6, 8, 8];
    let n: usize = shape.iter().product();
    for value in [0.0, 1.0, 5e-324, 1e-200, 1e30, 1e120, 1e300, f64::MAX, f64::NAN, f64::INFINITY] {
        let constant = vec![Tensor::new(shape.to_vec(), vec![value; n])];
        for samples in [vec![constant.clone()], vec![constant, vec![tensor(&shape, 3, 1.0)]]] {
            let (ranged, _) = ready(&graph, &samples);
            for method in [Method::Layerwise, Method::Minimax(6)] {
                for accuracy_drop in [None, Some(0.01)] {
                    let options = ApproximateOptions { method, accuracy_drop, ..Default::default() };
                    if let Ok(found) = approximate(&ranged, &samples, &options) {
                        assert!(Interpreter::new(&found.graph).is_ok(), "{value:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn composites_without_samples_hold_what_comes_before_them() {
    let graph = crate::bound::bound_ranges(&residual(2, 5), Range { lo: -1.0, hi: 1.0 });
    let options = ApproximateOptions { method: Method::Minimax(5), ..Default::default() };
    let found = approximate(&graph, &[], &options).expect("approximates").graph;
    let mut first_stages = 0;
    for node in &found.nodes {
        let Op::Polynomial { interval, label, .. } = &node.op else { continue };
        if !label.contains("stage 1 of") {
            continue;
        }
        first_stages += 1;
        let range = found.node(node.inputs[0]).range.expect("bounded");
        assert!(interval.lo <= range.lo && range.hi <= interval.hi, "{label}: {range:?}");
    }
    assert_eq!(first_stages, 4);
}
