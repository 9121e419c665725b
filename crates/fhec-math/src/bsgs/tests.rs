//! Plans against plain matrix products.

use super::*;

fn diagonals(indices: impl IntoIterator<Item = i64>) -> Vec<DiagonalIndex> {
    indices.into_iter().map(|index| DiagonalIndex { out_block: 0, in_block: 0, index }).collect()
}

/// Runs a plan on plain vectors, for several pairs of periods, and compares with the matrix.
fn check(modulus: usize, list: &[DiagonalIndex], plan: &BsgsPlan) {
    for (p, h) in [(modulus, modulus), (4 * modulus, modulus), (modulus, 4 * modulus)] {
        check_periods(p, h, list, plan);
    }
    assert!(plan.terms().is_sorted());
    let half = modulus as i64 / 2;
    assert!(plan.rotations().iter().all(|&r| r != 0 && -half < r && r <= half.max(1)));
}

fn check_periods(p: usize, h: usize, list: &[DiagonalIndex], plan: &BsgsPlan) {
    let (modulus, n) = (p.min(h), p.max(h));
    let set = normalise(modulus, list);
    assert_eq!(plan.products(), set.len());
    let matrix = |out: usize, input: usize, row: usize, col: usize| {
        let seed = out * 7919 + input * 104_729 + row * 31 + col * 17;
        (seed % 101) as i64 - 50
    };
    let diagonal = |d: &DiagonalIndex, k: usize| matrix(d.out_block, d.in_block, k % h, (k + d.index as usize) % p);
    let input = |block: usize, k: i64| (block as i64 * 13 + k.rem_euclid(p as i64) * 7) % 97;
    let outputs = set.iter().map(|d| d.out_block).max().map_or(0, |m| m + 1);
    let mut want = vec![vec![0; h]; outputs];
    for d in &set {
        // The columns of row r that lie on diagonal d: r + index + multiples of the modulus.
        for (r, w) in want[d.out_block].iter_mut().enumerate() {
            for shift in (0..p.max(modulus)).step_by(modulus) {
                let col = (r + d.index as usize + shift) % p;
                *w += matrix(d.out_block, d.in_block, r, col) * input(d.in_block, col as i64);
            }
        }
    }
    let mut got = vec![vec![0; n]; outputs];
    for t in plan.terms() {
        let d = DiagonalIndex { out_block: t.out_block, in_block: t.in_block, index: t.index(modulus) as i64 };
        for (k, sum) in got[t.out_block].iter_mut().enumerate() {
            // The product before the giant rotation stands at k + giant.
            let at = (k as i64 + t.giant).rem_euclid(n as i64) as usize;
            let value = diagonal(&d, t.source_row(at, p, h));
            *sum += value * input(t.in_block, at as i64 + t.baby);
        }
    }
    let mut step = h;
    while step < p {
        for g in &mut got {
            let old = g.clone();
            for k in 0..n {
                g[k] += old[(k + step) % n];
            }
        }
        step *= 2;
    }
    for (g, w) in got.iter().zip(&want) {
        assert_eq!(&g[..h], &w[..], "periods {p} and {h}");
    }
}

#[test]
fn every_step_gives_the_same_map() {
    for period in [1, 2, 8, 32] {
        let list = diagonals([0, 1, 5, -3, 17, -17, 31, 6, 6]);
        for n1 in 1..=period + 1 {
            check(period, &list, &BsgsPlan::new(period, &list, n1));
        }
    }
}

#[test]
fn blocks_share_babies_and_giants() {
    let mut list = Vec::new();
    for out_block in 0..2 {
        for in_block in 0..3 {
            for i in 0..16 {
                let index = i + 2 * out_block as i64;
                list.push(DiagonalIndex { out_block, in_block, index });
            }
        }
    }
    let plan = BsgsPlan::new(64, &list, 4);
    check(64, &list, &plan);
    // Three babies for each of the three inputs; giants 4, 8, 12 and 4, 8, 12, 16.
    assert_eq!((plan.baby_switches(), plan.decompositions()), (9, 3));
    assert_eq!(plan.giant_switches(), 7);
    assert_eq!(plan.rotations(), vec![1, 2, 3, 4, 8, 12, 16]);
}

#[test]
fn the_choice_follows_the_structure() {
    // A 3×3 convolution over 16 channel shifts: taps dy·32 + dx, channels 1024·c.
    let taps = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| dy * 32 + dx));
    let list = diagonals(taps.flat_map(|t| (0..16).map(move |c| t + 1024 * c)));
    let plan = BsgsPlan::choose(1 << 14, &list, &BsgsWeights { giant: 1.0, baby: 0.9, ..Default::default() });
    check(1 << 14, &list, &plan);
    assert!(plan.baby_switches() + plan.giant_switches() <= 8 + 15, "{:?}", plan.rotations());
    // Cheap babies: more of them.
    let cheap = BsgsPlan::choose(1 << 14, &list, &BsgsWeights { baby: 0.01, ..Default::default() });
    check(1 << 14, &list, &cheap);
    assert!(cheap.giant_switches() < plan.giant_switches());
}

#[test]
fn centred_indices_save_rotations() {
    // With a step that does not divide the modulus.
    let list = diagonals(-3..=3);
    let plan = BsgsPlan::new(64, &list, 7);
    assert_eq!((plan.baby_switches(), plan.giant_switches()), (6, 0));
    check(64, &list, &plan);
}

#[test]
fn choice_beats_or_meets_every_step() {
    let list = diagonals((0..200).map(|i| i * 37 % 256));
    let w = BsgsWeights::default();
    let best = BsgsPlan::choose(256, &list, &w);
    check(256, &list, &best);
    for n1 in 1..=256 {
        assert!(best.cost(&w) <= BsgsPlan::new(256, &list, n1).cost(&w) + 1e-9, "n1 = {n1}");
    }
}

#[test]
fn edge_cases() {
    let none = BsgsPlan::choose(16, &[], &BsgsWeights::default());
    assert_eq!((none.products(), none.rotations().len(), none.decompositions()), (0, 0, 0));
    let identity = diagonals([0]);
    let plan = BsgsPlan::choose(16, &identity, &BsgsWeights::default());
    check(16, &identity, &plan);
    assert!(plan.rotations().is_empty());
    let single = diagonals([5]);
    let plan = BsgsPlan::choose(16, &single, &BsgsWeights::default());
    check(16, &single, &plan);
    assert_eq!(plan.rotations().len(), 1);
    assert_eq!((centred(8, 16), centred(9, 16), centred(-8, 16), centred(0, 1)), (8, -7, 8, 0));
}

#[test]
fn choices_are_what_plans_of_their_step_cost() {
    let list = diagonals((0..9).flat_map(|row| (0..5).map(move |k| 64 * row + k)));
    let weights = BsgsWeights::default();
    let choices = BsgsSteps::new(1024, &list).choices(&weights, (20, 1.5));
    assert!(choices.len() > 2 && choices.windows(2).all(|w| w[0].cost <= w[1].cost));
    for choice in &choices {
        let plan = BsgsPlan::new(1024, &list, choice.n1);
        assert_eq!(plan.rotations(), choice.rotations);
        assert!((plan.cost(&weights) - choice.cost).abs() < 1e-12 && choice.cost <= 1.5 * choices[0].cost);
    }
    assert!(choices[0].cost <= BsgsPlan::choose(1024, &list, &weights).cost(&weights) * 1.2);
}
