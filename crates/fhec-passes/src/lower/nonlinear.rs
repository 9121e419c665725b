//! Products, powers and polynomials: what is not linear, and what it does to slots that hold no element.

use super::build::{Builder, Lowered, map_range, normalising};
use super::value::*;
use fhec_ir::nn::{Range, ValueId};
use std::collections::BTreeMap;

impl Builder<'_> {
    pub(super) fn product(&mut self, v: ValueId) -> Lowered {
        let node = self.nn.node(v);
        let ids = [node.inputs[0], node.inputs[1]];
        let mut operands = ids.map(|x| self.single(x));
        let shapes = ids.map(|x| self.nn.node(x).shape.clone());
        let alike = shapes[0] == shapes[1]
            && operands[0].view == operands[1].view
            && self.elements(&operands[0]) == self.elements(&operands[1]);
        if !alike {
            for (operand, &x) in operands.iter_mut().zip(&ids) {
                if !operand.view.is_empty() || self.nn.node(x).shape != node.shape {
                    let affine = self.affine(x, &node.shape);
                    *operand = self.hold_scaled(x, affine);
                }
            }
        }
        let [a, b] = operands;
        let (pa, ma) = self.settled(&a, v);
        let (pb, mb) =
            if (b.packed, b.mul, b.add) == (a.packed, a.mul, a.add) { (pa, ma) } else { self.settled(&b, v) };
        let range = map_range(self.range(v), 1.0 / (ma * mb), 0.0);
        let range = with_hidden(&a.view, range, product_range(self.out.get(pa).range, self.out.get(pb).range));
        let packed = self.pack(Make::Mul(pa, pb), self.out.get(pa).shape.clone(), range, v);
        Lowered::Parts(Parts::single(&node.shape, Operand { packed, view: a.view, mul: ma * mb, add: 0.0 }))
    }

    pub(super) fn power(&mut self, v: ValueId, exponent: u32) -> Lowered {
        let source = self.nn.node(v).inputs[0];
        // Elements that no part covers are zero, and so are their powers.
        let mut parts = self.parts(source);
        for (_, operand) in &mut parts.parts {
            let (packed, mul) = self.settled(operand, v);
            let mut made = BTreeMap::from([(1, packed)]);
            let packed = self.power_of(v, exponent, &mut made);
            *operand = Operand { packed, view: operand.view.clone(), mul: mul.powi(exponent as i32), add: 0.0 };
        }
        Lowered::Parts(parts)
    }

    /// xⁿ by products of the least depth, each power once.
    fn power_of(&mut self, v: ValueId, n: u32, made: &mut BTreeMap<u32, PackedId>) -> PackedId {
        if let Some(&packed) = made.get(&n) {
            return packed;
        }
        // The largest power of two below n leaves a rest of no greater depth.
        let high = n.next_power_of_two() / 2;
        let a = self.power_of(v, high, made);
        let b = self.power_of(v, n - high, made);
        let mut range = product_range(self.out.get(a).range, self.out.get(b).range);
        if n.is_multiple_of(2) {
            range.lo = range.lo.max(0.0);
        }
        let packed = self.pack(Make::Mul(a, b), self.out.get(a).shape.clone(), range, v);
        made.insert(n, packed);
        packed
    }

    pub(super) fn polynomial(&mut self, v: ValueId, chebyshev: &[f64], interval: Range, label: &str) -> Lowered {
        let source = self.nn.node(v).inputs[0];
        let mut parts = self.parts(source);
        if !parts.covers() {
            // Padding is zero before the polynomial and p(0) after it.
            let operand = self.single(source);
            parts = Parts::single(&self.nn.node(v).shape, operand);
        }
        let (a, b) = normalising(interval);
        let explodes = |operand: &Operand| {
            let packed = self.out.get(operand.packed);
            let all = map_range(packed.range, a * operand.mul, a * operand.add + b);
            let hidden = hides(&operand.view) && (all.lo < -1.0 || all.hi > 1.0);
            // A shift may leave the blank slots as they are.
            let (scaled, shifted) = (a * operand.mul * packed.blank, a * operand.add + b);
            hidden || (scaled.abs() > 1.0 && (scaled + shifted).abs() > 1.0)
        };
        if parts.parts.iter().any(|(_, operand)| explodes(operand)) {
            // Slots without an element, and elements that a slice hides, are still there, and polynomials
            // explode outside of their interval. A copy has zeros there.
            let mut affine = self.copied(source, &parts);
            affine.scale(a);
            affine.shift(b);
            let shape = affine.shape.clone();
            let range = map_range(self.range(source), a, b);
            let packed = self.pack(Make::Map(affine), shape.clone(), range, source);
            parts = Parts::single(&shape, Operand { packed, view: vec![], mul: 1.0 / a, add: -b / a });
        }
        let (c, d) = self.wanted(v);
        let mut coefficients: Vec<f64> = chebyshev.iter().map(|k| c * k).collect();
        if let Some(first) = coefficients.first_mut() {
            *first += d;
        }
        let range = map_range(self.range(v), c, d);
        for (_, operand) in &mut parts.parts {
            let (scale, shift) = (a * operand.mul, a * operand.add + b);
            let mut from = operand.packed;
            let shape = self.out.get(from).shape.clone();
            if (scale - 1.0).abs() > 1e-12 {
                let range = map_range(self.out.get(from).range, scale, 0.0);
                from = self.pack(Make::MulScalar(from, scale), shape.clone(), range, v);
            }
            if shift.abs() > 1e-13 {
                from = self.shifted(from, shift, v);
            }
            let most = coefficients.iter().map(|c| c.abs()).sum::<f64>();
            let range = with_hidden(&operand.view, range, Range { lo: -most, hi: most });
            let make = Make::Polynomial { source: from, chebyshev: coefficients.clone(), label: label.to_string() };
            let packed = self.pack(make, shape, range, v);
            *operand = Operand { packed, view: operand.view.clone(), mul: 1.0 / c, add: -d / c };
        }
        Lowered::Parts(parts)
    }
}

/// True when a view leaves elements out, which then live on unseen beside the others.
fn hides(view: &View) -> bool {
    view.iter().any(|step| matches!(step, ViewStep::Slice { .. }))
}

/// The range of all elements, when `seen` is that of the viewed ones and `all` bounds every one.
pub(super) fn with_hidden(view: &View, seen: Range, all: Range) -> Range {
    if hides(view) { Range { lo: seen.lo.min(all.lo), hi: seen.hi.max(all.hi) } } else { seen }
}

fn product_range(x: Range, y: Range) -> Range {
    let corners = [x.lo * y.lo, x.lo * y.hi, x.hi * y.lo, x.hi * y.hi];
    Range {
        lo: corners.iter().copied().fold(f64::INFINITY, f64::min),
        hi: corners.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}
