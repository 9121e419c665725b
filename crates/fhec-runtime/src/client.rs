//! The client's side: keys, encryption of inputs, decryption of outputs. Needs only the head of a plan.
//!
//! A decryption contains the encryption noise, and that tells something about the key (2020/1533): the
//! decrypted values must stay with the key holder, or be rounded to the predicted precision
//! ([`Output::error_std`](fhec_plan::Output::error_std)) before anybody else sees them.

mod rounds;

use crate::batch;
use crate::clear::Slots;
use crate::context::{context, key_request};
use crate::error::{Result, RuntimeError};
use crate::stream;
use fhec_ckks::container::{BundleEntry, BundleForm, BundleIndex, Place, read_ciphertexts};
use fhec_ckks::{
    Ciphertext, Context, Encoder, Encryptor, EvaluationKeys, InsecureToken, KeyRequest, Plaintext, PublicKey, SecretKey,
};
use fhec_math::{Scale, SecretRng, Zeroizing};
use fhec_plan::{Input, Insecure, Output, PlanHead, Postprocess};
use num_complex::Complex64;
use rayon::prelude::*;
use std::sync::Arc;

/// The key to encrypt with.
#[derive(Clone, Copy, Debug)]
pub enum EncryptionKey<'a> {
    /// The secret key: half the size, less noise.
    Secret(&'a SecretKey),
    /// The public key.
    Public(&'a PublicKey),
}

/// What the ciphertexts of an input will hold.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Number of the input.
    index: usize,
    /// Its ciphertexts.
    count: usize,
    images: Vec<Slots>,
}

impl Packed {
    /// How many ciphertexts there will be.
    pub fn ciphertexts(&self) -> usize {
        self.count
    }
}

/// A client of one plan.
#[derive(Debug)]
pub struct Client {
    head: PlanHead,
    context: Arc<Context>,
    encoder: Encoder,
    encryptor: Encryptor,
}

impl Client {
    /// A client of the plan with this head. `insecure` is for tests.
    ///
    /// # Errors
    /// [`RuntimeError::Insecure`], [`RuntimeError::Ciphertexts`] for a head that does not pass verification.
    pub fn new(head: PlanHead, insecure: Option<InsecureToken>) -> Result<Self> {
        let policy = if insecure.is_some() { Insecure::AllowForTests } else { Insecure::Refuse };
        if head.parameters.security.is_none() && insecure.is_none() {
            return Err(RuntimeError::Insecure);
        }
        head.check(policy)
            .map_err(|e| RuntimeError::Ciphertexts { name: head.model.clone(), problem: e.to_string() })?;
        let context = context(&head.parameters, insecure)?;
        let (encoder, encryptor) = (Encoder::new(&context), Encryptor::new(&context));
        Ok(Client { head, context, encoder, encryptor })
    }

    /// The head of the plan.
    pub fn head(&self) -> &PlanHead {
        &self.head
    }

    /// The engine's context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The evaluation keys that the plan wants.
    pub fn key_request(&self) -> KeyRequest {
        key_request(&self.head.keys, &self.head.parameters)
    }

    /// A fresh secret key.
    pub fn generate_secret(&self, rng: &mut SecretRng) -> SecretKey {
        SecretKey::generate(&self.context, rng)
    }

    /// A public key for `secret`.
    pub fn generate_public(&self, secret: &SecretKey, rng: &mut SecretRng) -> PublicKey {
        PublicKey::generate(secret, rng)
    }

    /// All evaluation keys of the plan. `progress` is called with keys done and to do.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`] for a manifest that the parameters cannot satisfy.
    pub fn generate_evaluation(
        &self,
        secret: &SecretKey,
        rng: &mut SecretRng,
        progress: &dyn Fn(usize, usize),
    ) -> Result<EvaluationKeys> {
        Ok(EvaluationKeys::generate(secret, &self.key_request(), rng, progress)?)
    }

