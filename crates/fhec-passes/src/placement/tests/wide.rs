//! Graphs in which many values are alive at once.

use super::*;

/// [`exhaustive`], where beginnings that cost as much as something known are left.
fn cheapest_of_all(steps: &[Step], chosen: &mut Vec<Decision>, best: &mut f64) {
    let Some(step) = steps.get(chosen.len()) else {
        *best = best.min(judge(steps, chosen).expect("every beginning was possible"));
        return;
    };
    let ways = step.variants.iter().enumerate().flat_map(|(k, v)| (0..v.cost.len()).map(move |level| (k, level)));
    for (variant, level) in ways {
        let targets = step.bootstrap.iter().flat_map(|r| 0..r.cost.len()).map(Some);
        for bootstrap in std::iter::once(None).chain(targets) {
            chosen.push(Decision { level, variant, bootstrap });
            if judge(&steps[..chosen.len()], chosen).is_some_and(|cost| cost < *best) {
                cheapest_of_all(steps, chosen, best);
            }
            chosen.pop();
        }
    }
}

/// Extends a graph of at most so many steps from the last of them by a region of series and parallel parts; nothing but its two ends
/// is used outside. Returns its end.
fn region(from: usize, shape: &mut impl Iterator<Item = u8>, inputs: &mut Vec<Vec<usize>>, most: usize) -> usize {
    let kind = if inputs.len() + 3 > most { 0 } else { shape.next().unwrap_or(0) % 4 };
    let branches: Vec<usize> = match kind {
        0 => vec![from],
        1 => {
            let middle = region(from, shape, inputs, most - 1);
            return region(middle, shape, inputs, most);
        }
        // A shortcut.
        2 => vec![region(from, shape, inputs, most - 1), from],
        _ => (0..2).map(|k| region(from, shape, inputs, most - 2 + k)).collect(),
    };
    inputs.push(branches);
    inputs.len() - 1
}

/// Random regions of at most 7 steps, 3 levels.
fn regions() -> impl Strategy<Value = Vec<Step>> {
    const LEVELS: usize = 3;
    let costs = || prop::collection::vec((0u8..40).prop_map(f64::from), LEVELS);
    let refresh = (0usize..2, costs()).prop_map(|(from, cost)| Refresh { from, cost });
    let step = (0usize..3, costs(), prop::option::weighted(0.8, refresh));
    let shape = prop::collection::vec(any::<u8>(), 8);
    (shape, prop::collection::vec(step, 9)).prop_map(|(shape, steps)| {
        let mut inputs = vec![vec![]];
        region(0, &mut shape.into_iter(), &mut inputs, 7);
        let step = |(inputs, (consumed, cost, bootstrap)): (Vec<usize>, (usize, Vec<f64>, _))| {
            let consumed = if inputs.len() == 1 { consumed } else { 0 };
            Step { inputs, variants: vec![Variant { consumed, cost }], bootstrap }
        };
        inputs.into_iter().zip(steps).map(step).collect()
    })
}

proptest! {
    #[test]
    fn nothing_is_cheaper_in_series_and_in_parallel(steps in regions()) {
        let mut best = f64::INFINITY;
        cheapest_of_all(&steps, &mut Vec::new(), &mut best);
        let placement = place(&steps);
        prop_assert_eq!(placement.as_ref().map(|p| p.cost), Some(best).filter(|b| b.is_finite()));
        if let Some(p) = placement {
            prop_assert!(p.exact);
            prop_assert_eq!(judge(&steps, &p.decisions), Some(p.cost));
        }
    }

    /// Levels that are held may miss the best, but what is found is possible, and what is said of bootstraps is not below it.
    #[test]
    fn what_is_held_leads_to_a_placement(steps in graphs(12, 3)) {
        const FEW: Bounds = Bounds { free: 1, held: 100, each: 16 };
        let (best, found) = (place(&steps), place_within(&steps, f64::INFINITY, FEW));
        prop_assert_eq!(best.is_some(), found.is_some());
        if let (Some(best), Some(found)) = (best, found) {
            prop_assert!(!found.exact && found.cost >= best.cost);
            prop_assert_eq!(judge(&steps, &found.decisions), Some(found.cost));
            prop_assert!(alternatives(&steps, &found).into_iter().flatten().all(|other| other.cost >= found.cost));
        }
    }

    #[test]
    fn alternatives_are_placements_without_the_bootstrap(steps in graphs(12, 3)) {
        let Some(placement) = place(&steps) else { return Ok(()) };
        for (i, without) in alternatives(&steps, &placement).into_iter().enumerate() {
            let mut others = steps.clone();
            others[i].bootstrap = None;
            let best = placement.decisions[i].bootstrap.and_then(|_| place(&others)).map(|p| p.cost);
            prop_assert_eq!(without.as_ref().map(|other| other.cost), best, "{}", i);
            // With the bootstraps of both and none of this there is a placement of this cost.
            let Some(other) = without else { continue };
            for (k, step) in others.iter_mut().enumerate() {
                if placement.decisions[k].bootstrap.is_none() && !other.instead.contains(&k) {
                    step.bootstrap = None;
                }
            }
            prop_assert_eq!(place(&others).map(|p| p.cost), Some(other.cost), "{}", i);
        }
    }
}

const TOP: usize = 16;

