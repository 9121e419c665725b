//! Walks the nodes of a model.

use crate::attributes::Attributes;
use crate::builder::{Budget, Builder, Node, Value};
use crate::error::{ImportError, Problem, refuse};
use crate::external::External;
use crate::inputs::{info, static_shape};
use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::tensor::{Constant, DataType};
use crate::{OPSETS, Options, fold, ops, pattern, prune, suggest, tensor};
use fhec_ir::nn::refusals::{MAXIMUM, MAXIMUM_HELP, refusals};
use fhec_ir::nn::{Graph, Op, Output, verify};
use fhec_ir::{Diagnostic, Diagnostics, Origin};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// The tensor graph of a model, or everything that keeps it from being one.
pub(crate) fn import(model: &ModelProto, external: &External, options: &Options) -> Result<Graph, ImportError> {
    let opset = opset(model)?;
    let graph = model.graph.as_ref().ok_or_else(|| ImportError::Malformed("the file holds no graph".to_owned()))?;
    if let Some(name) = options.bind.keys().find(|&name| graph.input.iter().all(|i| &i.name != name)) {
        return Err(ImportError::Malformed(format!("no input '{name}' to bind")));
    }
    let live = live_nodes(graph)?;
    let budget = Budget::new(options.max_elements);
    let mut import = Import {
        graph,
        opset,
        external,
        options,
        builder: Builder::new(&budget),
        values: BTreeMap::new(),
        problems: Vec::new(),
        names: BTreeSet::new(),
        declared: OnceCell::new(),
    };
    import.constants_and_inputs(&live)?;
    for &index in &live {
        import.node(&graph.node[index])?;
    }
    import.outputs()?;
    import.finish()
}

/// The version of the standard operators.
fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let standard = model.opset_import.iter().find(|o| is_standard(&o.domain));
    match standard {
        Some(o) if OPSETS.contains(&o.version) => Ok(o.version),
        Some(o) => Err(ImportError::Opset { found: o.version }),
        None => Err(ImportError::Malformed("the file names no operator set".to_owned())),
    }
}

fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// Indices of the nodes that an output needs, in the file's order.
fn live_nodes(graph: &GraphProto) -> Result<Vec<usize>, ImportError> {
    let mut makers: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if makers.insert(name, index).is_some() {
                return Err(ImportError::Malformed(format!("two nodes make '{name}'")));
            }
        }
    }
    let mut live = BTreeSet::new();
    let mut wanted: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    while let Some(name) = wanted.pop() {
        if let Some(&index) = makers.get(name)
            && live.insert(index)
        {
            wanted.extend(graph.node[index].input.iter().map(String::as_str));
        }
    }
    Ok(live.into_iter().collect())
}

struct Import<'a> {
    graph: &'a GraphProto,
    opset: i64,
    external: &'a External,
    options: &'a Options,
    builder: Builder<'a>,
    values: BTreeMap<&'a str, Value>,
    problems: Vec<Diagnostic>,
    /// What inputs and nodes are called so far.
    names: BTreeSet<String>,
    /// Types that the file states, looked up once a node is refused.
    declared: OnceCell<BTreeMap<&'a str, &'a ValueInfoProto>>,
}

