//! The protobuf messages of a plan file, written by hand so that building needs no `protoc`.
//!
//! Field numbers are part of the format: never reuse one. Conversions from and to the plain types are in
//! the sibling modules; nothing outside of `wire` sees these structs.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(string, tag = "1")]
    pub compiler: String,
    #[prost(string, tag = "2")]
    pub model: String,
    #[prost(message, optional, tag = "3")]
    pub parameters: Option<Parameters>,
    #[prost(message, optional, tag = "4")]
    pub keys: Option<Keys>,
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<Input>,
    #[prost(message, repeated, tag = "6")]
    pub outputs: Vec<Output>,
    #[prost(message, optional, tag = "7")]
    pub aided: Option<Aided>,
    /// Absent where a slot holds one image, as in plans that know of no other.
    #[prost(bool, tag = "8")]
    pub complex: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Aided {
    #[prost(uint32, tag = "1")]
    pub rounds: u32,
    #[prost(uint64, tag = "2")]
    pub network_inputs: u64,
    #[prost(message, repeated, tag = "3")]
    pub steps: Vec<ClientStep>,
    /// Steps sent, by input.
    #[prost(uint32, repeated, tag = "4")]
    pub sent_steps: Vec<u32>,
    #[prost(uint32, repeated, tag = "5")]
    pub sent_rounds: Vec<u32>,
    /// By output.
    #[prost(uint32, repeated, tag = "6")]
    pub received_rounds: Vec<u32>,
    #[prost(message, repeated, tag = "7")]
    pub results: Vec<ClientResult>,
}

