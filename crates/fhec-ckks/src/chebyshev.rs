//! Polynomials of encrypted values: evaluation of Chebyshev series at optimal depth, with exact scales.
//!
//! The plan ([`fhec_math::chebyshev`]) says which powers and sums to compute; [`Schedule`] gives every one of them a
//! level and a scale. Powers take whatever scale their products have. Sums are solved from the target down: a sum that
//! shall have the scale `σ` after its rescale by `q` has `σ·q` before it, so its factor of a power of scale `s` is
//! encoded at exactly `σ·q/s`, and a sum that multiplies a power of scale `s` in it must itself come out at `σ·q/s`.
//! All addends then have one scale, without any correction (2020/1203 §4).

mod schedule;
mod sum;

use fhec_math::Scale;

pub use fhec_math::chebyshev::{
    ChebyshevCost, ChebyshevError, ChebyshevOp, ChebyshevOpKind, ChebyshevPlan, ChebyshevWeights, clenshaw,
    depth_of_degree,
};
pub use schedule::Schedule;

use crate::cipher::{Ciphertext, Product};
use crate::error::Result;
use crate::evaluator::Evaluator;
use sum::{Sum, Value};

/// Evaluates the series of `plan` on every slot.
///
/// The slots of `ciphertext` hold values in [−1, 1]; outside the series grows quickly. The result lies `plan.depth()`
/// levels lower and has exactly `out_scale`. Precision is best where the scales of `ciphertext` and the result are near
/// the primes of the levels in between.
///
/// # Errors
/// [`CkksError::LevelRange`](crate::CkksError::LevelRange) where there are too few levels,
/// [`CkksError::Overflow`](crate::CkksError::Overflow) for coefficients that do not fit their scale,
/// [`CkksError::NoRelinKey`](crate::CkksError::NoRelinKey), [`CkksError::KeyLevel`](crate::CkksError::KeyLevel),
/// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
pub fn eval(
    evaluator: &Evaluator,
    ciphertext: &Ciphertext,
    plan: &ChebyshevPlan,
    out_scale: &Scale,
) -> Result<Ciphertext> {
    let context = &**evaluator.context();
    context.check_id("chebyshev", ciphertext.context_id())?;
    let schedule = Schedule::new(context, plan, ciphertext.level(), ciphertext.scale(), out_scale)?;
    let mut powers: Vec<Option<Value>> = (0..=plan.degree().max(1)).map(|_| None).collect();
    powers[1] = Some(Value::Degree1(first_power(evaluator, ciphertext, plan)?));
    for step in plan.powers() {
        let level = ciphertext.level() - step.depth + 1;
        let (a, b) = (degree1(&powers, step.a), degree1(&powers, step.b));
        let scale = a.scale().mul(b.scale());
        let mut sum = Sum::new(context, level, scale);
        sum.multiply(a, b);
        if step.a == step.b {
            sum.constant(-2.0)?;
        } else {
            sum.scalar(value(&powers, step.a - step.b), -1.0)?;
        }
        powers[step.index] = Some(match step.relinearise {
            true => Value::Degree1(sum.relinearised(evaluator)?),
            false => Value::Degree2(evaluator.rescale_product(&sum.product())?),
        });
    }
    let mut nodes: Vec<Option<Ciphertext>> = Vec::with_capacity(plan.nodes().len());
    for (node, scale) in plan.nodes().iter().zip(schedule.node_scales()) {
        let level = ciphertext.level() - node.depth + 1;
        let before = scale.mul(&Scale::prime(context.q(level).value()));
        let factors: Vec<Ciphertext> = node.products.iter().filter_map(|p| nodes[p.node].take()).collect();
        let mut sum = Sum::new(context, level, before);
        for (factor, product) in factors.iter().zip(&node.products) {
            sum.multiply(factor, degree1(&powers, product.power));
        }
        for term in &node.terms {
            sum.scalar(value(&powers, term.power), term.coefficient)?;
        }
        sum.constant(node.constant)?;
        nodes.push(Some(sum.relinearised(evaluator)?));
    }
    Ok(nodes.pop().flatten().expect("a plan has a last node, which nothing consumes"))
}

/// `x² + constant`, one level lower: a cosine of twice the angle, up to factors.
pub(crate) fn square_plus(evaluator: &Evaluator, x: &Ciphertext, constant: f64) -> Result<Ciphertext> {
    let mut sum = Sum::new(evaluator.context(), x.level(), x.scale().square());
    sum.multiply(x, x);
    sum.constant(constant)?;
    sum.relinearised(evaluator)
}

/// `C_1 = 2x`: by an addition, or, where no product makes further powers, by halving the scale.
fn first_power(evaluator: &Evaluator, x: &Ciphertext, plan: &ChebyshevPlan) -> Result<Ciphertext> {
    if plan.powers().is_empty() {
        return Ok(x.clone().with_scale(schedule::halved(x.scale())));
    }
    evaluator.add(x, x)
}

fn value(powers: &[Option<Value>], index: usize) -> &Value {
    powers[index].as_ref().expect("a plan makes powers before it uses them")
}

fn degree1(powers: &[Option<Value>], index: usize) -> &Ciphertext {
    match value(powers, index) {
        Value::Degree1(ciphertext) => ciphertext,
        Value::Degree2(_) => unreachable!("a plan relinearises what it multiplies"),
    }
}
