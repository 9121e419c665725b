//! Files: round trips, sizes, refusals and mutations.

mod common;

use std::sync::{Arc, LazyLock};

use common::{Setup, insecure, random, worst_bits};
use fhec_ckks::container::{self, BundleEntry, BundleForm, Header, KeySizes, Kind};
use fhec_ckks::error::ContainerError;
use fhec_ckks::{CkksError, Context, EvaluationKeys, Evaluator, KeyRequest, PublicKey, SecretKey, UniformHalves};
use fhec_math::bootstrap::LowKeys;
use fhec_math::{Scale, SecretRng, galois_element};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PLAN: [u8; 32] = [0x5a; 32];

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most memory of this process: files of a few kilobytes explain no more, whatever they say.
const MOST_MIB: f32 = 64.0;

fn tiny() -> Arc<Context> {
    insecure(6, &[40, 30, 30, 30], &[40, 21], &[1, 2, 1])
}

fn request() -> KeyRequest {
    KeyRequest {
        relin_level: Some(3),
        galois: BTreeMap::from([(galois_element(1, 6), 2), (127, 0)]),
        sparse_weight: Some(8),
        raised: BTreeSet::from([1, galois_element(4, 6)]),
        low: BTreeMap::from([
            (4, LowKeys { level: 1, galois: BTreeSet::from([3, galois_element(1, 4)]) }),
            (5, LowKeys { level: 0, galois: BTreeSet::new() }),
        ]),
    }
}

/// A file of every kind, and its reader.
struct Files {
    context: Arc<Context>,
    files: Vec<(Kind, Vec<u8>)>,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let context = tiny();
    let mut s = Setup::with_keys(&context, &request());
    let public = PublicKey::generate(&s.secret, &mut s.rng);
    let scale = Scale::pow2(40).div(&Scale::prime(context.q(3).value()));
    let plaintext = s.encoder.encode(&random(32, 1), 2, &Scale::pow2(30)).expect("encode");
    let seeded = s.encryptor.encrypt_sk(&s.secret, &plaintext, &mut s.rng).expect("encrypt");
    let full = s.encrypt(&random(32, 2), 1, &scale);
    let entries = vec![
        BundleEntry { name: "image".into(), index: 0, images: 1, form: BundleForm::Seeded(seeded) },
        BundleEntry { name: "größe".into(), index: 7, images: 3, form: BundleForm::Full(full) },
    ];
    let write = |f: &dyn Fn(&mut Vec<u8>) -> Result<(), CkksError>| {
        let mut bytes = Vec::new();
        f(&mut bytes).expect("writing to memory");
        bytes
    };
    let files = vec![
        (Kind::SecretKey, write(&|out| container::write_secret_key(&s.secret, &PLAN, out))),
        (Kind::PublicKey, write(&|out| container::write_public_key(&public, &PLAN, out))),
        (Kind::EvaluationKeys, write(&|out| container::write_evaluation_keys(s.evaluator.keys(), &PLAN, out))),
        (Kind::Ciphertexts, write(&|out| container::write_ciphertexts(&entries, &context, &PLAN, out))),
        (Kind::Plaintext, write(&|out| container::write_plaintext(&plaintext, &context, &PLAN, out))),
    ];
    Files { context, files }
});

/// Reads a file as `kind`, and writes what was read.
fn read(kind: Kind, bytes: &[u8], context: &Arc<Context>, plan: &[u8; 32]) -> Result<Vec<u8>, CkksError> {
    let mut out = Vec::new();
    match kind {
        Kind::SecretKey => {
            container::write_secret_key(&container::read_secret_key(bytes, context, plan)?, plan, &mut out)?;
        }
        Kind::PublicKey => {
            container::write_public_key(&container::read_public_key(bytes, context, plan)?, plan, &mut out)?;
        }
        Kind::EvaluationKeys => {
            let keys = container::read_evaluation_keys(bytes, context, plan)?;
            container::write_evaluation_keys(&keys, plan, &mut out)?;
        }
        Kind::Ciphertexts => {
            let entries = container::read_ciphertexts(bytes, context, plan)?;
            container::write_ciphertexts(&entries, context, plan, &mut out)?;
        }
        Kind::Plaintext => {
            container::write_plaintext(&container::read_plaintext(bytes, context, plan)?, context, plan, &mut out)?;
        }
    }
    Ok(out)
}