/// Combinations that a search without bounds looks at.
fn combinations(steps: &[Step]) -> u64 {
    let network = Network::new(steps).expect("every step fits");
    Order::new(&network, &network.all(), u64::MAX, &[]).combinations
}

/// Two modules, one after the other, of so many branches of four steps; their ends are joined at once or one after the other.
fn modules(branches: usize, at_once: bool) -> Vec<Step> {
    let mut steps = vec![layer(&[], 0, TOP)];
    for _ in 0..2 {
        let fork = steps.len() - 1;
        let mut ends = Vec::new();
        // Breadth first, as exporters may write it: all branches are alive at once.
        for depth in 0..4 {
            for k in 0..branches {
                let from = if depth == 0 { fork } else { steps.len() - branches };
                steps.push(layer(&[from], [1, 5, 1 + k % 3, 6][depth], TOP));
            }
        }
        ends.extend(steps.len() - branches..steps.len());
        if at_once {
            steps.push(layer(&ends, 0, TOP));
        } else {
            steps.push(layer(&ends[..2], 0, TOP));
            for &end in &ends[2..] {
                steps.push(layer(&[steps.len() - 1, end], 0, TOP));
            }
        }
        steps.push(layer(&[steps.len() - 1], 6, TOP));
    }
    steps
}

#[test]
fn parallel_branches_cost_no_more_than_the_sum_of_each() {
    for at_once in [true, false] {
        let (few, many) = (modules(3, at_once), modules(12, at_once));
        assert!(combinations(&many) <= 5 * combinations(&few), "{} {}", combinations(&many), combinations(&few));
        // No more than three levels at a time.
        let each = (TOP as u64 + 1).pow(3);
        assert!(combinations(&many) <= many.len() as u64 * each, "{}", combinations(&many));
        let placement = place(&many).expect("every step fits");
        assert!(placement.exact);
        assert_eq!(judge(&many, &placement.decisions), Some(placement.cost));
    }
}

#[test]
fn values_that_all_later_layers_take_are_nested() {
    // Densely connected: every layer takes all values before it, and so does the end.
    let mut steps = vec![layer(&[], 0, TOP)];
    let mut values = vec![0];
    for _ in 0..20 {
        steps.push(layer(&values, 0, TOP));
        steps.push(layer(&[steps.len() - 1], 5, TOP));
        steps.push(layer(&[steps.len() - 1], 1, TOP));
        values.push(steps.len() - 1);
    }
    steps.push(layer(&values, 1, TOP));
    assert!(combinations(&steps) <= steps.len() as u64 * (TOP as u64 + 1).pow(3), "{}", combinations(&steps));
    let placement = place(&steps).expect("every step fits");
    assert!(placement.exact);
    assert_eq!(judge(&steps, &placement.decisions), Some(placement.cost));
}

/// Streams that exchange all their values after every two layers.
fn streams(width: usize, layers: usize, top: usize) -> Vec<Step> {
    let mut steps = vec![layer(&[], 0, top)];
    let mut values = vec![0; width];
    for number in 0..layers {
        let ends: Vec<usize> = values
            .iter()
            .enumerate()
            .map(|(k, &v)| {
                steps.push(layer(&[v], 1 + (k + number) % 2, top));
                steps.push(layer(&[steps.len() - 1], 3 + (k * number) % 3, top));
                steps.len() - 1
            })
            .collect();
        for value in &mut values {
            // Every stream takes the others through a layer of its own.
            let taken: Vec<usize> = ends
                .iter()
                .map(|&end| {
                    steps.push(layer(&[end], 1, top));
                    steps.len() - 1
                })
                .collect();
            steps.push(layer(&taken, 0, top));
            *value = steps.len() - 1;
        }
    }
    steps.push(layer(&values, 0, top));
    steps
}

#[test]
fn streams_that_exchange_everything_are_bounded_and_said_to_be_inexact() {
    let steps = streams(9, 4, TOP);
    assert!(combinations(&steps) > BOUNDS.free);
    let placement = place(&steps).expect("every step fits");
    assert!(!placement.exact);
    assert_eq!(judge(&steps, &placement.decisions), Some(placement.cost));
    let network = Network::new(&steps).expect("every step fits");
    assert!(bounded(&network, &network.all(), BOUNDS, &[]).combinations <= BOUNDS.held);
    assert_eq!(place(&steps), Some(placement), "the same every time");
}

/// How far levels that are held end from the best, where that is known: bounds are a sixteenth of what it takes to be exact.
#[test]
fn what_is_held_is_not_far_from_the_best() {
    for (width, layers) in [(2, 6), (3, 3), (3, 5)] {
        let steps = streams(width, layers, 10);
        let best = place(&steps).expect("every step fits");
        assert!(best.exact);
        let held = combinations(&steps) / 16;
        let few = Bounds { free: 1, held, each: held / 4 };
        let found = place_within(&steps, f64::INFINITY, few).expect("every step fits");
        assert!(!found.exact && found.cost <= 1.2 * best.cost, "{width} {layers}: {} {}", found.cost, best.cost);
        // Everything at the highest level, with which it begins.
        let network = Network::new(&steps).expect("every step fits");
        let first = cost(&steps, &network.decisions(&network.highest()));
        assert!(found.cost <= 0.7 * first, "{width} {layers}: {} {first}", found.cost);
    }
}
