//! Linear operations as loop nests over the slots of their layouts.

use super::value::*;
use crate::layouts::positions::{Paired, Positions, merged, pair};
use fhec_ir::tensor::strides;
use fhec_plan::{Guard, Layout, LayoutDim, Nest, NestDim, Offsets, TensorId};

const ZERO: Offsets = Offsets::Stride(0);

/// A nest under construction. Loops of extent 1 become part of the base, so that they neither count as
/// parallel loops nor take space.
struct NestBuilder {
    nest: Nest,
    guards: Vec<Inside>,
}

/// Requires `0 ≤ constant + Σ coefficient · index < extent`.
struct Inside {
    /// Loop numbers with their coefficients.
    terms: Vec<(usize, i64)>,
    constant: i64,
    extent: i64,
}

impl NestBuilder {
    fn new(tensor: Option<TensorId>, factor: f64) -> Self {
        let nest = Nest { dims: vec![], row: 0, col: 0, weight: 0, tensor, factor, guards: vec![] };
        NestBuilder { nest, guards: vec![] }
    }

    /// Adds a loop; `None` when it has one iteration.
    fn push(&mut self, extent: usize, row: Offsets, col: Offsets, weight: Offsets) -> Option<usize> {
        if extent == 1 {
            self.nest.row += row.at(0);
            self.nest.col += col.at(0);
            self.nest.weight += weight.at(0);
            return None;
        }
        self.nest.dims.push(NestDim { extent, row, col, weight });
        Some(self.nest.dims.len() - 1)
    }

    /// Requires `0 ≤ constant + Σ coefficient · index < extent`, unless that always holds.
    fn guard(&mut self, terms: &[(Option<usize>, i64)], constant: i64, extent: usize) {
        let terms: Vec<(usize, i64)> = terms.iter().filter_map(|&(d, c)| d.map(|d| (d, c))).collect();
        let reach = |(d, c): (usize, i64)| c * (self.nest.dims[d].extent as i64 - 1);
        let low: i64 = constant + terms.iter().map(|&t| reach(t).min(0)).sum::<i64>();
        let high: i64 = constant + terms.iter().map(|&t| reach(t).max(0)).sum::<i64>();
        if low < 0 || high >= extent as i64 {
            self.guards.push(Inside { terms, constant, extent: extent as i64 });
        }
    }

    fn finish(mut self) -> Nest {
        let loops = self.nest.dims.len();
        for Inside { terms, constant, extent } in self.guards {
            let mut coefficients = vec![0; loops];
            for (d, c) in terms {
                coefficients[d] += c;
            }
            self.nest.guards.push(Guard { coefficients, constant, extent });
        }
        self.nest
    }
}

fn stride(s: usize) -> Offsets {
    Offsets::Stride(s as i64)
}

/// The positions of the box `place` of a tensor of `place.full`.
fn placed(whole: &Positions, place: &Place) -> Positions {
    if place.is_whole() {
        return whole.clone();
    }
    let ones = vec![1; place.full.len()];
    whole.sliced(&place.full, &place.before, &ones, &place.shape)
}

/// Origin and the offsets of channels, rows and columns; `None` when the positions are not separable so.
fn image_axes(p: &Positions, [c, h, w]: [usize; 3]) -> Option<(i64, [Offsets; 3])> {
    let axes = p.axes(&[c, h, w])?;
    Some((p.origin(), [merged(&axes[0]), merged(&axes[1]), merged(&axes[2])]))
}

/// The nests of `term` from the layout of its source to the layout of the result. `None` where a
/// window slides over positions that are not separable by channel, row and column.
pub(crate) fn nests(term: &Term, input: &Layout, output: &Layout) -> Option<Vec<Nest>> {
    let source = apply_view(&Positions::of(input), &term.view);
    let target = placed(&Positions::of(output), &term.place);
    match &term.op {
        Linear::Conv { window, groups, weight } => {
            conv(&source, &target, window, *groups, &term.part, *weight, term.factor)
        }
        Linear::Pool { window, weight } => pool(&source, &target, window, &term.part, *weight, term.factor),
        Linear::Dense { weight, lead, inner, rows } => {
            Some(vec![dense(&source, &target, [*lead, *inner, *rows], &term.part, *weight, term.factor)?])
        }
        Linear::Reduce { axes } => Some(vec![reduce(&source, &target, axes, &term.part, term.factor)]),
        Linear::Copy { target: shape } => {
            let source = source.broadcast(&term.part.shape, shape);
            let mut nest = NestBuilder::new(None, term.factor);
            nest.nest.row = target.origin();
            nest.nest.col = source.origin();
            for Paired { extent, a, b } in pair(&target.dims, &source.dims) {
                nest.push(extent, a, b, ZERO);
            }
            Some(vec![nest.finish()])
        }
    }
}

