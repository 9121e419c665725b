//! Real networks on real digits, encrypted at 128-bit parameters: from the ONNX file to decrypted
//! logits, through the bytes of the plan.

use compiler_tests::{argmax, calibration_digits, cifar_images, golden, idx_images, model, sample_digits, shared};
use fhec_ir::Tensor;
use fhec_ir::nn::Interpreter;
use fhec_math::SecretRng;
use fhec_math::security::SecurityLevel;
use fhec_passes::parameters::Unfit;
use fhec_passes::{CompileError, Compiled, Options, compile};
use fhec_plan::{Insecure, Plan, verify::Verified};
use fhec_runtime::{Client, EncryptionKey, Server, server_context};
use std::path::Path;
use std::sync::Arc;

/// Bits of precision that every logit must have, of the logits' range.
const BITS: f64 = 12.0;

fn options(samples: &[Tensor]) -> Options {
    Options { samples: samples.iter().map(|t| vec![t.clone()]).collect(), ..Options::default() }
}

/// Compiles a model, twice: the plans are equal to the byte.
fn compiled(path: &Path, samples: &[Tensor]) -> Compiled {
    let graph = fhec_onnx::load(path).expect("imports");
    let first = compile(&graph, &options(samples)).expect("compiles");
    let second = compile(&graph, &options(samples)).expect("compiles");
    let bytes = first.plan.to_bytes();
    assert!(bytes == second.plan.to_bytes(), "compiling twice gave two plans");
    assert!(bytes.len() < 5_000_000, "the plan has {} bytes", bytes.len());
    first
}

/// Images that are encrypted under the public key as well.
const PUBLIC: usize = 4;

/// Root mean square of errors, in bits of a range.
fn rms_bits(errors: &[f64], range: f64) -> f64 {
    let rms = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
    (range / rms).log2()
}

/// Runs `images` under encryption and holds the logits against the same polynomial network in f64.
/// Returns the decrypted logits.
fn run_encrypted(compiled: &Compiled, images: &[Tensor]) -> Vec<Vec<f64>> {
    run_encrypted_to(compiled, images, PUBLIC, BITS)
}

/// [`run_encrypted`], with so many images under the public key too, and so many bits in the worst logit.
fn run_encrypted_to(compiled: &Compiled, images: &[Tensor], public_images: usize, bits: f64) -> Vec<Vec<f64>> {
    let bytes = compiled.plan.to_bytes();
    let plan = Plan::read(Arc::new(bytes)).expect("reads back");
    assert_eq!(plan.parameters.security, Some(SecurityLevel::Bits128));
    let client = Client::new(plan.head(), None).expect("a secure head");
    let mut rng = SecretRng::from_os().expect("the system gives random numbers");
    let secret = client.generate_secret(&mut rng);
    let public = client.generate_public(&secret, &mut rng);
    let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| {}).expect("keys");

    let budget = plan.report.plaintext_budget;
    let verified = Arc::new(Verified::new(plan, Insecure::Refuse).expect("verifies"));
    let context = server_context(&verified, None).expect("secure parameters");
    let server = Server::new(verified, &context, Arc::new(keys), budget).expect("the keys fit");
    let mut run = |image: &Tensor, key: EncryptionKey<'_>| {
        let input = client.encrypt(&[image.values().to_vec()], key, &mut rng).expect("fits");
        let (output, _) = server.run(&input, &mut |_| {}).expect("runs");
        client.decrypt_output(0, &output, &secret).expect("decrypts")
    };

    let clear = Interpreter::new(&compiled.polynomial).expect("valid");
    let clear = |image: &Tensor| clear.run(std::slice::from_ref(image)).expect("fits")[0].values().to_vec();
    let clear: Vec<Vec<f64>> = images.iter().map(clear).collect();
    let all = || clear.iter().flatten();
    let range = all().fold(f64::MIN, |m, &v| m.max(v)) - all().fold(f64::MAX, |m, &v| m.min(v));
    let errors = |logits: &[Vec<f64>]| -> Vec<f64> {
        clear.iter().flatten().zip(logits.iter().flatten()).map(|(a, b)| (a - b).abs()).collect()
    };

    let logits: Vec<_> = images.iter().map(|image| run(image, EncryptionKey::Secret(&secret))).collect();
    let found = errors(&logits);
    let worst = (range / found.iter().fold(0.0, |m: f64, &e| m.max(e))).log2();
    let typical = rms_bits(&found, range);
    let by_public: Vec<_> =
        images[..public_images].iter().map(|image| run(image, EncryptionKey::Public(&public))).collect();
    let typical_public = rms_bits(&errors(&by_public), range);
    let (predicted, predicted_public) = (compiled.plan.report.output_bits, compiled.plan.report.output_bits_public);
    println!(
        "{}: worst logit {worst:.1} bits, rms {typical:.1}, predicted {predicted:.1}; under the public key rms \
         {typical_public:.1}, predicted {predicted_public:.1}",
        compiled.plan.model
    );
    assert!(worst >= bits, "only {worst:.1} bits in the worst logit");
    assert!((predicted - typical).abs() <= 2.0, "predicted {predicted:.1} bits, measured {typical:.1}");
    assert!(
        public_images == 0 || (predicted_public - typical_public).abs() <= 2.0,
        "predicted {predicted_public:.1} bits under the public key, measured {typical_public:.1}"
    );
    logits
}

