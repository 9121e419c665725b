//! Where a node came from, and problems that name it.

use std::fmt;

/// The model nodes an operation came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Node names in the model file, in order of merging; unnamed nodes are called by their output.
    pub names: Vec<String>,
    /// What people know the operation as, where the operations that stand for it are called otherwise: `Quadratic`, `Min`.
    pub what: Option<String>,
}

impl Origin {
    /// The origin of one model node.
    pub fn named(name: impl Into<String>) -> Self {
        Origin { names: vec![name.into()], what: None }
    }

    /// The same model nodes, known as `what`.
    pub fn known_as(&self, what: impl Into<String>) -> Self {
        Origin { names: self.names.clone(), what: Some(what.into()) }
    }

    /// Both origins, without repeats. What joins two different things is neither of them.
    pub fn join(&self, other: &Origin) -> Origin {
        let mut names = self.names.clone();
        for n in &other.names {
            if !names.contains(n) {
                names.push(n.clone());
            }
        }
        Origin { names, what: self.what.clone().filter(|what| other.what.as_ref() == Some(what)) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() { f.write_str("(compiler)") } else { f.write_str(&self.names.join("+")) }
    }
}

/// A problem of the user's model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The node.
    pub origin: Origin,
    /// Operator and, if one is to blame, attribute: `MaxPool`, `Conv.auto_pad`.
    pub what: String,
    /// Why it cannot be compiled.
    pub message: String,
    /// What to do instead; may be empty.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node '{}' ({}): {}", self.origin, self.what, self.message)?;
        if !self.help.is_empty() {
            write!(f, "\n    help: {}", self.help)?;
        }
        Ok(())
    }
}

/// All problems found, never just the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_joins_two_things_is_neither() {
        let (a, b) = (Origin::named("a").known_as("Min"), Origin::named("b"));
        assert_eq!(a.join(&a), a);
        assert_eq!(a.join(&b.known_as("Min")).what.as_deref(), Some("Min"));
        for other in [b.clone(), b.known_as("Max")] {
            let joined = a.join(&other);
            assert_eq!((joined.to_string().as_str(), joined.what), ("a+b", None));
        }
    }
}
