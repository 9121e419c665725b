//! The automorphisms `X → X^g` of the ring, which rotate and conjugate slots.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::cpu::dispatch;
use crate::ntt::LOG_N_RANGE;
use crate::{MathError, Modulus};

/// The element `5^rotation mod 2N` that rotates the `N/2` slots to the left: slot `i` of the result is slot
/// `i + rotation` of the input. Negative rotations go right.
pub fn galois_element(rotation: i64, log_n: u32) -> u64 {
    let slots = 1i64 << (log_n - 1);
    let mut e = rotation.rem_euclid(slots);
    let mask = (2u64 << log_n) - 1;
    let (mut base, mut acc) = (5u64, 1u64);
    while e != 0 {
        if e & 1 == 1 {
            acc = acc.wrapping_mul(base) & mask;
        }
        base = base.wrapping_mul(base) & mask;
        e >>= 1;
    }
    acc
}

/// The element `2N − 1` that conjugates every slot.
pub fn conjugation_element(log_n: u32) -> u64 {
    (2 << log_n) - 1
}

type Cache = BTreeMap<(u32, u64), Arc<Automorphism>>;

/// The automorphism `a(X) → a(X^g)` as a permutation.
///
/// In bit-reversed order the eight values of an aligned block are those at `ψ^(e + l·N/4)` for one `e` and all `l < 8`. The
/// automorphism takes them from the values at `ψ^(g·e + g·l·N/4)`, which are again one aligned block: a table of blocks
/// and one of eight orders within a block say it all, in an eighth of the memory of a table of positions. A second table goes through the
/// blocks the other way.
#[derive(Debug)]
pub struct Automorphism {
    log_n: u32,
    element: u64,
    /// For each block of the image: eight times the block that it comes from, plus the order.
    pub(crate) blocks: Vec<u32>,
    /// The other way round, for each block: eight times the block of the image that it goes to, plus the order.
    pub(crate) targets: Vec<u32>,
    /// Lane `i` of the image is lane `orders[order][i]` of the block that it comes from.
    pub(crate) orders: [[u64; 8]; 8],
}

impl Automorphism {
    /// The table of `element`, shared by everyone in the process who asks for it.
    ///
    /// # Panics
    /// When the element is even or not below `2N`, or the degree is not supported; see
    /// [`try_get`](Self::try_get) for elements that come from outside.
    pub fn get(log_n: u32, element: u64) -> Arc<Self> {
        match Self::try_get(log_n, element) {
            Ok(table) => table,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`get`](Self::get), for elements that come from outside.
    ///
    /// # Errors
    /// [`MathError::BadDegree`] or [`MathError::BadGaloisElement`].
    pub fn try_get(log_n: u32, element: u64) -> Result<Arc<Self>, MathError> {
        static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);
        if !LOG_N_RANGE.contains(&log_n) {
            return Err(MathError::BadDegree { log_n });
        }
        if element.is_multiple_of(2) || element >= 2 << log_n {
            return Err(MathError::BadGaloisElement { element, log_n });
        }
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        let table = cache.entry((log_n, element)).or_insert_with(|| Arc::new(Self::build(log_n, element)));
        Ok(Arc::clone(table))
    }

    fn build(log_n: u32, element: u64) -> Self {
        let mask = (2u64 << log_n) - 1;
        let shift = 64 - log_n;
        // The three lowest bits of a position are the three highest of its exponent, reversed.
        let reverse_3 = |x: u64| x.reverse_bits() >> 61;
        let blocks: Vec<u32> = (0..1u64 << (log_n - 3))
            .map(|block| {
                let exponent = 2 * ((8 * block).reverse_bits() >> shift) + 1;
                let from = ((exponent * element) & mask) >> 1;
                // The multiple of N/8 in `from` is the order, the rest is the block.
                (((from.reverse_bits() >> shift) & !7) | (from >> (log_n - 3))) as u32
            })
            .collect();
        let mut targets = vec![0; blocks.len()];
        for (to, &from) in (0u32..).zip(&blocks) {
            targets[from as usize >> 3] = (8 * to) | (from & 7);
        }
        let lane = |order: u64, i: u64| reverse_3((order + element * reverse_3(i)) & 7);
        let orders = std::array::from_fn(|order| std::array::from_fn(|i| lane(order as u64, i as u64)));
        Self { log_n, element, blocks, targets, orders }
    }

