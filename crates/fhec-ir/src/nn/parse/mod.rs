//! Reads the text form that [`print`](mod@super::print) writes.
//!
//! A constant is `[v, …]`, `full v`, `hash h` (looked up in the given table) or, for graphs written by
//! hand, `random SEED`: values in [−1, 1) from a fixed generator.

mod lexer;
mod op;

use super::graph::{Graph, Node, Output, Range, ValueId};
use super::print;
use super::shape::elements;
use crate::{Origin, Tensor};
use lexer::{Lexer, Token};
use std::collections::BTreeMap;

/// A text that is no graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What was expected or does not fit.
    pub message: String,
}

/// Parses a graph; `table` holds the tensors that stand in the text as hashes. The result is not
/// verified.
pub fn parse(text: &str, table: &[Tensor]) -> Result<Graph, ParseError> {
    let table: BTreeMap<u64, &Tensor> = table.iter().map(|t| (print::hash(t), t)).collect();
    let mut lexer = Lexer::new(text)?;
    lexer.word("graph")?;
    let mut graph = Graph { name: lexer.string()?, ..Graph::default() };
    lexer.symbol('{')?;
    loop {
        match lexer.next() {
            Token::Symbol('}') => break,
            Token::Symbol('%') => {
                let id = lexer.integer()?;
                if id != graph.nodes.len() {
                    return Err(lexer.error(format!("%{id} where %{} follows", graph.nodes.len())));
                }
                lexer.symbol('=')?;
                let node = node(&mut lexer)?;
                graph.nodes.push(node);
            }
            Token::Symbol('$') => {
                let id = lexer.integer()?;
                if id != graph.constants.len() {
                    return Err(lexer.error(format!("${id} where ${} follows", graph.constants.len())));
                }
                lexer.symbol(':')?;
                let shape = shape(&mut lexer)?;
                lexer.symbol('=')?;
                let tensor = constant(&mut lexer, shape, &table)?;
                graph.constants.push(tensor);
            }
            Token::Word(word) if word == "output" => {
                let name = lexer.string()?;
                lexer.symbol('=')?;
                lexer.symbol('%')?;
                graph.outputs.push(Output { name, value: ValueId(lexer.id()?) });
            }
            other => return Err(lexer.error(format!("expected a node, an output or a constant, found {other}"))),
        }
    }
    match lexer.next() {
        Token::End => Ok(graph),
        other => Err(lexer.error(format!("{other} after the graph"))),
    }
}

/// `Op(arguments) : shape in [lo, hi] @ "origin"+"origin" as "what"`.
fn node(lexer: &mut Lexer) -> Result<Node, ParseError> {
    let name = lexer.any_word()?;
    let (inputs, mut arguments) = op::arguments(lexer)?;
    let op = op::build(&name, &mut arguments).map_err(|message| lexer.error(message))?;
    lexer.symbol(':')?;
    let shape = shape(lexer)?;
    let mut range = None;
    if lexer.take_word("in") {
        lexer.symbol('[')?;
        let lo = lexer.number()?;
        lexer.symbol(',')?;
        let hi = lexer.number()?;
        lexer.symbol(']')?;
        range = Some(Range { lo, hi });
    }
    let mut origin = Origin::default();
    if lexer.take('@') {
        origin.names.push(lexer.string()?);
        while lexer.take('+') {
            origin.names.push(lexer.string()?);
        }
    }
    if lexer.take_word("as") {
        origin.what = Some(lexer.string()?);
    }
    Ok(Node { op, inputs, shape, origin, range, distribution: None })
}

/// `1x2x3` or `scalar`.
fn shape(lexer: &mut Lexer) -> Result<Vec<usize>, ParseError> {
    let word = lexer.any_word()?;
    if word == "scalar" {
        return Ok(vec![]);
    }
    let extents: Result<Vec<usize>, _> = word.split('x').map(str::parse).collect();
    match extents {
        Ok(shape) if elements(&shape).is_some() => Ok(shape),
        _ => Err(lexer.error(format!("'{word}' is no shape"))),
    }
}

fn constant(lexer: &mut Lexer, shape: Vec<usize>, table: &BTreeMap<u64, &Tensor>) -> Result<Tensor, ParseError> {
    // A text of a few bytes may not ask for any amount of memory.
    const LIMIT: usize = 1 << 26;
    let count = elements(&shape).filter(|&n| n <= LIMIT);
    if lexer.take('[') {
        let values = lexer.list_after_bracket()?;
        return match count {
            Some(n) if n == values.len() => Ok(Tensor::new(shape, values)),
            _ => Err(lexer.error(format!("{} values for shape {shape:?}", values.len()))),
        };
    }
    let kind = lexer.any_word()?;
    match (kind.as_str(), count) {
        ("full", Some(_)) => Ok(Tensor::full(shape, lexer.number()?)),
        ("random", Some(n)) => Ok(Tensor::new(shape, random(lexer.integer()? as u64, n))),
        ("hash", _) => {
            let word = lexer.any_word()?;
            let found = u64::from_str_radix(&word, 16).ok().and_then(|h| table.get(&h));
            match found {
                Some(&tensor) if tensor.shape() == shape => Ok(tensor.clone()),
                _ => Err(lexer.error(format!("the table has no tensor of shape {shape:?} and hash {word}"))),
            }
        }
        _ => Err(lexer.error(format!("'{kind}' constant of shape {shape:?}"))),
    }
}

/// `n` values in [−1, 1) by SplitMix64 (Steele, Lea, Flood 2014).
pub fn random(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}