/// A bundled model on the twenty bundled digits.
fn bundled(name: &str) {
    let compiled = compiled(&model(&format!("{name}.onnx")), &calibration_digits());
    let logits = run_encrypted(&compiled, &sample_digits());
    for (digit, (encrypted, clear)) in logits.iter().zip(golden(name)).enumerate() {
        assert_eq!(argmax(encrypted), argmax(&clear), "{name}: digit {digit} changed class");
    }
}

#[test]
fn mlp_square() {
    bundled("mlp_square");
}

#[test]
fn cryptonets() {
    bundled("cryptonets");
}

#[test]
fn lola() {
    bundled("lola");
}

#[test]
fn lenet_silu() {
    bundled("lenet_silu");
}

#[test]
fn lenet_relu() {
    bundled("lenet_relu");
}

/// With the least memory that works most rotations are made of two.
#[test]
fn short_of_memory() {
    let graph = fhec_onnx::load(model("lola.onnx")).expect("imports");
    let with = |budget: u64| Options { memory_budget: Some(budget), ..options(&calibration_digits()) };
    let Err(CompileError::Parameters { reasons, .. }) = compile(&graph, &with(1 << 20)) else {
        panic!("one MiB cannot suffice")
    };
    let least = reasons.iter().filter_map(|(_, why)| if let Unfit::Memory(bytes) = why { Some(*bytes) } else { None });
    let compiled = compile(&graph, &with(least.min().expect("memory is the reason"))).expect("the stated budget works");
    let keys = &compiled.plan.keys;
    assert!(keys.composed.len() > keys.galois.len() / 4, "{} of {}", keys.composed.len(), keys.galois.len());
    let logits = run_encrypted_to(&compiled, &sample_digits()[..3], 1, BITS);
    for (encrypted, clear) in logits.iter().zip(golden("lola")) {
        assert_eq!(argmax(encrypted), argmax(&clear));
    }
}

/// A network of the shared data on the first twenty test digits; `scale` maps pixels 0…1 to its input.
fn from_shared(name: &str, scale: impl Fn(f64) -> f64) {
    let (Some(path), Some(train), Some(test)) = (
        shared(&format!("models/{name}.onnx")),
        shared("mnist/train-images-idx3-ubyte.gz"),
        shared("mnist/t10k-images-idx3-ubyte.gz"),
    ) else {
        return;
    };
    let scaled = |images: &[Tensor]| images.iter().map(|i| i.map(&scale)).collect::<Vec<_>>();
    let compiled = compiled(&path, &scaled(&idx_images(&train)[..128]));
    let images = scaled(&idx_images(&test)[..20]);
    let logits = run_encrypted(&compiled, &images);
    let original = fhec_onnx::load(&path).expect("imports");
    let original = Interpreter::new(&original).expect("valid");
    for (digit, (encrypted, image)) in logits.iter().zip(&images).enumerate() {
        let clear = original.run(std::slice::from_ref(image)).expect("fits");
        assert_eq!(argmax(encrypted), argmax(clear[0].values()), "{name}: digit {digit} changed class");
    }
}

#[test]
fn shared_mnist_cryptonets() {
    from_shared("mnist_cryptonets", |v| v);
}

#[test]
fn shared_mnist_mlp_square() {
    from_shared("mnist_mlp_square", |v| v);
}

#[test]
fn shared_mnist_cnn_silu() {
    from_shared("mnist_cnn_silu", |v| v);
}

#[test]
fn shared_mnist_mlp_relu() {
    from_shared("mnist_mlp_relu", |v| (v - 0.1307) / 0.3081);
}

/// Maximum pooling is refused by name until a mode supports it.
#[test]
fn shared_mnist_cntk_is_refused_with_its_reason() {
    let Some(path) = shared("models/mnist_cntk.onnx") else { return };
    let graph = fhec_onnx::load(&path).expect("imports");
    let error = compile(&graph, &options(&calibration_digits())).expect_err("has max-pool").to_string();
    assert!(error.contains("MaxPool") && error.contains("Pooling66"), "{error}");
    assert_eq!(error.matches("MaxPool").count(), 2, "both pools are listed: {error}");
}

/// ResNet-20 on a CIFAR-10 test image: bootstraps and all. Minutes and ten gigabytes, so only with `FHEC_SLOW=1`.
#[test]
fn shared_resnet20_is_bootstrapped() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to run ResNet-20 under encryption");
        return;
    }
    let (Some(path), Some(data)) = (shared("models/resnet20.onnx"), shared("cifar10/test_batch.bin.gz")) else {
        return;
    };
    let images = cifar_images(&data, 65);
    let graph = fhec_onnx::load(&path).expect("imports");
    let compiled = compile(&graph, &options(&images[1..])).expect("compiles");
    let logits = run_encrypted_to(&compiled, &images[..1], 0, 6.0);
    let clear = Interpreter::new(&graph).expect("valid").run(&images[..1]).expect("fits");
    assert_eq!(argmax(&logits[0]), argmax(clear[0].values()));
}
