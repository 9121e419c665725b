//! Rows of matrices between ciphertexts that hold one element each, against an enumeration of all points by counting; and what
//! a plan of such matrices may ask for.

mod common;

use common::{dim, parameters, stride};
use fhec_math::scale::Scale;
use fhec_plan::verify::verify;
use fhec_plan::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Every point of a nest as (row, column, weight), outermost loop slowest.
fn points(nest: &Nest) -> Vec<[i64; 3]> {
    let count: usize = nest.dims.iter().map(|d| d.extent).product();
    let mut found = Vec::new();
    for mut number in 0..count {
        let mut index = vec![0; nest.dims.len()];
        for (i, d) in index.iter_mut().zip(&nest.dims).rev() {
            (*i, number) = (number % d.extent, number / d.extent);
        }
        let within = |g: &Guard| {
            let sum: i64 = g.coefficients.iter().zip(&index).map(|(c, &i)| c * i as i64).sum();
            (0..g.extent).contains(&(g.constant + sum))
        };
        if nest.guards.iter().all(within) {
            let sum = |start: i64, of: fn(&NestDim) -> &Offsets| {
                start + nest.dims.iter().zip(&index).map(|(d, &i)| of(d).at(i)).sum::<i64>()
            };
            found.push([sum(nest.row, |d| &d.row), sum(nest.col, |d| &d.col), sum(nest.weight, |d| &d.weight)]);
        }
    }
    found
}

/// The entries of a matrix by row and column, and how many points hit each.
fn naive(m: &Matrix, weights: &Weights) -> BTreeMap<(u32, u32), (f64, usize)> {
    let mut entries = BTreeMap::new();
    for nest in &m.nests {
        let values = nest.tensor.map(|t| weights.values(t));
        for [row, col, weight] in points(nest) {
            let value = nest.factor * values.as_ref().map_or(1.0, |v| v[weight as usize]);
            let entry = entries.entry((row as u32, col as u32)).or_insert((0.0, 0));
            *entry = (entry.0 + value, entry.1 + 1);
        }
    }
    entries
}

fn check(m: &Matrix, weights: &Weights) {
    let want = naive(m, weights);
    let mut budget = structure::Budget { ..structure::Budget::NONE };
    let found = Diagonals::checked(m, &mut budget, |t| weights.len_of(t)).expect("it is sound");
    let (rows, tensors) = (found.rows().expect("ciphertexts hold one element"), Diagonals::tensors(m, weights));
    assert_eq!((found.len(), found.keys().len()), (want.len(), 0));
    let (mut entries, mut hits) = (Vec::new(), 0);
    for row in 0..m.out_ciphertexts as u32 {
        rows.row(m, &tensors, row, &mut entries);
        let own: Vec<(u32, f64)> = want.range((row, 0)..(row + 1, 0)).map(|((_, col), (v, _))| (*col, *v)).collect();
        assert_eq!(entries.len(), own.len(), "row {row}");
        for (a, b) in entries.iter().zip(&own) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-12, "row {row}: {a:?}, not {b:?}");
        }
        rows.for_each(m, &tensors, row, |col, _| {
            assert!(want.contains_key(&(row, col)));
            hits += 1;
        });
    }
    assert_eq!(hits, want.values().map(|(_, hits)| hits).sum::<usize>());
    let nonzero = want.values().filter(|(v, _)| *v != 0.0).count();
    // A sum of weights that cancel may be rounded otherwise.
    if want.values().all(|(_, hits)| *hits == 1) {
        assert_eq!(rows.nonzero(m, &tensors), nonzero);
    }
    assert!(found.bytes() <= 4 * (m.out_ciphertexts + 1) + 8 * hits, "{} bytes", found.bytes());
}

fn weights(n: usize) -> Weights {
    let value = |i: usize| if i % 7 == 3 { 0.0 } else { (i as f64 * 0.37).sin() + 0.01 };
    Weights::from_tensors([(0..n).map(value).collect::<Vec<_>>().as_slice()])
}

fn matrix(inputs: usize, outputs: usize, nests: Vec<Nest>) -> Matrix {
    Matrix { slots: 1, in_ciphertexts: inputs, in_period: 1, out_ciphertexts: outputs, out_period: 1, nests }
}

fn nest(dims: Vec<NestDim>, col: i64, tensor: Option<u32>, guards: Vec<Guard>) -> Nest {
    Nest { dims, row: 0, col, weight: 0, tensor: tensor.map(TensorId), factor: 0.5, guards }
}

