//! Picks one layout per class: all grids, then descent class by class.

use super::LinearCost;
use super::classes::{Classes, Grid, candidates, grids};
use super::diagonals::{estimate, indices};
use crate::lower::nests::nests;
use crate::lower::value::{Affine, Make, PackedId, Skeleton, Term};
use fhec_ir::{Diagnostic, Diagnostics};
use fhec_math::chebyshev::depth_of_degree;
use fhec_plan::{Layout, Matrix};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The chosen layouts and their price.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// Layout of every class.
    pub(crate) layouts: Vec<Layout>,
    /// Price of the whole network, in units of [`LinearCost`].
    pub(crate) cost: f64,
}

/// The matrix of one term between two layouts; `None` when the operation cannot read its source there.
pub(crate) fn matrix(term: &Term, input: &Layout, output: &Layout) -> Option<Matrix> {
    Some(Matrix {
        slots: input.slots,
        in_ciphertexts: input.ciphertexts,
        in_period: input.period,
        out_ciphertexts: output.ciphertexts,
        out_period: output.period,
        nests: nests(term, input, output)?,
    })
}

/// The price of a matrix at one limb.
pub(crate) fn matrix_cost(matrix: &Matrix, cost: &LinearCost) -> f64 {
    let diagonals = indices(matrix);
    let mut weights = cost.bsgs;
    // A diagonal that repeats is stored and encoded once per period; the product itself is not shorter.
    let share = matrix.diagonal_period() as f64 / matrix.slots as f64;
    weights.product *= 0.5 + 0.5 * share;
    let folds = matrix.fold_steps().len() * matrix.out_ciphertexts;
    estimate(matrix.diagonal_bound(), &diagonals, &weights) + cost.fold * folds as f64
}

/// Levels that remain after each packed value, on the longest way to an output.
pub(crate) fn levels_left(skeleton: &Skeleton) -> Vec<usize> {
    let mut left = vec![0; skeleton.packed.len()];
    for id in skeleton.ids().collect::<Vec<_>>().into_iter().rev() {
        let make = &skeleton.get(id).make;
        let own = left[id.0] + depth(make);
        for source in make.sources() {
            left[source.0] = own.max(left[source.0]);
        }
    }
    left
}

/// Levels that an operation consumes.
fn depth(make: &Make) -> usize {
    match make {
        Make::Map(_) | Make::Mul(..) | Make::MulScalar(..) | Make::MulTensor(..) => 1,
        Make::Polynomial { chebyshev, .. } => depth_of_degree(chebyshev.len().saturating_sub(1)) as usize,
        _ => 0,
    }
}

/// Price of a nonlinear operation on one ciphertext at one limb.
pub(crate) fn nonlinear(make: &Make, cost: &LinearCost) -> f64 {
    match make {
        Make::Mul(..) => cost.product,
        // Paterson–Stockmeyer needs about 2√d + log d products.
        Make::Polynomial { chebyshev, .. } => {
            let d = chebyshev.len().max(2) as f64;
            cost.product * (2.0 * d.sqrt() + d.log2())
        }
        _ => 0.0,
    }
}

struct Search<'a> {
    skeleton: &'a Skeleton,
    classes: &'a Classes,
    cost: &'a LinearCost,
    left: Vec<usize>,
    /// All layouts that are candidates of some class, each once.
    layouts: &'a [Layout],
    /// Candidates of every class on the present grids, as numbers of layouts.
    candidates: Vec<Vec<usize>>,
    /// Price of map `id` for the layouts of its sources and its own.
    memo: &'a RefCell<BTreeMap<(usize, Vec<usize>), f64>>,
    maps: Vec<PackedId>,
}