/// The file with a checksum that fits.
fn resign(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.len().checked_sub(32) {
        let checksum = *blake3::hash(&bytes[..end]).as_bytes();
        bytes[end..].copy_from_slice(&checksum);
    }
    bytes
}

fn container_error(result: Result<Vec<u8>, CkksError>) -> ContainerError {
    match result {
        Err(CkksError::Container(error)) => error,
        other => panic!("expected a container error, got {other:?}"),
    }
}

#[test]
fn reading_and_writing_again_gives_the_same_bytes() {
    for (kind, bytes) in &FILES.files {
        assert_eq!(Header::read(bytes).expect("header").kind, *kind);
        assert_eq!(&read(*kind, bytes, &FILES.context, &PLAN).expect("round trip"), bytes, "{kind:?}");
    }
}

#[test]
fn what_is_read_works() {
    let context = tiny();
    let mut s = Setup::with_keys(&context, &request());
    let mut file = Vec::new();
    container::write_secret_key(&s.secret, &PLAN, &mut file).expect("write");
    let secret = container::read_secret_key(&file, &context, &PLAN).expect("read");
    let mut file = Vec::new();
    container::write_evaluation_keys(s.evaluator.keys(), &PLAN, &mut file).expect("write");
    let keys = container::read_evaluation_keys(&file, &context, &PLAN).expect("read");
    assert_eq!(keys.request(), request());
    let evaluator = Evaluator::new(&context, Arc::new(keys)).expect("evaluator");
    let values = random(32, 3);
    let a = s.encrypt(&values, 2, &Scale::pow2(40));
    let rotated = evaluator.rotate(&a, 1).expect("rotate");
    let found = s.encoder.decode(&s.encryptor.decrypt(&secret, &rotated).expect("decrypt")).expect("decode");
    let expected: Vec<f64> = (0..32).map(|i| values[(i + 1) % 32]).collect();
    assert!(worst_bits(&found, &expected) > 20.0);
}

#[test]
fn residues_cost_their_bits_and_uniform_halves_a_seed() {
    let size = |kind: Kind| FILES.files.iter().find(|(k, _)| *k == kind).expect("file").1.len();
    let limb = |bits: usize| 64 * bits / 8;
    let overhead = 80 + 32;
    assert_eq!(size(Kind::SecretKey), overhead + 64 / 4);
    // Primes nearest to a power of two may lie above it and cost a bit more.
    let bits = |i: usize| FILES.context.q(i).bits() as usize;
    let chain = |level: usize| (0..=level).map(|i| limb(bits(i))).sum::<usize>();
    let special = |level: usize| {
        let used = &FILES.context.moduli_p()[..FILES.context.special_at(level)];
        used.iter().map(|m| limb(m.bits() as usize)).sum::<usize>()
    };
    assert_eq!(size(Kind::PublicKey), overhead + 32 + chain(3));
    let digits = FILES.context.digits_at(3) * (chain(3) + special(3))
        + FILES.context.digits_at(2) * (chain(2) + special(2))
        + FILES.context.digits_at(0) * (chain(0) + special(0));
    // Keys of one digit, with one special prime each: one to the sparse secret, two from it.
    let first = limb(FILES.context.moduli_p()[0].bits() as usize);
    let to_sparse = 32 + chain(0) + first;
    let encapsulation = to_sparse + 2 * (32 + chain(3) + first);
    // Both special primes; digits of one prime each: two keys of a quarter and one whole one in, and one whole one in; one out of each.
    let both = first + limb(FILES.context.moduli_p()[1].bits() as usize);
    let (two, one) = (2 * (chain(1) + both), chain(0) + both);
    let low = 3 * 32 + two + 2 * two / 4 + 32 + one + 2 * to_sparse;
    let manifest = 16 + 2 * 12 + 2 * 8 + 4 + 2 * 12 + 2 * 8;
    assert_eq!(size(Kind::EvaluationKeys), overhead + manifest + 3 * 32 + digits + encapsulation + low);
}

