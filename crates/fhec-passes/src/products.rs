//! Products of a graph's matrices with many columns of numbers at once.
//!
//! A nest is a small dense matrix at many places: its loops over output channels move the row alone, those over input channels the column
//! alone, and all others (kernel and pixels) go to the next place. So what is at some places is gathered into panels, the small matrix,
//! which is the same for all pixels, multiplies them while they are in cache, and the sums are scattered.

use crate::magnitudes::Flat;
use fhec_ir::he::Graph;
use fhec_ir::matmul::{PANEL, Packed};
use fhec_plan::{MatrixId, Nest, Offsets};

/// Most rows and columns of a small matrix: it stays in the second cache.
const MOST_ROWS: usize = 64;
const MOST_COLUMNS: usize = 256;

/// Numbers by slot of a packed tensor, side by side for each slot.
#[derive(Clone, Copy)]
pub(crate) struct Slots {
    /// Where slots are.
    pub(crate) flat: Flat,
    /// Numbers of a slot.
    pub(crate) width: usize,
}

/// Adds `M·x` to `out`, with as many numbers a slot on both sides.
pub(crate) fn add_product(graph: &Graph, matrix: MatrixId, (from, x): (Slots, &[f64]), (to, out): (Slots, &mut [f64])) {
    for nest in &graph.matrices[matrix.index()].nests {
        Product::new(graph, nest, false).run((from, x), (to, out, 0));
    }
}

/// Adds `Mᵀ·y` to some of the numbers of every slot of `out`, from number `first` on.
pub(crate) fn add_transposed(
    graph: &Graph,
    matrix: MatrixId,
    (from, y): (Slots, &[f64]),
    (to, out, first): (Slots, &mut [f64], usize),
) {
    for nest in &graph.matrices[matrix.index()].nests {
        Product::new(graph, nest, true).run((from, y), (to, out, first));
    }
}

/// A step of the slot and of the weight.
#[derive(Clone, Copy)]
struct Step {
    slot: i64,
    weight: i64,
}

/// A nest, taken apart.
struct Product<'a> {
    nest: &'a Nest,
    /// None where all weights are one.
    weights: Option<&'a [f64]>,
    /// The transpose is meant: rows are read and columns written.
    turned: bool,
    /// From the first place that is read to all that one small matrix reads.
    reads: Vec<Step>,
    writes: Vec<Step>,
    /// The other loops, first those that go on to other weights.
    places: Vec<usize>,
}

impl<'a> Product<'a> {
    fn new(graph: &'a Graph, nest: &'a Nest, turned: bool) -> Self {
        let still = |offsets: &Offsets, extent: usize| (0..extent).all(|i| offsets.at(i) == 0);
        let (mut rows, mut columns) = (vec![Step { slot: 0, weight: 0 }], vec![Step { slot: 0, weight: 0 }]);
        let (mut weighted, mut places) = (Vec::new(), Vec::new());
        for (d, dim) in nest.dims.iter().enumerate() {
            let guarded = nest.guards.iter().any(|g| g.coefficients[d] != 0);
            let add = |steps: &mut Vec<Step>, offsets: &Offsets| {
                let step = |s: &Step, i| Step { slot: s.slot + offsets.at(i), weight: s.weight + dim.weight.at(i) };
                *steps = steps.iter().flat_map(|s| (0..dim.extent).map(move |i| step(s, i))).collect();
            };
            if !guarded && still(&dim.col, dim.extent) {
                add(&mut rows, &dim.row);
            } else if !guarded && still(&dim.row, dim.extent) {
                add(&mut columns, &dim.col);
            } else if still(&dim.weight, dim.extent) {
                places.push(d);
            } else {
                weighted.push(d);
            }
        }
        weighted.extend(places);
        let weights = nest.tensor.map(|t| graph.tensors[t.index()].values());
        let (reads, writes) = if turned { (rows, columns) } else { (columns, rows) };
        Product { nest, weights, turned, reads, writes, places: weighted }
    }

