//! Composition of a dense layer with the linear operation before it, as one dense layer.

use crate::lower::{Entries, Lowering};
use fhec_ir::nn::{Graph, Node, Op, Output, Range, ValueId};
use fhec_ir::{Origin, Tensor};
use rayon::prelude::*;

/// The entries of node `v`; `None` when it is not a linear map of one value or has more than `limit`.
pub(crate) fn entries(graph: &Graph, v: ValueId, limit: usize) -> Option<Entries> {
    let node = graph.node(v);
    let linear = matches!(
        node.op,
        Op::Conv(_) | Op::Dense { .. } | Op::AveragePool(_) | Op::ReduceMean { .. } | Op::ReduceSum { .. }
    );
    let &[source] = node.inputs.as_slice() else { return None };
    if !linear {
        return None;
    }
    // The operation alone, between values of magnitude 1, so that no factor is moved anywhere.
    let unit = Some(Range { lo: -1.0, hi: 1.0 });
    let shape = graph.node(source).shape.clone();
    let mut alone = Graph { constants: graph.constants.clone(), ..Graph::default() };
    let x = alone.push(Op::Input { name: String::new() }, vec![], shape, Origin::default());
    alone.nodes.push(Node { inputs: vec![x], range: unit, ..node.clone() });
    alone.nodes[0].range = unit;
    alone.outputs.push(Output { name: String::new(), value: ValueId(1) });
    Lowering::new(&alone).ok()?.dense_entries(limit)
}

/// `weight · map`, with the bias that the map's constant adds.
pub(crate) fn compose(weight: &Tensor, map: &Entries) -> (Tensor, Vec<f64>) {
    let (rows, inner) = (weight.shape()[0], weight.shape()[1]);
    let values = weight.values().par_chunks(ROWS * inner.max(1)).flat_map_iter(|rows| some_rows(rows, inner, map));
    let values = values.collect();
    let bias = (0..rows)
        .map(|o| map.constant.iter().enumerate().map(|(i, c)| c * weight.values()[o * inner + i]).sum())
        .collect();
    (Tensor::new(vec![rows, map.inputs], values), bias)
}

/// Rows of the weight that are taken together: few enough for the second cache.
const ROWS: usize = 32;

/// Some rows of `weight · map`.
fn some_rows(weight: &[f64], inner: usize, map: &Entries) -> Vec<f64> {
    let rows = weight.len() / inner;
    // Transposed, so that every entry of the map adds one row to another.
    let mut columns = vec![0.0; inner * rows];
    for (o, row) in weight.chunks_exact(inner).enumerate() {
        row.iter().enumerate().for_each(|(i, w)| columns[i * rows + o] = *w);
    }
    let mut composed = vec![0.0; map.inputs * rows];
    for &(through, from, by) in &map.entries {
        let (source, target) = (through as usize * rows, from as usize * rows);
        let target = &mut composed[target..target + rows];
        target.iter_mut().zip(&columns[source..source + rows]).for_each(|(t, c)| *t += by * c);
    }
    let mut values = vec![0.0; rows * map.inputs];
    for (i, column) in composed.chunks_exact(rows).enumerate() {
        column.iter().enumerate().for_each(|(o, v)| values[o * map.inputs + i] = *v);
    }
    values
}
