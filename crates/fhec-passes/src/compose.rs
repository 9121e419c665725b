//! Rotations without keys of their own, where memory is short.
//!
//! Two rotations make a third. Maps first prefer splits that share their keys ([`crate::plan_bsgs::plan_sharing`]); where the
//! keys of a network still exceed the memory budget, rotations that are rare lose theirs and are made of two others at each
//! use, as few of them as it takes. Bootstraps keep all of theirs: they rotate more than everything else.

use crate::noise::Model;
use crate::parameters::{Unfit, nearer};
use fhec_ir::he::Op;
use fhec_math::galois_element;
use fhec_plan::KeyManifest;
use std::collections::{BTreeMap, BTreeSet};

/// An automorphism and the two that make it.
type Composition = (u64, [u64; 2]);

/// The first of a row of manifests with fewer and fewer keys for which `attempt` does not fail for memory, and its result.
///
/// # Errors
/// Those of `attempt`; for memory the least that was found.
pub(crate) fn fitted<T>(
    model: &Model<'_>,
    keys: KeyManifest,
    (log_n, bootstraps): (u32, &BTreeSet<u64>),
    attempt: impl Fn(&Model<'_>, &KeyManifest) -> Result<T, Unfit>,
) -> Result<(T, KeyManifest), Unfit> {
    match attempt(model, &keys) {
        Err(Unfit::Memory(_)) => {}
        other => return other.map(|found| (found, keys)),
    }
    let order = order(&uses(model, log_n), &keys, log_n, bootstraps);
    let with = |count: usize| without(&keys, &order[..count]);
    let attempt = |count: usize| {
        let keys = with(count);
        attempt(&model.clone().composing(&keys), &keys)
    };
    let mut found = fewest(order.len(), attempt)?;
    let mut too_few = 0;
    while found.1 - too_few > 1 {
        let middle = usize::midpoint(too_few, found.1);
        match attempt(middle) {
            Ok(result) => found = (result, middle),
            Err(_) => too_few = middle,
        }
    }
    Ok((found.0, with(found.1)))
}

/// A result with many of `all` compositions, and their number. Most memory is saved by all of them, as a rule; but each that is a
/// baby of the map that takes most makes a ciphertext there, for every input, and may cost more than its key. So fewer are tried where all
/// fail.
fn fewest<T>(all: usize, attempt: impl Fn(usize) -> Result<T, Unfit>) -> Result<(T, usize), Unfit> {
    const PARTS: usize = 4;
    let mut counts: Vec<usize> = (1..=PARTS).rev().map(|part| all * part / PARTS).collect();
    counts.dedup();
    let mut reason = None;
    for count in counts {
        match attempt(count) {
            Ok(result) => return Ok((result, count)),
            Err(error) => reason = Some(reason.map_or(error, |known| nearer(known, error))),
        }
    }
    Err(reason.unwrap_or(Unfit::Security))
}

/// How often every automorphism of the layers is used.
fn uses(model: &Model<'_>, log_n: u32) -> BTreeMap<u64, usize> {
    let graph = model.graph();
    let mut uses = BTreeMap::new();
    let mut add = |rotation: i64, count: usize| {
        *uses.entry(galois_element(rotation, log_n)).or_insert(0) += count;
    };
    for id in graph.ids() {
        let node = graph.node(id);
        match &node.op {
            Op::LinearMap { .. } => {
                for group in &model.groups()[id.index()] {
                    group.bsgs.babies().iter().chain(group.bsgs.giants()).for_each(|&(_, rotation)| add(rotation, 1));
                    group.fold.iter().for_each(|&step| add(step as i64, node.layout.ciphertexts));
                }
            }
            Op::Rotate(steps) => add(*steps, node.layout.ciphertexts),
            _ => {}
        }
    }
    uses
}

/// Compositions, those of the rarest automorphisms first and among them of the largest keys. Whatever is left out at the
/// end, no automorphism is made of one that has lost its key.
fn order(uses: &BTreeMap<u64, usize>, keys: &KeyManifest, log_n: u32, bootstraps: &BTreeSet<u64>) -> Vec<Composition> {
    let two_n = 2u64 << log_n;
    let count = |element: &u64| uses.get(element).copied().unwrap_or(0);
    let mut rarest: Vec<(u64, usize)> = keys.galois.iter().map(|(&element, &level)| (element, level)).collect();
    rarest.retain(|(element, _)| !bootstraps.contains(element));
    rarest.sort_by_key(|&(element, level)| (count(&element), std::cmp::Reverse(level), element));
    let mut composed: BTreeSet<u64> = BTreeSet::new();
    let mut needed: BTreeSet<u64> = BTreeSet::new();
    let mut order = Vec::new();
    for (element, level) in rarest {
        if needed.contains(&element) {
            continue;
        }
        let keyed: Vec<u64> = keys
            .galois
            .iter()
            .filter(|&(f, &highest)| *f != element && !composed.contains(f) && highest >= level)
            .map(|(&f, _)| f)
            .collect();
        let pairs = keyed.iter().enumerate().flat_map(|(i, &a)| keyed[i..].iter().map(move |&b| [a, b]));
        // 2N divides 2^64.
        let pairs = pairs.filter(|[a, b]| a.wrapping_mul(*b) % two_n == element);
        // Keys that stay in any case are best, then those that are used most.
        let worth = |f: u64| (bootstraps.contains(&f) || needed.contains(&f), count(&f));
        let best = pairs.max_by_key(|&[a, b]| (worth(a).min(worth(b)), std::cmp::Reverse([a, b])));
        if let Some(factors) = best {
            composed.insert(element);
            needed.extend(factors);
            order.push((element, factors));
        }
    }
    order
}

/// The manifest without the keys of some automorphisms.
fn without(keys: &KeyManifest, composed: &[Composition]) -> KeyManifest {
    let mut keys = keys.clone();
    for (element, factors) in composed {
        keys.galois.remove(element);
        keys.composed.insert(*element, *factors);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_N: u32 = 12;

    fn keys(rotations: &[(i64, usize)]) -> KeyManifest {
        let galois = rotations.iter().map(|&(r, level)| (galois_element(r, LOG_N), level)).collect();
        KeyManifest { galois, ..KeyManifest::default() }
    }

    fn order_of(rotations: &[(i64, usize, usize)], bootstraps: &[i64]) -> Vec<(i64, [i64; 2])> {
        let element = |r: i64| galois_element(r, LOG_N);
        let of = |e: u64| (-1023..=1024).find(|&r| element(r) == e).expect("a rotation");
        let uses = rotations.iter().map(|&(r, _, uses)| (element(r), uses)).collect();
        let list: Vec<_> = rotations.iter().map(|&(r, level, _)| (r, level)).collect();
        let bootstraps = bootstraps.iter().map(|&r| element(r)).collect();
        let order = order(&uses, &keys(&list), LOG_N, &bootstraps);
        order
            .into_iter()
            .map(|(e, factors)| {
                let mut factors = factors.map(of);
                factors.sort_unstable();
                (of(e), factors)
            })
            .collect()
    }

    #[test]
    fn fewer_compositions_are_tried_where_all_take_too_much() {
        let needs = |count: usize| if count == 9 { Ok(()) } else { Err(Unfit::Memory(count as u64 + 50)) };
        assert_eq!(fewest(12, needs).expect("nine are enough"), ((), 9));
        assert!(matches!(fewest(20, needs), Err(Unfit::Memory(55))), "the least of what was tried");
        assert!(matches!(fewest(0, needs), Err(Unfit::Memory(50))));
    }

    #[test]
    fn the_rarest_go_first_and_never_what_others_need() {
        // 3 = 1 + 2 is the rarest; 1 and 2 must stay then; 5 = 2 + 3 would need 3, so that it is 4 + 1; −1 cannot be made.
        let list = [(1, 4, 9), (2, 4, 8), (3, 4, 1), (4, 4, 7), (5, 4, 2), (-1, 4, 3)];
        assert_eq!(order_of(&list, &[]), [(3, [1, 2]), (5, [1, 4])]);
    }

    #[test]
    fn keys_that_reach_too_low_make_nothing() {
        let list = [(1, 4, 9), (2, 3, 8), (3, 4, 1)];
        assert_eq!(order_of(&list, &[]), [(2, [1, 1])], "and no key reaches too high");
    }

    #[test]
    fn bootstraps_keep_their_keys() {
        let list = [(1, 4, 9), (2, 4, 8), (3, 4, 1)];
        assert_eq!(order_of(&list, &[]), [(3, [1, 2])]);
        assert_eq!(order_of(&list, &[3]), [(2, [1, 1])]);
        assert_eq!(order_of(&list, &[1, 2, 3]), []);
    }
}
