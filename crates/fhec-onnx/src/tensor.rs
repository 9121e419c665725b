//! Tensors of the file as constants: every numeric element type, typed and raw data.

use crate::ImportError;
use crate::external::External;
use crate::proto::TensorProto;
use bytes::Bytes;
use fhec_ir::Tensor;
use fhec_ir::nn::shape::elements;

/// Element types, with the numbers the format gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// FLOAT
    F32,
    /// UINT8
    U8,
    /// INT8
    I8,
    /// UINT16
    U16,
    /// INT16
    I16,
    /// INT32
    I32,
    /// INT64
    I64,
    /// BOOL
    Bool,
    /// FLOAT16
    F16,
    /// DOUBLE
    F64,
    /// UINT32
    U32,
    /// UINT64
    U64,
    /// BFLOAT16
    Bf16,
}

impl DataType {
    /// The type of this number, or the name of a type that is not read.
    pub fn from_number(number: i32) -> Result<Self, String> {
        Ok(match number {
            1 => DataType::F32,
            2 => DataType::U8,
            3 => DataType::I8,
            4 => DataType::U16,
            5 => DataType::I16,
            6 => DataType::I32,
            7 => DataType::I64,
            9 => DataType::Bool,
            10 => DataType::F16,
            11 => DataType::F64,
            12 => DataType::U32,
            13 => DataType::U64,
            16 => DataType::Bf16,
            8 => return Err("strings are not supported".to_owned()),
            14 | 15 => return Err("complex numbers are not supported".to_owned()),
            17..=26 => return Err(format!("quantised element type {number} is not supported")),
            _ => return Err(format!("unknown element type {number}")),
        })
    }

    /// True for floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, DataType::F16 | DataType::Bf16 | DataType::F32 | DataType::F64)
    }

    /// Bytes of an element.
    fn size(self) -> usize {
        match self {
            DataType::U8 | DataType::I8 | DataType::Bool => 1,
            DataType::U16 | DataType::I16 | DataType::F16 | DataType::Bf16 => 2,
            DataType::F32 | DataType::I32 | DataType::U32 => 4,
            DataType::F64 | DataType::I64 | DataType::U64 => 8,
        }
    }
}

/// A constant: values as f64 and the element type they had. Integers beyond 2^53 are rounded; they occur
/// only as "to the end" in slices.
#[derive(Clone, Debug)]
pub(crate) struct Constant {
    pub(crate) dtype: DataType,
    pub(crate) tensor: Tensor,
}

impl Constant {
    pub(crate) fn integers(values: Vec<i64>) -> Self {
        let tensor = Tensor::new(vec![values.len()], values.into_iter().map(|v| v as f64).collect());
        Constant { dtype: DataType::I64, tensor }
    }
}

/// Reads a serialized `TensorProto`, as in the test data of the ONNX project.
pub fn read_tensor_proto(bytes: &[u8]) -> Result<Tensor, ImportError> {
    let proto = <TensorProto as prost::Message>::decode(Bytes::copy_from_slice(bytes))?;
    Ok(constant(&proto, &External::none())?.tensor)
}

/// The tensor of a message.
pub(crate) fn constant(proto: &TensorProto, external: &External) -> Result<Constant, ImportError> {
    read(proto, external).map_err(|message| ImportError::Tensor { name: proto.name.clone(), message })
}

fn read(proto: &TensorProto, external: &External) -> Result<Constant, String> {
    let dtype = DataType::from_number(proto.data_type)?;
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| format!("extents {:?}", proto.dims))?;
    let count = elements(&shape).ok_or_else(|| format!("extents {shape:?} are too large"))?;
    let raw = match (proto.data_location, &proto.raw_data) {
        (0, raw) => raw.clone(),
        (1, None) => Some(external.read(&proto.external_data, count.checked_mul(dtype.size()))?),
        (1, Some(_)) => return Err("data both in the model and in another file".to_owned()),
        (location, _) => return Err(format!("unknown data location {location}")),
    };
    let values = match raw {
        Some(raw) => {
            if Some(raw.len()) != count.checked_mul(dtype.size()) {
                return Err(format!("{} bytes for {count} elements of {dtype:?}", raw.len()));
            }
            from_raw(dtype, &raw)
        }
        None => from_typed(dtype, proto),
    };
    if values.len() != count {
        return Err(format!("{} values for extents {shape:?}", values.len()));
    }
    Ok(Constant { dtype, tensor: Tensor::new(shape, values) })
}

fn from_raw(dtype: DataType, raw: &[u8]) -> Vec<f64> {
    fn each<const N: usize>(raw: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let (chunks, _) = raw.as_chunks::<N>();
        chunks.iter().map(|&c| f(c)).collect()
    }
    match dtype {
        DataType::F32 => each(raw, |b| f64::from(f32::from_le_bytes(b))),
        DataType::F64 => each(raw, f64::from_le_bytes),
        DataType::F16 => each(raw, |b| half(u16::from_le_bytes(b))),
        DataType::Bf16 => each(raw, |b| brain(u16::from_le_bytes(b))),
        DataType::U8 => each(raw, |[b]| f64::from(b)),
        DataType::I8 => each(raw, |b| f64::from(i8::from_le_bytes(b))),
        DataType::Bool => each(raw, |[b]| f64::from(b != 0)),
        DataType::U16 => each(raw, |b| f64::from(u16::from_le_bytes(b))),
        DataType::I16 => each(raw, |b| f64::from(i16::from_le_bytes(b))),
        DataType::U32 => each(raw, |b| f64::from(u32::from_le_bytes(b))),
        DataType::I32 => each(raw, |b| f64::from(i32::from_le_bytes(b))),
        DataType::U64 => each(raw, |b| u64::from_le_bytes(b) as f64),
        DataType::I64 => each(raw, |b| i64::from_le_bytes(b) as f64),
    }
}

