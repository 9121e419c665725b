//! The facts a ciphertext graph must satisfy before it can become a plan.
//!
//! [`derive()`] walks the graph once and finds level, exact scale, degree and magnitude of every value.
//! Its result, [`Facts`], cannot be made in any other way, and emission demands it: an unverified graph
//! cannot become a plan. Nothing is repaired here; the first contradiction is an error with both
//! numbers and the layer's name.
//!
//! # What is checked
//!
//! * Operands of a sum have one level, one *equal* scale and one degree; so have those of a product, except
//!   that scales multiply.
//! * Only sums, negations, relinearisation and level drops take values of degree 2.
//! * Every operation that chooses a scale states it, and constants are encoded at a scale of at least
//!   2^[`MIN_LOG2_SCALE`].
//! * There are enough levels for every rescale; outputs have degree 1.
//! * `scale · |value|` stays below half the modulus of the level, and polynomials get values in [-1, 1].
//! * Where a slot holds two images there are no polynomials and bootstraps, and products have four times the scale.
//! * Only bootstraps know of the primes above the message level; what they get has the level they begin at, and
//!   `scale · |value|` of at most their input scale.

use super::{Graph, Node, Op, ValueId};
use crate::Origin;
use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::chebyshev::depth_of_degree;
use fhec_math::scale::Scale;
use fhec_plan::verify::MIN_LOG2_SCALE;
use fhec_plan::{LOG2_PARTS, bootstrap_slots};
use std::fmt;

/// What holds for one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Index of the last limb.
    pub level: usize,
    /// Exact scale.
    pub scale: Scale,
    /// 1, or 2 for a product that is not relinearised.
    pub degree: u8,
    /// Bound on the absolute slot values.
    pub bound: f64,
}

/// Level and scale of a fresh input ciphertext.
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh {
    /// Level.
    pub level: usize,
    /// Scale.
    pub scale: Scale,
}

/// The facts of every value of one graph under one modulus chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    values: Vec<Fact>,
    inputs: Vec<Fresh>,
    chain: Vec<u64>,
}

impl Facts {
    /// The fact of a value.
    ///
    /// # Panics
    /// When the value is not of the graph that the facts were derived from.
    pub fn of(&self, id: ValueId) -> &Fact {
        &self.values[id.index()]
    }

    /// Facts of all values, in order.
    pub fn values(&self) -> &[Fact] {
        &self.values
    }

    /// Fresh inputs, indexed by [`Op::Input`].
    pub fn inputs(&self) -> &[Fresh] {
        &self.inputs
    }

    /// The modulus chain, `q[0]` first.
    pub fn chain(&self) -> &[u64] {
        &self.chain
    }
}

