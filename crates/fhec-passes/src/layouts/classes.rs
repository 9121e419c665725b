//! Which packed values share a layout, and which layouts they may take.

use crate::lower::value::{Linear, Make, PackedId, Skeleton, ViewStep};
use fhec_plan::Layout;
use fhec_plan::layout::Multiplexed;

use super::positions::Positions;

/// How a class is an image.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Channels, height, width.
    pub(crate) shape: [usize; 3],
    /// Pixel gap of the multiplexed packing.
    pub(crate) gap: [usize; 2],
    /// Row-major order of the packed tensor: axis `d` of the packed tensor is axis `order[d]` of the image
    /// (a model that takes channels last).
    pub(crate) order: [usize; 3],
    /// Trunk whose grid it uses.
    pub(crate) trunk: usize,
}

/// Packed values of one layout.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    /// Elements.
    pub(crate) elements: usize,
    /// Extents of the packed tensor.
    pub(crate) shape: Vec<usize>,
    /// The image it is, if windows read or write it.
    pub(crate) frame: Option<Frame>,
    /// Windows read it as the image it is, so it must keep to the grid.
    pub(crate) windowed: bool,
}

/// The partition of a skeleton's values.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    /// Class of every packed value.
    pub(crate) of: Vec<usize>,
    pub(crate) classes: Vec<Class>,
    /// Height and width of the physical grid of every trunk.
    pub(crate) trunks: Vec<[usize; 2]>,
}

/// Representative of `x` in a union-find forest.
fn find(parent: &mut [usize], mut x: usize) -> usize {
    while parent[x] != x {
        parent[x] = parent[parent[x]];
        x = parent[x];
    }
    x
}

/// Joins two sets; the smaller number represents both.
fn join(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(parent, a), find(parent, b));
    parent[a.max(b)] = a.min(b);
}

/// Numbers the sets in order of their representatives.
fn number(parent: &mut [usize]) -> (Vec<usize>, usize) {
    let mut numbers = vec![usize::MAX; parent.len()];
    let mut count = 0;
    let mut of = Vec::with_capacity(parent.len());
    for x in 0..parent.len() {
        let root = find(parent, x);
        if numbers[root] == usize::MAX {
            numbers[root] = count;
            count += 1;
        }
        of.push(numbers[root]);
    }
    (of, count)
}

impl Classes {
    /// Finds classes, their images, gaps and trunks.
    pub(crate) fn of(skeleton: &Skeleton) -> Self {
        let mut parent: Vec<usize> = (0..skeleton.packed.len()).collect();
        for id in skeleton.ids() {
            for source in skeleton.get(id).make.sharing() {
                join(&mut parent, id.0, source.0);
            }
        }
        let (of, count) = number(&mut parent);
        let mut classes: Vec<Class> = vec![Class { elements: 0, shape: vec![], frame: None, windowed: false }; count];
        for (packed, &class) in skeleton.packed.iter().zip(&of) {
            classes[class].elements = packed.shape.iter().product();
            if classes[class].shape.is_empty() {
                classes[class].shape = packed.shape.clone();
            }
        }
        let mut this = Classes { of, classes, trunks: vec![] };
        this.frames(skeleton);
        this.gaps_and_trunks(skeleton);
        this
    }

    /// The class of a packed value.
    pub(crate) fn class(&self, id: PackedId) -> usize {
        self.of[id.0]
    }

    fn frames(&mut self, skeleton: &Skeleton) {
        let frame = |shape: [usize; 3], order: [usize; 3]| Frame { shape, gap: [0; 2], order, trunk: 0 };
        for id in skeleton.ids() {
            let Make::Map(affine) = &skeleton.get(id).make else { continue };
            for term in &affine.terms {
                let (Linear::Conv { window, .. } | Linear::Pool { window, .. }) = &term.op else { continue };
                let out = &mut self.classes[self.of[id.0]];
                if term.place.is_whole() && out.frame.is_none() {
                    out.frame = Some(frame(window.output, [0, 1, 2]));
                }
                let source = &mut self.classes[self.of[term.source.0]];
                source.windowed = true;
                let lead = term.part.shape.len() - 3;
                let image = [term.part.shape[lead], term.part.shape[lead + 1], term.part.shape[lead + 2]];
                if source.frame.is_none() && image.iter().product::<usize>() == source.elements {
                    source.frame = match term.view.as_slice() {
                        [] => Some(frame(image, [0, 1, 2])),
                        [ViewStep::Transpose { perm, .. }] => order(perm).map(|order| frame(image, order)),
                        _ => None,
                    };
                }
            }
        }
        // Read with other extents than it has (a pooling over three dimensions is two with a reshape between), a value
        // may have to be dense: the channels of an image on a grid cannot be cut anywhere.
        for id in skeleton.ids() {
            let Make::Map(affine) = &skeleton.get(id).make else { continue };
            for term in &affine.terms {
                let (Linear::Conv { .. } | Linear::Pool { .. }) = &term.op else { continue };
                let source = &mut self.classes[self.of[term.source.0]];
                let image = &term.part.shape[term.part.shape.len() - 3..];
                let whole = image.iter().product::<usize>() == source.elements;
                source.windowed &= !whole || source.frame.as_ref().is_none_or(|f| f.shape == image);
            }
        }
        // Images that windows only reach through sums, concatenations or reductions.
        let windows = self.classes.iter().any(|c| c.frame.is_some());
        for class in self.classes.iter_mut().filter(|_| windows) {
            if let (None, [1, c, h, w]) = (&class.frame, class.shape.as_slice())
                && h * w > 1
            {
                class.frame = Some(frame([*c, *h, *w], [0, 1, 2]));
            }
        }
    }