#[test]
fn sizes_are_known_before_anything_is_made() {
    let file = |kind: Kind| &FILES.files.iter().find(|(k, _)| *k == kind).expect("file").1;
    let keys = file(Kind::EvaluationKeys);
    for halves in [UniformHalves::Kept, UniformHalves::MadeOnUse] {
        let sizes = KeySizes::of(&request(), &FILES.context, halves).expect("fits");
        assert_eq!(sizes.file, keys.len() as u64);
        let read = container::stream_evaluation_keys(&keys[..], sizes.file, &FILES.context, &PLAN, halves);
        assert_eq!(sizes.memory, read.expect("reads").bytes() as u64);
    }
    let too_high = KeyRequest { relin_level: Some(4), ..KeyRequest::default() };
    assert!(KeySizes::of(&too_high, &FILES.context, UniformHalves::Kept).is_err());

    let bundle = container::read_ciphertexts(file(Kind::Ciphertexts), &FILES.context, &PLAN).expect("reads");
    let full: Vec<BundleEntry> = bundle
        .into_iter()
        .map(|entry| BundleEntry { form: BundleForm::Full(entry.form.expand(&FILES.context).expect("fits")), ..entry })
        .collect();
    let facts = full.iter().map(|entry| match &entry.form {
        BundleForm::Full(c) => (entry.name.as_str(), c.level(), c.scale()),
        BundleForm::Seeded(_) => unreachable!("all were expanded"),
    });
    let predicted = container::bundle_bytes(facts, &FILES.context);
    let mut bytes = Vec::new();
    container::write_ciphertexts(&full, &FILES.context, &PLAN, &mut bytes).expect("writes");
    assert_eq!(predicted, bytes.len() as u64);
}

#[test]
fn keys_written_one_by_one_are_the_same_file() {
    let context = tiny();
    let secret = SecretKey::generate(&context, &mut SecretRng::from_seed(&[1; 32]));
    let mut rng = SecretRng::from_seed(&[2; 32]);
    let keys = EvaluationKeys::generate(&secret, &request(), &mut rng, &|_, _| ()).expect("keys");
    let mut at_once = Vec::new();
    container::write_evaluation_keys(&keys, &PLAN, &mut at_once).expect("write");
    let mut streamed = Vec::new();
    let mut rng = SecretRng::from_seed(&[2; 32]);
    let calls = std::cell::RefCell::new(Vec::new());
    container::generate_evaluation_keys(&secret, &request(), &mut rng, &PLAN, &mut streamed, &|done, total| {
        calls.borrow_mut().push((done, total));
    })
    .expect("write");
    assert_eq!(at_once, streamed);
    assert_eq!(*calls.borrow(), [(1, 4), (2, 4), (3, 4), (4, 4)]);
}

#[test]
fn a_secret_key_is_refused_where_another_file_belongs() {
    let (_, secret) = &FILES.files[0];
    for kind in [Kind::PublicKey, Kind::EvaluationKeys, Kind::Ciphertexts, Kind::Plaintext] {
        let error = container_error(read(kind, secret, &FILES.context, &PLAN));
        assert!(matches!(error, ContainerError::SecretKeyRefused { .. }));
        assert!(error.to_string().contains("secret key"), "{error}");
    }
    let (_, keys) = &FILES.files[2];
    let error = container_error(read(Kind::SecretKey, keys, &FILES.context, &PLAN));
    assert_eq!(error.to_string(), "the file holds evaluation keys, expected a secret key");
}

#[test]
fn files_of_other_plans_parameters_and_versions_are_refused() {
    let other = insecure(6, &[40, 30, 30, 31], &[40, 21], &[1, 2, 1]);
    for (kind, bytes) in &FILES.files {
        let error = container_error(read(*kind, bytes, &FILES.context, &[0; 32]));
        assert!(matches!(error, ContainerError::Plan { .. }));
        assert!(error.to_string().contains("another plan"), "{error}");
        let error = container_error(read(*kind, bytes, &other, &PLAN));
        assert!(matches!(error, ContainerError::Params { .. }));
        let mut newer = bytes.clone();
        newer[4] = 9;
        let error = container_error(read(*kind, &resign(newer), &FILES.context, &PLAN));
        assert!(matches!(error, ContainerError::Version { found: 9, expected: container::VERSION }));
        let mut foreign = bytes.clone();
        foreign[0] = b'X';
        assert!(matches!(container_error(read(*kind, &foreign, &FILES.context, &PLAN)), ContainerError::Magic));
    }
}

