//! Placement against exhaustive search, against Bellman's recursion, and on large graphs.

use super::*;
use proptest::prelude::*;

/// Cost of given decisions, if they are possible at all.
fn judge(steps: &[Step], decisions: &[Decision]) -> Option<f64> {
    let mut available: Vec<usize> = Vec::new();
    let mut total = 0.0;
    for (step, decision) in steps.iter().zip(decisions) {
        if step.inputs.iter().any(|&v| available[v] < decision.level) {
            return None;
        }
        let variant = step.variants.get(decision.variant)?;
        total += variant.cost.get(decision.level)?;
        let raw = decision.level.checked_sub(variant.consumed)?;
        available.push(match (decision.bootstrap, &step.bootstrap) {
            (None, _) => raw,
            (Some(target), Some(refresh)) if raw >= refresh.from => {
                total += refresh.cost.get(target)?;
                target
            }
            _ => return None,
        });
    }
    Some(total)
}

/// Every combination of decisions.
fn exhaustive(steps: &[Step], chosen: &mut Vec<Decision>) -> Option<f64> {
    let Some(step) = steps.get(chosen.len()) else { return judge(steps, chosen) };
    let mut best: Option<f64> = None;
    let ways = step.variants.iter().enumerate().flat_map(|(k, v)| (0..v.cost.len()).map(move |level| (k, level)));
    for (variant, level) in ways {
        let targets = step.bootstrap.iter().flat_map(|r| 0..r.cost.len()).map(Some);
        for bootstrap in std::iter::once(None).chain(targets) {
            chosen.push(Decision { level, variant, bootstrap });
            if judge(&steps[..chosen.len()], chosen).is_some()
                && let Some(cost) = exhaustive(steps, chosen)
            {
                best = Some(best.map_or(cost, |b: f64| b.min(cost)));
            }
            chosen.pop();
        }
    }
    best
}

const TOP: usize = 3;

/// Random graphs of fewer than so many steps, of which each takes one or two earlier values and has fewer than so many variants.
fn graphs(steps: usize, variants: usize) -> impl Strategy<Value = Vec<Step>> {
    let costs = || prop::collection::vec((0u8..40).prop_map(f64::from), TOP + 1);
    let refresh = (0usize..2, costs()).prop_map(|(from, cost)| Refresh { from, cost });
    let variant = (0usize..3, costs()).prop_map(|(consumed, cost)| Variant { consumed, cost });
    let variants = prop::collection::vec(variant, 1..variants);
    let step = (any::<[u16; 2]>(), 1usize..3, variants, prop::option::weighted(0.7, refresh));
    prop::collection::vec(step, 2..steps).prop_map(|list| {
        let step = |(i, (picks, count, mut variants, bootstrap)): (usize, ([u16; 2], usize, Vec<Variant>, _))| {
            if i == 0 {
                variants.iter_mut().for_each(|v| v.consumed = 0);
            }
            let inputs = picks[..count.min(i)].iter().map(|&x| usize::from(x) % i).collect();
            Step { inputs, variants, bootstrap }
        };
        list.into_iter().enumerate().map(step).collect()
    })
}