    fn gaps_and_trunks(&mut self, skeleton: &Skeleton) {
        let mut parent: Vec<usize> = (0..self.classes.len()).collect();
        for id in skeleton.ids() {
            let out = self.of[id.0];
            if let Make::Map(affine) = &skeleton.get(id).make {
                for term in &affine.terms {
                    let source = self.of[term.source.0];
                    let Some(gap) = self.classes[source].frame.as_ref().map(|f| f.gap) else { continue };
                    let strides = match &term.op {
                        Linear::Conv { window, .. } | Linear::Pool { window, .. } => window.strides,
                        Linear::Copy { .. } | Linear::Reduce { .. } => [1, 1],
                        Linear::Dense { .. } => continue,
                    };
                    if let Some(frame) = &mut self.classes[out].frame {
                        if frame.gap == [0, 0] {
                            frame.gap = [gap[0] * strides[0], gap[1] * strides[1]];
                        }
                        join(&mut parent, source, out);
                    }
                }
            }
            if let Some(frame) = &mut self.classes[out].frame
                && frame.gap == [0, 0]
            {
                frame.gap = [1, 1];
            }
        }
        let (trunk_of, count) = number(&mut parent);
        self.trunks = vec![[1, 1]; count];
        for (class, trunk) in self.classes.iter_mut().zip(trunk_of) {
            let Some(frame) = &mut class.frame else { continue };
            frame.trunk = trunk;
            for d in 0..2 {
                self.trunks[trunk][d] = self.trunks[trunk][d].max(frame.shape[1 + d] * frame.gap[d]);
            }
        }
    }
}

/// The image axis of each axis of the packed tensor, for a transposition `1xAxBxC → 1xCxHxW`.
fn order(perm: &[usize]) -> Option<[usize; 3]> {
    let &[0, a, b, c] = perm else { return None };
    // Image axis d is packed axis perm[d + 1] − 1.
    let mut order = [0; 3];
    for (d, p) in [a, b, c].into_iter().enumerate() {
        order[p - 1] = d;
    }
    Some(order)
}

/// A physical pixel grid: slots between rows and between channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) row: usize,
    pub(crate) plane: usize,
}

/// Grids worth trying for images of `height × width` physical pixels; empty when none fits a ciphertext.
pub(crate) fn grids([height, width]: [usize; 2], slots: usize) -> Vec<Grid> {
    let tight = Grid { row: width, plane: height * width };
    let rows = [width, width.next_power_of_two()];
    let mut out = vec![tight];
    for row in rows {
        for plane in [height * row, (height * row).next_power_of_two()] {
            out.push(Grid { row, plane });
        }
    }
    out.retain(|g| g.plane <= slots);
    let mut distinct: Vec<Grid> = Vec::new();
    for grid in out {
        if !distinct.contains(&grid) {
            distinct.push(grid);
        }
    }
    distinct
}

/// Layouts that a class may take on a grid, the shortest period first.
pub(crate) fn candidates(class: &Class, grid: Option<Grid>, slots: usize) -> Vec<Layout> {
    let mut out = Vec::new();
    if let (Some(frame), Some(grid)) = (&class.frame, grid) {
        let m = Multiplexed { shape: frame.shape, gap: frame.gap, row: grid.row, plane: grid.plane };
        let image = Layout::multiplexed(&m, slots, slots);
        let dims = frame.order.map(|d| image.dims[d].clone()).to_vec();
        out.extend(periods(Layout { dims, ..image }));
    }
    if class.frame.is_none() || !class.windowed {
        for layout in periods(Layout::dense(class.elements, slots, slots)) {
            if !out.iter().any(|l| same_slots(l, &layout)) {
                out.push(layout);
            }
        }
    }
    out
}

/// The layout with the periods worth trying: its span, twice that, and none.
fn periods(layout: Layout) -> Vec<Layout> {
    if layout.ciphertexts > 1 {
        return vec![layout];
    }
    let span = layout.span();
    let mut periods = vec![span, 2 * span, layout.slots];
    periods.retain(|&p| p <= layout.slots);
    periods.dedup();
    periods.into_iter().map(|period| Layout { period, ..layout.clone() }).collect()
}

fn same_slots(a: &Layout, b: &Layout) -> bool {
    a.period == b.period && Positions::of(a).table() == Positions::of(b).table()
}
