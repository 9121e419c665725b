//! Running the command, and a small network whose plan, keys and ciphertexts all tests share.

use fhec_onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};
use prost::Message;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

/// What a run of the command left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Outcome {
    fn from(out: Output) -> Self {
        Outcome {
            code: out.status.code().expect("ended by itself"),
            stdout: String::from_utf8(out.stdout).expect("UTF-8"),
            stderr: String::from_utf8(out.stderr).expect("UTF-8"),
        }
    }
}

impl Outcome {
    /// It succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// It failed with status 1 and one message that has all of `parts`, and without a backtrace.
    #[track_caller]
    pub(crate) fn fails(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, 1, "{}\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("backtrace"), "{}", self.stderr);
        assert_eq!(self.stderr.matches("fhec: ").count(), 1, "one message:\n{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        }
        self
    }
}

/// The built program.
pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fhec"))
}

/// Runs the command.
pub(crate) fn fhec<S: AsRef<OsStr>>(args: &[S]) -> Outcome {
    command().args(args).output().expect("starts").into()
}

/// Arguments of any printable kind.
#[macro_export]
macro_rules! fhec {
    ($($arg:expr),* $(,)?) => {
        $crate::common::fhec(&[$(std::ffi::OsString::from(&$arg)),*])
    };
}

/// The models of the repository.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// Names of the files in a folder, sorted.
pub(crate) fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A little-endian npy file.
pub(crate) fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// An npy file of float32.
pub(crate) fn floats(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy("<f4", shape, &data)
}

/// The float64 values behind the header of an npy file.
pub(crate) fn read_npy(path: &Path) -> Vec<f64> {
    let file = std::fs::read(path).expect("npy");
    let header = usize::from(u16::from_le_bytes([file[8], file[9]]));
    let data = file[10 + header..].chunks_exact(8);
    data.map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect()
}

/// A tensor of float32.
pub(crate) fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let float_data = values.to_vec();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, float_data, ..TensorProto::default() }
}

/// A declared input or output of float32.
pub(crate) fn port(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&d| DimensionProto { dim_value: Some(d), ..DimensionProto::default() }).collect();
    let tensor_type = TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// A node.
pub(crate) fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: name.into(),
        input: inputs.iter().map(|&i| i.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

/// A node with a whole-number attribute list.
pub(crate) fn with_ints(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    let ints = ints.to_vec();
    node.attribute.push(AttributeProto {
        name: name.into(),
        r#type: attribute_type::INTS,
        ints,
        ..AttributeProto::default()
    });
    node
}

/// A model file of opset 17.
pub(crate) fn model(graph: GraphProto) -> Vec<u8> {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// Weights of the small network, of size `rows · columns`.
pub(crate) fn weight(seed: usize, rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| ((i * 7 + seed * 13) as f32 * 0.37).sin() * 0.5).collect()
}

/// A picture of 4×4 pixels into dense 8, square, dense 3.
pub(crate) fn small_model(seed: usize) -> Vec<u8> {
    model(GraphProto {
        name: "small".into(),
        node: vec![
            node("Reshape", "flatten", &["x", "shape"], "flat"),
            node("MatMul", "dense1", &["flat", "w1"], "h"),
            node("Mul", "square", &["h", "h"], "s"),
            node("MatMul", "dense2", &["s", "w2"], "y"),
        ],
        initializer: vec![
            TensorProto {
                name: "shape".into(),
                dims: vec![2],
                data_type: 7,
                int64_data: vec![1, 16],
                ..TensorProto::default()
            },
            tensor("w1", &[16, 8], &weight(seed, 16, 8)),
            tensor("w2", &[8, 3], &weight(seed + 1, 8, 3)),
        ],
        input: vec![port("x", &[1, 1, 4, 4])],
        output: vec![port("y", &[1, 3])],
        ..GraphProto::default()
    })
}

/// What the small network gives for pixel values already divided by 255.
pub(crate) fn small_result(seed: usize, x: &[f64]) -> Vec<f64> {
    let dense = |x: &[f64], w: &[f32], out: usize| -> Vec<f64> {
        (0..out).map(|o| x.iter().enumerate().map(|(i, v)| v * f64::from(w[i * out + o])).sum()).collect()
    };
    let h: Vec<f64> = dense(x, &weight(seed, 16, 8), 8).iter().map(|v| v * v).collect();
    dense(&h, &weight(seed + 1, 8, 3), 3)
}

/// The pixels of the sample picture.
pub(crate) fn pixels() -> Vec<u8> {
    (0..16u8).map(|i| i * 17).collect()
}

/// A folder with everything the small network needs.
pub(crate) struct Small {
    folder: TempDir,
}

impl Small {
    /// A file in the folder.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A fresh folder for the results of one test.
    pub(crate) fn scratch(&self) -> TempDir {
        tempfile::tempdir().expect("temporary folder")
    }
}

/// Plan, keys, an encrypted input and a plan with its keys for another network, made once.
pub(crate) fn small() -> &'static Small {
    static SMALL: OnceLock<Small> = OnceLock::new();
    SMALL.get_or_init(|| {
        let small = Small { folder: tempfile::tempdir().expect("temporary folder") };
        let write = |name: &str, bytes: &[u8]| std::fs::write(small.at(name), bytes).expect("writes");
        write("x.npy", &npy("|u1", &[4, 4], &pixels()));
        let calibration: Vec<u8> = (0..64 * 16u32).map(|i| (i * i % 251) as u8).collect();
        write("calibration.npy", &npy("|u1", &[64, 1, 4, 4], &calibration));
        for (name, seed) in [("small", 1), ("other", 5)] {
            let (onnx, plan) = (small.at(&format!("{name}.onnx")), small.at(&format!("{name}.plan")));
            write(&format!("{name}.onnx"), &small_model(seed));
            fhec!["compile", onnx, "-o", plan, "--calibrate", small.at("calibration.npy")].ok();
            fhec!["keygen", plan, "-o", small.at(&format!("{name}-keys"))].ok();
        }
        let secret = small.at("small-keys/secret.key");
        fhec![
            "encrypt",
            small.at("small.plan"),
            "--secret-key",
            secret,
            "--input",
            small.at("x.npy"),
            "-o",
            small.at("x.ct")
        ]
        .ok();
        small
    })
}