/// The loop over rows or columns of a window: output index times stride plus tap times dilation, less
/// the padding, must lie inside the part.
struct Slide {
    extent: usize,
    out: Offsets,
    input: Offsets,
    step: i64,
    start: i64,
    inside: usize,
}

impl Slide {
    /// The output pixels, ascending and without gaps, whose input under `tap` is no padding.
    fn reached(&self, dilation: usize, tap: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.start + (tap * dilation) as i64;
        (0..self.extent).filter(move |&y| (0..self.inside as i64).contains(&(first + y as i64 * self.step)))
    }
}

/// Loops `(taps, pixels)` of one axis of a window, or `None` when the input's offsets are no stride.
fn slides(window: &Window, part: &Place, input: &[Offsets; 3], output: &[Offsets; 3]) -> [Slide; 2] {
    let lead = part.shape.len() - 3;
    [0, 1].map(|d| Slide {
        extent: window.output[1 + d],
        out: output[1 + d].clone(),
        input: input[1 + d].clone(),
        step: window.strides[d] as i64,
        start: -(window.pads[d] as i64) - part.before[lead + 1 + d] as i64,
        inside: part.shape[lead + 1 + d],
    })
}

/// What a window nest does besides sliding: its channel loops, with row, column and weight offsets.
struct Channels {
    loops: Vec<(usize, Offsets, Offsets, Offsets)>,
    row: i64,
    col: i64,
    weight: i64,
}

/// The nests of a window. `taps` are the weight steps of kernel rows and columns, `pixels` those of output
/// rows and columns. Where an input axis is a stride, taps and pixels are two loops with a guard;
/// where it is a table, every tap gets nests of its own over the pixels it can reach.
fn window_nests(
    window: &Window,
    slides: &[Slide; 2],
    channels: &Channels,
    weights: ([usize; 2], [usize; 2]),
    tensor: Option<TensorId>,
    factor: f64,
) -> Vec<Nest> {
    let (taps, pixels) = weights;
    // Per axis: either one symbolic choice, or one per tap.
    let choices = [0, 1].map(|d| match slides[d].input {
        Offsets::Stride(_) => vec![None],
        Offsets::Table(_) => (0..window.kernel[d]).map(Some).collect(),
    });
    let mut out = Vec::new();
    for &y in &choices[0] {
        for &x in &choices[1] {
            let mut nest = NestBuilder::new(tensor, factor);
            nest.nest.row = channels.row;
            nest.nest.col = channels.col;
            nest.nest.weight = channels.weight;
            for (extent, row, col, weight) in &channels.loops {
                nest.push(*extent, row.clone(), col.clone(), weight.clone());
            }
            let mut empty = false;
            let mut tap_loops = [None; 2];
            let mut first_taps = [0; 2];
            for (d, tap) in [y, x].into_iter().enumerate() {
                if let (None, Offsets::Stride(s)) = (tap, &slides[d].input) {
                    // Taps that only ever meet padding would be listed as diagonals.
                    let reaches = |tap: &usize| slides[d].reached(window.dilations[d], *tap).next().is_some();
                    let mut taps_used = (0..window.kernel[d]).filter(reaches);
                    let Some(lo) = taps_used.next() else {
                        empty = true;
                        continue;
                    };
                    let hi = taps_used.next_back().unwrap_or(lo);
                    let dilation = window.dilations[d] as i64;
                    tap_loops[d] = nest.push(hi - lo + 1, ZERO, Offsets::Stride(s * dilation), stride(taps[d]));
                    nest.nest.col += s * (slides[d].start + lo as i64 * dilation);
                    nest.nest.weight += (lo * taps[d]) as i64;
                    first_taps[d] = lo as i64 * dilation;
                }
            }
            for (d, tap) in [y, x].into_iter().enumerate() {
                let slide = &slides[d];
                let dilation = window.dilations[d] as i64;
                match (tap, &slide.input) {
                    (None, Offsets::Stride(s)) => {
                        let pixel = nest.push(
                            slide.extent,
                            slide.out.clone(),
                            Offsets::Stride(s * slide.step),
                            stride(pixels[d]),
                        );
                        let start = slide.start + first_taps[d];
                        nest.guard(&[(tap_loops[d], dilation), (pixel, slide.step)], start, slide.inside);
                    }
                    (tap, offsets) => {
                        let tap = tap.unwrap_or(0);
                        let first = slide.start + tap as i64 * dilation;
                        let at = |y: usize| first + y as i64 * slide.step;
                        let mut reached = slide.reached(window.dilations[d], tap);
                        let Some(lo) = reached.next() else {
                            empty = true;
                            continue;
                        };
                        let hi = reached.last().unwrap_or(lo);
                        let table =
                            |f: &dyn Fn(usize) -> i64| Offsets::from_table((lo..=hi).map(|y| f(y) - f(lo)).collect());
                        nest.nest.row += slide.out.at(lo);
                        nest.nest.col += offsets.at(at(lo) as usize);
                        nest.nest.weight += (tap * taps[d] + lo * pixels[d]) as i64;
                        nest.push(
                            hi - lo + 1,
                            table(&|y| slide.out.at(y)),
                            table(&|y| offsets.at(at(y) as usize)),
                            stride(pixels[d]),
                        );
                    }
                }
            }
            if !empty {
                out.push(nest.finish());
            }
        }
    }
    out
}