    fn run(&self, from: (Slots, &[f64]), to: (Slots, &mut [f64], usize)) {
        let width = from.0.width;
        if width == 0 {
            return;
        }
        // As many places as fill whole panels.
        let together = (1..=PANEL).find(|p| (p * width).is_multiple_of(PANEL)).unwrap_or(PANEL);
        let mut batch =
            Batch { from, to, together, places: Vec::with_capacity(together), panel: Vec::new(), runs: Vec::new() };
        for writes in self.writes.chunks(MOST_ROWS) {
            for reads in self.reads.chunks(MOST_COLUMNS) {
                let mut packed: Option<(i64, Packed)> = None;
                self.nest.for_each_over(&self.places, |row, col, weight| {
                    if packed.as_ref().is_none_or(|(at, _)| *at != weight) {
                        if let Some((_, last)) = &packed {
                            batch.flush(last, reads, writes);
                        }
                        packed = Some((weight, self.packed(weight, reads, writes)));
                    }
                    batch.places.push(if self.turned { [row, col] } else { [col, row] });
                    if let Some((_, packed)) = packed.as_ref().filter(|_| batch.places.len() == together) {
                        batch.flush(packed, reads, writes);
                    }
                });
                if let Some((_, last)) = &packed {
                    batch.flush(last, reads, writes);
                }
            }
        }
    }

    fn packed(&self, first: i64, reads: &[Step], writes: &[Step]) -> Packed {
        let at = |r: usize, c: usize| {
            let weight = first + writes[r].weight + reads[c].weight;
            self.nest.factor * self.weights.map_or(1.0, |w| w[weight as usize])
        };
        Packed::new(writes.len(), reads.len(), at)
    }
}

/// Places that are multiplied together.
struct Batch<'a> {
    from: (Slots, &'a [f64]),
    to: (Slots, &'a mut [f64], usize),
    /// How many there may be.
    together: usize,
    /// The first slot that is read and the first that is written.
    places: Vec<[i64; 2]>,
    panel: Vec<[f64; PANEL]>,
    runs: Vec<Run>,
}

/// Columns of a panel that belong to one place.
struct Run {
    /// The first column.
    at: usize,
    place: usize,
    /// Its number of the slot.
    number: usize,
    length: usize,
}

impl Batch<'_> {
    /// Multiplies what is at the places, and forgets them.
    fn flush(&mut self, packed: &Packed, reads: &[Step], writes: &[Step]) {
        let ((from, source), (to, out, first)) = (self.from, (self.to.0, &mut *self.to.1, self.to.2));
        let (width, places) = (from.width, &self.places);
        debug_assert!(places.len() <= self.together);
        let columns = places.len() * width;
        for start in (0..columns).step_by(PANEL) {
            self.runs.clear();
            self.runs.extend(runs(start, PANEL.min(columns - start), width));
            self.panel.clear();
            self.panel.resize(reads.len(), [0.0; PANEL]);
            for run in &self.runs {
                let place = places[run.place][0];
                for (column, step) in self.panel.iter_mut().zip(reads) {
                    let at = from.flat.at(place + step.slot) * width + run.number;
                    column[run.at..run.at + run.length].copy_from_slice(&source[at..at + run.length]);
                }
            }
            packed.times_panel(&self.panel, |r, sums| {
                for run in &self.runs {
                    let at = to.flat.at(places[run.place][1] + writes[r].slot) * to.width + first + run.number;
                    let sums = &sums[run.at..run.at + run.length];
                    out[at..at + run.length].iter_mut().zip(sums).for_each(|(o, s)| *o += s);
                }
            });
        }
        self.places.clear();
    }
}

