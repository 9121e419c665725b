//! What a client sends and receives in the rounds of a plan.

use super::{Client, EncryptionKey};
use crate::aided::{Batch, Play};
use crate::error::{Result, RuntimeError};
use crate::stream;
use fhec_ckks::SecretKey;
use fhec_ckks::container::{BundleEntry, BundleIndex};
use fhec_math::SecretRng;

impl Client {
    /// Encrypts what several images send in a round of a client-aided plan.
    ///
    /// # Errors
    /// Those of [`Play::input`], and as [`encrypt_input`](Self::encrypt_input).
    pub fn encrypt_round(
        &self,
        plays: &[Play<'_>],
        round: u32,
        key: EncryptionKey,
        rng: &mut SecretRng,
    ) -> Result<Vec<BundleEntry>> {
        let mut bundle = Vec::new();
        for index in (0..self.head.inputs.len()).filter(|&i| self.head.input_round(i) == round) {
            let values = plays.iter().map(|play| play.input(index)).collect::<Result<Vec<&[f64]>>>()?;
            bundle.extend(self.encrypt_input(index, &values, key, rng)?);
        }
        Ok(bundle)
    }

    /// Decrypts the answer to a round of a client-aided plan for the images that were sent. Gives for each output of the round
    /// how large its values are, as a multiple of the largest that the plan was compiled for.
    ///
    /// # Errors
    /// [`RuntimeError::Ciphertexts`] for another number of images, and as [`decrypt_batch`](Self::decrypt_batch).
    pub fn receive_round(
        &self,
        bundle: &[BundleEntry],
        round: u32,
        plays: &mut [Play<'_>],
        secret: &SecretKey,
    ) -> Result<Vec<f64>> {
        let mut sizes = Vec::new();
        for index in (0..self.head.outputs.len()).filter(|&i| self.head.output_round(i) == round) {
            let output = &self.head.outputs[index];
            let images = self.decrypt_batch(index, bundle, secret)?;
            if images.len() != plays.len() {
                let problem = format!("{} images sent, {} came back", plays.len(), images.len());
                return Err(RuntimeError::Ciphertexts { name: output.name.clone(), problem });
            }
            let (lo, hi) = output.range;
            sizes.push(images.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs())) / lo.abs().max(hi.abs()));
            plays.iter_mut().zip(images).for_each(|(play, values)| play.receive(index, &values));
        }
        Ok(sizes)
    }

    /// Encrypts what a batch sends in a round, a few ciphertexts at a time, which `write` takes.
    ///
    /// # Errors
    /// Those of [`Batch::input`], of [`encrypt_elements`](Self::encrypt_elements) and of `write`.
    pub fn encrypt_batch_round<E: From<RuntimeError>>(
        &self,
        batch: &mut Batch<'_>,
        round: u32,
        key: EncryptionKey,
        rng: &mut SecretRng,
        mut write: impl FnMut(&[BundleEntry]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, input) in self.head.inputs.iter().enumerate() {
            if self.head.input_round(index) != round {
                continue;
            }
            let all: Vec<u32> = (0..input.layout.ciphertexts as u32).collect();
            for part in all.chunks(batch.width()) {
                let values = batch.input(index, part)?;
                write(&self.encrypt_elements(index, part, &values, key, rng)?)?;
            }
        }
        Ok(())
    }

    /// Decrypts the answer to a round out of a file of ciphertexts for a batch, a few of them at a time; see
    /// [`receive_round`](Self::receive_round).
    ///
    /// # Errors
    /// As [`decrypt_file`](Self::decrypt_file), and those of [`Batch::receive`].
    pub fn receive_batch_round(
        &self,
        batch: &mut Batch<'_>,
        round: u32,
        (file, plan): (&[u8], &[u8; 32]),
        secret: &SecretKey,
    ) -> Result<Vec<f64>> {
        let found = BundleIndex::open(file, &self.context, plan)?;
        let images = stream::images(&found, self.head.batch())? as usize;
        for (index, output) in self.head.outputs.iter().enumerate() {
            if self.head.output_round(index) != round {
                continue;
            }
            let places = stream::places(&found, &output.name, output.layout.ciphertexts)?;
            let all: Vec<u32> = (0..places.len() as u32).collect();
            for part in all.chunks(batch.width()) {
                let values = self.decrypt_places(output, (&found, file), (&places, part), images, secret)?;
                batch.receive(index, part, values)?;
            }
        }
        Ok(batch.sizes(round))
    }
}
