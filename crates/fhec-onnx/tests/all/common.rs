//! Writes small models.

use bytes::Bytes;
use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, Interpreter};
use fhec_onnx::proto::*;
use fhec_onnx::{ImportError, Model, Options};
use prost::Message;

/// A model under construction. The input is `x`.
pub(crate) struct Writer {
    pub(crate) model: ModelProto,
}

impl Writer {
    pub(crate) fn new(opset: i64, shape: &[i64]) -> Self {
        let graph = GraphProto { name: "g".to_owned(), input: vec![value("x", 1, shape)], ..GraphProto::default() };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
        Writer { model: ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..ModelProto::default() } }
    }

    pub(crate) fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().expect("made with a graph")
    }

    /// A node; `names` are its inputs, `->` and its outputs.
    pub(crate) fn node(mut self, op_type: &str, names: &str, attribute: Vec<AttributeProto>) -> Self {
        let (input, output) = names.split_once("->").expect("inputs -> outputs");
        let list = |s: &str| s.split_whitespace().map(|n| n.trim_matches('_').to_owned()).collect();
        self.graph().node.push(NodeProto {
            input: list(input),
            output: list(output),
            name: String::new(),
            op_type: op_type.to_owned(),
            attribute,
            ..NodeProto::default()
        });
        self
    }

    pub(crate) fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.graph().initializer.push(float_tensor(name, dims, values));
        self
    }

    pub(crate) fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let tensor = TensorProto {
            name: name.to_owned(),
            data_type: 7,
            dims: vec![values.len() as i64],
            int64_data: values.to_vec(),
            ..TensorProto::default()
        };
        self.graph().initializer.push(tensor);
        self
    }

    pub(crate) fn outputs(mut self, names: &str) -> Self {
        self.graph().output = names.split_whitespace().map(|n| value(n, 1, &[])).collect();
        for output in &mut self.graph().output {
            output.r#type = None;
        }
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    pub(crate) fn import(&self) -> Result<Graph, ImportError> {
        self.import_with(&Options::default())
    }

    pub(crate) fn import_with(&self, options: &Options) -> Result<Graph, ImportError> {
        Model::from_bytes(&self.bytes(), None)?.import(options)
    }

    /// Imports and runs on `x`, of the shape that the graph states.
    pub(crate) fn run(&self, x: &[f64]) -> Vec<Tensor> {
        let graph = self.import().unwrap_or_else(|e| panic!("{e}"));
        run(&graph, x)
    }

    /// The problems of a model that cannot be compiled, one line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self.import() {
            Err(ImportError::Unsupported(list)) => list.0.iter().map(|d| d.to_string()).collect(),
            Err(e) => panic!("another error: {e}"),
            Ok(graph) => panic!("imported:\n{graph}"),
        }
    }
}

pub(crate) fn run(graph: &Graph, x: &[f64]) -> Vec<Tensor> {
    let shape = graph.node(graph.inputs()[0]).shape.clone();
    Interpreter::new(graph).expect("verifies").run(&[Tensor::new(shape, x.to_vec())]).expect("fits")
}

pub(crate) fn value(name: &str, elem_type: i32, shape: &[i64]) -> ValueInfoProto {
    let dim = |&n: &i64| DimensionProto { dim_value: Some(n), dim_param: None };
    let shape = Some(TensorShapeProto { dim: shape.iter().map(dim).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type, shape });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

pub(crate) fn float_tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name: name.to_owned(),
        data_type: 1,
        dims: dims.to_vec(),
        raw_data: Some(Bytes::from(raw)),
        ..TensorProto::default()
    }
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: kind, ..AttributeProto::default() }
}

pub(crate) fn int(name: &str, v: i64) -> AttributeProto {
    AttributeProto { i: Some(v), ..attribute(name, attribute_type::INT) }
}

pub(crate) fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { ints: v.to_vec(), ..attribute(name, attribute_type::INTS) }
}

pub(crate) fn float(name: &str, v: f32) -> AttributeProto {
    AttributeProto { f: Some(v), ..attribute(name, attribute_type::FLOAT) }
}

pub(crate) fn floats(name: &str, v: &[f32]) -> AttributeProto {
    AttributeProto { floats: v.to_vec(), ..attribute(name, attribute_type::FLOATS) }
}

pub(crate) fn text(name: &str, v: &str) -> AttributeProto {
    AttributeProto { s: Some(Bytes::copy_from_slice(v.as_bytes())), ..attribute(name, attribute_type::STRING) }
}

pub(crate) fn tensor(name: &str, t: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(t), ..attribute(name, attribute_type::TENSOR) }
}

/// All values within 1e-6.
pub(crate) fn close(got: &Tensor, shape: &[usize], expected: &[f64]) {
    assert_eq!(got.shape(), shape);
    for (i, (g, e)) in got.values().iter().zip(expected).enumerate() {
        assert!((g - e).abs() < 1e-6, "element {i}: {:?} instead of {expected:?}", got.values());
    }
}
