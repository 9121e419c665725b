//! Levels, scales and parameters of graphs written by hand and at random.

mod graphs;

use fhec_ir::Tensor;
use fhec_ir::he::facts::bound;
use fhec_ir::he::{Graph, Node, Op, ValueId, interpret, interpret_slots, verify};
use fhec_ir::nn::Range;
use fhec_math::security::SecurityLevel;
use fhec_passes::common_subexpressions::common_subexpressions;
use fhec_passes::cost::CostTable;
use fhec_passes::levels::Placed;
use fhec_passes::parameters::{Demands, Goal, Selected, Unfit};
use fhec_passes::placement::{self, Refresh};
use fhec_passes::report::Context;
use fhec_passes::shape::Shape;
use fhec_passes::stage::{Emitted, Stage, place};
use fhec_passes::{levels, relinearise, rescale, scales};
use fhec_plan::verify::Insecure;
use fhec_plan::{KeyManifest, Polynomial};
use graphs::{Builder, mlp};

fn demands(precision_bits: f64) -> Demands {
    Demands { goal: Goal::Latency, security: SecurityLevel::Bits128, precision_bits, memory_budget: None }
}

fn select(b: &Builder, log_n: u32, demands: &Demands) -> Result<(Stage, Selected, KeyManifest), Unfit> {
    let stage = Stage::new(place(&b.graph), &b.samples(2)).expect("samples fit");
    let (selected, keys) = stage.select(log_n, demands, &CostTable::default())?;
    Ok((stage, selected, keys))
}

fn compile(b: &Builder, log_n: u32, precision_bits: f64) -> Emitted {
    let (stage, selected, keys) = select(b, log_n, &demands(precision_bits)).expect("parameters exist");
    stage.emit(&selected, keys, &CostTable::default(), &Context::default(), vec![]).expect("consistent")
}

fn count(graph: &Graph, wanted: fn(&Op) -> bool) -> usize {
    graph.nodes.iter().filter(|n| wanted(&n.op)).count()
}

#[test]
fn a_square_mlp_of_depth_five_fits_the_ring_of_degree_8192() {
    assert!(select(&mlp(1 << 11), 12, &demands(14.0)).is_err(), "106 bits are too few");
    let b = mlp(1 << 12);
    let (stage, selected, keys) = select(&b, 13, &demands(14.0)).expect("depth 5 fits 2^13");
    let p = &selected.parameters;
    assert_eq!(p.q.len(), 6);
    assert!(p.log_qp() <= 214.0);
    let bits = (p.q[3] as f64).log2();
    assert!((20.0..31.0).contains(&bits), "primes of {bits} bits");
    assert!(selected.prediction.bits >= 13.9 && selected.prediction.bits < 17.0);
    let emitted = stage.emit(&selected, keys, &CostTable::default(), &Context::default(), vec![]).expect("consistent");
    assert_eq!(emitted.facts.of(emitted.graph.outputs[0].value).level, 0);
    assert_eq!(emitted.plan.inputs[0].level, 5);
    assert_eq!(emitted.plan.keys.relin, Some(4));
    assert!(emitted.plan.keys.galois.values().all(|&level| (0..=5).contains(&level)));
    assert!(emitted.plan.report.security_bits >= 128.0);
    assert_eq!(emitted.plan.layers.len(), emitted.plan.report.layers.len());
}

#[test]
fn more_precision_costs_larger_primes_until_none_are_left() {
    let b = mlp(1 << 12);
    let mut last = 0.0;
    for precision in [8.0, 12.0, 16.0] {
        let (_, selected, _) = select(&b, 13, &demands(precision)).expect("fits");
        assert!(selected.prediction.bits >= precision - 0.1);
        assert!(selected.parameters.log_qp() > last || precision < 9.0);
        last = Shape::of(&selected.parameters).log2_q.iter().sum();
    }
    match select(&b, 13, &demands(34.0)) {
        Err(Unfit::Precision(best)) => assert!((16.0..34.0).contains(&best), "{best}"),
        other => panic!("34 bits cannot be had in 214: {:?}", other.map(|s| s.1)),
    }
}