/// A contradiction and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct FactError {
    /// The node.
    pub node: ValueId,
    /// Its operation.
    pub op: &'static str,
    /// The layer.
    pub origin: Box<Origin>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// An operand or table index does not exist (or does not precede the node).
    Dangling(&'static str, usize),
    /// The number of operands does not fit the operation.
    Arity {
        /// Operands that the operation takes.
        expected: usize,
        /// Operands present.
        found: usize,
    },
    /// Operands at two levels.
    Levels {
        /// Level of the first operand.
        lhs: usize,
        /// Level of the other.
        rhs: usize,
    },
    /// Operands at two scales.
    Scales {
        /// Scale of the first operand.
        lhs: Scale,
        /// Scale of the other.
        rhs: Scale,
    },
    /// Operands of two degrees.
    Degrees {
        /// Degree of the first operand.
        lhs: u8,
        /// Degree of the other.
        rhs: u8,
    },
    /// A value of degree 2 where degree 1 is needed.
    NotRelinearised,
    /// Relinearisation of a value of degree 1.
    NothingToRelinearise,
    /// The operation consumes more levels than are left.
    Depth {
        /// Level of the operand.
        level: usize,
        /// Levels consumed.
        needed: usize,
    },
    /// A level outside the chain, or a drop upwards.
    Level {
        /// The level asked for.
        asked: usize,
        /// The highest level possible.
        max: usize,
    },
    /// No scale stated.
    NoScale,
    /// A constant would be encoded at a scale too small for the verifier of plans.
    PlaintextScale(Scale),
    /// `scale · |value|` is not below half the modulus.
    Overflow {
        /// log2 of scale times value.
        log2_value: f64,
        /// log2 of half the modulus.
        log2_half_modulus: f64,
    },
    /// A polynomial gets values outside [-1, 1].
    Interval {
        /// Bound on the operand.
        bound: f64,
    },
    /// An operation that would mix the two images of a slot.
    TwoImages,
    /// A bootstrap in a chain that is not laid out for any.
    NoBootstrap,
    /// A bootstrap gets values beyond its range.
    BootstrapRange {
        /// Bound on the operand, in units of the largest values that it takes.
        bound: f64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Dangling(what, index) => write!(f, "{what} {index} does not exist"),
            Problem::Arity { expected, found } => write!(f, "takes {expected} operands, has {found}"),
            Problem::Levels { lhs, rhs } => write!(f, "operands at levels {lhs} and {rhs}"),
            Problem::Scales { lhs, rhs } => write!(f, "operands at scales {lhs} and {rhs}"),
            Problem::Degrees { lhs, rhs } => write!(f, "operands of degrees {lhs} and {rhs}"),
            Problem::NotRelinearised => f.write_str("operand of degree 2 where degree 1 is needed"),
            Problem::NothingToRelinearise => f.write_str("operand already has degree 1"),
            Problem::Depth { level, needed } => write!(f, "needs {needed} levels, operand is at level {level}"),
            Problem::Level { asked, max } => write!(f, "level {asked} asked for, at most {max} possible"),
            Problem::NoScale => f.write_str("scale not chosen"),
            Problem::PlaintextScale(s) => {
                write!(f, "constants would be encoded at scale {s}, below 2^{MIN_LOG2_SCALE}")
            }
            Problem::Overflow { log2_value, log2_half_modulus } => {
                write!(f, "values reach 2^{log2_value:.2} at their scale, half the modulus is 2^{log2_half_modulus:.2}")
            }
            Problem::Interval { bound } => write!(f, "polynomial of values up to {bound}, outside [-1, 1]"),
            Problem::TwoImages => f.write_str("the two images of a slot would be mixed"),
            Problem::NoBootstrap => f.write_str("the modulus chain is not laid out for bootstraps"),
            Problem::BootstrapRange { bound } => write!(f, "values up to {bound} times what a bootstrap takes"),
        }
    }
}

impl fmt::Display for FactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{} {} (layer '{}'): {}", self.node.0, self.op, self.origin, self.problem)
    }
}

impl std::error::Error for FactError {}

/// Tolerance of [`Problem::Interval`] and [`Problem::BootstrapRange`]. Ranges carry a margin beyond the values seen, and an interval is fitted before
/// the layers in front of it are approximated, which moves their range a little.
const INTERVAL_SLACK: f64 = 0.1;

/// Levels that an operation consumes between its operands and its result.
pub fn levels_consumed(graph: &Graph, op: &Op) -> usize {
    match op {
        Op::LinearMap { .. } | Op::Rescale => 1,
        Op::Polynomial { poly, .. } => {
            let coefficients = graph.polynomials.get(poly.index()).map_or(&[][..], |p| &p.chebyshev);
            depth_of_degree(coefficients.iter().rposition(|&c| c != 0.0).unwrap_or(0))
        }
        _ => 0,
    }
}

/// Bound on the absolute slot values of a node.
pub fn bound(node: &Node) -> f64 {
    node.range.lo.abs().max(node.range.hi.abs())
}

/// log2 of how much larger than a value its slot may be: that of two values as parts of a complex number.
pub fn log2_images(graph: &Graph) -> f64 {
    if graph.complex { 0.5 } else { 0.0 }
}

/// A modulus chain, and the bootstraps that it is laid out for.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// The primes, `q[0]` first.
    pub q: &'a [u64],
    /// The circuit of bootstraps.
    pub bootstrap: Option<&'a BootstrapSpec>,
}