impl<'a> Import<'a> {
    fn constants_and_inputs(&mut self, live: &[usize]) -> Result<(), ImportError> {
        let graph = self.graph;
        let used: BTreeSet<&str> = live
            .iter()
            .flat_map(|&i| graph.node[i].input.iter().map(String::as_str))
            .chain(graph.output.iter().map(|o| o.name.as_str()))
            .collect();
        for proto in graph.initializer.iter().filter(|t| used.contains(t.name.as_str())) {
            if self.options.bind.contains_key(&proto.name) {
                continue;
            }
            let constant = tensor::constant(proto, self.external)?;
            let room = self.builder.budget.take(constant.tensor.shape());
            room.map_err(|p| ImportError::Tensor { name: proto.name.clone(), message: p.message })?;
            self.values.insert(&proto.name, Value::Constant(constant));
        }
        if let Some(sparse) = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).next() {
            let message = "sparse tensors are not supported".to_owned();
            return Err(ImportError::Tensor { name: sparse.name.clone(), message });
        }
        for input in graph.input.iter().filter(|i| used.contains(i.name.as_str())) {
            let name = input.name.as_str();
            let described = info(input);
            let value = if let Some(tensor) = self.options.bind.get(name) {
                let dtype = described.dtype.unwrap_or(DataType::F32);
                Value::Constant(Constant { dtype, tensor: tensor.clone() })
            } else if self.values.contains_key(name) {
                // An initializer: the input is only its declaration.
                continue;
            } else {
                self.builder.origin = self.own_name(name, name);
                let made = match described.dtype {
                    Some(d) if d.is_float() => static_shape(&described, self.options).and_then(|shape| {
                        self.builder.push_shaped(Op::Input { name: name.to_owned() }, vec![], &shape)
                    }),
                    dtype => Err(Problem::new(match dtype {
                        Some(d) => format!("its elements are {d:?}"),
                        None => "it is no tensor of a supported type".to_owned(),
                    })
                    .help("encrypted inputs are floating-point tensors; bind other inputs to constants")),
                };
                made.map_or_else(|p| self.problem(p, "Input"), Value::Data)
            };
            self.values.insert(name, value);
        }
        Ok(())
    }

    /// An origin that no other input or node has: layers are told apart by it. A name that is taken, which the format
    /// allows, is told with the node's result, which is its alone; an unnamed node may still meet one that has taken
    /// even that.
    fn own_name(&mut self, name: &str, result: &str) -> Origin {
        let longer =
            std::iter::once(format!("{name} ({result})")).chain((2..).map(|k| format!("{name} ({result}) {k}")));
        let mut candidates = std::iter::once(name.to_owned()).chain(longer);
        let own = candidates.find(|c| !self.names.contains(c)).unwrap_or_default();
        self.names.insert(own.clone());
        Origin::named(own)
    }

    /// Notes a problem of the current origin.
    fn problem(&mut self, problem: Problem, operator: &str) -> Value {
        self.problems.push(problem.at(&self.builder.origin, operator));
        Value::Unknown
    }

    /// Translates one node. Only a file that contradicts itself stops the import; other problems are
    /// collected, and the walk goes on with what is known of the results.
    fn node(&mut self, proto: &'a NodeProto) -> Result<(), ImportError> {
        let named = proto.output.iter().find(|o| !o.is_empty());
        let name = if proto.name.is_empty() { named.unwrap_or(&proto.op_type) } else { &proto.name };
        self.builder.origin = self.own_name(name, named.unwrap_or(name));
        let mut inputs = Vec::with_capacity(proto.input.len());
        for input in &proto.input {
            inputs.push(match (input.as_str(), self.values.get(input.as_str())) {
                ("", _) => None,
                (_, Some(value)) => Some(value.clone()),
                _ => {
                    let message = format!("node '{name}' uses '{input}', which nothing before it makes");
                    return Err(ImportError::Malformed(message));
                }
            });
        }
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let first = inputs.first().cloned().flatten();
        let results = self.translate(proto, inputs).and_then(|results| {
            match proto.output.iter().enumerate().skip(results.len()).find(|(_, o)| !o.is_empty()) {
                Some((i, output)) => refuse!("result {i} ('{output}') is not supported"),
                None => Ok(results),
            }
        });
        match results {
            Ok(results) => {
                for (output, value) in proto.output.iter().zip(results).filter(|(o, _)| !o.is_empty()) {
                    self.values.insert(output, value);
                }
            }
            Err(problem) => {
                self.problem(problem, &proto.op_type);
                for output in proto.output.iter().filter(|o| !o.is_empty()) {
                    let value = self.stand_in(proto, output, first.as_ref());
                    self.values.insert(output, value);
                }
            }
        }
        Ok(())
    }

    fn translate(&mut self, proto: &'a NodeProto, inputs: Vec<Option<Value>>) -> Result<Vec<Value>, Problem> {
        let operator = proto.op_type.as_str();
        if !is_standard(&proto.domain) {
            return Err(Problem::new(format!("operator of the domain '{}'", proto.domain))
                .help("export the model with standard ONNX operators"));
        }
        let known = ops::find(operator);
        let unknown = inputs.iter().flatten().any(|v| matches!(v, Value::Unknown));
        let constant = !inputs.is_empty() && inputs.iter().flatten().all(|v| matches!(v, Value::Constant(_)));
        let attributes = Attributes::new(&proto.attribute);
        let mut node =
            Node { proto, opset: self.opset, inputs, attributes, builder: &mut self.builder, external: self.external };
        if unknown && operator == "MaxPool" {
            // Refused whatever its operand is.
            return Err(max_pool());
        }
        if unknown && (known.is_some() || fold::is_foldable(operator)) {
            return Ok(proto.output.iter().map(|_| Value::Unknown).collect());
        }
        if constant && let Some(folded) = fold::elementwise(&node) {
            let folded = folded?;
            node.attributes.finish(self.opset)?;
            return Ok(vec![Value::Constant(folded)]);
        }
        let Some(known) = known else {
            let (reason, help) = suggest::unsupported(operator);
            return Err(Problem::new(reason).help(help));
        };
        if !(known.least..=known.most).contains(&node.inputs.len()) {
            refuse!("{} operands", node.inputs.len());
        }
        if constant {
            return fold::operator(&known, node);
        }
        let results = (known.translate)(&mut node)?;
        node.attributes.finish(self.opset)?;
        Ok(results)
    }

    /// What is known of a refused node's result, so that the nodes behind it can be checked too. The
    /// graph it stands in is thrown away.
    fn stand_in(&mut self, proto: &NodeProto, output: &str, first: Option<&Value>) -> Value {
        let graph = self.graph;
        let all = || graph.value_info.iter().chain(&graph.output).map(|v| (v.name.as_str(), v)).collect();
        let declared = self.declared.get_or_init(all).get(output);
        let declared = declared.and_then(|v| static_shape(&info(v), self.options).ok());
        let same = match first {
            Some(Value::Data(x))
                if (fold::is_foldable(&proto.op_type) && proto.input.len() == 1) || keeps_shape(&proto.op_type) =>
            {
                Some(self.builder.shape(*x).to_vec())
            }
            _ => None,
        };
        let Some(shape) = declared.or(same) else { return Value::Unknown };
        let op = Op::Input { name: output.to_owned() };
        self.builder.push_shaped(op, vec![], &shape).map_or(Value::Unknown, Value::Data)
    }

    fn outputs(&mut self) -> Result<(), ImportError> {
        let graph = self.graph;
        if graph.output.is_empty() {
            return Err(ImportError::Malformed("the graph has no outputs".to_owned()));
        }
        for output in &graph.output {
            let name = output.name.clone();
            self.builder.origin = Origin::named(name.clone());
            match self.values.get(name.as_str()) {
                Some(&Value::Data(value)) => self.builder.graph.outputs.push(Output { name, value }),
                Some(Value::Unknown) => {}
                Some(Value::Constant(_)) => {
                    let problem = Problem::new("it does not depend on any input");
                    self.problem(problem.help("remove this output"), "output");
                }
                None => return Err(ImportError::Malformed(format!("nothing makes the output '{name}'"))),
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Graph, ImportError> {
        self.builder.graph.name = self.graph.name.clone();
        let mut graph = self.builder.graph;
        if !self.problems.is_empty() {
            // The compiler would refuse these later; when the model is refused anyway they belong on the list.
            self.problems.extend(refusals(&graph));
            return Err(ImportError::Unsupported(Diagnostics(self.problems)));
        }
        pattern::recognise(&mut graph);
        let graph = prune::prune(&graph);
        verify(&graph).map_err(ImportError::Unsupported)?;
        Ok(graph)
    }
}

fn max_pool() -> Problem {
    Problem::new(MAXIMUM).help(MAXIMUM_HELP)
}

/// Unsupported operators whose result has the shape of their first operand.
fn keeps_shape(operator: &str) -> bool {
    const KEEPERS: [&str; 14] = [
        "GroupNormalization",
        "Hardmax",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Mod",
        "RMSNormalization",
        "Shrink",
        "ThresholdedRelu",
        "CumSum",
        "Trilu",
    ];
    KEEPERS.contains(&operator)
}