    /// Encrypts input number `index` for one or more images: a row-major tensor each, in the units of the model. A ciphertext
    /// draws its randomness from a seed of its own, so they are made in parallel.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Batch`], [`RuntimeError::InputSize`], [`RuntimeError::InputValue`], and
    /// [`RuntimeError::Ckks`] for values that do not fit the scale or a key of other parameters.
    pub fn encrypt_input(
        &self,
        index: usize,
        images: &[&[f64]],
        key: EncryptionKey,
        rng: &mut SecretRng,
    ) -> Result<Vec<BundleEntry>> {
        let packed = self.pack(index, images)?;
        let all: Vec<u32> = (0..packed.ciphertexts() as u32).collect();
        self.encrypt_packed(&packed, &all, key, rng)
    }

    /// The first half of [`encrypt_input`](Self::encrypt_input): what the ciphertexts of an input will hold.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Batch`], [`RuntimeError::InputSize`], [`RuntimeError::InputValue`].
    pub fn pack(&self, index: usize, images: &[&[f64]]) -> Result<Packed> {
        let input = self.head.inputs.get(index).ok_or(RuntimeError::NoPort { what: "input", index })?;
        batch::check(self.head.batch(), images.len())?;
        let images = batch::pack_all(input, images)?;
        Ok(Packed { index, count: input.layout.ciphertexts, images })
    }

    /// The second half: encrypts some of the ciphertexts, so that not all have to be in memory at once.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`] for values that do not fit the scale or a key of other parameters.
    pub fn encrypt_packed(
        &self,
        packed: &Packed,
        elements: &[u32],
        key: EncryptionKey,
        rng: &mut SecretRng,
    ) -> Result<Vec<BundleEntry>> {
        let slots = |at: usize| batch::slots_of(&self.head, &packed.images, elements[at] as usize);
        self.encrypt_slots(packed.index, elements, slots, packed.images.len() as u32, key, rng)
    }

    /// Encrypts some ciphertexts of an input of a plan whose images share ciphertexts: `values` has for each a value an image, as
    /// [`Batch::input`](crate::Batch::input) gives it.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Batch`] for more images than there is room for, and as
    /// [`encrypt_packed`](Self::encrypt_packed).
    pub fn encrypt_elements(
        &self,
        index: usize,
        elements: &[u32],
        values: &[Vec<f64>],
        key: EncryptionKey,
        rng: &mut SecretRng,
    ) -> Result<Vec<BundleEntry>> {
        if index >= self.head.inputs.len() || values.len() != elements.len() {
            return Err(RuntimeError::NoPort { what: "input", index });
        }
        let images = values.first().map_or(1, Vec::len);
        batch::check(self.head.batch(), values.iter().map(Vec::len).find(|&n| n != images).unwrap_or(images))?;
        let slots = |at: usize| {
            let mut slots = vec![0.0; self.head.batch()];
            slots.iter_mut().zip(&values[at]).for_each(|(slot, &value)| *slot = value);
            slots
        };
        self.encrypt_slots(index, elements, slots, images as u32, key, rng)
    }

    /// Encrypts some ciphertexts of an input, with the slots that `slots` gives for each.
    fn encrypt_slots(
        &self,
        input: usize,
        elements: &[u32],
        slots: impl Fn(usize) -> Vec<f64> + Sync,
        images: u32,
        key: EncryptionKey,
        rng: &mut SecretRng,
    ) -> Result<Vec<BundleEntry>> {
        let input = &self.head.inputs[input];
        let seeds: Vec<Zeroizing<[u8; 32]>> = elements.iter().map(|_| Zeroizing::new(rng.next_seed())).collect();
        let encrypt = |(at, seed): (usize, &Zeroizing<[u8; 32]>)| -> Result<BundleEntry> {
            let plaintext = self.encode(&slots(at), input)?;
            let mut rng = SecretRng::from_seed(seed);
            let form = match key {
                EncryptionKey::Secret(key) => BundleForm::Seeded(self.encryptor.encrypt_sk(key, &plaintext, &mut rng)?),
                EncryptionKey::Public(key) => BundleForm::Full(self.encryptor.encrypt_pk(key, &plaintext, &mut rng)?),
            };
            Ok(BundleEntry { name: input.name.clone(), index: elements[at], images, form })
        };
        seeds.par_iter().enumerate().map(encrypt).collect()
    }