/// A convolution or pooling over square images, channel after channel.
#[derive(Clone, Debug)]
struct Window {
    channels: [usize; 2],
    size: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
    depthwise: bool,
    /// Rows of pixels as tables instead of strides.
    tables: bool,
}

impl Window {
    /// The matrix and its number of weights.
    fn matrix(&self) -> Option<(Matrix, usize)> {
        let Window { channels: [cin, cout], size, kernel, stride: s, pad, dilation, depthwise, tables } = *self;
        let out = (size + 2 * pad).checked_sub(dilation * (kernel - 1) + 1)? / s + 1;
        let [n, k, o, stepped] = [size, kernel, out, s].map(|v| v as i64);
        let reach = dilation as i64;
        let cout = if depthwise { cin } else { cout };
        let channels = match depthwise {
            true => vec![dim(cin, o * o, n * n, k * k)],
            false => vec![dim(cout, o * o, 0, cin as i64 * k * k), dim(cin, 0, n * n, k * k)],
        };
        let first = channels.len();
        let mut dims = channels;
        dims.extend([dim(kernel, 0, n * reach, k), dim(kernel, 0, reach, 1)]);
        dims.extend([dim(out, o, stepped * n, 0), dim(out, 1, stepped, 0)]);
        if tables {
            let d = &mut dims[first + 2];
            (d.row, d.col) = (Offsets::Table(d.row.table(out)), Offsets::Table(d.col.table(out)));
        }
        let guard = |axis: usize| {
            let mut coefficients = vec![0; dims.len()];
            coefficients[first + axis] = reach;
            coefficients[first + 2 + axis] = stepped;
            Guard { coefficients, constant: -(pad as i64), extent: n }
        };
        let (guards, col) = (vec![guard(0), guard(1)], -(pad as i64) * (n + 1));
        let count = if depthwise { cin } else { cin * cout } * kernel * kernel;
        Some((matrix(cin * size * size, cout * out * out, vec![nest(dims, col, Some(0), guards)]), count))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows(channels in [1usize..5, 1usize..5], size in 1usize..7, kernel in 1usize..4, stride in 1usize..4, pad in 0usize..3,
               dilation in 1usize..3, depthwise: bool, tables: bool) {
        let window = Window { channels, size, kernel, stride, pad, dilation, depthwise, tables };
        if let Some((m, n)) = window.matrix() {
            check(&m, &weights(n));
        }
    }

    #[test]
    fn dense_layers(rows in 1usize..30, cols in 1usize..30) {
        let dense = nest(vec![dim(rows, 1, 0, cols as i64), dim(cols, 0, 1, 1)], 0, Some(0), vec![]);
        // Twice the same nest: entries add up.
        check(&matrix(cols, rows, vec![dense.clone(), dense]), &weights(rows * cols));
    }
}

#[test]
fn a_row_may_come_from_several_places_of_one_nest() {
    // A transposed convolution: pixel y and tap k make row 2y + k, so that neighbours overlap.
    let dims = vec![dim(5, 2, 1, 0), dim(4, 1, 0, 1)];
    check(&matrix(5, 12, vec![nest(dims, 0, Some(0), vec![])]), &weights(4));
    // The loop that stays in its row is the outer one, and every entry is hit three times.
    let dims = vec![dim(3, 0, 0, 1), dim(6, 1, 1, 2)];
    check(&matrix(6, 6, vec![nest(dims, 0, Some(0), vec![])]), &weights(14));
    // Copies, backwards, without weights; and nothing at all.
    let dims = vec![NestDim { extent: 3, row: Offsets::Table(vec![2, 1, 0]), col: stride(1), weight: stride(0) }];
    check(&matrix(4, 3, vec![nest(dims, 1, None, vec![])]), &weights(1));
    check(&matrix(4, 3, vec![nest(vec![dim(0, 1, 1, 1), dim(9, 1, 1, 1)], 0, Some(0), vec![])]), &weights(1));
    // A point that no guard admits may lie anywhere.
    let never = Guard { coefficients: vec![1], constant: -2, extent: 3 };
    check(&matrix(9, 9, vec![nest(vec![dim(9, 2, -1, 0)], 6, None, vec![never])]), &weights(1));
}

#[test]
fn a_use_of_a_weight_takes_less_than_a_byte() {
    let window = Window {
        channels: [16, 24],
        size: 20,
        kernel: 3,
        stride: 1,
        pad: 1,
        dilation: 1,
        depthwise: false,
        tables: false,
    };
    let (m, n) = window.matrix().expect("it fits");
    let found = Diagonals::of(&m);
    assert!(found.len() > 1_000_000 && found.bytes() < found.len() / 8, "{} bytes for {}", found.bytes(), found.len());
    assert_eq!(found.runs(), 24 * 20 * 20);
    // Depthwise, the worst of convolutions.
    let (m, _) = Window { depthwise: true, ..window }.matrix().expect("it fits");
    let found = Diagonals::of(&m);
    assert!(found.bytes() < 2 * found.len(), "{} bytes for {}", found.bytes(), found.len());
    assert_eq!(n, 16 * 24 * 9);
}

/// A plan of one linear map, with one image in each slot.
fn plan(m: Matrix, terms: usize) -> Plan {
    let (mut plan, scale) = (common::sample(), Scale::pow2(30));
    plan.parameters = parameters(1);
    plan.keys = KeyManifest::default();
    let (x, y) = (&mut plan.inputs[0], &mut plan.outputs[0]);
    (x.shape, x.layout, x.level) = (vec![1, m.in_ciphertexts], Layout::batched(m.in_ciphertexts), 1);
    (y.shape, y.layout, y.level) = (vec![1, m.out_ciphertexts], Layout::batched(m.out_ciphertexts), 0);
    let terms = vec![LinearTerm { src: Reg(0), matrix: MatrixId(0), baby: 1 }; terms];
    let ops =
        [Op::Input(0), Op::LinearMap { terms, bias: None, out_scale: scale }, Op::Output { src: Reg(1), output: 0 }];
    let instruction = |(dst, op)| Instruction { dst: Reg(dst), layer: LayerId(0), op };
    plan.instructions = (0..).zip(ops).map(instruction).collect();
    plan.matrices = vec![m];
    plan.vectors = vec![];
    plan
}

fn refused(parts: &[&str], m: Matrix, terms: usize) {
    let message = verify(&plan(m, terms), Insecure::AllowForTests).expect_err("it must be refused").to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn hostile_matrices_are_refused() {
    let dense =
        |rows, cols| matrix(cols, rows, vec![nest(vec![dim(rows, 1, 0, 8), dim(cols, 0, 1, 1)], 0, Some(0), vec![])]);
    assert!(verify(&plan(dense(10, 8), 1), Insecure::AllowForTests).is_ok());
    refused(&["matrix 0", "nest 0", "leaves the matrix", "weight 80"], dense(11, 8), 1);
    for (row, col, what) in [(-1, 0, "row -1"), (1, 0, "row 10"), (0, -1, "column -1"), (0, 1, "column 8")] {
        let mut m = dense(10, 8);
        (m.nests[0].row, m.nests[0].col) = (row, col);
        refused(&["matrix 0", "nest 0", "leaves the matrix", what], m, 1);
    }
    let mut m = dense(10, 8);
    m.nests[0].weight = -1;
    refused(&["leaves the matrix", "weight -1"], m, 1);
    let mut m = dense(10, 8);
    m.nests[0].tensor = Some(TensorId(9));
    refused(&["no weight tensor"], m, 1);
}

/// Each is a few hundred bytes of plan, and refused without the work or memory that it asks for.
#[test]
fn work_and_memory_are_bounded() {
    let row = |extent: usize| nest(vec![dim(extent, 1, 0, 0)], 0, None, vec![]);
    let one = nest(vec![], 0, None, vec![]);
    // Places that are kept: eight bytes each, as many as weights justify.
    let rows = 1 << 20;
    refused(&["matrix 0", "more runs than its weights justify"], matrix(1, rows, vec![row(rows); 8]), 1);
    // Points, admitted or not, are walked.
    let all = nest(vec![dim(1 << 14, 1, 0, 0), dim(1 << 14, 0, 1, 0)], 0, None, vec![]);
    refused(&["matrix 0", "nest 0", "runs to try"], matrix(1 << 14, 1 << 14, vec![all]), 1);
    // Matrices with nothing in them.
    let mut many = plan(matrix(1, 1, vec![one.clone()]), 1);
    many.matrices.extend(vec![matrix(1 << 20, 1 << 20, vec![one]); 100]);
    let message = verify(&many, Insecure::AllowForTests).expect_err("it must be refused").to_string();
    assert!(message.contains("justif"), "{message}");
    // Uses of one matrix by many terms.
    let all = nest(vec![dim(1 << 10, 1, 0, 0), dim(1 << 10, 0, 1, 0)], 0, None, vec![]);
    let m = matrix(1 << 10, 1 << 10, vec![all]);
    assert!(verify(&plan(m.clone(), 64), Insecure::AllowForTests).is_ok());
    refused(&["instruction 1", "diagonals together"], m, 65);
}
