//! Where the elements of a tensor are, as a separable map that views transform for free.
//!
//! Reshapes do nothing (a map numbers elements), transpositions permute dimensions, slices move the
//! base and stretch strides. Where a dimension cannot be cut at an axis boundary the map falls back to
//! one table of all positions: longer, never wrong.

use fhec_ir::tensor::strides;
use fhec_plan::{Layout, LayoutDim, Offsets};

/// Element number → global slot: a base plus one offset per dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Slot of element 0, less the offsets of index 0.
    pub base: i64,
    /// Dimensions, outermost first.
    pub dims: Vec<LayoutDim>,
}

/// The dimensions of one tensor axis, outermost first; none for an axis of extent 1.
pub type Axis = Vec<LayoutDim>;

impl Positions {
    /// The positions of a layout.
    pub fn of(layout: &Layout) -> Self {
        Positions { base: 0, dims: layout.dims.clone() }
    }

    /// The positions as a layout with slots, ciphertexts and period of `like`.
    pub fn layout(&self, like: &Layout) -> Layout {
        let mut dims: Vec<LayoutDim> = self.dims.iter().filter(|d| d.extent != 1).cloned().collect();
        let fixed: i64 = self.dims.iter().filter(|d| d.extent == 1).map(|d| d.offsets.at(0)).sum();
        let base = self.base + fixed;
        match dims.first_mut() {
            Some(first) if base != 0 => {
                let table = (0..first.extent).map(|i| base + first.offsets.at(i)).collect();
                first.offsets = Offsets::from_table(table);
            }
            Some(_) => {}
            None => dims.push(LayoutDim { extent: 1, offsets: offset_of(base) }),
        }
        Layout { dims, ..like.clone() }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().map(|d| d.extent).product()
    }

    /// All positions in row-major order.
    pub fn table(&self) -> Vec<i64> {
        let mut out = vec![self.base];
        for dim in &self.dims {
            out = out.iter().flat_map(|&b| (0..dim.extent).map(move |i| b + dim.offsets.at(i))).collect();
        }
        out
    }

    /// The dimensions grouped by the axes of `shape`; `None` where an axis boundary falls inside a
    /// dimension that is not separable there.
    pub fn axes(&self, shape: &[usize]) -> Option<Vec<Axis>> {
        debug_assert_eq!(shape.iter().product::<usize>(), self.elements());
        let mut rest: Vec<LayoutDim> = self.dims.iter().filter(|d| d.extent != 1).cloned().collect();
        let mut axes = vec![Vec::new(); shape.len()];
        for (axis, &extent) in axes.iter_mut().zip(shape).rev() {
            let mut want = extent;
            while want > 1 {
                let dim = rest.pop()?;
                if want.is_multiple_of(dim.extent) {
                    want /= dim.extent;
                    axis.push(dim);
                } else if dim.extent.is_multiple_of(want) {
                    let (outer, inner) = split(&dim, want)?;
                    rest.push(outer);
                    axis.push(inner);
                    want = 1;
                } else {
                    return None;
                }
            }
            axis.reverse();
        }
        Some(axes)
    }

    /// What [`Self::axes`] leaves out: the base with the offsets of dimensions of extent 1.
    pub fn origin(&self) -> i64 {
        self.base + self.dims.iter().filter(|d| d.extent == 1).map(|d| d.offsets.at(0)).sum::<i64>()
    }

    fn from_axes(base: i64, axes: Vec<Axis>) -> Self {
        Positions { base, dims: axes.into_iter().flatten().collect() }
    }

    /// One table for all elements picked by `index` from the `count` elements of a result.
    fn gather(&self, count: usize, index: impl Fn(usize) -> usize) -> Self {
        let table = self.table();
        let picked = (0..count).map(|i| table[index(i)]).collect();
        Positions { base: 0, dims: vec![LayoutDim { extent: count, offsets: Offsets::from_table(picked) }] }
    }

    /// Axis `d` of the result is axis `perm[d]` of `shape`.
    pub fn transposed(&self, shape: &[usize], perm: &[usize]) -> Self {
        if let Some(mut axes) = self.axes(shape) {
            let permuted = perm.iter().map(|&p| std::mem::take(&mut axes[p])).collect();
            return Self::from_axes(self.origin(), permuted);
        }
        let steps = strides(shape);
        let result: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
        let own = strides(&result);
        self.gather(self.elements(), |i| {
            (0..result.len()).map(|d| i / own[d] % result[d] * steps[perm[d]]).sum::<usize>()
        })
    }

