//! Several images in the slots of one set of ciphertexts, on the client's side: image `i` in slot `i`, or where slots hold two, in the
//! real part of slot `i` or the imaginary part of slot `i − N/2`: real parts come before imaginary ones here.

use crate::clear::{Slots, pack, unpack};
use crate::error::{Result, RuntimeError};
use fhec_ckks::container::BundleEntry;
use fhec_plan::{Input, Output, PlanHead};
use rayon::prelude::*;

/// The slots that every image has in the ciphertexts of an input.
///
/// # Errors
/// [`RuntimeError::InputSize`], [`RuntimeError::InputValue`].
pub(crate) fn pack_all(input: &Input, images: &[&[f64]]) -> Result<Vec<Slots>> {
    images.par_iter().map(|values| pack(input, values, 1)).collect()
}

/// All slots of ciphertext `c`; those without an image are zero. Where images share ciphertexts, number `c` is the only value that an
/// image has there.
pub(crate) fn slots_of(head: &PlanHead, images: &[Slots], c: usize) -> Vec<f64> {
    match images {
        [one] if !head.is_batched() => one.values().chunks_exact(one.period()).nth(c).unwrap_or_default().to_vec(),
        _ => {
            let mut slots = vec![0.0; head.batch()];
            slots.iter_mut().zip(images).for_each(|(slot, image)| *slot = image.values()[c]);
            slots
        }
    }
}

/// The tensor of each image, from the slots of every ciphertext of an output.
pub(crate) fn images(head: &PlanHead, output: &Output, slots: &[Vec<f64>], images: usize) -> Vec<Vec<f64>> {
    let own = output.layout.slots;
    if !head.is_batched() {
        return vec![unpack(output, &Slots::new(own, slots.concat()))];
    }
    let of = |image| unpack(output, &Slots::new(own, slots.iter().map(|c| c[image]).collect()));
    (0..images).into_par_iter().map(of).collect()
}

/// A number of images that the ciphertexts of the plan have room for.
///
/// # Errors
/// [`RuntimeError::Batch`].
pub(crate) fn check(batch: usize, images: usize) -> Result<()> {
    if (1..=batch).contains(&images) { Ok(()) } else { Err(RuntimeError::Batch { found: images, most: batch }) }
}

/// How many images the ciphertexts of a bundle hold, the same for all of them.
///
/// # Errors
/// [`RuntimeError::Batch`] for more than the plan allows, [`RuntimeError::Ciphertexts`] for different numbers.
pub(crate) fn count(batch: usize, bundle: &[BundleEntry]) -> Result<usize> {
    let Some(first) = bundle.first() else { return Ok(1) };
    if let Some(other) = bundle.iter().find(|e| e.images != first.images) {
        let problem = format!("{} images, {:?} has {}", other.images, first.name, first.images);
        return Err(RuntimeError::Ciphertexts { name: other.name.clone(), problem });
    }
    check(batch, first.images as usize)?;
    Ok(first.images as usize)
}
