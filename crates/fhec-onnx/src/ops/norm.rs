//! BatchNormalization.

use crate::builder::{Node, Value, one};
use crate::error::Problem;
use fhec_ir::nn::Op;

pub(super) fn batch_normalization(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let epsilon = node.attributes.float_or("epsilon", 1e-5)?;
    node.attributes.ignore(&["momentum"]);
    if node.opset < 7 {
        node.attributes.ignore(&["is_test"]);
    }
    if node.opset < 9 && !node.attributes.flag("spatial", true)? {
        return Err(Problem::new("statistics per element and not per channel")
            .of("spatial")
            .help("export with spatial=1, or as Mul and Add by constants"));
    }
    let training = node.opset >= 14 && node.attributes.flag("training_mode", false)?;
    // Older operator sets have no such attribute: further results mean training.
    if training || node.proto.output.iter().skip(1).any(|o| !o.is_empty()) {
        return Err(Problem::new("training mode: the statistics are those of the encrypted batch")
            .of("training_mode")
            .help("export the model in inference mode"));
    }
    let names = ["the scale", "the bias", "the mean", "the variance"];
    let mut parameters = Vec::with_capacity(4);
    for (i, name) in names.into_iter().enumerate() {
        parameters.push(node.required(i + 1, name)?.tensor);
    }
    let x = node.data(0)?;
    let mut ids = parameters.into_iter().map(|t| node.weight(t));
    let (Some(scale), Some(bias), Some(mean), Some(variance)) = (ids.next(), ids.next(), ids.next(), ids.next()) else {
        return Err(Problem::new("four parameters are needed"));
    };
    one(node.builder.push(Op::BatchNorm { scale, bias, mean, variance, epsilon }, vec![x])?)
}