#[test]
fn higher_security_and_small_memory_are_refused_with_numbers() {
    let b = mlp(1 << 12);
    let high = Demands { security: SecurityLevel::Bits256, ..demands(14.0) };
    assert!(matches!(select(&b, 13, &high), Err(Unfit::Security | Unfit::Precision(_))));
    let poor = Demands { memory_budget: Some(1 << 20), ..demands(14.0) };
    let Err(Unfit::Memory(least)) = select(&b, 13, &poor) else { panic!("one MiB cannot suffice") };
    let enough = Demands { memory_budget: Some(least), ..demands(14.0) };
    let (_, selected, _) = select(&b, 13, &enough).expect("the stated budget works");
    assert!(selected.price.fixed <= least);
}

#[test]
fn a_sum_of_products_is_relinearised_and_rescaled_once() {
    let mut b = Builder::new(1 << 12);
    let x = b.input(16);
    let y = b.input(16);
    let (xx, yy) = (b.square(x, 1.0, "xx"), b.square(y, 1.0, "yy"));
    let xy = b.binary(Op::Mul, x, y, 1.0, "xy");
    let s = b.binary(Op::Add, xx, yy, 2.0, "s");
    let s = b.binary(Op::Sub, s, xy, 3.0, "t");
    b.output(s);
    let e = compile(&b, 13, 12.0);
    assert_eq!(count(&e.graph, |o| *o == Op::Relinearise), 1);
    assert_eq!(count(&e.graph, |o| *o == Op::Rescale), 1);
    // Both inputs must get one scale, so that their squares and product can be added.
    assert_eq!(e.facts.inputs()[0].scale, e.facts.inputs()[1].scale);
    assert_eq!(e.facts.inputs()[0].level, 1);
}

#[test]
fn residual_joins_have_equal_scales_exactly() {
    // x -> fc -> square -> fc -> (+) <- x: the skip drops levels and the last map adapts its scale.
    let mut b = Builder::new(1 << 12);
    let x = b.input(64);
    let h = b.dense(x, 64, 4.0, "fc1");
    let skip = h;
    let h = b.square(h, 16.0, "square");
    let h = b.dense(h, 64, 8.0, "fc2");
    let s = b.binary(Op::Add, h, skip, 12.0, "join");
    let s2 = b.square(s, 144.0, "square2");
    // A square plus its argument: one is a product, the other is not.
    let t = b.binary(Op::Add, s2, s, 156.0, "affine");
    let y = b.dense(t, 10, 300.0, "fc3");
    b.output(y);
    let e = compile(&b, 14, 12.0);
    verify(&e.graph).expect("structure");
    assert!(count(&e.graph, |o| matches!(o, Op::LevelDrop(_))) >= 1);
    assert_eq!(count(&e.graph, |o| matches!(o, Op::MulScalar { .. })), 1);
    for id in e.graph.ids().filter(|&v| matches!(e.graph.node(v).op, Op::Add)) {
        let [a, b] = [0, 1].map(|k| e.facts.of(e.graph.node(id).inputs[k]));
        assert_eq!((&a.scale, a.level), (&b.scale, b.level));
    }
    same_meaning(&b, &e.graph);
}

#[test]
fn sums_without_a_common_scale_get_an_adapter() {
    // x·x·x·x and x·x share their only unknown with different powers.
    let mut b = Builder::new(1 << 12);
    let x = b.input(16);
    let x2 = b.square(x, 1.0, "x2");
    let x4 = b.square(x2, 1.0, "x4");
    let s = b.binary(Op::Add, x4, x2, 2.0, "sum");
    let d = b.dense(s, 16, 4.0, "fc");
    b.output(d);
    let e = compile(&b, 14, 12.0);
    same_meaning(&b, &e.graph);
}

fn same_meaning(before: &Builder, after: &Graph) {
    for sample in before.samples(3) {
        let a = interpret(&before.graph, &sample).expect("runs");
        let b = interpret(after, &sample).expect("runs");
        for (a, b) in a.iter().zip(&b) {
            for (x, y) in a.values().iter().zip(b.values()) {
                assert!((x - y).abs() <= 1e-9 * x.abs().max(1.0), "{x} became {y}");
            }
        }
    }
}