impl<'a> Search<'a> {
    fn affine(&self, id: PackedId) -> &'a Affine {
        match &self.skeleton.get(id).make {
            Make::Map(affine) => affine,
            _ => unreachable!("only maps are listed"),
        }
    }

    /// Price of one map under `pick`.
    fn map_cost(&self, id: PackedId, pick: &[usize]) -> f64 {
        let affine = self.affine(id);
        let own = self.classes.class(id);
        let number = |class: usize| self.candidates[class][pick[class]];
        let mut key: Vec<usize> = affine.terms.iter().map(|t| number(self.classes.class(t.source))).collect();
        key.push(number(own));
        if let Some(&known) = self.memo.borrow().get(&(id.0, key.clone())) {
            return known;
        }
        let output = &self.layouts[number(own)];
        let total: f64 = affine
            .terms
            .iter()
            .map(|term| {
                let input = &self.layouts[number(self.classes.class(term.source))];
                matrix(term, input, output).map_or(f64::INFINITY, |m| matrix_cost(&m, self.cost))
            })
            .sum();
        let total = total * (self.left[id.0] + 3) as f64;
        self.memo.borrow_mut().insert((id.0, key), total);
        total
    }

    /// Price of the elementwise operations of a class.
    fn class_cost(&self, class: usize, pick: &[usize]) -> f64 {
        let ciphertexts = self.layouts[self.candidates[class][pick[class]]].ciphertexts as f64;
        let ids = self.skeleton.ids().filter(|id| self.classes.class(*id) == class);
        ids.map(|id| ciphertexts * nonlinear(&self.skeleton.get(id).make, self.cost) * (self.left[id.0] + 3) as f64)
            .sum()
    }

    fn touches(&self, id: PackedId, class: usize) -> bool {
        self.classes.class(id) == class || self.affine(id).terms.iter().any(|t| self.classes.class(t.source) == class)
    }

    /// Descends from the first candidates until no class improves.
    fn descend(&self) -> (Vec<usize>, f64) {
        let mut pick = vec![0; self.candidates.len()];
        for _ in 0..4 {
            let mut changed = false;
            for class in 0..pick.len() {
                if self.candidates[class].len() == 1 {
                    continue;
                }
                let maps: Vec<PackedId> = self.maps.iter().copied().filter(|&id| self.touches(id, class)).collect();
                let (old, mut best) = (pick[class], (f64::INFINITY, 0));
                for candidate in 0..self.candidates[class].len() {
                    pick[class] = candidate;
                    let total =
                        self.class_cost(class, &pick) + maps.iter().map(|&id| self.map_cost(id, &pick)).sum::<f64>();
                    if total < best.0 {
                        best = (total, candidate);
                    }
                }
                pick[class] = best.1;
                changed |= best.1 != old;
            }
            if !changed {
                break;
            }
        }
        let total = self.maps.iter().map(|&id| self.map_cost(id, &pick)).sum::<f64>()
            + (0..pick.len()).map(|c| self.class_cost(c, &pick)).sum::<f64>();
        (pick, total)
    }
}

/// Chooses the layouts of all classes.
///
/// # Errors
/// An image whose one channel does not fit a ciphertext, or an operation that cannot read its operand in any
/// candidate layout.
pub(crate) fn choose(
    skeleton: &Skeleton,
    classes: &Classes,
    slots: usize,
    cost: &LinearCost,
) -> Result<Choice, Diagnostics> {
    let options: Vec<Vec<Grid>> = classes.trunks.iter().map(|&extent| grids(extent, slots)).collect();
    for (id, packed) in skeleton.ids().zip(&skeleton.packed) {
        if let Some(frame) = &classes.classes[classes.class(id)].frame
            && options[frame.trunk].is_empty()
        {
            let [height, width] = classes.trunks[frame.trunk];
            return Err(Diagnostics(vec![Diagnostic {
                origin: packed.origin.clone(),
                what: packed.kind.clone(),
                message: format!("one channel takes {height}x{width} slots, a ciphertext has {slots}"),
                help: "use a larger ring or smaller images".into(),
            }]));
        }
    }
    let maps: Vec<PackedId> = skeleton.ids().filter(|&id| matches!(skeleton.get(id).make, Make::Map(_))).collect();
    let left = levels_left(skeleton);
    let most = options.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let mut best: Option<Choice> = None;
    let mut layouts: Vec<Layout> = Vec::new();
    let memo = RefCell::default();
    // Trunks rarely number more than one, so they share the number of the grid.
    for number in 0..most {
        let grid = |trunk: usize| options[trunk].get(number.min(options[trunk].len().saturating_sub(1))).copied();
        let mut listed: Vec<Vec<usize>> = Vec::new();
        for class in &classes.classes {
            let layouts_of = candidates(class, class.frame.as_ref().and_then(|f| grid(f.trunk)), slots);
            let number = |layout| {
                layouts.iter().position(|l| *l == layout).unwrap_or_else(|| {
                    layouts.push(layout);
                    layouts.len() - 1
                })
            };
            listed.push(layouts_of.into_iter().map(number).collect());
        }
        let search = Search {
            skeleton,
            classes,
            cost,
            left: left.clone(),
            layouts: &layouts,
            candidates: listed,
            memo: &memo,
            maps: maps.clone(),
        };
        let (pick, total) = search.descend();
        if best.as_ref().is_none_or(|b| total < b.cost) {
            let chosen = pick.iter().enumerate().map(|(c, &p)| search.candidates[c][p]);
            let layouts = chosen.map(|l| layouts[l].clone()).collect();
            best = Some(Choice { layouts, cost: total });
        }
    }
    Ok(best.unwrap_or(Choice { layouts: vec![], cost: 0.0 }))
}