    /// log2 of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.log_n
    }

    /// The element `g`.
    pub fn element(&self) -> u64 {
        self.element
    }

    /// Applies the automorphism to one limb in evaluation form: a permutation, for any modulus.
    ///
    /// # Panics
    /// When a length is not `N`.
    pub fn apply_eval(&self, src: &[u64], dst: &mut [u64]) {
        self.check(src, dst);
        dispatch!(galois::permute(self, 0, src, dst));
    }

    /// Where an aligned block of a limb in evaluation form comes from: the positions `start … start + len` of the
    /// image are those of the block of the same length that begins here, in another order.
    ///
    /// # Panics
    /// When `len` is not a power of two up to `N` or `start` is not a multiple of it.
    pub fn source_block(&self, start: usize, len: usize) -> usize {
        assert!(len.is_power_of_two() && start.is_multiple_of(len), "block is not aligned");
        let entry = self.blocks[start / 8] as usize;
        ((entry & !7) | self.orders[entry & 7][start & 7] as usize) & !(len - 1)
    }

    /// Where an aligned block goes: the inverse of [`source_block`](Self::source_block), for blocks of eight positions and more.
    ///
    /// # Panics
    /// As there.
    pub fn image_block(&self, start: usize, len: usize) -> usize {
        assert!(len >= 8 && len.is_power_of_two() && start.is_multiple_of(len), "block is not aligned");
        self.targets[start / 8] as usize & !(len - 1)
    }

    /// [`apply_eval`](Self::apply_eval) for the block of positions that begins at `start`; `src` is the block at
    /// [`source_block`](Self::source_block).
    ///
    /// # Panics
    /// As [`source_block`](Self::source_block) with the length of both slices, and when these differ.
    pub fn apply_eval_block(&self, start: usize, src: &[u64], dst: &mut [u64]) {
        let len = dst.len();
        assert!(len.is_power_of_two() && start.is_multiple_of(len) && src.len() == len, "block is not aligned");
        if len >= 8 {
            dispatch!(galois::permute(self, start, src, dst));
        } else {
            let order = &self.orders[self.blocks[start / 8] as usize & 7];
            for (x, &lane) in dst.iter_mut().zip(&order[start & 7..]) {
                *x = src[lane as usize & (len - 1)];
            }
        }
    }

    /// Applies the automorphism to one limb in coefficient form: a permutation with signs.
    ///
    /// # Panics
    /// When a length is not `N`.
    pub fn apply_coeff(&self, m: &Modulus, src: &[u64], dst: &mut [u64]) {
        self.check(src, dst);
        let n = src.len();
        let mut exponent = 0usize;
        for &x in src {
            // X^(i·g), where X^N = −1.
            let position = exponent & (n - 1);
            dst[position] = if exponent & n == 0 { x } else { m.neg(x) };
            exponent = (exponent + self.element as usize) & (2 * n - 1);
        }
    }

    fn check(&self, src: &[u64], dst: &[u64]) {
        assert!(src.len() == 1 << self.log_n && dst.len() == src.len(), "limb length is not the ring degree");
    }
}

mod portable {
    use super::Automorphism;

    pub(super) fn permute(map: &Automorphism, start: usize, src: &[u64], dst: &mut [u64]) {
        let ((src, _), (dst, _)) = (src.as_chunks::<8>(), dst.as_chunks_mut::<8>());
        let mask = src.len() - 1;
        for (d, &entry) in dst.iter_mut().zip(&map.blocks[start / 8..]) {
            let (block, order) = (&src[(entry as usize >> 3) & mask], &map.orders[entry as usize & 7]);
            for (x, &lane) in d.iter_mut().zip(order) {
                *x = block[lane as usize];
            }
        }
    }
}
