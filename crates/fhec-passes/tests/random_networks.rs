//! Random tensor graphs keep their meaning through merging and lowering, whatever operations meet.

mod common;

use common::{Net, compare, same_meaning};
use fhec_ir::nn::{Op, ValueId};
use fhec_passes::common_subexpressions::common_subexpressions;
use fhec_passes::layouts::LinearCost;
use fhec_passes::lower::lower;
use fhec_passes::merge_linear::merge_linear;

/// A linear congruential generator: the same graphs on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

/// One more operation on the image `x`; `None` when the die fell on one that does not fit.
fn image_step(net: &mut Net, dice: &mut Dice, x: ValueId, all: &[ValueId]) -> Option<ValueId> {
    let shape = net.shape(x);
    let [_, c, h, w] = shape[..] else { return None };
    Some(match dice.roll(13) {
        0..=2 => {
            let kernel = [1 + dice.roll(3), 1 + dice.roll(3)];
            let pads = [0; 4].map(|_: usize| dice.roll(2));
            let dilations = [1 + dice.roll(2), 1];
            if h + pads[0] + pads[2] < dilations[0] * (kernel[0] - 1) + 1 || w + pads[1] + pads[3] < kernel[1] {
                return None;
            }
            let groups = if c % 2 == 0 { dice.pick(&[1, 2, c]) } else { dice.pick(&[1, c]) };
            let out = groups * (1 + dice.roll(4usize.div_ceil(groups)));
            net.conv(x, out, kernel, [1 + dice.roll(2), 1 + dice.roll(2)], pads, dilations, groups)
        }
        3 => {
            if h < 2 || w < 2 {
                return None;
            }
            let pads = [dice.roll(2), 0, 0, dice.roll(2)];
            let counted = dice.roll(2) == 0;
            net.average_pool(x, [2, 2], [1 + dice.roll(2), 2], pads, counted)
        }
        4 | 5 => net.square(x),
        6 => net.polynomial(x, &[0.2, 0.4, 0.3, 0.1]),
        7 => {
            let others: Vec<ValueId> = all.iter().copied().filter(|&v| net.shape(v) == shape).collect();
            let other = dice.pick(&others);
            let op = [Op::Add, Op::Sub, Op::Mul][dice.roll(3)].clone();
            net.push(op, &[x, other])
        }
        8 => net.add_const(x, &dice.pick(&[[1, 1, 1, 1], [1, c, 1, 1], [1, c, h, w], [1, 1, 1, w]])),
        9 => net.mul_const(x, &dice.pick(&[[1, 1, 1, 1], [1, c, 1, 1], [1, c, h, w], [1, 1, h, 1]])),
        10 => {
            let others: Vec<ValueId> =
                all.iter().copied().filter(|&v| matches!(net.shape(v)[..], [1, _, a, b] if (a, b) == (h, w))).collect();
            let other = dice.pick(&others);
            net.push(Op::Concat { axis: 1 }, &[x, other])
        }
        11 => {
            let before = vec![0, 0, dice.roll(3) as i64 - 1, dice.roll(2) as i64];
            let after = vec![0, 0, dice.roll(2) as i64, dice.roll(3) as i64 - 1];
            if h < 3 || w < 3 {
                return None;
            }
            net.push(Op::Pad { before, after, value: dice.pick(&[0.0, 0.0, 0.5]) }, &[x])
        }
        _ => {
            let perm = dice.pick(&[[0, 1, 3, 2], [0, 2, 3, 1], [0, 3, 1, 2]]).to_vec();
            if dice.roll(2) == 0 {
                net.push(Op::Transpose { perm }, &[x])
            } else {
                let extents = [1, c.div_ceil(2), h.div_ceil(2), w];
                net.slice(x, &[0, 0, dice.roll(2).min(h / 2), 0], &[1, 1, 1, 1], &extents)
            }
        }
    })
}

fn network(seed: u64) -> Net {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    dice.roll(2);
    let shape = [1, 1 + dice.roll(3), 3 + dice.roll(4), 3 + dice.roll(4)];
    let mut net = Net::new(&shape);
    let mut all = vec![net.input()];
    let mut x = net.input();
    let steps = 2 + dice.roll(6);
    while all.len() <= steps {
        let from = if dice.roll(4) == 0 { dice.pick(&all) } else { x };
        let made = image_step(&mut net, &mut dice, from, &all);
        let small = |net: &Net, v: ValueId| net.shape(v).iter().product::<usize>() <= 400;
        if let Some(v) = made.filter(|&v| small(&net, v)) {
            x = v;
            all.push(v);
        }
    }
    if dice.roll(3) > 0 {
        let flat: usize = net.shape(x).iter().product();
        x = net.reshape(x, &[1, flat]);
        x = net.dense(x, 1 + dice.roll(9));
        if dice.roll(2) == 0 {
            x = net.square(x);
            x = net.dense(x, 1 + dice.roll(5));
        }
    }
    net.output(x);
    if dice.roll(3) == 0 {
        let other = dice.pick(&all);
        net.output(other);
    }
    net
}

#[test]
fn meaning_is_kept() {
    let cost = LinearCost::default();
    let mut refused = 0;
    for seed in 0..800 {
        let graph = network(seed).finish();
        let slots = [128, 256, 1024][seed as usize % 3];
        println!("seed {seed}, {slots} slots");
        let he = match lower(&graph, slots, &cost) {
            Ok(he) => he,
            // Strides and paddings in turn may spread few pixels over many slots.
            Err(e) if e.to_string().contains("one channel takes") => {
                refused += 1;
                continue;
            }
            Err(e) => panic!("{e}\n{graph}"),
        };
        compare(&graph, &he);
        let merged = merge_linear(&graph, slots, &cost).unwrap_or_else(|e| panic!("{e}\n{graph}")).graph;
        same_meaning(&graph, &merged);
        let he = lower(&merged, slots, &cost).unwrap_or_else(|e| panic!("{e}\n{merged}"));
        compare(&graph, &common_subexpressions(&he));
    }
    assert!(refused < 20, "{refused} networks did not fit");
}