    /// `extents[d]` elements of every axis from `starts[d]` on in steps of `steps[d]`.
    pub fn sliced(&self, shape: &[usize], starts: &[usize], steps: &[i64], extents: &[usize]) -> Self {
        if let Some(axes) = self.axes(shape) {
            let mut base = self.origin();
            let mut out = Vec::new();
            for (d, axis) in axes.into_iter().enumerate() {
                if starts[d] == 0 && steps[d] == 1 && extents[d] == shape[d] {
                    out.push(axis);
                    continue;
                }
                let offsets = merged(&axis);
                let index = |i: usize| (starts[d] as i64 + steps[d] * i as i64) as usize;
                base += offsets.at(index(0));
                let table = (0..extents[d]).map(|i| offsets.at(index(i)) - offsets.at(index(0))).collect();
                out.push(vec![LayoutDim { extent: extents[d], offsets: Offsets::from_table(table) }]);
            }
            return Self::from_axes(base, out);
        }
        let step = strides(shape);
        let own = strides(extents);
        self.gather(extents.iter().product(), |i| {
            let at = |d: usize| (starts[d] as i64 + steps[d] * (i / own[d] % extents[d]) as i64) as usize;
            (0..shape.len()).map(|d| at(d) * step[d]).sum::<usize>()
        })
    }

    /// The elements repeated by numpy rules from `shape` to `target`: several elements of the result may
    /// share a slot, so this reads and never writes.
    pub fn broadcast(&self, shape: &[usize], target: &[usize]) -> Self {
        if shape == target {
            return self.clone();
        }
        let lead = target.len() - shape.len();
        let fresh = |extent: usize| vec![LayoutDim { extent, offsets: Offsets::Stride(0) }];
        if let Some(axes) = self.axes(shape) {
            let mut out: Vec<Axis> = target[..lead].iter().map(|&e| fresh(e)).collect();
            for (d, axis) in axes.into_iter().enumerate() {
                out.push(if shape[d] == target[lead + d] { axis } else { fresh(target[lead + d]) });
            }
            return Self::from_axes(self.origin(), out);
        }
        let (step, own) = (strides(shape), strides(target));
        self.gather(target.iter().product(), |i| {
            let at = |d: usize| if shape[d] == 1 { 0 } else { i / own[lead + d] % target[lead + d] };
            (0..shape.len()).map(|d| at(d) * step[d]).sum::<usize>()
        })
    }
}

/// A constant as the offsets of a dimension of extent 1.
fn offset_of(base: i64) -> Offsets {
    if base == 0 { Offsets::Stride(0) } else { Offsets::Table(vec![base]) }
}

/// Cuts a dimension into `(extent / inner, inner)`; `None` when its offsets are not a sum.
fn split(dim: &LayoutDim, inner: usize) -> Option<(LayoutDim, LayoutDim)> {
    let outer = dim.extent / inner;
    let (a, b) = match &dim.offsets {
        Offsets::Stride(s) => (Offsets::Stride(s * inner as i64), Offsets::Stride(*s)),
        Offsets::Table(t) => {
            let a: Vec<i64> = t.iter().step_by(inner).copied().collect();
            let b: Vec<i64> = t[..inner].iter().map(|v| v - t[0]).collect();
            let separable = t.iter().enumerate().all(|(i, &v)| v == a[i / inner] + b[i % inner]);
            if !separable {
                return None;
            }
            (Offsets::from_table(a), Offsets::from_table(b))
        }
    };
    Some((LayoutDim { extent: outer, offsets: a }, LayoutDim { extent: inner, offsets: b }))
}

/// The dimensions of one axis as a single list of offsets.
pub fn merged(axis: &[LayoutDim]) -> Offsets {
    match axis {
        [] => Offsets::Stride(0),
        [one] => one.offsets.clone(),
        many => {
            let all = Positions { base: 0, dims: many.to_vec() };
            Offsets::from_table(all.table())
        }
    }
}

/// One loop over two maps of the same elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paired {
    /// Number of iterations.
    pub extent: usize,
    /// Offsets in the first map.
    pub a: Offsets,
    /// Offsets in the second.
    pub b: Offsets,
}

