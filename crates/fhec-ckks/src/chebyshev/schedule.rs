//! Levels and exact scales of everything a plan computes.

use fhec_math::Scale;

use super::ChebyshevPlan;
use crate::error::{CkksError, Result};
use crate::params::Context;

/// The scales of one evaluation. Levels follow from the plan: a value at depth `d` lies `d` levels below the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    powers: Vec<Scale>,
    nodes: Vec<Scale>,
}

impl Schedule {
    /// Solves the scales for an input of this level and scale.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] where the plan is deeper than the level.
    pub fn new(
        context: &Context,
        plan: &ChebyshevPlan,
        level: usize,
        in_scale: &Scale,
        out_scale: &Scale,
    ) -> Result<Self> {
        if level < plan.depth() {
            let (min, max) = (plan.depth(), context.max_level());
            return Err(CkksError::LevelRange { op: "chebyshev", level, min, max });
        }
        // The prime that a value at this depth was divided by.
        let prime = |depth: usize| Scale::prime(context.q(level + 1 - depth).value());
        let first = if plan.powers().is_empty() { halved(in_scale) } else { in_scale.clone() };
        let mut by_index = vec![None; plan.degree().max(1) + 1];
        by_index[1] = Some(first);
        let scale_of = |by_index: &[Option<Scale>], index: usize| -> Scale {
            by_index[index].clone().expect("a plan makes powers before it uses them")
        };
        let mut powers = Vec::with_capacity(plan.powers().len());
        for step in plan.powers() {
            let product = scale_of(&by_index, step.a).mul(&scale_of(&by_index, step.b));
            let scale = product.div(&prime(step.depth));
            by_index[step.index] = Some(scale.clone());
            powers.push(scale);
        }
        let mut nodes = vec![None; plan.nodes().len()];
        if let Some(root) = nodes.last_mut() {
            *root = Some(out_scale.clone());
        }
        for (i, node) in plan.nodes().iter().enumerate().rev() {
            let scale: Scale = nodes[i].clone().expect("every node but the last has a consumer after it");
            let before = scale.mul(&prime(node.depth));
            for product in &node.products {
                nodes[product.node] = Some(before.div(&scale_of(&by_index, product.power)));
            }
        }
        Ok(Self { powers, nodes: nodes.into_iter().flatten().collect() })
    }

    /// Scales of [`ChebyshevPlan::powers`].
    pub fn power_scales(&self) -> &[Scale] {
        &self.powers
    }

    /// Scales of [`ChebyshevPlan::nodes`]; the last one is that of the result.
    pub fn node_scales(&self) -> &[Scale] {
        &self.nodes
    }
}

/// Half of a scale: the same data then mean twice the values.
pub(super) fn halved(scale: &Scale) -> Scale {
    scale.div(&Scale::pow2(1))
}