/// The runs of a panel that begins with column `start` of all and uses so many.
fn runs(start: usize, used: usize, width: usize) -> impl Iterator<Item = Run> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (place, number) = ((start + at) / width, (start + at) % width);
        let length = (width - number).min(used - at);
        let run = (length > 0).then_some(Run { at, place, number, length });
        at += length;
        run
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_ir::Tensor;
    use fhec_ir::he::interpret::weights;
    use fhec_plan::{Guard, Layout, Matrix, NestDim};

    fn dim(extent: usize, row: Offsets, col: i64, weight: i64) -> NestDim {
        NestDim { extent, row, col: Offsets::Stride(col), weight: Offsets::Stride(weight) }
    }

    fn wave(n: usize) -> Vec<f64> {
        (0..n).map(|i| (1.3 * i as f64).sin()).collect()
    }

    /// A matrix with one nest over `tensor` weights, between layouts of so many ciphertexts of 128 slots.
    fn graph(nest: Nest, tensor: usize, [input, output]: [(usize, usize); 2]) -> (Graph, MatrixId) {
        let mut g = Graph { name: "g".into(), slots: 128, ..Graph::default() };
        let tensor = (tensor > 0).then(|| g.tensor(Tensor::new(vec![tensor], wave(tensor))));
        let matrix = g.matrix(Matrix {
            slots: 128,
            in_ciphertexts: input.0,
            in_period: input.1,
            out_ciphertexts: output.0,
            out_period: output.1,
            nests: vec![Nest { tensor, ..nest }],
        });
        (g, matrix)
    }

    /// 3x3 windows over two images of 4x4 and three channels each, padded, to four channels that a table puts out of order.
    fn convolution() -> (Graph, MatrixId) {
        let stride = Offsets::Stride;
        let dims = vec![
            dim(2, stride(128), 128, 0),
            dim(4, Offsets::Table(vec![16, 0, 48, 32]), 0, 27),
            dim(3, stride(0), 16, 9),
            dim(3, stride(0), 4, 3),
            dim(3, stride(0), 1, 1),
            dim(4, stride(4), 4, 0),
            dim(4, stride(1), 1, 0),
        ];
        let guard = |a, b| {
            let coefficients = (0..7).map(|d| i64::from(d == a || d == b)).collect();
            Guard { coefficients, constant: -1, extent: 4 }
        };
        let guards = vec![guard(3, 5), guard(4, 6)];
        let nest = Nest { dims, row: 0, col: -5, weight: 0, tensor: None, factor: 0.5, guards };
        graph(nest, 4 * 27, [(2, 128), (2, 128)])
    }

    /// 100 outputs of 300 inputs: several small matrices.
    fn dense() -> (Graph, MatrixId) {
        let dims = vec![dim(100, Offsets::Stride(1), 0, 300), dim(300, Offsets::Stride(0), 1, 1)];
        let nest = Nest { dims, row: 0, col: 0, weight: 0, tensor: None, factor: 1.0, guards: vec![] };
        graph(nest, 30_000, [(3, 128), (1, 128)])
    }

    /// One channel each, with short periods and no weights.
    fn depthwise() -> (Graph, MatrixId) {
        let dims = vec![dim(5, Offsets::Stride(2), 3, 0), dim(2, Offsets::Stride(0), 1, 0)];
        let nest = Nest { dims, row: 1, col: 0, weight: 0, tensor: None, factor: -2.0, guards: vec![] };
        graph(nest, 0, [(1, 16), (1, 16)])
    }

    #[test]
    fn products_and_transposes_are_those_of_the_matrix() {
        for (name, (g, id)) in [("convolution", convolution()), ("dense", dense()), ("depthwise", depthwise())] {
            let matrix = &g.matrices[id.index()];
            let flat = |ciphertexts, period| {
                let layout = Layout { ciphertexts, ..Layout::dense(period, 128, period) };
                (Flat::of(&layout), ciphertexts * period)
            };
            let (from, read) = flat(matrix.in_ciphertexts, matrix.in_period);
            let (to, written) = flat(matrix.out_ciphertexts, matrix.out_period);
            for width in [1, 3, 8, 10] {
                let x: Vec<f64> = (0..read * width).map(|i| (0.7 * i as f64).cos()).collect();
                let mut y = vec![1.0; written * width];
                add_product(&g, id, (Slots { flat: from, width }, &x), (Slots { flat: to, width }, &mut y));
                for number in 0..width {
                    let column: Vec<f64> = x.iter().skip(number).step_by(width).copied().collect();
                    let input: Vec<Vec<f64>> = column.chunks(matrix.in_period).map(<[f64]>::to_vec).collect();
                    let want = matrix.apply(&weights(&g), &input).concat();
                    for (slot, want) in want.iter().enumerate() {
                        let found = y[slot * width + number] - 1.0;
                        assert!(
                            (found - want).abs() < 1e-10,
                            "{name} of {width}, slot {slot}: {found}, {want} expected"
                        );
                    }
                }
                // ⟨M·x, z⟩ = ⟨x, Mᵀ·z⟩, where the transpose has room for other numbers in every slot.
                let z: Vec<f64> = (0..written * width).map(|i| (1.9 * i as f64).sin()).collect();
                let (wide, first) = (width + 5, 2);
                let mut back = vec![0.0; read * wide];
                let target = (Slots { flat: from, width: wide }, &mut back[..], first);
                add_transposed(&g, id, (Slots { flat: to, width }, &z), target);
                let left: f64 = y.iter().zip(&z).map(|(y, z)| (y - 1.0) * z).sum();
                let right: f64 = x.chunks(width).zip(back.chunks(wide)).map(|(x, b)| dot(x, &b[first..])).sum();
                assert!((left - right).abs() < 1e-9, "{name} of {width}: {left} and {right}");
                let outside = back.chunks(wide).flat_map(|b| b[..first].iter().chain(&b[first + width..]));
                assert!(outside.into_iter().all(|&b| b == 0.0));
            }
        }
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }
}