/// `count` entries of `offsets` from `from` on, as base and offsets from it.
fn sub(offsets: &Offsets, from: usize, count: usize) -> (i64, Offsets) {
    let base = offsets.at(from);
    match offsets {
        Offsets::Stride(s) => (base, Offsets::Stride(*s)),
        Offsets::Table(t) => (base, Offsets::from_table(t[from..from + count].iter().map(|v| v - base).collect())),
    }
}

fn conv(
    source: &Positions,
    target: &Positions,
    window: &Window,
    groups: usize,
    part: &Place,
    weight: TensorId,
    factor: f64,
) -> Option<Vec<Nest>> {
    let lead = part.shape.len() - 3;
    let (col, input) = image_axes(source, [part.shape[lead], part.shape[lead + 1], part.shape[lead + 2]])?;
    let (row, output) = image_axes(target, window.output)?;
    let slides = slides(window, part, &input, &output);
    let [kh, kw] = window.kernel;
    let (per_in, per_out) = (window.input[0] / groups, window.output[0] / groups);
    let filter = per_in * kh * kw;
    let taps = ([kw, 1], [0, 0]);
    let (first, count) = (part.before[lead], part.shape[lead]);
    if per_in == 1 && groups > 1 && per_out == 1 {
        // Depthwise: one loop over channels moves row, column and weight.
        let (r, rows) = sub(&output[0], first, count);
        let channels = Channels {
            loops: vec![(count, rows, input[0].clone(), stride(filter))],
            row: row + r,
            col,
            weight: (first * filter) as i64,
        };
        return Some(window_nests(window, &slides, &channels, taps, Some(weight), factor));
    }
    let mut nests = Vec::new();
    for group in 0..groups {
        // Input channels of this group that the part holds.
        let lo = (group * per_in).max(first);
        let hi = ((group + 1) * per_in).min(first + count);
        if lo >= hi {
            continue;
        }
        let (c, cols) = sub(&input[0], lo - first, hi - lo);
        let (r, rows) = sub(&output[0], group * per_out, per_out);
        let channels = Channels {
            loops: vec![(per_out, rows, ZERO, stride(filter)), (hi - lo, ZERO, cols, stride(kh * kw))],
            row: row + r,
            col: col + c,
            weight: (group * per_out * filter + (lo - group * per_in) * kh * kw) as i64,
        };
        nests.extend(window_nests(window, &slides, &channels, taps, Some(weight), factor));
    }
    Some(nests)
}