/// Holds the placement of a graph against every other one.
fn is_best(steps: &[Step]) -> Result<(), TestCaseError> {
    let placement = place(steps);
    let best = exhaustive(steps, &mut Vec::new());
    prop_assert_eq!(placement.as_ref().map(|p| p.cost), best);
    if let Some(p) = placement {
        prop_assert!(p.exact);
        prop_assert_eq!(judge(steps, &p.decisions), Some(p.cost));
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_is_cheaper(steps in graphs(6, 2)) {
        is_best(&steps)?;
    }

    #[test]
    fn nothing_is_cheaper_over_all_variants(steps in graphs(5, 4)) {
        is_best(&steps)?;
    }
}

/// A step whose cost grows with the level, as real ones do.
fn layer(inputs: &[usize], consumed: usize, top: usize) -> Step {
    let cost = (0..=top).map(|level| (1 + level) as f64).collect();
    let refresh = Refresh { from: 2, cost: (0..=top).map(|t| 100.0 + 5.0 * t as f64).collect() };
    Step { inputs: inputs.to_vec(), variants: vec![Variant { consumed, cost }], bootstrap: Some(refresh) }
}

/// Bellman's recursion over (layer, level), by itself.
fn shortest_path(steps: &[Step]) -> f64 {
    let top = steps[0].variants[0].cost.len() - 1;
    let mut best: Vec<f64> = steps[0].variants[0].cost.clone();
    for step in &steps[1..] {
        let Variant { consumed, cost } = &step.variants[0];
        let mut next = vec![f64::INFINITY; top + 1];
        for (have, so_far) in best.iter().enumerate() {
            for level in *consumed..=have {
                let (raw, cost) = (level - consumed, so_far + cost[level]);
                next[raw] = next[raw].min(cost);
                if let Some(refresh) = step.bootstrap.as_ref().filter(|r| raw >= r.from) {
                    refresh.cost.iter().enumerate().for_each(|(t, c)| next[t] = next[t].min(cost + c));
                }
            }
        }
        best = next;
    }
    best.into_iter().fold(f64::INFINITY, f64::min)
}

#[test]
fn a_chain_is_a_shortest_path() {
    let top = 14;
    let mut steps = vec![layer(&[], 0, top)];
    for i in 0..40 {
        steps.push(layer(&[i], [1, 5][i % 2], top));
    }
    let placement = place(&steps).expect("every step fits");
    assert_eq!(placement.cost, shortest_path(&steps));
    // 20 · 6 levels, of which a bootstrap gives at most 12.
    let bootstraps = placement.decisions.iter().filter(|d| d.bootstrap.is_some()).count();
    assert!((9..=11).contains(&bootstraps), "{bootstraps}");
    let alternatives = alternatives(&steps, &placement);
    for (decision, other) in placement.decisions.iter().zip(alternatives) {
        assert_eq!(decision.bootstrap.is_some(), other.is_some());
        assert!(other.is_none_or(|other| other.cost >= placement.cost && !other.instead.is_empty()));
    }
}

#[test]
fn a_hundred_residual_blocks_take_no_time_and_are_exact() {
    let top = 16;
    let mut steps = vec![layer(&[], 0, top)];
    for block in 0..100 {
        let x = steps.len() - 1;
        steps.push(layer(&[x], 1, top));
        steps.push(layer(&[x + 1], 6, top));
        steps.push(layer(&[x + 2], 1, top));
        // Every tenth shortcut is a convolution.
        let shortcut = if block % 10 == 0 {
            steps.push(layer(&[x], 1, top));
            x + 4
        } else {
            x
        };
        steps.push(layer(&[x + 3, shortcut], 0, top));
        let sum = steps.len() - 1;
        steps.push(layer(&[sum], 6, top));
    }
    let start = std::time::Instant::now();
    let placement = place(&steps).expect("every step fits");
    println!("{:?}", start.elapsed());
    assert!(placement.exact);
    assert_eq!(judge(&steps, &placement.decisions), Some(placement.cost));
}

#[test]
fn too_deep_a_step_has_no_placement() {
    assert_eq!(place(&[layer(&[], 0, 4), layer(&[0], 5, 4)]), None);
    let without = |inputs: &[usize], consumed| Step { bootstrap: None, ..layer(inputs, consumed, 4) };
    assert_eq!(place(&[without(&[], 0), without(&[0], 3), without(&[1], 3)]), None);
    // Unless there is a shallower way.
    let mut steps = [without(&[], 0), without(&[0], 3), without(&[1], 3)];
    steps[2].variants.push(layer(&[1], 1, 4).variants.remove(0));
    assert_eq!(place(&steps).map(|p| p.decisions[2].variant), Some(1));
}

#[test]
fn alternatives_of_a_deep_chain_are_those_of_a_search_from_the_start() {
    let top = 14;
    let mut steps = vec![layer(&[], 0, top)];
    for i in 0..30 {
        steps.push(layer(&[i], [1, 5, 2][i % 3], top));
    }
    let placement = place(&steps).expect("every step fits");
    for (i, without) in alternatives(&steps, &placement).into_iter().enumerate() {
        let mut others = steps.clone();
        others[i].bootstrap = None;
        let best = placement.decisions[i].bootstrap.and_then(|_| place(&others)).map(|p| p.cost);
        assert_eq!(without.map(|other| other.cost), best, "{i}");
    }
}

mod wide;
