//! Where tensor element (c, y, x) lives: which ciphertext and which slot.
//!
//! A layout is *separable*: the global slot of an element is the sum of one offset per logical
//! dimension. That covers multiplexed packing (Orion §4: channel `c` sits in cell corner
//! `(c/g mod g, c mod g)` of physical channel `c/g²`), dense vectors, gaps left by strides, any
//! transposition, and tensors over several ciphertexts. Reshapes that keep the row-major order are
//! free, because a layout numbers elements, not tensor axes.

/// The global-slot offset that each index of one logical dimension adds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Offsets {
    /// Index `i` adds `i * stride`.
    Stride(i64),
    /// Index `i` adds `table[i]`.
    Table(Vec<i64>),
}

impl Offsets {
    /// The offset of index `i`.
    ///
    /// # Panics
    /// When `i` is outside a table; the verifier checks table lengths against extents.
    #[inline]
    pub fn at(&self, i: usize) -> i64 {
        match self {
            Offsets::Stride(s) => s * i as i64,
            Offsets::Table(t) => t[i],
        }
    }

    /// The shortest form of the offsets `table`: a stride where they are arithmetic from zero.
    pub fn from_table(table: Vec<i64>) -> Self {
        let stride = match table.as_slice() {
            [] | [0] => 0,
            [0, s, ..] => *s,
            _ => return Offsets::Table(table),
        };
        if table.iter().enumerate().all(|(i, &v)| v == stride * i as i64) {
            Offsets::Stride(stride)
        } else {
            Offsets::Table(table)
        }
    }

    /// Offsets of the first `extent` indices, as a table.
    pub fn table(&self, extent: usize) -> Vec<i64> {
        (0..extent).map(|i| self.at(i)).collect()
    }
}

/// One logical dimension of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayoutDim {
    /// Number of indices.
    pub extent: usize,
    /// Global-slot offset of each index.
    pub offsets: Offsets,
}

/// Maps the row-major element numbers of a tensor to global slots.
///
/// `slots` are those that one image has in a ciphertext: all of them, or a single one where images share ciphertexts
/// ([`Plan::image_slots`](crate::Plan::image_slots)).
///
/// Global slot `s` is slot `s % slots` of ciphertext `s / slots`. With `period < slots` (one ciphertext
/// only) every element is found again at all slots congruent modulo `period`, and all offsets are
/// below `period`. Slots that no element occupies hold zero, unless `clean` is false: then they hold
/// values that must be treated as unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Slots of one ciphertext that one image has (a power of two, N/2 or 1).
    pub slots: usize,
    /// Number of ciphertexts.
    pub ciphertexts: usize,
    /// The contents repeat with this period (a power of two dividing `slots`).
    pub period: usize,
    /// Slots without an element are zero.
    pub clean: bool,
    /// Logical dimensions, outermost first; their extents multiply to the element count.
    pub dims: Vec<LayoutDim>,
}

/// How a multiplexed image tensor is laid over the slots; see [`Layout::multiplexed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplexed {
    /// Channels, height, width of the tensor.
    pub shape: [usize; 3],
    /// Pixels of one channel are this far apart, vertically and horizontally; `gap[0] * gap[1]`
    /// channels share a physical channel.
    pub gap: [usize; 2],
    /// Slots between two physical rows.
    pub row: usize,
    /// Slots between two physical channels.
    pub plane: usize,
}

impl Layout {
    /// A vector of `len` elements in consecutive slots, repeated with `period`.
    pub fn dense(len: usize, slots: usize, period: usize) -> Self {
        let ciphertexts = len.div_ceil(slots).max(1);
        Layout {
            slots,
            ciphertexts,
            period,
            clean: true,
            dims: vec![LayoutDim { extent: len, offsets: Offsets::Stride(1) }],
        }
    }

    /// A ciphertext for each of `len` elements, in which an image has one slot.
    pub fn batched(len: usize) -> Self {
        Self::dense(len, 1, 1)
    }

