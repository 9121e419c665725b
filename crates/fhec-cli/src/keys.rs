//! The client's files: keys and ciphertexts, with messages that name the file.

use crate::files;
use anyhow::{Context, Result, ensure};
use fhec_ckks::container::{
    BundleEntry, BundleWriter, Header, KeySizes, Kind, bundle_bytes, generate_evaluation_keys, read_ciphertexts,
    read_public_key, read_secret_key, write_ciphertexts, write_public_key, write_secret_key,
};
use fhec_ckks::{PublicKey, SecretKey, UniformHalves};
use fhec_math::{Scale, SecretRng};
use fhec_plan::{Input, PlanHead};
use fhec_runtime::clear::Slots;
use fhec_runtime::{Batch, EncryptionKey, Play};
use std::io::Write;
use std::path::Path;

/// Refuses a file that holds a secret key where evaluation keys belong.
pub(crate) fn refuse_secret(file: &[u8]) -> Result<()> {
    ensure!(
        Header::read(file)?.kind != Kind::SecretKey,
        "this is a secret key; a server must never hold one, run takes eval.keys"
    );
    Ok(())
}

/// The client of one plan.
pub(crate) struct Client {
    inner: fhec_runtime::Client,
    hash: [u8; 32],
}

impl Client {
    /// A client of the plan with this head.
    pub(crate) fn new(head: &PlanHead) -> Result<Self> {
        Ok(Client { inner: fhec_runtime::Client::new(head.clone(), None)?, hash: head.hash })
    }

    /// Bytes that the file of evaluation keys will have.
    pub(crate) fn evaluation_key_bytes(&self) -> Result<u64> {
        Ok(KeySizes::of(&self.inner.key_request(), self.inner.context(), UniformHalves::Kept)?.file)
    }

