//! Inputs of a model and their shapes.

use crate::error::Problem;
use crate::proto::{GraphProto, TypeProto, ValueInfoProto};
use crate::{DataType, Options};
use std::collections::BTreeSet;
use std::fmt;

/// A dimension as the file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(usize),
    /// A symbol; empty when the file says nothing.
    Symbol(String),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Symbol(s) if s.is_empty() => f.write_str("?"),
            Dim::Symbol(s) => f.write_str(s),
        }
    }
}

/// An input of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputInfo {
    /// Name.
    pub name: String,
    /// Element type; `None` for types that are not read.
    pub dtype: Option<DataType>,
    /// Dimensions; `None` when the file does not state the rank.
    pub dims: Option<Vec<Dim>>,
}

/// Inputs that are no initializers.
pub(crate) fn list(graph: &GraphProto) -> Vec<InputInfo> {
    let initializers: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    graph.input.iter().filter(|i| !initializers.contains(i.name.as_str())).map(info).collect()
}

pub(crate) fn info(value: &ValueInfoProto) -> InputInfo {
    let tensor = value.r#type.as_ref().and_then(|TypeProto { tensor_type }| tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map(|shape| {
        let dim = |d: &crate::proto::DimensionProto| match d.dim_value.map(usize::try_from) {
            // Some exporters write 0 or −1 for "any".
            Some(Ok(n)) if n > 0 => Dim::Fixed(n),
            _ => Dim::Symbol(d.dim_param.clone().unwrap_or_default()),
        };
        shape.dim.iter().map(dim).collect()
    });
    InputInfo { name: value.name.clone(), dtype: tensor.and_then(|t| DataType::from_number(t.elem_type).ok()), dims }
}

/// The shape of an input with the open dimensions settled.
pub(crate) fn static_shape(input: &InputInfo, options: &Options) -> Result<Vec<usize>, Problem> {
    let given = options.shapes.get(&input.name);
    let Some(dims) = &input.dims else {
        return given.cloned().ok_or_else(|| {
            Problem::new("the file does not state its shape").help("export the model with static shapes, or give one")
        });
    };
    if let Some(given) = given
        && given.len() != dims.len()
    {
        return Err(Problem::new(format!("the given shape {given:?} has not {} dimensions", dims.len())));
    }
    let settle = |(d, dim): (usize, &Dim)| match (dim, given.map(|g| g[d])) {
        (Dim::Fixed(n), Some(g)) if *n != g => {
            Err(Problem::new(format!("dimension {d} is {n} in the file and {g} as given")))
        }
        (Dim::Fixed(n), _) => Ok(*n),
        (_, Some(g)) => Ok(g),
        (Dim::Symbol(s), None) => match options.dims.get(s) {
            Some(&n) => Ok(n),
            None if d == 0 => Ok(1),
            None => Err(Problem::new(format!("dimension {d} is '{dim}', not a number"))
                .help("export the model with static shapes, or give the extent")),
        },
    };
    dims.iter().enumerate().map(settle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_dimensions_are_settled_or_refused() {
        let symbol = |s: &str| Dim::Symbol(s.to_owned());
        let input = InputInfo {
            name: "x".to_owned(),
            dtype: Some(DataType::F32),
            dims: Some(vec![symbol("n"), Dim::Fixed(3), symbol("h")]),
        };
        let mut options = Options::default();
        let error = static_shape(&input, &options).expect_err("h is open");
        assert!(error.message.contains("dimension 2 is 'h'"), "{}", error.message);
        options.dims.insert("h".to_owned(), 7);
        assert_eq!(static_shape(&input, &options).expect("settled"), [1, 3, 7]);
        options.dims.insert("n".to_owned(), 2);
        assert_eq!(static_shape(&input, &options).expect("settled"), [2, 3, 7]);
        options.shapes.insert("x".to_owned(), vec![4, 3, 9]);
        assert_eq!(static_shape(&input, &options).expect("settled"), [4, 3, 9]);
        for wrong in [vec![4, 2, 9], vec![4, 3]] {
            options.shapes.insert("x".to_owned(), wrong);
            assert!(static_shape(&input, &options).is_err());
        }
        let open = InputInfo { dims: None, ..input };
        assert!(static_shape(&open, &Options::default()).is_err());
    }
}
