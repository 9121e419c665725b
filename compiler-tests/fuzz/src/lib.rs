//! What the fuzz targets share: valid files to begin with, and checksums made right again, so that mutations reach
//! what lies behind them.

use fhec_ckks::container::{self, BundleEntry, BundleForm};
use fhec_ckks::{
    Context, Encoder, Encryptor, EvaluationKeys, InsecureToken, KeyRequest, ParameterSpec, PublicKey, SecretKey,
    Security,
};
use fhec_ir::nn::{Graph, Op, Output, Range};
use fhec_ir::{Origin, Tensor};
use fhec_math::{Scale, SecretRng, galois_element, ntt_primes_near};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Hash of the plan that key and ciphertext files belong to.
pub const PLAN: [u8; 32] = [0x5a; 32];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Writes files to a target's corpus, where the fuzzer finds them.
pub fn seed(target: &str, files: Vec<Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).expect("the corpus can be written");
    for (k, file) in files.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{k:03}")), file).expect("the corpus can be written");
    }
}

/// The operator cases of the shared data (`$FHEC_SHARED`, or `shared` beside the checkout), or else the smallest
/// bundled model: these are large for a fuzzer.
pub fn models() -> Vec<Vec<u8>> {
    let shared = std::env::var_os("FHEC_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let mut found = Vec::new();
    let mut folders = vec![shared.join("data/onnx-node")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "onnx" || e == "pb")
                && entry.metadata().is_ok_and(|m| m.len() < 4096)
            {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        found.push(root().join("models/lenet_relu.onnx"));
    }
    found.sort();
    found.into_iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// A plan with a linear map, a product and a polynomial.
pub fn plans() -> Vec<Vec<u8>> {
    let mut graph = Graph { name: "small".into(), ..Graph::default() };
    let wave = |n: usize| (0..n).map(|i| (1.7 * i as f64).sin()).collect::<Vec<f64>>();
    let x = graph.push(Op::Input { name: "x".into() }, vec![], vec![1, 8], Origin::named("x"));
    let weight = graph.constant(Tensor::new(vec![4, 8], wave(32)));
    let bias = Some(graph.constant(Tensor::new(vec![4], wave(4))));
    let h = graph.push(Op::Dense { weight, bias }, vec![x], vec![1, 4], Origin::named("fc"));
    let s = graph.push(Op::Mul, vec![h, h], vec![1, 4], Origin::named("square"));
    let a = graph.push(Op::Activation(fhec_ir::nn::Activation::Tanh), vec![h], vec![1, 4], Origin::named("tanh"));
    let y = graph.push(Op::Add, vec![s, a], vec![1, 4], Origin::named("sum"));
    graph.outputs.push(Output { name: "y".into(), value: y });
    let options = fhec_passes::Options { input_range: Some(Range { lo: -1.0, hi: 1.0 }), ..Default::default() };
    let aided = fhec_passes::compile_aided(&graph, &options, &mut |_| {}).expect("compiles");
    vec![fhec_passes::compile(&graph, &options).expect("compiles").plan.to_bytes(), aided.plan.to_bytes()]
}

/// A plan file with the placement and the hashes that belong to its sections: 320 bytes of header with a table of
/// four entries (`docs/plan-format.md`). Lengths in the table are kept as far as there are bytes.
pub fn repair_plan(file: &[u8]) -> Vec<u8> {
    let Some(mut out) = file.get(..320).map(<[u8]>::to_vec) else { return file.to_vec() };
    let mut from = 320usize;
    for entry in (16..240).step_by(56) {
        let said = u64::from_le_bytes(file[entry + 16..entry + 24].try_into().expect("eight bytes"));
        from = file.len().min(from.next_multiple_of(64));
        let end = from.saturating_add(usize::try_from(said).unwrap_or(usize::MAX)).min(file.len());
        let content = &file[from..end];
        from = end;
        out.resize(out.len().next_multiple_of(64), 0);
        let offset = out.len() as u64;
        out[entry + 8..entry + 16].copy_from_slice(&offset.to_le_bytes());
        out[entry + 16..entry + 24].copy_from_slice(&(content.len() as u64).to_le_bytes());
        out[entry + 24..entry + 56].copy_from_slice(blake3::hash(content).as_bytes());
        out.extend_from_slice(content);
    }
    let hash = *blake3::hash(&out[..240]).as_bytes();
    out[240..272].copy_from_slice(&hash);
    out
}

/// Toy parameters for files of keys and ciphertexts.
pub fn context() -> &'static Arc<Context> {
    static CONTEXT: LazyLock<Arc<Context>> = LazyLock::new(|| {
        let primes = |bits: u32, n: usize| ntt_primes_near(bits, 6).take(n).collect::<Vec<u64>>();
        let q = [primes(40, 1), primes(30, 3)].concat();
        let spec = ParameterSpec { log_n: 6, q, p: primes(45, 2), digits: vec![1, 2, 1] };
        Context::new(spec, Security::Insecure(InsecureToken::for_tests())).expect("test parameters")
    });
    &CONTEXT
}

/// A file of every kind.
pub fn containers() -> Vec<Vec<u8>> {
    let context = context();
    let mut rng = SecretRng::from_seed(&[7; 32]);
    let secret = SecretKey::generate(context, &mut rng);
    let public = PublicKey::generate(&secret, &mut rng);
    let request = KeyRequest {
        relin_level: Some(3),
        galois: BTreeMap::from([(galois_element(1, 6), 2), (127, 0)]),
        sparse_weight: None,
    };
    let keys = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).expect("keys");
    let plaintext = Encoder::new(context).encode(&[0.5; 32], 2, &Scale::pow2(30)).expect("encodes");
    let seeded = Encryptor::new(context).encrypt_sk(&secret, &plaintext, &mut rng).expect("encrypts");
    let full = seeded.clone().expand(context).expect("expands");
    let entries = [
        BundleEntry { name: "image".into(), index: 0, images: 1, form: BundleForm::Seeded(seeded) },
        BundleEntry { name: "größe".into(), index: 7, images: 3, form: BundleForm::Full(full) },
    ];
    let mut files = vec![Vec::new(); 5];
    container::write_secret_key(&secret, &PLAN, &mut files[0]).expect("writes");
    container::write_public_key(&public, &PLAN, &mut files[1]).expect("writes");
    container::write_evaluation_keys(&keys, &PLAN, &mut files[2]).expect("writes");
    container::write_ciphertexts(&entries, context, &PLAN, &mut files[3]).expect("writes");
    container::write_plaintext(&plaintext, context, &PLAN, &mut files[4]).expect("writes");
    files
}

/// The file with a checksum that fits.
pub fn resign(file: &[u8]) -> Vec<u8> {
    let content = &file[..file.len().saturating_sub(32)];
    [content, blake3::hash(content).as_bytes()].concat()
}

/// Arrays, archives, an idx file, a picture, and labels.
pub fn data() -> Vec<Vec<u8>> {
    let files = root().join("crates/fhec-cli/tests/files");
    let mut paths: Vec<PathBuf> = ["x.npy", "x.npz", "x_compressed.npz", "x.idx"].map(|f| files.join(f)).to_vec();
    paths.push(root().join("models/digits/00.png"));
    paths.push(root().join("models/mnist_labels.txt"));
    paths.into_iter().map(|path| std::fs::read(path).expect("readable")).collect()
}
