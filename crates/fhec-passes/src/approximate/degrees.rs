//! The cheapest degrees for a budget of error, where errors of activations add up.

/// What one choice costs and how it errs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Levels.
    pub(super) depth: usize,
    /// Its part of the squared error of the outputs.
    pub(super) error: f64,
}

/// For each list of choices, the number of one, so that the errors sum up to at most `budget` and the depths to as little
/// as possible; of several such sums of depths the one with the least error. Where no choices meet the budget, those with
/// the least error.
///
/// A table over (list, depth so far), as there are few depths: exact.
pub(super) fn least_depth(lists: &[Vec<Choice>], budget: f64) -> Vec<usize> {
    // By depth so far the least error, where choices lead there; and by list and depth the choice that led there.
    let mut errors = vec![Some(0.0)];
    let mut picked: Vec<Vec<usize>> = Vec::with_capacity(lists.len());
    for list in lists {
        let most = list.iter().map(|c| c.depth).max().unwrap_or(0);
        let mut next: Vec<Option<f64>> = vec![None; errors.len() + most];
        let mut picks = vec![0; next.len()];
        for (so_far, error) in errors.iter().enumerate() {
            let Some(error) = error else { continue };
            for (number, choice) in list.iter().enumerate() {
                let (depth, sum) = (so_far + choice.depth, error + choice.error);
                if next[depth].is_none_or(|known| sum < known) {
                    (next[depth], picks[depth]) = (Some(sum), number);
                }
            }
        }
        errors = next;
        picked.push(picks);
    }
    let reached = || errors.iter().enumerate().filter_map(|(depth, error)| Some((depth, (*error)?)));
    let within = reached().find(|&(_, error)| error <= budget);
    let Some((mut depth, _)) = within.or_else(|| reached().min_by(|a, b| a.1.total_cmp(&b.1))) else {
        return vec![0; lists.len()];
    };
    let mut picks = vec![0; lists.len()];
    for (at, list) in lists.iter().enumerate().rev() {
        picks[at] = picked[at][depth];
        depth -= list[picks[at]].depth;
    }
    picks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Depth and error of every combination.
    fn all(lists: &[Vec<Choice>]) -> Vec<(usize, f64)> {
        lists.iter().fold(vec![(0, 0.0)], |sums, list| {
            let add = |&(depth, error): &(usize, f64)| list.iter().map(move |c| (depth + c.depth, error + c.error));
            sums.iter().flat_map(add).collect()
        })
    }

    fn lists() -> impl Strategy<Value = Vec<Vec<Choice>>> {
        let error = prop_oneof![9 => (0u32..100).prop_map(f64::from), 1 => Just(f64::INFINITY)];
        let choice = (0usize..7, error).prop_map(|(depth, error)| Choice { depth, error });
        prop::collection::vec(prop::collection::vec(choice, 1..5), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_combination_is_better(lists in lists(), budget in (0u32..300).prop_map(f64::from)) {
            let picks = least_depth(&lists, budget);
            let chosen = || lists.iter().zip(&picks).map(|(list, &p)| list[p]);
            let (depth, error) = (chosen().map(|c| c.depth).sum::<usize>(), chosen().map(|c| c.error).sum::<f64>());
            let all = all(&lists);
            match all.iter().filter(|(_, e)| *e <= budget).map(|&(d, _)| d).min() {
                Some(best) => {
                    prop_assert!(error <= budget && depth == best);
                    prop_assert!(all.iter().all(|&(d, e)| d != best || e >= error));
                }
                None => prop_assert!(all.iter().all(|&(_, e)| e >= error)),
            }
        }
    }
}