fn pool(
    source: &Positions,
    target: &Positions,
    window: &Window,
    part: &Place,
    weight: Option<TensorId>,
    factor: f64,
) -> Option<Vec<Nest>> {
    let lead = part.shape.len() - 3;
    let (col, input) = image_axes(source, [part.shape[lead], part.shape[lead + 1], part.shape[lead + 2]])?;
    let (row, output) = image_axes(target, window.output)?;
    let slides = slides(window, part, &input, &output);
    let (first, count) = (part.before[lead], part.shape[lead]);
    let (r, rows) = sub(&output[0], first, count);
    let channels = Channels { loops: vec![(count, rows, input[0].clone(), ZERO)], row: row + r, col, weight: 0 };
    let pixels = if weight.is_some() { [window.output[2], 1] } else { [0, 0] };
    Some(window_nests(window, &slides, &channels, ([0, 0], pixels), weight, factor))
}

/// Row-major element numbers of a box of a tensor, as positions.
fn numbers(place: &Place) -> Positions {
    let dims = place.full.iter().zip(strides(&place.full));
    let dims = dims.map(|(&extent, s)| LayoutDim { extent, offsets: stride(s) }).collect();
    placed(&Positions { base: 0, dims }, place)
}

fn dense(
    source: &Positions,
    target: &Positions,
    [lead, inner, rows]: [usize; 3],
    part: &Place,
    weight: TensorId,
    factor: f64,
) -> Option<Nest> {
    let mut nest = NestBuilder::new(Some(weight), factor);
    nest.nest.row = target.origin();
    nest.nest.col = source.origin();
    let (out, last, numbers) = if lead == 1 {
        // The part may be a box of the input in any frame of the same row-major order.
        (target.dims.clone(), source.dims.clone(), numbers(part))
    } else {
        if !part.is_whole() {
            return None;
        }
        let (mut out, mut input) = (target.axes(&[lead, rows])?, source.axes(&[lead, inner])?);
        for Paired { extent, a, b } in pair(&out[0], &input[0]) {
            nest.push(extent, a, b, ZERO);
        }
        (out.remove(1), input.remove(1), numbers(&Place::whole(&[inner])))
    };
    nest.nest.weight = numbers.origin();
    let number_rows = [LayoutDim { extent: rows, offsets: stride(inner) }];
    for Paired { extent, a, b } in pair(&out, &number_rows) {
        nest.push(extent, a, ZERO, b);
    }
    for Paired { extent, a, b } in pair(&last, &numbers.dims) {
        nest.push(extent, ZERO, a, b);
    }
    Some(nest.finish())
}

fn reduce(source: &Positions, target: &Positions, axes: &[usize], part: &Place, factor: f64) -> Nest {
    let mut nest = NestBuilder::new(None, factor);
    // The result in the input's rank: reduced axes have extent 1.
    let kept: Vec<usize> = part.full.iter().enumerate().map(|(d, &e)| if axes.contains(&d) { 1 } else { e }).collect();
    let before = part.before.iter().enumerate().map(|(d, &b)| if axes.contains(&d) { 0 } else { b }).collect();
    let shape = part.shape.iter().enumerate().map(|(d, &e)| if axes.contains(&d) { 1 } else { e }).collect();
    let target = placed(target, &Place { before, shape, full: kept });
    let target = target.broadcast(&reduced(&part.shape, axes), &part.shape);
    nest.nest.row = target.origin();
    nest.nest.col = source.origin();
    for Paired { extent, a, b } in pair(&target.dims, &source.dims) {
        nest.push(extent, a, b, ZERO);
    }
    nest.finish()
}

fn reduced(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().map(|(d, &e)| if axes.contains(&d) { 1 } else { e }).collect()
}

/// The nests of a constant over viewed elements of a layout.
pub(crate) fn bias_nests(bias: &Bias, view: &View, layout: &Layout) -> Nest {
    let target = placed(&apply_view(&Positions::of(layout), view), &bias.place);
    let shape = &bias.place.shape;
    let mut nest = NestBuilder::new(bias.tensor.as_ref().map(|(t, _)| *t), bias.factor);
    nest.nest.row = target.origin();
    let Some((_, from)) = &bias.tensor else {
        for dim in &target.dims {
            nest.push(dim.extent, dim.offsets.clone(), ZERO, ZERO);
        }
        return nest.finish();
    };
    // Row-major weight numbers of the constant, broadcast.
    let dims = from.iter().zip(strides(from)).map(|(&extent, s)| LayoutDim { extent, offsets: stride(s) }).collect();
    let numbers = Positions { base: 0, dims }.broadcast(from, shape);
    for Paired { extent, a, b } in pair(&target.dims, &numbers.dims) {
        nest.push(extent, a, ZERO, b);
    }
    nest.finish()
}