impl Chain<'_> {
    /// Highest level of a value.
    fn top(&self) -> usize {
        let last = self.q.len().saturating_sub(1);
        self.bootstrap.map_or(last, |spec| spec.output_level(last).unwrap_or(0))
    }
}

/// Derives the facts of `graph` under a chain with the given fresh inputs.
///
/// # Errors
/// The first contradiction, in node order.
pub fn derive(graph: &Graph, chain: Chain<'_>, inputs: &[Fresh]) -> Result<Facts, FactError> {
    let mut log2_modulus = 0.0;
    let log2_half_modulus: Vec<f64> = chain
        .q
        .iter()
        .map(|&q| {
            log2_modulus += (q as f64).log2();
            log2_modulus - 1.0
        })
        .collect();
    let mut values: Vec<Fact> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let origin = || Box::new(node.origin.clone());
        let fail = |problem| FactError { node: id, op: node.op.name(), origin: origin(), problem };
        let fact = fact(graph, node, &chain, inputs, &values).map_err(fail)?;
        let log2_value = fact.scale.log2() + fact.bound.max(f64::MIN_POSITIVE).log2() + log2_images(graph);
        let half = log2_half_modulus[fact.level];
        if log2_value >= half {
            return Err(fail(Problem::Overflow { log2_value, log2_half_modulus: half }));
        }
        values.push(fact);
    }
    for output in &graph.outputs {
        let problem = match values.get(output.value.index()) {
            None => Problem::Dangling("output value", output.value.index()),
            Some(fact) if fact.degree != 1 => Problem::NotRelinearised,
            Some(_) => continue,
        };
        let origin = Box::new(Origin::named(output.name.clone()));
        return Err(FactError { node: output.value, op: "output", origin, problem });
    }
    Ok(Facts { values, inputs: inputs.to_vec(), chain: chain.q.to_vec() })
}