/// A random graph of about `n` operations on vectors of 16 elements and at most `depth` levels.
fn random_graph(seed: u64, n: usize, depth: usize) -> Builder {
    let mut b = Builder::new(1 << 13);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut pick = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % n
    };
    // Value, bound, levels used (rescales counted where they must happen).
    let mut pool: Vec<(ValueId, f64, usize)> = (0..1 + pick(2)).map(|_| (b.input(16), 1.0, 0)).collect();
    let sextic = b.graph.polynomial(Polynomial { chebyshev: vec![0.1, 0.5, 0.0, -0.2, 0.0, 0.1], label: "p".into() });
    for i in 0..n {
        let name = format!("n{i}");
        let (x, bx, dx) = pool[pick(pool.len())];
        let (y, by, dy) = pool[pick(pool.len())];
        let (deep, both) = (dx < depth, dx.max(dy));
        let made = match pick(9) {
            0 if deep => (b.dense(x, 16, 6.0 * bx, &name), 6.0 * bx, dx + 1),
            1 if both < depth => (b.binary(Op::Mul, x, y, bx * by, &name), bx * by, both + 1),
            2 if deep => (b.square(x, bx * bx, &name), bx * bx, dx + 1),
            3 if deep => (b.unary(Op::MulScalar { value: 0.5, scale: None }, x, bx, &name), bx, dx + 1),
            4 => (b.unary(Op::Negate, x, bx, &name), bx, dx),
            5 => (b.unary(Op::AddScalar(0.25), x, bx + 0.25, &name), bx + 0.25, dx),
            6 if dx + 3 <= depth && bx <= 1.0 => {
                (b.unary(Op::Polynomial { poly: sextic, out_scale: None }, x, 1.0, &name), 1.0, dx + 3)
            }
            7 => (b.binary(Op::Sub, x, y, bx + by, &name), bx + by, both + 1),
            _ => (b.binary(Op::Add, x, y, bx + by, &name), bx + by, both + 1),
        };
        if made.1 <= 1e3 && made.2 <= depth {
            pool.push(made);
        }
    }
    let last = pool.len() - 1;
    b.output(pool[last].0);
    b.output(pool[last / 2].0);
    // No dead code, and ranges as calibration would give them.
    b.graph = common_subexpressions(&b.graph);
    for sample in b.samples(4) {
        let values = interpret_slots(&b.graph, &sample).expect("runs");
        for (node, value) in b.graph.nodes.iter_mut().zip(&values) {
            let top = value.iter().flatten().fold(0.0f64, |m, x| m.max(x.abs()));
            let old = if node.kind == "ranged" { node.range.hi } else { 0.0 };
            node.kind = "ranged".into();
            let hi = old.max(1.5 * top).min(if node.range.hi <= 1.0 { 1.0 } else { f64::INFINITY });
            node.range = Range { lo: -hi, hi };
        }
    }
    b
}

#[test]
fn random_graphs_come_out_consistent_and_unchanged_in_meaning() {
    let mut compiled = 0;
    for seed in 0..60 {
        let b = random_graph(seed, 12, 6);
        verify(&b.graph).expect("the generator makes valid graphs");
        let placed = place(&b.graph);
        verify(&placed.graph).expect("placement keeps the structure");
        same_meaning(&b, &placed.graph);
        let stage = Stage::new(placed, &b.samples(2)).expect("samples fit");
        // Emission derives all facts: levels, exact scales, degrees, overflow.
        let found = stage.select(14, &demands(10.0), &CostTable::default());
        if let Ok((selected, keys)) = found {
            let e =
                stage.emit(&selected, keys, &CostTable::default(), &Context::default(), vec![]).expect("consistent");
            fhec_plan::verify::verify(&e.plan, Insecure::Refuse).expect("the independent verifier agrees");
            same_meaning(&b, &e.graph);
            assert!(e.graph.outputs.iter().all(|o| e.facts.of(o.value).level == 0));
            compiled += 1;
        }
    }
    assert!(compiled > 40, "only {compiled} of 60 fit the ring");
}

#[test]
fn compiling_twice_gives_the_same_plan() {
    let one = format!("{:?}", compile(&random_graph(5, 12, 6), 14, 6.0).plan);
    let two = format!("{:?}", compile(&random_graph(5, 12, 6), 14, 6.0).plan);
    assert_eq!(one, two);
}