/// Loops that walk two lists of dimensions of equal element counts together, outermost first.
pub fn pair(a: &[LayoutDim], b: &[LayoutDim]) -> Vec<Paired> {
    let extents = |dims: &[LayoutDim]| dims.iter().map(|d| d.extent).product::<usize>();
    debug_assert_eq!(extents(a), extents(b));
    let mut out = Vec::new();
    let keep = |dims: &[LayoutDim]| dims.iter().filter(|d| d.extent != 1).cloned().collect::<Vec<_>>();
    let (mut rest_a, mut rest_b) = (keep(a), keep(b));
    while let (Some(x), Some(y)) = (rest_a.pop(), rest_b.pop()) {
        let both = match x.extent.cmp(&y.extent) {
            std::cmp::Ordering::Equal => Some((x, y)),
            std::cmp::Ordering::Greater if x.extent.is_multiple_of(y.extent) => {
                split(&x, y.extent).map(|(outer, inner)| {
                    rest_a.push(outer);
                    (inner, y)
                })
            }
            std::cmp::Ordering::Less if y.extent.is_multiple_of(x.extent) => {
                split(&y, x.extent).map(|(outer, inner)| {
                    rest_b.push(outer);
                    (x, inner)
                })
            }
            _ => None,
        };
        let Some((x, y)) = both else {
            // No common loops: one table each.
            return vec![Paired { extent: extents(a), a: merged(a), b: merged(b) }];
        };
        out.push(Paired { extent: x.extent, a: x.offsets, b: y.offsets });
    }
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_plan::layout::Multiplexed;

    fn image() -> Layout {
        let m = Multiplexed { shape: [6, 4, 5], gap: [2, 2], row: 16, plane: 128 };
        Layout::multiplexed(&m, 256, 256)
    }

    /// Applies a view to row-major element numbers and compares.
    fn check(view: &Positions, layout: &Layout, index: impl Fn(usize) -> usize) {
        let want: Vec<i64> = (0..view.elements()).map(|i| layout.position(index(i)) as i64).collect();
        assert_eq!(view.table(), want);
    }

    #[test]
    fn views_move_no_data() {
        let layout = image();
        let p = Positions::of(&layout);
        check(&p, &layout, |i| i);
        // [6, 4, 5] → [5, 6, 4]
        let t = p.transposed(&[6, 4, 5], &[2, 0, 1]);
        assert_eq!(t.dims.len(), 3, "still separable");
        check(&t, &layout, |i| (i % 24) * 5 + i / 24);
        // an axis boundary inside the channel table: 6 = 3·2 is separable here only by luck, [12, 10] is not
        let odd = p.transposed(&[12, 10], &[1, 0]);
        check(&odd, &layout, |i| (i % 12) * 10 + i / 12);
        let s = p.sliced(&[6, 4, 5], &[1, 3, 0], &[2, -1, 1], &[2, 3, 5]);
        check(&s, &layout, |i| (1 + 2 * (i / 15)) * 20 + (3 - i / 5 % 3) * 5 + i % 5);
        let odd = p.sliced(&[8, 15], &[1, 2], &[1, 3], &[5, 4]);
        check(&odd, &layout, |i| (1 + i / 4) * 15 + 2 + 3 * (i % 4));
        let b = p.broadcast(&[6, 4, 5], &[2, 6, 4, 5]);
        check(&b, &layout, |i| i % 120);
        // a view as a layout keeps its positions, base included
        assert_eq!(Positions::of(&s.layout(&layout)).table(), s.table());
    }

    #[test]
    fn pairs_refine_both_sides() {
        let layout = image();
        let dense = Positions::of(&Layout::dense(120, 256, 128));
        let p = Positions::of(&layout);
        let loops = pair(&dense.dims, &p.dims);
        assert_eq!(loops.len(), 3);
        let sum = |f: fn(&Paired) -> &Offsets| {
            let dims = loops.iter().map(|l| LayoutDim { extent: l.extent, offsets: f(l).clone() }).collect();
            Positions { base: 0, dims }.table()
        };
        assert_eq!(sum(|l| &l.a), dense.table());
        assert_eq!(sum(|l| &l.b), p.table());
        // extents 120 = 8·15 and 6·4·5 share no boundary inside the table of channels
        let other = [
            LayoutDim { extent: 8, offsets: Offsets::Stride(15) },
            LayoutDim { extent: 15, offsets: Offsets::Stride(1) },
        ];
        assert_eq!(pair(&other, &p.dims).iter().map(|l| l.extent).product::<usize>(), 120);
    }
}