    /// Multiplexed packing of an image tensor: channel `c` has physical channel `c / (g_h·g_w)` and
    /// sits at offset `((c / g_w) mod g_h, c mod g_w)` of every `g_h × g_w` cell (Orion §4).
    /// Physical channels fill a ciphertext in order; one never crosses two ciphertexts.
    pub fn multiplexed(m: &Multiplexed, slots: usize, period: usize) -> Self {
        let [c, h, w] = m.shape;
        let [gh, gw] = m.gap;
        let per_ciphertext = (slots / m.plane).max(1);
        let channels: Vec<i64> = (0..c)
            .map(|c| {
                let physical = c / (gh * gw);
                let (a, b) = ((c / gw) % gh, c % gw);
                let ciphertext = physical / per_ciphertext;
                (ciphertext * slots + (physical % per_ciphertext) * m.plane + a * m.row + b) as i64
            })
            .collect();
        let physical = c.div_ceil(gh * gw);
        Layout {
            slots,
            ciphertexts: physical.div_ceil(per_ciphertext),
            period,
            clean: true,
            dims: vec![
                LayoutDim { extent: c, offsets: Offsets::from_table(channels) },
                LayoutDim { extent: h, offsets: Offsets::Stride((gh * m.row) as i64) },
                LayoutDim { extent: w, offsets: Offsets::Stride(gw as i64) },
            ],
        }
    }

    /// Number of tensor elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().map(|d| d.extent).product()
    }

    /// Global slot of the element with row-major number `index`.
    pub fn position(&self, index: usize) -> usize {
        let mut rest = index;
        let mut at = 0i64;
        for dim in self.dims.iter().rev() {
            at += dim.offsets.at(rest % dim.extent);
            rest /= dim.extent;
        }
        at as usize
    }

    /// Global slots of all elements, in row-major order.
    pub fn positions(&self) -> Vec<usize> {
        let mut out = vec![0i64];
        for dim in &self.dims {
            out = out.iter().flat_map(|&base| (0..dim.extent).map(move |i| base + dim.offsets.at(i))).collect();
        }
        out.into_iter().map(|s| s as usize).collect()
    }

    /// Packs row-major `values` into slot vectors of length `period` (one per ciphertext).
    ///
    /// # Panics
    /// When `values.len()` is not [`Self::elements`].
    pub fn pack(&self, values: &[f64]) -> Vec<Vec<f64>> {
        assert_eq!(values.len(), self.elements(), "tensor size differs from the layout's");
        let mut out = vec![vec![0.0; self.period]; self.ciphertexts];
        for (slot, &v) in self.positions().into_iter().zip(values) {
            out[slot / self.slots][slot % self.slots] = v;
        }
        out
    }

    /// Reads the row-major tensor out of slot vectors (each at least `period` long).
    pub fn unpack(&self, slots: &[Vec<f64>]) -> Vec<f64> {
        self.positions().into_iter().map(|s| slots[s / self.slots][s % self.slots]).collect()
    }

    /// The smallest power of two above every slot in use of a one-ciphertext layout.
    pub fn span(&self) -> usize {
        let top: i64 = self.dims.iter().map(|d| d.offsets.table(d.extent).into_iter().max().unwrap_or(0)).sum();
        (top as usize + 1).next_power_of_two()
    }

    /// One line for people: extents with their strides, ciphertexts and period.
    pub fn describe(&self) -> String {
        let dims: Vec<String> = self
            .dims
            .iter()
            .map(|d| match &d.offsets {
                Offsets::Stride(s) => format!("{}:{s}", d.extent),
                Offsets::Table(t) => format!("{}:[{}…{}]", d.extent, t.first().unwrap_or(&0), t.last().unwrap_or(&0)),
            })
            .collect();
        format!("{} in {}x{}/{}", dims.join(" "), self.ciphertexts, self.slots, self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplexed_channels_interleave() {
        let m = Multiplexed { shape: [5, 2, 3], gap: [2, 2], row: 6, plane: 24 };
        let layout = Layout::multiplexed(&m, 64, 64);
        assert_eq!(layout.elements(), 30);
        // channel 3 sits at offset (1, 1); channel 4 begins the second physical channel
        assert_eq!(layout.position(3 * 6), 7);
        assert_eq!(layout.position(4 * 6), 24);
        assert_eq!(layout.position(3 * 6 + 3 + 2), 12 + 4 + 7);
        let mut seen = layout.positions();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 30, "no two elements share a slot");
    }

    #[test]
    fn pack_and_unpack_invert() {
        let m = Multiplexed { shape: [7, 3, 3], gap: [1, 1], row: 3, plane: 16 };
        let layout = Layout::multiplexed(&m, 32, 32);
        assert_eq!(layout.ciphertexts, 4);
        let values: Vec<f64> = (0..63).map(f64::from).collect();
        assert_eq!(layout.unpack(&layout.pack(&values)), values);
    }
}