    /// The values of the first `images` images in some ciphertexts of an output of a plan whose images share ciphertexts: for each
    /// ciphertext a value an image.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`] for ciphertexts of other parameters.
    pub fn decrypt_elements(
        &self,
        ciphertexts: &[&Ciphertext],
        images: usize,
        secret: &SecretKey,
    ) -> Result<Vec<Vec<f64>>> {
        let decrypt = |c: &&Ciphertext| {
            let mut values = self.decode(&self.encryptor.decrypt(secret, c)?)?;
            values.truncate(images);
            values.shrink_to_fit();
            Ok(values)
        };
        ciphertexts.par_iter().map(decrypt).collect()
    }

    /// The tensors of the images of an output, from what [`decrypt_elements`](Self::decrypt_elements) gave for its ciphertexts.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Ciphertexts`] where values of ciphertexts are missing.
    pub fn unpack(&self, index: usize, elements: &[Vec<f64>], images: usize) -> Result<Vec<Vec<f64>>> {
        let output = self.head.outputs.get(index).ok_or(RuntimeError::NoPort { what: "output", index })?;
        let missing = elements.len() != output.layout.ciphertexts || elements.iter().any(|e| e.len() < images);
        if missing || !self.head.is_batched() {
            return Err(RuntimeError::Ciphertexts { name: output.name.clone(), problem: "values are missing".into() });
        }
        Ok(batch::images(&self.head, output, elements, images))
    }

    /// The values of one ciphertext, those of the imaginary parts after those of the real ones.
    fn encode(&self, values: &[f64], input: &Input) -> Result<Plaintext> {
        if !self.head.complex {
            return Ok(self.encoder.encode(values, input.level, &input.scale)?);
        }
        let (re, im) = values.split_at(values.len() / 2);
        let slots = re.iter().zip(im).map(|(&re, &im)| Complex64::new(re, im));
        Ok(self.encoder.encode_complex(&slots.collect::<Vec<_>>(), input.level, &input.scale)?)
    }

    /// The values of one ciphertext, those of the imaginary parts after those of the real ones where they belong to images.
    fn decode(&self, plaintext: &Plaintext) -> Result<Vec<f64>> {
        if !self.head.complex {
            return Ok(self.encoder.decode(plaintext)?);
        }
        let slots = self.encoder.decode_complex(plaintext)?;
        Ok(slots.iter().map(|z| z.re).chain(slots.iter().map(|z| z.im)).collect())
    }

    /// Encrypts all inputs of one image, one tensor each.
    ///
    /// # Errors
    /// As [`encrypt_batch`](Self::encrypt_batch).
    pub fn encrypt(&self, values: &[Vec<f64>], key: EncryptionKey, rng: &mut SecretRng) -> Result<Vec<BundleEntry>> {
        self.encrypt_batch(&[values], key, rng)
    }

    /// Encrypts several images into one bundle: all inputs of each, one tensor an input. There may be as many as a run of the
    /// plan evaluates ([`PlanHead::batch`]); fewer leave slots empty.
    ///
    /// # Errors
    /// [`RuntimeError::InputCount`], and as [`Client::encrypt_input`].
    pub fn encrypt_batch<V: AsRef<[Vec<f64>]>>(
        &self,
        images: &[V],
        key: EncryptionKey,
        rng: &mut SecretRng,
    ) -> Result<Vec<BundleEntry>> {
        let expected = self.head.inputs.len();
        if let Some(wrong) = images.iter().map(|i| i.as_ref().len()).find(|&found| found != expected) {
            return Err(RuntimeError::InputCount { found: wrong, expected });
        }
        let mut bundle = Vec::new();
        for index in 0..expected {
            let values: Vec<&[f64]> = images.iter().map(|i| &i.as_ref()[index][..]).collect();
            bundle.extend(self.encrypt_input(index, &values, key, rng)?);
        }
        Ok(bundle)
    }

