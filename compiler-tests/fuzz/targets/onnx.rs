//! A model file: import ends with a graph that verifies, or with an error.
#![no_main]

use fhec_ir::nn;
use fhec_onnx::{Model, Options, read_tensor_proto};

libfuzzer_sys::fuzz_target!(init: fhec_fuzz::seed("onnx", fhec_fuzz::models()), |file: &[u8]| {
    if let Ok(model) = Model::from_bytes(file, None) {
        let _ = model.inputs();
        if let Ok(graph) = model.import(&Options { max_elements: 1 << 16, ..Options::default() }) {
            nn::verify(&graph).unwrap_or_else(|e| panic!("the import made a broken graph: {e}"));
        }
    }
    let _ = read_tensor_proto(file);
});