/// Twelve layers on a chain of five levels, with bootstraps where they are cheapest; of values in the range given, or on both sides
/// of zero.
fn twelve(layer: impl Fn(&mut Builder, ValueId, &str) -> ValueId, range: Option<Range>) -> (Builder, Placed) {
    let mut b = Builder::new(1 << 6);
    let mut x = b.input(10);
    for i in 0..12 {
        x = layer(&mut b, x, &format!("layer{i}"));
        b.graph.nodes[x.index()].range = range.unwrap_or(Range { lo: -1.0, hi: 1.0 });
    }
    b.output(x);
    let ready = relinearise::run(&rescale::run(&b.graph, &scales::adapters(&b.graph)));
    let (top, from) = (5, 1);
    let refresh = |_| Some(Refresh { from, cost: (0..=top).map(|target| 50.0 + target as f64).collect() });
    let steps = levels::steps(&ready, |_| (0..=top).map(|level| (1 + level) as f64).collect(), refresh);
    let placement = placement::place(&steps).expect("every square fits");
    let placed = levels::apply(&ready, &placement.decisions);
    assert_eq!(placed.before.len(), placed.graph.nodes.len());
    (b, placed)
}

/// Twelve squares: bootstraps are inserted, and nothing changes but levels.
#[test]
fn bootstraps_go_where_placement_decides() {
    let (b, placed) = twelve(|b, x, name| b.square(x, 1.0, name), None);
    verify(&placed.graph).expect("sound");
    assert!(placed.levels.iter().all(|&level| level <= 5));
    // Twelve levels: five at first, four for every bootstrap but the last, which goes no higher than it must.
    let targets: Vec<usize> = placed
        .graph
        .nodes
        .iter()
        .filter_map(|n| if let Op::Bootstrap { level, .. } = n.op { Some(level) } else { None })
        .collect();
    assert_eq!(targets.len(), 2, "{targets:?}");
    assert!(targets.iter().sum::<usize>() <= 10, "{targets:?}");
    let inputs = b.samples(1).remove(0);
    assert_eq!(interpret(&placed.graph, &inputs).expect("runs"), interpret(&b.graph, &inputs).expect("runs"));
}

/// Values on one side of zero go through a bootstrap around their middle, at twice the scale.
#[test]
fn bootstraps_take_values_around_their_middle() {
    let centred = |range| {
        let (b, placed) = twelve(|b, x, name| b.dense(x, 10, 1.0, name), range);
        verify(&placed.graph).expect("sound");
        let inputs = b.samples(1).remove(0);
        let (got, expected) = (interpret(&placed.graph, &inputs), interpret(&b.graph, &inputs));
        let flat = |values: Vec<Tensor>| values.iter().flat_map(|t| t.values().to_vec()).collect::<Vec<_>>();
        for (got, expected) in flat(got.expect("runs")).into_iter().zip(flat(expected.expect("runs"))) {
            assert!((got - expected).abs() < 1e-12, "{got} for {expected}");
        }
        let symbolic = scales::solve(&placed).expect("scales agree");
        let design = scales::Design { log2_q: vec![40.0; 6], inner: 40.0, outer: 40.0 };
        let log2 = symbolic.log2_scales(&symbolic.exponents(&placed, &design), &design.log2_q);
        let graph = &placed.graph;
        let argument = |node: &Node| match node.op {
            Op::Bootstrap { .. } => Some(node.inputs[0]),
            _ => None,
        };
        let arguments: Vec<_> = graph.nodes.iter().filter_map(argument).collect();
        assert!(!arguments.is_empty());
        let shifted = |v: &ValueId| match graph.node(*v).op {
            Op::AddScalar(by) => Some(by),
            _ => None,
        };
        let of = |v: &ValueId| (shifted(v), bound(graph.node(*v)), log2[v.index()].round());
        arguments.iter().map(of).collect::<Vec<_>>()
    };
    let all = |found: Vec<_>, wanted| found.into_iter().for_each(|f| assert_eq!(f, wanted));
    all(centred(None), (None, 1.0, 40.0));
    all(centred(Some(Range { lo: 0.0, hi: 1.0 })), (Some(-0.5), 0.5, 41.0));
    // Too little to matter; and the slots without an element hold zeros.
    all(centred(Some(Range { lo: -0.5, hi: 1.0 })), (None, 1.0, 40.0));
    all(centred(Some(Range { lo: 0.9, hi: 1.0 })), (Some(-0.5), 0.5, 41.0));
}
