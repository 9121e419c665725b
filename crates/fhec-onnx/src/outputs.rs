//! Outputs other than those that the file declares: any tensor of the model.

use crate::error::ImportError;
use crate::proto::{ModelProto, ValueInfoProto};
use std::collections::BTreeSet;

/// The model with other outputs: tensors by their names, or results of nodes by those of the nodes.
///
/// # Errors
/// [`ImportError::Malformed`] for a name that nothing in the model has, with those that there are, and for one that is
/// given twice.
pub(crate) fn choose(model: &ModelProto, names: &[String]) -> Result<ModelProto, ImportError> {
    let mut model = model.clone();
    let Some(graph) = &mut model.graph else { return Ok(model) };
    let tensors: BTreeSet<&str> = (graph.node.iter().flat_map(|n| &n.output).map(String::as_str))
        .chain(graph.input.iter().map(|i| i.name.as_str()))
        .filter(|name| !name.is_empty())
        .collect();
    let mut outputs: Vec<ValueInfoProto> = Vec::new();
    for name in names {
        let of_node = || graph.node.iter().find(|n| n.name == *name)?.output.iter().find(|o| !o.is_empty()).cloned();
        let found = if tensors.contains(name.as_str()) { Some(name.clone()) } else { of_node() };
        let Some(tensor) = found else {
            let known: Vec<&str> = tensors.into_iter().collect();
            let message = format!("there is no tensor '{name}'; there are {}", known.join(", "));
            return Err(ImportError::Malformed(message));
        };
        if outputs.iter().any(|o| o.name == tensor) {
            return Err(ImportError::Malformed(format!("output '{tensor}' is asked for twice")));
        }
        let declared = graph.output.iter().chain(&graph.value_info).find(|o| o.name == tensor);
        outputs.push(declared.cloned().unwrap_or_else(|| ValueInfoProto { name: tensor, ..ValueInfoProto::default() }));
    }
    graph.output = outputs;
    Ok(model)
}