/// The fact of one node, given those of all earlier ones.
fn fact(graph: &Graph, node: &Node, chain: &Chain<'_>, inputs: &[Fresh], known: &[Fact]) -> Result<Fact, Problem> {
    let mut operands = Vec::with_capacity(node.inputs.len());
    for v in &node.inputs {
        operands.push(known.get(v.index()).ok_or(Problem::Dangling("operand", v.index()))?);
    }
    let expected = match &node.op {
        Op::Input(_) => 0,
        Op::LinearMap { terms, .. } => terms.len().max(1),
        Op::Add | Op::Sub | Op::Mul => 2,
        _ => 1,
    };
    if operands.len() != expected {
        return Err(Problem::Arity { expected, found: operands.len() });
    }
    let bound = bound(node);
    let Some(&first) = operands.first() else {
        let Op::Input(index) = node.op else { return Err(Problem::Arity { expected: 1, found: 0 }) };
        let fresh = inputs.get(index).ok_or(Problem::Dangling("input", index))?;
        if fresh.level > chain.top() {
            return Err(Problem::Level { asked: fresh.level, max: chain.top() });
        }
        return Ok(Fact { level: fresh.level, scale: fresh.scale.clone(), degree: 1, bound });
    };
    let keep = |scale: Scale| Fact { level: first.level, scale, degree: 1, bound };
    let one_degree = || operands.iter().all(|o| o.degree == 1).then_some(()).ok_or(Problem::NotRelinearised);
    match &node.op {
        Op::Input(_) => Err(Problem::Arity { expected: 0, found: operands.len() }),
        Op::LinearMap { out_scale, .. } => {
            one_degree()?;
            same_level(&operands)?;
            let out_scale = out_scale.as_ref().ok_or(Problem::NoScale)?;
            let level = consume(first.level, 1)?;
            let q = Scale::prime(chain.q[first.level]);
            for operand in &operands {
                fine_enough(&out_scale.mul(&q).div(&operand.scale))?;
            }
            Ok(Fact { level, scale: out_scale.clone(), degree: 1, bound })
        }
        Op::Polynomial { out_scale, .. } => {
            one_degree()?;
            one_image(graph)?;
            if first.bound > 1.0 + INTERVAL_SLACK {
                return Err(Problem::Interval { bound: first.bound });
            }
            let level = consume(first.level, levels_consumed(graph, &node.op))?;
            Ok(Fact { level, scale: out_scale.clone().ok_or(Problem::NoScale)?, degree: 1, bound })
        }
        Op::Add | Op::Sub => {
            same_level(&operands)?;
            let other = operands[1];
            if first.degree != other.degree {
                return Err(Problem::Degrees { lhs: first.degree, rhs: other.degree });
            }
            if first.scale != other.scale {
                return Err(Problem::Scales { lhs: first.scale.clone(), rhs: other.scale.clone() });
            }
            Ok(Fact { degree: first.degree, ..keep(first.scale.clone()) })
        }
        Op::Mul => {
            one_degree()?;
            same_level(&operands)?;
            let scale = first.scale.mul(&operands[1].scale);
            // Products of the parts of complex slots come with a factor that costs nothing in the scale.
            let scale = if graph.complex { scale.mul(&Scale::pow2(LOG2_PARTS)) } else { scale };
            Ok(Fact { degree: 2, ..keep(scale) })
        }
        Op::MulScalar { scale, .. } | Op::MulVector { scale, .. } => {
            one_degree()?;
            let scale = scale.as_ref().ok_or(Problem::NoScale)?;
            fine_enough(scale)?;
            Ok(keep(first.scale.mul(scale)))
        }
        Op::Negate => Ok(Fact { degree: first.degree, ..keep(first.scale.clone()) }),
        Op::AddScalar(_) | Op::AddVector(_) | Op::Rotate(_) => {
            one_degree()?;
            Ok(keep(first.scale.clone()))
        }
        Op::Relinearise if first.degree == 1 => Err(Problem::NothingToRelinearise),
        Op::Relinearise => Ok(keep(first.scale.clone())),
        Op::Rescale => {
            one_degree()?;
            let level = consume(first.level, 1)?;
            Ok(Fact { level, ..keep(first.scale.div(&Scale::prime(chain.q[first.level]))) })
        }
        Op::LevelDrop(level) if *level > first.level => Err(Problem::Level { asked: *level, max: first.level }),
        Op::LevelDrop(level) => Ok(Fact { level: *level, degree: first.degree, ..keep(first.scale.clone()) }),
        Op::Bootstrap { level, out_scale } => {
            one_degree()?;
            one_image(graph)?;
            let spec = chain.bootstrap.ok_or(Problem::NoBootstrap)?;
            if *level > chain.top() {
                return Err(Problem::Level { asked: *level, max: chain.top() });
            }
            consume(first.level, spec.input_level(bootstrap_slots(node.layout.period)))?;
            let relative = first.bound * first.scale.div(&spec.input_scale).to_f64();
            if relative > 1.0 + INTERVAL_SLACK {
                return Err(Problem::BootstrapRange { bound: relative });
            }
            Ok(Fact { level: *level, scale: out_scale.clone().ok_or(Problem::NoScale)?, degree: 1, bound })
        }
    }
}

/// Refuses what would mix the two images of a slot.
fn one_image(graph: &Graph) -> Result<(), Problem> {
    if graph.complex { Err(Problem::TwoImages) } else { Ok(()) }
}

fn consume(level: usize, needed: usize) -> Result<usize, Problem> {
    level.checked_sub(needed).ok_or(Problem::Depth { level, needed })
}

fn same_level(operands: &[&Fact]) -> Result<(), Problem> {
    match operands.iter().find(|o| o.level != operands[0].level) {
        Some(other) => Err(Problem::Levels { lhs: operands[0].level, rhs: other.level }),
        None => Ok(()),
    }
}

fn fine_enough(scale: &Scale) -> Result<(), Problem> {
    if scale.log2() >= MIN_LOG2_SCALE { Ok(()) } else { Err(Problem::PlaintextScale(scale.clone())) }
}