fn from_typed(dtype: DataType, proto: &TensorProto) -> Vec<f64> {
    let small = |f: fn(i32) -> f64| proto.int32_data.iter().map(|&v| f(v)).collect();
    match dtype {
        DataType::F32 => proto.float_data.iter().map(|&v| f64::from(v)).collect(),
        DataType::F64 => proto.double_data.clone(),
        DataType::I64 => proto.int64_data.iter().map(|&v| v as f64).collect(),
        DataType::U32 | DataType::U64 => proto.uint64_data.iter().map(|&v| v as f64).collect(),
        DataType::F16 => small(|v| half(v as u16)),
        DataType::Bf16 => small(|v| brain(v as u16)),
        DataType::Bool => small(|v| f64::from(v != 0)),
        DataType::U8 => small(|v| f64::from(v as u8)),
        DataType::I8 => small(|v| f64::from(v as i8)),
        DataType::U16 => small(|v| f64::from(v as u16)),
        DataType::I16 => small(|v| f64::from(v as i16)),
        DataType::I32 => small(f64::from),
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(bits & 0x3ff);
    match (bits >> 10) & 0x1f {
        0 => sign * fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        exponent => sign * (1024.0 + fraction) * 2f64.powi(i32::from(exponent) - 25),
    }
}

/// bfloat16: the upper half of a binary32.
fn brain(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::StringStringEntryProto;
    use prost::Message;

    fn tensor(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto { data_type, dims: dims.to_vec(), ..TensorProto::default() }
    }

    fn values(proto: &TensorProto) -> Vec<f64> {
        read_tensor_proto(&proto.encode_to_vec()).expect("valid").values().to_vec()
    }

    #[test]
    fn every_type_reads_from_raw_bytes() {
        let cases: [(i32, &[u8], f64); 13] = [
            (1, &(-1.5f32).to_le_bytes(), -1.5),
            (2, &[200], 200.0),
            (3, &[200], -56.0),
            (4, &[0, 255], 65280.0),
            (5, &[0, 255], -256.0),
            (6, &(-7i32).to_le_bytes(), -7.0),
            (7, &i64::MAX.to_le_bytes(), i64::MAX as f64),
            (9, &[3], 1.0),
            (10, &0xc580u16.to_le_bytes(), -5.5),
            (11, &0.1f64.to_le_bytes(), 0.1),
            (12, &u32::MAX.to_le_bytes(), 4294967295.0),
            (13, &u64::MAX.to_le_bytes(), u64::MAX as f64),
            (16, &0xc0b0u16.to_le_bytes(), -5.5),
        ];
        for (number, raw, expected) in cases {
            let proto = TensorProto { raw_data: Some(Bytes::copy_from_slice(raw)), ..tensor(number, &[]) };
            assert_eq!(values(&proto), [expected], "type {number}");
        }
    }

    #[test]
    fn half_precision_edge_values() {
        for (bits, expected) in [
            (0x0000, 0.0),
            (0x0001, 2f64.powi(-24)),
            (0x03ff, 1023.0 * 2f64.powi(-24)),
            (0x0400, 2f64.powi(-14)),
            (0x3c00, 1.0),
            (0x7bff, 65504.0),
            (0xfc00, f64::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), expected, "{bits:04x}");
        }
        assert!(half(0x7c01).is_nan());
        assert!(half(0x8000).is_sign_negative());
    }

    #[test]
    fn typed_fields() {
        let proto = TensorProto { float_data: vec![0.5, 2.0], ..tensor(1, &[2, 1]) };
        assert_eq!(values(&proto), [0.5, 2.0]);
        let proto = TensorProto { int32_data: vec![0x3c00, 300], ..tensor(10, &[2]) };
        assert_eq!(values(&proto), [1.0, half(300)]);
        let proto = TensorProto { int32_data: vec![-1], ..tensor(3, &[1]) };
        assert_eq!(values(&proto), [-1.0]);
        let proto = TensorProto { uint64_data: vec![7], ..tensor(12, &[1]) };
        assert_eq!(values(&proto), [7.0]);
    }

    #[test]
    fn contradictions_are_errors() {
        let raw = |data_type, dims: &[i64], bytes: usize| TensorProto {
            raw_data: Some(Bytes::from(vec![0; bytes])),
            ..tensor(data_type, dims)
        };
        for (proto, part) in [
            (raw(1, &[2], 4), "4 bytes for 2 elements"),
            (raw(1, &[-1], 4), "extents [-1]"),
            (raw(1, &[1 << 40, 1 << 40], 4), "too large"),
            (raw(8, &[1], 4), "strings"),
            (raw(99, &[1], 4), "unknown element type 99"),
            (tensor(1, &[3]), "0 values"),
            (TensorProto { data_location: 2, ..tensor(1, &[]) }, "data location 2"),
            (
                TensorProto {
                    data_location: 1,
                    external_data: vec![StringStringEntryProto {
                        key: "location".to_owned(),
                        value: "weights".to_owned(),
                    }],
                    ..tensor(1, &[1])
                },
                "no folder",
            ),
        ] {
            let error = read_tensor_proto(&proto.encode_to_vec()).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(read_tensor_proto(&[0xff, 0xff, 0xff]).is_err());
    }
}
