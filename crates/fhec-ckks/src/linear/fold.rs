//! Rotate-and-add: the end of a folded linear map.

use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::evaluator::Evaluator;

/// For every step in turn `x ← x + rot_step(x)`.
///
/// With steps `h, 2h, …, p/2` every slot becomes the sum of the slots of period `p` that are congruent to it modulo `h`. One
/// key switch a step that is not a multiple of the number of slots.
///
/// # Errors
/// As [`Evaluator::rotate`].
pub fn rotate_and_sum(evaluator: &Evaluator, ciphertext: &Ciphertext, steps: &[usize]) -> Result<Ciphertext> {
    let mut sum = ciphertext.clone();
    for &step in steps {
        let rotated = evaluator.rotate(&sum, step as i64)?;
        evaluator.add_assign(&mut sum, &rotated)?;
    }
    Ok(sum)
}
