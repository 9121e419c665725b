//! Shared helpers of the compiler's tests: where models and data are, and how to read them.

pub mod networks;
pub mod onnx_node;

use fhec_ir::Tensor;
use fhec_passes::cost::CostTable;
use fhec_plan::Plan;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Prices that stay the same when the compiler's own are measured anew, for snapshots of choices.
pub fn fixed_prices() -> CostTable {
    CostTable {
        butterfly: 0.22,
        multiply_accumulate: 0.3,
        diagonal: 0.3,
        stream: 0.06,
        pointwise: 0.45,
        convert: 0.45,
        fft_butterfly: 1.6,
        round: 1.2,
        fill: 1.5,
        overhead: 3000.0,
        touch: 0.25,
        touch_huge: 0.25,
        expand: 0.35,
        read_byte: 0.5,
        bootstrap: 1.0,
        bootstrap_small: None,
        sequential: 0.2,
        base_memory: 24 << 20,
    }
}

/// The workspace's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// A file of the bundled models.
pub fn model(name: &str) -> PathBuf {
    root().join("models").join(name)
}

/// A file of the shared data, or `None` with a printed line when there is none: `$FHEC_SHARED`, or
/// `shared` beside the workspace. Tests that need it skip.
pub fn shared(path: &str) -> Option<PathBuf> {
    let base = std::env::var_os("FHEC_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let full = base.join("data").join(path);
    if full.exists() {
        return Some(full);
    }
    println!("skipped: {} is not there", full.display());
    None
}

/// The bundled calibration digits as single images `1×1×28×28` with pixels 0…1.
pub fn calibration_digits() -> Vec<Tensor> {
    let bytes = std::fs::read(model("calibration.npy")).expect("bundled");
    let pixels: Vec<u8> = npyz::NpyFile::new(&bytes[..]).expect("npy").into_vec().expect("u8");
    digits(&pixels)
}

/// The twenty bundled sample digits (`models/digits`), as `1×1×28×28` with pixels 0…1.
pub fn sample_digits() -> Vec<Tensor> {
    let read = |i: usize| {
        let path = model(&format!("digits/{i:02}.png"));
        digits(image::open(&path).expect("bundled").to_luma8().as_raw()).remove(0)
    };
    (0..20).map(read).collect()
}

/// All images of an idx file (gzip), as `1×1×28×28` with pixels 0…1.
pub fn idx_images(path: &Path) -> Vec<Tensor> {
    digits(&unpack(path)[16..])
}

/// All labels of an idx file (gzip).
pub fn idx_labels(path: &Path) -> Vec<usize> {
    unpack(path)[8..].iter().map(|&b| usize::from(b)).collect()
}

fn digits(pixels: &[u8]) -> Vec<Tensor> {
    let image = |p: &[u8]| Tensor::new(vec![1, 1, 28, 28], p.iter().map(|&b| f64::from(b) / 255.0).collect());
    pixels.chunks_exact(784).map(image).collect()
}

/// The first images of a CIFAR-10 batch file (gzip), as `1×3×32×32` with pixels 0…255.
pub fn cifar_pixels(path: &Path, count: usize) -> Vec<Tensor> {
    const RECORD: usize = 1 + 3 * 1024;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).expect("exists");
    let mut file = flate2::read::GzDecoder::new(file).take((count * RECORD) as u64);
    file.read_to_end(&mut bytes).expect("gzip");
    let image = |record: &[u8]| Tensor::new(vec![1, 3, 32, 32], record[1..].iter().map(|&p| f64::from(p)).collect());
    bytes.chunks_exact(RECORD).map(image).collect()
}

/// The same, normalised as the ResNets of the shared data expect them.
pub fn cifar_images(path: &Path, count: usize) -> Vec<Tensor> {
    const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
    const STD: [f64; 3] = [0.229, 0.224, 0.225];
    let normalised = |image: &Tensor| {
        let values = image.values().iter().enumerate().map(|(i, p)| (p / 255.0 - MEAN[i / 1024]) / STD[i / 1024]);
        Tensor::new(image.shape().to_vec(), values.collect())
    };
    cifar_pixels(path, count).iter().map(normalised).collect()
}

fn unpack(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).expect("exists");
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    bytes
}

/// Golden logits of a bundled model on the twenty sample digits, one row a digit.
pub fn golden(name: &str) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(model(&format!("{name}.golden.json"))).expect("bundled");
    let json: serde_json::Value = serde_json::from_str(&text).expect("json");
    let row = |r: &serde_json::Value| r.as_array().expect("row").iter().map(|v| v.as_f64().expect("number")).collect();
    json["logits"].as_array().expect("rows").iter().map(row).collect()
}

/// Index of the largest value.
pub fn argmax(v: &[f64]) -> usize {
    (0..v.len()).max_by(|&a, &b| v[a].total_cmp(&v[b])).expect("not empty")
}

/// `rotations=… keyswitches=… …`: what the plan costs.
pub fn cost_line(plan: &Plan) -> String {
    let sum = |f: fn(&fhec_plan::LayerReport) -> u32| plan.report.layers.iter().map(f).sum::<u32>();
    let rescales = plan
        .instructions
        .iter()
        .filter(|i| matches!(i.op, fhec_plan::Op::Rescale(_) | fhec_plan::Op::LinearMap { .. }))
        .count();
    format!(
        "rotations={} keyswitches={} pmul={} rescales={rescales} depth={} bootstraps={} keys={} bytes={}",
        sum(|l| l.rotations),
        sum(|l| l.key_switches),
        sum(|l| l.plaintext_products),
        plan.parameters.max_level(),
        plan.report.bootstraps.len(),
        plan.keys.galois.len() + usize::from(plan.keys.relin.is_some()),
        plan.report.key_bytes_memory,
    )
}