    /// Decrypts output number `index` of one image to a row-major tensor in the units of the model. Postprocessing is not applied;
    /// see [`postprocess`].
    ///
    /// # Errors
    /// [`RuntimeError::Batch`] for a bundle of several images, and as [`decrypt_batch`](Self::decrypt_batch).
    pub fn decrypt_output(&self, index: usize, bundle: &[BundleEntry], secret: &SecretKey) -> Result<Vec<f64>> {
        let mut images = self.decrypt_batch(index, bundle, secret)?;
        batch::check(1, images.len())?;
        Ok(images.remove(0))
    }

    /// Decrypts output number `index` of every image that was encrypted, as [`decrypt_output`](Self::decrypt_output).
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Ciphertexts`] where the bundle does not hold the output at the level and
    /// scale that the plan promises, [`RuntimeError::Batch`] for more images than the plan has room for,
    /// [`RuntimeError::Ckks`] for ciphertexts of other parameters.
    pub fn decrypt_batch(&self, index: usize, bundle: &[BundleEntry], secret: &SecretKey) -> Result<Vec<Vec<f64>>> {
        let output = self.head.outputs.get(index).ok_or(RuntimeError::NoPort { what: "output", index })?;
        let shape = (output.layout.ciphertexts, output.level, &output.scale);
        let images = batch::count(self.head.batch(), bundle)?;
        let slots = self.decrypt_all(&output.name, shape, bundle, secret)?;
        Ok(batch::images(&self.head, output, &slots, images))
    }

    /// Decrypts output number `index` out of a file of ciphertexts, as [`decrypt_batch`](Self::decrypt_batch). Where images share ciphertexts,
    /// a few of these are in memory at a time.
    ///
    /// # Errors
    /// As [`decrypt_batch`](Self::decrypt_batch), and [`RuntimeError::Ckks`] for a file that is damaged or belongs to another plan.
    pub fn decrypt_file(
        &self,
        index: usize,
        file: &[u8],
        plan: &[u8; 32],
        secret: &SecretKey,
    ) -> Result<Vec<Vec<f64>>> {
        if !self.head.is_batched() {
            return self.decrypt_batch(index, &read_ciphertexts(file, &self.context, plan)?, secret);
        }
        let output = self.head.outputs.get(index).ok_or(RuntimeError::NoPort { what: "output", index })?;
        let found = BundleIndex::open(file, &self.context, plan)?;
        let images = stream::images(&found, self.head.batch())? as usize;
        let places = stream::places(&found, &output.name, output.layout.ciphertexts)?;
        let all: Vec<u32> = (0..places.len() as u32).collect();
        let values = self.decrypt_places(output, (&found, file), (&places, &all), images, secret)?;
        self.unpack(index, &values, images)
    }

    /// The values of the images in some ciphertexts of an output, of all of which `places` are the places in a file.
    fn decrypt_places(
        &self,
        output: &Output,
        (found, file): (&BundleIndex, &[u8]),
        (places, wanted): (&[Place], &[u32]),
        images: usize,
        secret: &SecretKey,
    ) -> Result<Vec<Vec<f64>>> {
        let decrypt = |&i: &u32| {
            let ciphertext = found.read(file, &places[i as usize], &self.context)?.expand(&self.context)?;
            if let Some(problem) = stream::misfit(&ciphertext, output.level, &output.scale) {
                let problem = format!("ciphertext {i} {problem}");
                return Err(RuntimeError::Ciphertexts { name: output.name.clone(), problem });
            }
            Ok(self.decrypt_elements(&[&ciphertext], images, secret)?.concat())
        };
        wanted.par_iter().map(decrypt).collect()
    }

    /// Decrypts any value of a run to the slots of its first image. `shape` is what the plan says of it: number of
    /// ciphertexts, level and scale; the values come as the plan has them, in no unit of the model.
    ///
    /// # Errors
    /// [`RuntimeError::Ciphertexts`] where the bundle does not hold a value of this name and shape, [`RuntimeError::Ckks`]
    /// for ciphertexts of other parameters.
    pub fn decrypt_slots(
        &self,
        name: &str,
        shape: (usize, usize, &Scale),
        bundle: &[BundleEntry],
        secret: &SecretKey,
    ) -> Result<Slots> {
        let slots = self.decrypt_all(name, shape, bundle, secret)?;
        Ok(match self.head.is_batched() {
            true => Slots::new(1, slots.iter().map(|c| c[0]).collect()),
            false => Slots::new(self.head.parameters.slots(), slots.concat()),
        })
    }

    /// All values of every ciphertext of a tensor.
    fn decrypt_all(
        &self,
        name: &str,
        (count, level, scale): (usize, usize, &Scale),
        bundle: &[BundleEntry],
        secret: &SecretKey,
    ) -> Result<Vec<Vec<f64>>> {
        let ciphertexts = collect(&self.context, bundle, name, count, level, scale)?;
        let decrypt = |c: &Ciphertext| self.decode(&self.encryptor.decrypt(secret, c)?);
        ciphertexts.par_iter().map(decrypt).collect()
    }
}

/// The ciphertexts of one input or output out of a bundle, in order, checked against the plan.
pub(crate) fn collect(
    context: &Context,
    bundle: &[BundleEntry],
    name: &str,
    count: usize,
    level: usize,
    scale: &Scale,
) -> Result<Vec<Ciphertext>> {
    let wrong = |problem: String| RuntimeError::Ciphertexts { name: name.into(), problem };
    let mut found: Vec<Option<&BundleEntry>> = vec![None; count];
    for entry in bundle.iter().filter(|e| e.name == name) {
        let place = found
            .get_mut(entry.index as usize)
            .ok_or_else(|| wrong(format!("there is a ciphertext {}, the plan has {count}", entry.index)))?;
        if place.replace(entry).is_some() {
            return Err(wrong(format!("ciphertext {} is there twice", entry.index)));
        }
    }
    let expand = |(i, entry): (usize, &Option<&BundleEntry>)| -> Result<Ciphertext> {
        let entry = entry.ok_or_else(|| wrong(format!("ciphertext {i} of {count} is missing")))?;
        let ciphertext = entry.form.expand(context)?;
        if ciphertext.level() != level || ciphertext.scale() != scale {
            return Err(wrong(format!(
                "ciphertext {i} has level {} and scale {}, the plan says {level} and {scale}",
                ciphertext.level(),
                ciphertext.scale()
            )));
        }
        Ok(ciphertext)
    };
    found.par_iter().enumerate().map(expand).collect()
}

/// Applies what the plan leaves to the client to a row-major tensor of the given shape.
pub fn postprocess(steps: &[Postprocess], shape: &[usize], values: &mut [f64]) {
    for Postprocess::Softmax { axis } in steps {
        let Some(&extent) = shape.get(*axis) else { continue };
        let inner: usize = shape[axis + 1..].iter().product();
        let lines = values.len() / extent.max(1);
        for line in 0..lines {
            let at = |i: usize| (line / inner * extent + i) * inner + line % inner;
            let largest = (0..extent).map(|i| values[at(i)]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..extent).map(|i| (values[at(i)] - largest).exp()).sum();
            for i in 0..extent {
                values[at(i)] = (values[at(i)] - largest).exp() / sum;
            }
        }
    }
}

/// Turns raw pixels (0 … 255, row-major, the tensor's shape) into the values that the network expects. The channel of
/// a pixel is its index along the first axis of the shape that has as many entries as there are channels, the batch
/// axis apart.
pub fn preprocess(input: &fhec_plan::Input, pixels: &mut [f64]) {
    let Some(pre) = &input.preprocess else { return };
    let channels = pre.mean.len().max(pre.std.len());
    let axis = input.shape.iter().enumerate().skip(1).find(|(_, d)| **d == channels).map(|(i, _)| i);
    let inner: usize = axis.map_or(1, |a| input.shape[a + 1..].iter().product());
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let channel = if axis.is_some() { i / inner % channels } else { 0 };
        let of = |list: &[f64], default: f64| list.get(channel).or(list.first()).copied().unwrap_or(default);
        *pixel = (*pixel * pre.scale - of(&pre.mean, 0.0)) / of(&pre.std, 1.0);
    }
}