#[test]
fn residues_that_are_not_reduced_are_refused() {
    // The last limb's first residue, all ones, is not below any prime that is not 2^k − 1.
    for (kind, bytes) in &FILES.files[1..] {
        let mut bad = bytes.clone();
        let end = bad.len() - 32;
        bad[end - 8..end].fill(0xff);
        let error = container_error(read(*kind, &resign(bad), &FILES.context, &PLAN));
        assert!(error.to_string().contains("limb"), "{kind:?}: {error}");
    }
    let mut bad = FILES.files[0].1.clone();
    bad[80] = 0xff;
    let error = container_error(read(Kind::SecretKey, &resign(bad), &FILES.context, &PLAN));
    assert!(matches!(error, ContainerError::Field { .. }));
}

#[test]
fn uniform_halves_may_be_made_on_use() {
    let context = tiny();
    let mut s = Setup::with_keys(&context, &request());
    let mut file = Vec::new();
    container::write_evaluation_keys(s.evaluator.keys(), &PLAN, &mut file).expect("write");
    let a = s.encrypt(&random(32, 3), 2, &Scale::pow2(40));
    let [kept, made] = [UniformHalves::Kept, UniformHalves::MadeOnUse].map(|halves| {
        let len = file.len() as u64;
        let keys = container::stream_evaluation_keys(&file[..], len, &context, &PLAN, halves).expect("read");
        let mut again = Vec::new();
        container::write_evaluation_keys(&keys, &PLAN, &mut again).expect("write");
        assert_eq!(again, file);
        let bytes = keys.bytes();
        let evaluator = Evaluator::new(&context, Arc::new(keys)).expect("evaluator");
        let rotated = evaluator.rotate(&a, 1).expect("rotate");
        let hoisted = evaluator.rotate_hoisted(&evaluator.hoist(&a).expect("hoist"), 1).expect("rotate");
        let low = evaluator.rotate(&evaluator.drop_to_level(&a, 1).expect("drop"), 1).expect("rotate");
        let square = evaluator.relinearise(&evaluator.square(&a).expect("square")).expect("relinearise");
        (bytes, [rotated, hoisted, low, square])
    });
    assert!(made.0 < kept.0);
    for (x, y) in kept.1.iter().zip(&made.1) {
        assert!(x.c0() == y.c0() && x.c1() == y.c1());
    }
}

/// Hands out a few bytes at a time.
struct Trickle<'a>(&'a [u8]);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = out.len().min(self.0.len()).min(7);
        out[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

#[test]
fn keys_are_read_from_any_stream() {
    let (_, bytes) = &FILES.files[2];
    let stream = |bytes: &[u8], len: u64| {
        let keys = container::stream_evaluation_keys(Trickle(bytes), len, &FILES.context, &PLAN, UniformHalves::Kept)?;
        let mut out = Vec::new();
        container::write_evaluation_keys(&keys, &PLAN, &mut out)?;
        Ok(out)
    };
    let len = bytes.len() as u64;
    assert_eq!(&stream(bytes, len).expect("read"), bytes);
    // A file that became shorter after its length was asked for, or longer.
    let short = container_error(stream(&bytes[..bytes.len() - 40], len));
    assert!(matches!(short, ContainerError::Read(_)), "{short}");
    assert!(matches!(container_error(stream(bytes, len - 40)), ContainerError::Checksum));
    assert!(matches!(container_error(stream(bytes, len + 8)), ContainerError::Read(_)));
    // Whatever byte is damaged, that is what is said, unless the header says something worse.
    for at in (80..bytes.len()).step_by(37).chain(80..120) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(matches!(container_error(stream(&bad, len)), ContainerError::Checksum), "byte {at}");
    }
}