    /// A fresh secret key, and what is made from it.
    pub(crate) fn generate(&self) -> Result<KeyMaker<'_>> {
        let mut rng = random()?;
        let secret = self.inner.generate_secret(&mut rng);
        Ok(KeyMaker { client: self, secret, rng })
    }

    /// Reads a secret key.
    pub(crate) fn secret_key(&self, path: &Path) -> Result<SecretKey> {
        let file = files::map(path)?;
        read_secret_key((*file).as_ref(), self.inner.context(), &self.hash).with_context(|| path.display().to_string())
    }

    /// Reads a public key.
    pub(crate) fn public_key(&self, path: &Path) -> Result<PublicKey> {
        let file = files::map(path)?;
        read_public_key((*file).as_ref(), self.inner.context(), &self.hash).with_context(|| path.display().to_string())
    }

    /// Encrypts images, one tensor per input each, in memory.
    pub(crate) fn encrypt(&self, images: &[Vec<Vec<f64>>], key: EncryptionKey) -> Result<Vec<BundleEntry>> {
        Ok(self.inner.encrypt_batch(images, key, &mut random()?)?)
    }

    /// Writes a file of ciphertexts.
    pub(crate) fn write_ciphertexts(&self, bundle: &[BundleEntry], out: &mut dyn Write) -> Result<()> {
        Ok(write_ciphertexts(bundle, self.inner.context(), &self.hash, out)?)
    }

    /// Reads output number `index` from a file of ciphertexts and decrypts it: a row-major tensor for each image, not
    /// rounded.
    pub(crate) fn decrypt(&self, secret: &SecretKey, path: &Path, index: usize) -> Result<Vec<Vec<f64>>> {
        let file = files::map(path)?;
        self.decrypt_bytes(secret, (*file).as_ref(), index).with_context(|| path.display().to_string())
    }

    /// [`Self::decrypt`] from memory.
    pub(crate) fn decrypt_bytes(&self, secret: &SecretKey, file: &[u8], index: usize) -> Result<Vec<Vec<f64>>> {
        Ok(self.inner.decrypt_file(index, file, &self.hash, secret)?)
    }

    /// Decrypts what a file has for all inputs: a row-major tensor each, of the first image.
    pub(crate) fn decrypt_inputs(&self, secret: &SecretKey, path: &Path) -> Result<Vec<Vec<f64>>> {
        let context = || path.display().to_string();
        let file = files::map(path)?;
        let bundle = read_ciphertexts((*file).as_ref(), self.inner.context(), &self.hash).with_context(context)?;
        let decrypt = |input: &Input| -> Result<Vec<f64>> {
            let shape = (input.layout.ciphertexts, input.level, &input.scale);
            let slots = self.inner.decrypt_slots(&input.name, shape, &bundle, secret)?;
            let value = |at: usize| slots.global(at, input.layout.slots, 0) / input.factor;
            Ok(input.layout.positions().into_iter().map(value).collect())
        };
        self.inner.head().inputs.iter().map(decrypt).collect::<Result<_>>().with_context(context)
    }

    /// Encrypts images, one tensor per input each, into a file, some ciphertexts at a time.
    pub(crate) fn encrypt_to(&self, images: &[Vec<Vec<f64>>], key: EncryptionKey, out: &mut dyn Write) -> Result<()> {
        /// Ciphertexts in memory at a time.
        const PART: usize = 256;
        let (inputs, mut rng) = (&self.inner.head().inputs, random()?);
        let count: usize = inputs.iter().map(|i| i.layout.ciphertexts).sum();
        let mut writer = BundleWriter::new(out, self.inner.context(), &self.hash, u32::try_from(count)?)?;
        for (index, _) in inputs.iter().enumerate() {
            let values: Vec<&[f64]> = images.iter().map(|image| &image[index][..]).collect();
            let packed = self.inner.pack(index, &values)?;
            let all: Vec<u32> = (0..packed.ciphertexts() as u32).collect();
            for part in all.chunks(PART) {
                writer.write(&self.inner.encrypt_packed(&packed, part, key, &mut rng)?)?;
            }
        }
        Ok(writer.finish()?)
    }

    /// Encrypts what several images send in a round of a client-aided plan.
    pub(crate) fn encrypt_round(&self, plays: &[Play<'_>], round: u32, key: EncryptionKey) -> Result<Vec<BundleEntry>> {
        Ok(self.inner.encrypt_round(plays, round, key, &mut random()?)?)
    }

    /// Decrypts the answer to a round of a client-aided plan, for each of several images. Returns a warning where values are so
    /// far from what the plan was compiled for that they may be wrong.
    pub(crate) fn receive_round(
        &self,
        secret: &SecretKey,
        file: &[u8],
        round: u32,
        plays: &mut [Play<'_>],
    ) -> Result<Option<String>> {
        let bundle = read_ciphertexts(file, self.inner.context(), &self.hash)?;
        Ok(too_large(round, self.inner.receive_round(&bundle, round, plays, secret)?))
    }

    /// Encrypts what a batch sends in a round into a file, some ciphertexts at a time.
    pub(crate) fn encrypt_batch_round(
        &self,
        secret: &SecretKey,
        batch: &mut Batch<'_>,
        round: u32,
        out: &mut dyn Write,
    ) -> Result<()> {
        let head = self.inner.head();
        let own = head.inputs.iter().enumerate().filter(|(index, _)| head.input_round(*index) == round);
        let count: usize = own.map(|(_, input)| input.layout.ciphertexts).sum();
        let mut writer = BundleWriter::new(out, self.inner.context(), &self.hash, u32::try_from(count)?)?;
        let (key, mut rng) = (EncryptionKey::Secret(secret), random()?);
        self.inner.encrypt_batch_round(batch, round, key, &mut rng, |part| anyhow::Ok(writer.write(part)?))?;
        Ok(writer.finish()?)
    }

    /// Decrypts the answer to a round for a batch, some ciphertexts at a time; warns as [`receive_round`](Self::receive_round).
    pub(crate) fn receive_batch_round(
        &self,
        secret: &SecretKey,
        file: &[u8],
        round: u32,
        batch: &mut Batch<'_>,
    ) -> Result<Option<String>> {
        Ok(too_large(round, self.inner.receive_batch_round(batch, round, (file, &self.hash), secret)?))
    }

    /// Most bytes that a file with the inputs of a round has.
    pub(crate) fn input_bytes(&self, round: u32) -> u64 {
        let head = self.inner.head();
        let inputs = head.inputs.iter().enumerate().filter(|(index, _)| head.input_round(*index) == round);
        let ciphertexts = inputs.flat_map(|(_, i)| vec![(i.name.as_str(), i.level, &i.scale); i.layout.ciphertexts]);
        bundle_bytes(ciphertexts, self.inner.context())
    }

    /// Most bytes that a file with the outputs of a round has.
    pub(crate) fn output_bytes(&self, round: u32) -> u64 {
        let head = self.inner.head();
        let outputs = head.outputs.iter().enumerate().filter(|(index, _)| head.output_round(*index) == round);
        let ciphertexts = outputs.flat_map(|(_, o)| vec![(o.name.as_str(), o.level, &o.scale); o.layout.ciphertexts]);
        bundle_bytes(ciphertexts, self.inner.context())
    }

    /// Reads the result of a layer from a file of ciphertexts and decrypts it to its slots: whatever value the file holds
    /// the first ciphertext of, which must have the given number of ciphertexts, level and scale.
    pub(crate) fn decrypt_slots(
        &self,
        secret: &SecretKey,
        path: &Path,
        shape: (usize, usize, &Scale),
    ) -> Result<Slots> {
        let context = || path.display().to_string();
        let file = files::map(path)?;
        let bundle = read_ciphertexts((*file).as_ref(), self.inner.context(), &self.hash).with_context(context)?;
        let name = bundle.first().map_or("", |entry| &entry.name);
        self.inner.decrypt_slots(name, shape, &bundle, secret).with_context(context)
    }
}

/// Makes the keys of one client. The secret one lives as long as this.
pub(crate) struct KeyMaker<'a> {
    client: &'a Client,
    secret: SecretKey,
    rng: SecretRng,
}

impl KeyMaker<'_> {
    /// Writes the secret key.
    pub(crate) fn write_secret(&self, out: &mut dyn Write) -> Result<()> {
        Ok(write_secret_key(&self.secret, &self.client.hash, out)?)
    }

    /// Makes and writes the evaluation keys, one at a time.
    pub(crate) fn write_evaluation(&mut self, out: &mut dyn Write, progress: &dyn Fn(usize, usize)) -> Result<()> {
        let request = self.client.inner.key_request();
        let hash = &self.client.hash;
        Ok(generate_evaluation_keys(&self.secret, &request, &mut self.rng, hash, out, progress)?)
    }

    /// Makes and writes a public key.
    pub(crate) fn write_public(&mut self, out: &mut dyn Write) -> Result<()> {
        let key = self.client.inner.generate_public(&self.secret, &mut self.rng);
        Ok(write_public_key(&key, &self.client.hash, out)?)
    }
}

/// A warning where values of a round are so far from what the plan was compiled for that they may be wrong.
fn too_large(round: u32, sizes: Vec<f64>) -> Option<String> {
    /// Ciphertexts hold values up to twice as large.
    const MUCH: f64 = 1.6;
    sizes.into_iter().find(|&size| size > MUCH).map(|most| {
        format!(
            "values of round {round} are {most:.1} times as large as those that the plan was compiled for; the \
             result may be wrong"
        )
    })
}

fn random() -> Result<SecretRng> {
    SecretRng::from_os().context("the system gives no random numbers")
}