/// What `kind`, `numbers` and `reals` mean is in the sibling module `aided`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ClientStep {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(sint64, repeated, tag = "2")]
    pub numbers: Vec<i64>,
    #[prost(double, repeated, tag = "3")]
    pub reals: Vec<f64>,
    #[prost(uint32, repeated, tag = "4")]
    pub operands: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    pub shape: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ClientResult {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub step: u32,
    #[prost(double, tag = "3")]
    pub range_lo: f64,
    #[prost(double, tag = "4")]
    pub range_hi: f64,
    #[prost(double, tag = "5")]
    pub error_std: f64,
    #[prost(message, repeated, tag = "6")]
    pub postprocess: Vec<Postprocess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Parameters {
    #[prost(uint32, tag = "1")]
    pub log_n: u32,
    #[prost(uint64, repeated, tag = "2")]
    pub q: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub p: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub digits: Vec<u64>,
    /// 128, 192 or 256; 0 for insecure test plans.
    #[prost(uint32, tag = "5")]
    pub security: u32,
    #[prost(message, optional, tag = "6")]
    pub bootstrap: Option<Bootstrap>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bootstrap {
    #[prost(uint32, tag = "1")]
    pub log_message_ratio: u32,
    #[prost(uint32, tag = "2")]
    pub range: u32,
    #[prost(uint32, tag = "3")]
    pub sparse_weight: u32,
    #[prost(uint32, tag = "4")]
    pub cosine_degree: u32,
    #[prost(uint32, tag = "5")]
    pub double_angles: u32,
    /// Layers of all matrices of slots-to-coefficients, in the order of use.
    #[prost(uint32, repeated, tag = "6")]
    pub slots_to_coeffs: Vec<u32>,
    /// How many of them each level has.
    #[prost(uint32, repeated, tag = "7")]
    pub matrices_by_level: Vec<u32>,
    #[prost(uint32, repeated, tag = "8")]
    pub coeffs_to_slots: Vec<u32>,
    #[prost(message, optional, tag = "9")]
    pub input_scale: Option<Scale>,
    #[prost(bool, tag = "10")]
    pub arcsine: bool,
    #[prost(uint32, tag = "11")]
    pub least_ring: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Keys {
    #[prost(uint64, optional, tag = "1")]
    pub relin: Option<u64>,
    /// Ascending.
    #[prost(uint64, repeated, tag = "2")]
    pub elements: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub levels: Vec<u64>,
    /// Ascending; elements without keys.
    #[prost(uint64, repeated, tag = "4")]
    pub composed: Vec<u64>,
    /// Two for each of `composed`.
    #[prost(uint64, repeated, tag = "5")]
    pub factors: Vec<u64>,
    /// Of the keys from the sparse secret, ascending.
    #[prost(uint64, repeated, tag = "6")]
    pub raised: Vec<u64>,
    /// Ascending by degree.
    #[prost(message, repeated, tag = "7")]
    pub low: Vec<LowKeys>,
}

/// Keys of a smaller ring.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LowKeys {
    #[prost(uint32, tag = "1")]
    pub log_n: u32,
    #[prost(uint64, tag = "2")]
    pub level: u64,
    /// Ascending.
    #[prost(uint64, repeated, tag = "3")]
    pub elements: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scale {
    #[prost(sint64, tag = "1")]
    pub pow2: i64,
    /// Ascending.
    #[prost(uint64, repeated, tag = "2")]
    pub primes: Vec<u64>,
    #[prost(sint64, repeated, tag = "3")]
    pub exponents: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Offsets {
    /// Either a stride or a table.
    #[prost(sint64, optional, tag = "1")]
    pub stride: Option<i64>,
    #[prost(sint64, repeated, tag = "2")]
    pub table: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LayoutDim {
    #[prost(uint64, tag = "1")]
    pub extent: u64,
    #[prost(message, optional, tag = "2")]
    pub offsets: Option<Offsets>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Layout {
    #[prost(uint64, tag = "1")]
    pub slots: u64,
    #[prost(uint64, tag = "2")]
    pub ciphertexts: u64,
    #[prost(uint64, tag = "3")]
    pub period: u64,
    #[prost(bool, tag = "4")]
    pub clean: bool,
    #[prost(message, repeated, tag = "5")]
    pub dims: Vec<LayoutDim>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Preprocess {
    #[prost(double, tag = "1")]
    pub scale: f64,
    #[prost(double, repeated, tag = "2")]
    pub mean: Vec<f64>,
    #[prost(double, repeated, tag = "3")]
    pub std: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Input {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, repeated, tag = "2")]
    pub shape: Vec<u64>,
    #[prost(message, optional, tag = "3")]
    pub layout: Option<Layout>,
    #[prost(uint64, tag = "4")]
    pub level: u64,
    #[prost(message, optional, tag = "5")]
    pub scale: Option<Scale>,
    #[prost(double, tag = "6")]
    pub factor: f64,
    #[prost(double, tag = "7")]
    pub range_lo: f64,
    #[prost(double, tag = "8")]
    pub range_hi: f64,
    #[prost(message, optional, tag = "9")]
    pub preprocess: Option<Preprocess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Postprocess {
    #[prost(uint64, optional, tag = "1")]
    pub softmax_axis: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Output {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, repeated, tag = "2")]
    pub shape: Vec<u64>,
    #[prost(message, optional, tag = "3")]
    pub layout: Option<Layout>,
    #[prost(uint64, tag = "4")]
    pub level: u64,
    #[prost(message, optional, tag = "5")]
    pub scale: Option<Scale>,
    #[prost(double, tag = "6")]
    pub factor: f64,
    #[prost(double, tag = "7")]
    pub range_lo: f64,
    #[prost(double, tag = "8")]
    pub range_hi: f64,
    #[prost(double, tag = "9")]
    pub error_std: f64,
    #[prost(message, repeated, tag = "10")]
    pub postprocess: Vec<Postprocess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Program {
    #[prost(message, repeated, tag = "1")]
    pub layers: Vec<Layer>,
    #[prost(message, repeated, tag = "2")]
    pub matrices: Vec<Matrix>,
    #[prost(message, repeated, tag = "3")]
    pub vectors: Vec<Vector>,
    #[prost(message, repeated, tag = "4")]
    pub polynomials: Vec<Polynomial>,
    #[prost(message, repeated, tag = "5")]
    pub instructions: Vec<Instruction>,
    #[prost(message, repeated, tag = "6")]
    pub tensors: Vec<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Layer {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub kind: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NestDim {
    #[prost(uint64, tag = "1")]
    pub extent: u64,
    #[prost(message, optional, tag = "2")]
    pub row: Option<Offsets>,
    #[prost(message, optional, tag = "3")]
    pub col: Option<Offsets>,
    #[prost(message, optional, tag = "4")]
    pub weight: Option<Offsets>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Guard {
    #[prost(sint64, repeated, tag = "1")]
    pub coefficients: Vec<i64>,
    #[prost(sint64, tag = "2")]
    pub constant: i64,
    #[prost(sint64, tag = "3")]
    pub extent: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Nest {
    #[prost(message, repeated, tag = "1")]
    pub dims: Vec<NestDim>,
    #[prost(sint64, tag = "2")]
    pub row: i64,
    #[prost(sint64, tag = "3")]
    pub col: i64,
    #[prost(sint64, tag = "4")]
    pub weight: i64,
    #[prost(uint32, optional, tag = "5")]
    pub tensor: Option<u32>,
    #[prost(double, tag = "6")]
    pub factor: f64,
    #[prost(message, repeated, tag = "7")]
    pub guards: Vec<Guard>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Matrix {
    #[prost(uint64, tag = "1")]
    pub slots: u64,
    #[prost(uint64, tag = "2")]
    pub in_ciphertexts: u64,
    #[prost(uint64, tag = "3")]
    pub in_period: u64,
    #[prost(uint64, tag = "4")]
    pub out_ciphertexts: u64,
    #[prost(uint64, tag = "5")]
    pub out_period: u64,
    #[prost(message, repeated, tag = "6")]
    pub nests: Vec<Nest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Vector {
    #[prost(uint64, tag = "1")]
    pub slots: u64,
    #[prost(uint64, tag = "2")]
    pub ciphertexts: u64,
    #[prost(uint64, tag = "3")]
    pub period: u64,
    #[prost(message, repeated, tag = "4")]
    pub nests: Vec<Nest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Polynomial {
    #[prost(double, repeated, tag = "1")]
    pub chebyshev: Vec<f64>,
    #[prost(string, tag = "2")]
    pub label: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    #[prost(uint64, tag = "2")]
    pub len: u64,
    /// Bytes of an element: 4 or 8.
    #[prost(uint32, tag = "3")]
    pub width: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Instruction {
    #[prost(uint32, tag = "1")]
    pub dst: u32,
    #[prost(uint32, tag = "2")]
    pub layer: u32,
    #[prost(oneof = "Op", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub op: Option<Op>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Op {
    #[prost(uint64, tag = "3")]
    Input(u64),
    #[prost(message, tag = "4")]
    LinearMap(LinearMap),
    #[prost(message, tag = "5")]
    Polynomial(PolynomialOp),
    #[prost(message, tag = "6")]
    Add(Pair),
    #[prost(message, tag = "7")]
    Sub(Pair),
    #[prost(uint32, tag = "8")]
    Negate(u32),
    #[prost(message, tag = "9")]
    Mul(Pair),
    #[prost(message, tag = "10")]
    MulScalar(ScalarOp),
    #[prost(message, tag = "11")]
    MulVector(VectorOp),
    #[prost(message, tag = "12")]
    AddScalar(ScalarOp),
    #[prost(message, tag = "13")]
    AddVector(VectorOp),
    #[prost(message, tag = "14")]
    Rotate(RotateOp),
    #[prost(uint32, tag = "15")]
    Relinearise(u32),
    #[prost(uint32, tag = "16")]
    Rescale(u32),
    #[prost(message, tag = "17")]
    LevelDrop(IndexOp),
    #[prost(message, tag = "18")]
    Output(IndexOp),
    #[prost(message, tag = "19")]
    Bootstrap(BootstrapOp),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BootstrapOp {
    #[prost(uint32, tag = "1")]
    pub src: u32,
    #[prost(uint64, tag = "2")]
    pub level: u64,
    #[prost(message, optional, tag = "3")]
    pub out_scale: Option<Scale>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LinearTerm {
    #[prost(uint32, tag = "1")]
    pub src: u32,
    #[prost(uint32, tag = "2")]
    pub matrix: u32,
    #[prost(uint64, tag = "3")]
    pub baby: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LinearMap {
    #[prost(message, repeated, tag = "1")]
    pub terms: Vec<LinearTerm>,
    #[prost(uint32, optional, tag = "2")]
    pub bias: Option<u32>,
    #[prost(message, optional, tag = "3")]
    pub out_scale: Option<Scale>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PolynomialOp {
    #[prost(uint32, tag = "1")]
    pub src: u32,
    #[prost(uint32, tag = "2")]
    pub poly: u32,
    #[prost(message, optional, tag = "3")]
    pub out_scale: Option<Scale>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pair {
    #[prost(uint32, tag = "1")]
    pub a: u32,
    #[prost(uint32, tag = "2")]
    pub b: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScalarOp {
    #[prost(uint32, tag = "1")]
    pub src: u32,
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Of a product; absent for a sum.
    #[prost(message, optional, tag = "3")]
    pub scale: Option<Scale>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VectorOp {
    #[prost(uint32, tag = "1")]
    pub src: u32,
    #[prost(uint32, tag = "2")]
    pub vector: u32,
    /// Of a product; absent for a sum.
    #[prost(message, optional, tag = "3")]
    pub scale: Option<Scale>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RotateOp {
    #[prost(uint32, tag = "1")]
    pub src: u32,
    #[prost(sint64, tag = "2")]
    pub steps: i64,
}

/// A level drop (to level `index`) or an output (number `index`).
#[derive(Clone, PartialEq, Message)]
pub(super) struct IndexOp {
    #[prost(uint32, tag = "1")]
    pub src: u32,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Report {
    #[prost(double, tag = "1")]
    pub security_bits: f64,
    #[prost(double, tag = "2")]
    pub seconds: f64,
    #[prost(uint64, tag = "3")]
    pub peak_memory: u64,
    #[prost(uint64, tag = "4")]
    pub key_bytes_disk: u64,
    #[prost(uint64, tag = "5")]
    pub key_bytes_memory: u64,
    #[prost(uint64, tag = "6")]
    pub input_bytes: u64,
    #[prost(uint64, tag = "7")]
    pub output_bytes: u64,
    #[prost(uint64, tag = "8")]
    pub plaintext_budget: u64,
    #[prost(double, tag = "9")]
    pub output_bits: f64,
    #[prost(message, repeated, tag = "10")]
    pub layers: Vec<LayerReport>,
    #[prost(string, repeated, tag = "11")]
    pub notes: Vec<String>,
    #[prost(double, tag = "12")]
    pub output_bits_public: f64,
    #[prost(message, repeated, tag = "13")]
    pub bootstraps: Vec<BootstrapReport>,
    #[prost(double, tag = "14")]
    pub sequential: f64,
    #[prost(bool, tag = "15")]
    pub keeps_keys: bool,
    /// Absent where there was no memory budget.
    #[prost(uint64, optional, tag = "16")]
    pub freed_bytes: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BootstrapReport {
    #[prost(uint32, tag = "1")]
    pub register: u32,
    #[prost(uint32, tag = "2")]
    pub level_in: u32,
    #[prost(uint32, tag = "3")]
    pub level_out: u32,
    #[prost(double, tag = "4")]
    pub seconds: f64,
    /// Absent where the network cannot do without it.
    #[prost(double, optional, tag = "5")]
    pub without: Option<f64>,
    #[prost(uint32, repeated, tag = "6")]
    pub instead: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LayerReport {
    #[prost(string, tag = "1")]
    pub layout: String,
    #[prost(uint32, tag = "2")]
    pub level_in: u32,
    #[prost(uint32, tag = "3")]
    pub level_out: u32,
    #[prost(uint32, tag = "4")]
    pub degree: u32,
    #[prost(uint32, tag = "5")]
    pub rotations: u32,
    #[prost(uint32, tag = "6")]
    pub key_switches: u32,
    #[prost(uint32, tag = "7")]
    pub plaintext_products: u32,
    #[prost(double, tag = "8")]
    pub seconds: f64,
    #[prost(double, tag = "9")]
    pub error_std: f64,
    #[prost(double, tag = "10")]
    pub approximation_rms: f64,
    #[prost(message, optional, tag = "11")]
    pub value: Option<LayerValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LayerValue {
    #[prost(uint32, tag = "1")]
    pub register: u32,
    #[prost(message, optional, tag = "2")]
    pub layout: Option<Layout>,
}