#[test]
fn counts_beyond_the_file_allocate_nothing() {
    // Galois keys, keys from the sparse secret, smaller rings, Galois keys of the first of them; ciphertexts.
    for (index, offset) in [(2, 88), (2, 92), (2, 136), (2, 148), (3, 80)] {
        let (kind, bytes) = &FILES.files[index];
        let mut bad = bytes.clone();
        bad[offset..offset + 4].fill(0xff);
        let error = container_error(read(*kind, &resign(bad), &FILES.context, &PLAN));
        assert!(matches!(error, ContainerError::Length { .. } | ContainerError::Field { .. }), "{offset}: {error}");
    }
}

/// The manifest of smaller rings begins at byte 136: their number; degree, level and number of elements of the first, two elements; the second.
#[test]
fn impossible_smaller_rings_are_refused() {
    let refused = |changes: &[(usize, u8)], word: &str| {
        let (kind, bytes) = &FILES.files[2];
        let mut bad = bytes.clone();
        changes.iter().for_each(|&(at, value)| bad[at] = value);
        let error = container_error(read(*kind, &resign(bad), &FILES.context, &PLAN));
        assert!(matches!(error, ContainerError::Field { .. }) && error.to_string().contains(word), "{error}");
    };
    let bytes = &FILES.files[2].1;
    assert_eq!([bytes[136], bytes[140], bytes[144], bytes[148], bytes[168], bytes[172]], [2, 4, 1, 2, 5, 0]);
    refused(&[(168, 6)], "degree 2^6 after 2^4");
    refused(&[(168, 4)], "degree 2^4 after 2^4");
    refused(&[(140, 3)], "log_n = 3");
    refused(&[(144, 9)], "level 9");
    refused(&[(152, 2)], "element 2");
    refused(&[(160, 33)], "element 33");
    refused(&[(160, 1)], "element 1 after");
    refused(&[(84, 0)], "sparse secret that there is not");
}

#[test]
fn a_failing_writer_is_an_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let context = tiny();
    let secret = SecretKey::generate(&context, &mut SecretRng::from_seed(&[1; 32]));
    let error = container::write_secret_key(&secret, &PLAN, Full).expect_err("no space");
    assert!(error.to_string().contains("disk full"));
}

/// Named so that `just fuzz` finds them.
mod mutations {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Damage is found by the checksum.
        #[test]
        fn flipped_bits_are_found(file in 0usize..5, position in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (kind, bytes) = &FILES.files[file];
            let mut bad = bytes.clone();
            let at = position.index(bad.len());
            bad[at] ^= 1 << bit;
            prop_assert!(read(*kind, &bad, &FILES.context, &PLAN).is_err());
        }

        /// Malice may fit the checksum. Then the file is refused, or what it says is what is written again.
        #[test]
        fn signed_changes_never_panic(
            file in 0usize..5,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            early in any::<bool>(),
        ) {
            let (kind, bytes) = &FILES.files[file];
            let mut bad = bytes.clone();
            let end = if early { 192.min(bad.len() - 32) } else { bad.len() - 32 };
            for (position, value) in changes {
                let at = position.index(end);
                bad[at] = value;
            }
            let bad = resign(bad);
            if let Ok(again) = read(*kind, &bad, &FILES.context, &PLAN) {
                prop_assert_eq!(again, bad);
            }
            prop_assert!(MEMORY.peak_usage_as_mb() < MOST_MIB, "{} MiB", MEMORY.peak_usage_as_mb());
        }

        /// Cut or continued files are refused even when they are signed.
        #[test]
        fn other_lengths_are_refused(file in 0usize..5, cut in any::<prop::sample::Index>(), extra in 0usize..40) {
            let (kind, bytes) = &FILES.files[file];
            let short = bytes[..cut.index(bytes.len())].to_vec();
            prop_assert!(read(*kind, &short, &FILES.context, &PLAN).is_err());
            prop_assert!(read(*kind, &resign(short), &FILES.context, &PLAN).is_err());
            let mut long = bytes.clone();
            long.extend(std::iter::repeat_n(0, extra + 1));
            prop_assert!(read(*kind, &resign(long), &FILES.context, &PLAN).is_err());
        }
    }
}
