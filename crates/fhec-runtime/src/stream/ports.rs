//! Where inputs come from and outputs go.

use crate::backend::OpResult;
use crate::batch;
use crate::error::{OpError, Result, RuntimeError};
use fhec_ckks::container::{BundleFile, BundleIndex, BundleValue, Place};
use fhec_ckks::{Ciphertext, CkksError, Context};
use fhec_math::Scale;
use fhec_plan::{Plan, SharedBytes};
use rayon::prelude::*;
use std::io::{Read, Seek, Write};
use std::sync::Arc;

/// Gives ciphertexts of inputs when they are used.
pub trait Source {
    /// Some ciphertexts of input number `input` of the plan.
    ///
    /// # Errors
    /// Where they do not fit the plan, or cannot be had.
    fn read(&mut self, input: usize, elements: &[u32]) -> OpResult<Vec<Ciphertext>>;
}

/// Takes ciphertexts of outputs when they are made.
pub trait Sink {
    /// Some ciphertexts of output number `output` of the plan, each with its place there.
    ///
    /// # Errors
    /// Where they cannot be taken.
    fn write(&mut self, output: usize, values: &[(u32, &Ciphertext)]) -> OpResult<()>;
}

/// How many images the ciphertexts of a bundle hold, the same for all of them.
pub(crate) fn images(index: &BundleIndex, most: usize) -> Result<u32> {
    let images = index.places().first().map_or(1, |place| place.images);
    if let Some(other) = index.places().iter().find(|place| place.images != images) {
        let problem = format!("{} images, others have {images}", other.images);
        return Err(RuntimeError::Ciphertexts { name: index.names()[other.name].clone(), problem });
    }
    batch::check(most, images as usize)?;
    Ok(images)
}

/// The places of the ciphertexts of one input or output, in order.
pub(crate) fn places(index: &BundleIndex, name: &str, count: usize) -> Result<Vec<Place>> {
    let wrong = |problem: String| RuntimeError::Ciphertexts { name: name.into(), problem };
    let mut found: Vec<Option<Place>> = vec![None; count];
    let number = index.names().iter().position(|known| known == name);
    for place in index.places().iter().filter(|place| Some(place.name) == number) {
        let beyond = || wrong(format!("there is a ciphertext {}, the plan has {count}", place.index));
        if found.get_mut(place.index as usize).ok_or_else(beyond)?.replace(*place).is_some() {
            return Err(wrong(format!("ciphertext {} is there twice", place.index)));
        }
    }
    let each = found.into_iter().enumerate();
    each.map(|(i, place)| place.ok_or_else(|| wrong(format!("ciphertext {i} of {count} is missing")))).collect()
}

/// What is wrong with a ciphertext that should have a level and a scale.
pub(crate) fn misfit(found: &Ciphertext, level: usize, scale: &Scale) -> Option<String> {
    let (own, own_scale) = (found.level(), found.scale());
    (own != level || own_scale != scale)
        .then(|| format!("has level {own} and scale {own_scale}, the plan says {level} and {scale}"))
}

/// The inputs of a round in a bundle that is not read before it is used: a file in a memory map. A ciphertext can be read any number of times.
pub struct BundleSource {
    bytes: SharedBytes,
    index: BundleIndex,
    context: Arc<Context>,
    /// For every input of the plan the place of each ciphertext; none for those of other rounds.
    places: Vec<Vec<Place>>,
    plan: Arc<fhec_plan::Verified>,
    images: u32,
}

impl BundleSource {
    /// Checks a bundle against the inputs of a round, ciphertexts apart, which are checked when they are read.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`] for a damaged bundle, [`RuntimeError::Ciphertexts`] and [`RuntimeError::Batch`] for one that does not fit
    /// the plan.
    pub fn open(
        bytes: SharedBytes,
        context: &Arc<Context>,
        verified: &Arc<fhec_plan::Verified>,
        round: u32,
    ) -> Result<Self> {
        let plan = verified.plan();
        let index = BundleIndex::open((*bytes).as_ref(), context, verified.hash())?;
        let images = images(&index, plan.batch())?;
        let mut places = vec![Vec::new(); plan.inputs.len()];
        let own = plan.inputs.iter().enumerate().filter(|(number, _)| plan.input_round(*number) == round);
        for (number, input) in own {
            places[number] = self::places(&index, &input.name, input.layout.ciphertexts)?;
        }
        Ok(BundleSource { bytes, index, context: Arc::clone(context), places, plan: Arc::clone(verified), images })
    }

    /// Images in the slots of every ciphertext.
    pub fn images(&self) -> u32 {
        self.images
    }
}

impl std::fmt::Debug for BundleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleSource").field("images", &self.images).finish_non_exhaustive()
    }
}

impl Source for BundleSource {
    fn read(&mut self, input: usize, elements: &[u32]) -> OpResult<Vec<Ciphertext>> {
        let (port, places) = (&self.plan.plan().inputs[input], &self.places[input]);
        let read = |&element: &u32| {
            let place = places.get(element as usize).ok_or_else(|| OpError::Input("it is not there".into()))?;
            let form = self.index.read((*self.bytes).as_ref(), place, &self.context)?;
            let found = form.expand(&self.context)?;
            match misfit(&found, port.level, &port.scale) {
                Some(problem) => Err(OpError::Input(format!("ciphertext {element} {problem}"))),
                None => Ok(found),
            }
        };
        elements.par_iter().map(read).collect()
    }
}

/// The outputs of a round, written to a file as they come.
#[derive(Debug)]
pub struct BundleSink<F> {
    file: BundleFile<F>,
    /// For every output of the plan its number among those of the round.
    numbers: Vec<Option<usize>>,
}

impl<F: Read + Write + Seek> BundleSink<F> {
    /// Begins the bundle in an empty file.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`] where it cannot be written.
    pub fn begin(
        file: F,
        context: &Arc<Context>,
        verified: &fhec_plan::Verified,
        round: u32,
        images: u32,
    ) -> Result<Self> {
        let plan: &Plan = verified.plan();
        let (mut numbers, mut values) = (Vec::new(), Vec::new());
        for (number, output) in plan.outputs.iter().enumerate() {
            let own = plan.output_round(number) == round;
            numbers.push(own.then_some(values.len()));
            if own {
                values.push(BundleValue {
                    name: output.name.clone(),
                    level: output.level,
                    scale: output.scale.clone(),
                    ciphertexts: output.layout.ciphertexts,
                });
            }
        }
        Ok(BundleSink { file: BundleFile::begin(file, context, verified.hash(), images, values)?, numbers })
    }

    /// Ends the bundle, once the round is done, and gives its file back.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`] where it cannot be written.
    pub fn finish(self) -> Result<F, CkksError> {
        self.file.finish()
    }
}

impl<F: Read + Write + Seek> Sink for BundleSink<F> {
    fn write(&mut self, output: usize, values: &[(u32, &Ciphertext)]) -> OpResult<()> {
        match self.numbers[output] {
            Some(number) => Ok(self.file.write(number, values)?),
            None => Ok(()),
        }
    }
}
