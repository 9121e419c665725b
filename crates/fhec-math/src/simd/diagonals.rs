//! Sums of products of diagonals. Checks and meaning: [`crate::diagonals`].

use std::arch::x86_64::{
    _MM_HINT_T0, _mm_prefetch, _mm512_maskz_loadu_epi64, _mm512_maskz_permutexvar_epi8, _mm512_permutexvar_epi64,
    _mm512_setr_epi64,
};

use super::pointwise::{load_part, store_part};
use super::{Field, V, hi, lo, load, splat, store, zero};
use crate::Modulus;
use crate::diagonals::{DiagonalTerm, MirroredTerm, STEP, step_words};
use crate::packed;

/// Vectors handled together.
const GROUP: usize = STEP / 8;
/// How far ahead a stream is fetched, in words.
const STREAM_AHEAD: usize = 128;
/// How far ahead values are fetched, in words.
const AHEAD: usize = 64;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn sum_products(m: &Modulus, terms: &[DiagonalTerm<'_>], [out0, out1]: [&mut [u64]; 2]) {
    let k = Field::new(m);
    // Sixteen products below 2^100 stay below 2^104.
    let narrow = terms.len() <= 16;
    let reduce = |l, h| if narrow { k.reduce_pair(l, h) } else { k.reduce_wide(l, h) };
    let whole = out0.len() / STEP * STEP;
    for start in (0..whole).step_by(STEP) {
        let mut low = [[zero(); GROUP]; 2];
        let mut high = [[zero(); GROUP]; 2];
        for term in terms {
            let x = values(term.values, term.repeat, start);
            for (r, factor) in term.factors.iter().enumerate() {
                let (y, _) = factor[start..start + STEP].as_chunks::<8>();
                for (g, y) in y.iter().enumerate() {
                    let y = load(y);
                    low[r][g] = lo(low[r][g], x[g], y);
                    high[r][g] = hi(high[r][g], x[g], y);
                }
            }
        }
        for (r, out) in [&mut *out0, &mut *out1].into_iter().enumerate() {
            let (blocks, _) = out[start..start + STEP].as_chunks_mut::<8>();
            for (g, block) in blocks.iter_mut().enumerate() {
                store(block, reduce(low[r][g], high[r][g]));
            }
        }
    }
    for (r, out) in [out0, out1].into_iter().enumerate() {
        for start in (whole..out.len()).step_by(8) {
            let end = out.len().min(start + 8);
            let (mut low, mut high) = (zero(), zero());
            for term in terms {
                let mut expanded = [0; 8];
                for (i, x) in expanded[..end - start].iter_mut().enumerate() {
                    *x = term.values[(start + i) / term.repeat];
                }
                let (x, y) = (load(&expanded), load_part(&term.factors[r][start..end]));
                low = lo(low, x, y);
                high = hi(high, x, y);
            }
            store_part(&mut out[start..end], reduce(low, high));
        }
    }
}

/// Both sides in turn for every step: its values come from the first cache the second time.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn sum_mirrored(m: &Modulus, terms: &[MirroredTerm<'_>], [mut front, mut back]: [[&mut [u64]; 2]; 2]) {
    let k = Field::new(m);
    let n = front[0].len();
    let narrow = terms.len() <= 16;
    for start in (0..n).step_by(STEP) {
        mirrored_step::<false>(&k, terms, start, start, narrow, &mut front);
        mirrored_step::<true>(&k, terms, start, n - start - STEP, narrow, &mut back);
    }
}

/// One step of the sums on one side: values from `start`, factors and results from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn mirrored_step<const BACK: bool>(
    k: &Field,
    terms: &[MirroredTerm<'_>],
    start: usize,
    at: usize,
    narrow: bool,
    out: &mut [&mut [u64]; 2],
) {
    let mut low = [[zero(); GROUP]; 2];
    let mut high = [[zero(); GROUP]; 2];
    for term in terms {
        let mut x = values(term.values, term.repeat, start);
        if BACK {
            let backwards = _mm512_setr_epi64(7, 6, 5, 4, 3, 2, 1, 0);
            x = [x[3], x[2], x[1], x[0]].map(|v| _mm512_permutexvar_epi64(backwards, v));
        }
        for (r, factor) in term.factors[usize::from(BACK)].iter().enumerate() {
            let (y, _) = factor[at..at + STEP].as_chunks::<8>();
            for (g, y) in y.iter().enumerate() {
                let y = load(y);
                low[r][g] = lo(low[r][g], x[g], y);
                high[r][g] = hi(high[r][g], x[g], y);
            }
        }
    }
    for (r, out) in out.iter_mut().enumerate() {
        let (blocks, _) = out[at..at + STEP].as_chunks_mut::<8>();
        for (g, block) in blocks.iter_mut().enumerate() {
            let (l, h) = (low[r][g], high[r][g]);
            store(block, if narrow { k.reduce_pair(l, h) } else { k.reduce_wide(l, h) });
        }
    }
}

/// Spreads the packed values of a step over its vectors.
struct Unpacking {
    repeat: usize,
    width: usize,
    /// Words of one load.
    load: u8,
    /// For each byte of the vectors the byte of the load.
    orders: [V; GROUP],
    /// The bytes of a vector that are not zero.
    bytes: u64,
}

impl Unpacking {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn new(m: &Modulus, repeat: usize) -> Self {
        let width = packed::width(m);
        let order = |g: usize| {
            let mut words = [0; 8];
            for (lane, word) in words.iter_mut().enumerate() {
                // One load holds eight values.
                let value = (8 * g + lane) / repeat % 8;
                *word = u64::from_le_bytes(std::array::from_fn(|byte| (value * width + byte.min(width - 1)) as u8));
            }
            load(&words)
        };
        let spread = repeat < 8;
        Self {
            repeat,
            width,
            load: ((1u16 << width) - 1) as u8,
            orders: if spread { [order(0), order(1), order(2), order(3)] } else { [zero(); GROUP] },
            bytes: ((1 << width) - 1) * 0x0101_0101_0101_0101,
        }
    }

    /// The vectors of one step.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn get(&self, words: &[u64]) -> [V; GROUP] {
        let raw = |i: usize| {
            let part = &words[i * self.width..(i + 1) * self.width];
            // SAFETY: the mask leaves only the words of the slice to be read.
            unsafe { _mm512_maskz_loadu_epi64(self.load, part.as_ptr().cast()) }
        };
        let spread = |g: usize, v: V| _mm512_maskz_permutexvar_epi8(self.bytes, self.orders[g], v);
        match self.repeat {
            1 => [spread(0, raw(0)), spread(1, raw(1)), spread(2, raw(2)), spread(3, raw(3))],
            2 => {
                let (a, b) = (raw(0), raw(1));
                [spread(0, a), spread(1, a), spread(2, b), spread(3, b)]
            }
            4 => {
                let v = raw(0);
                [spread(0, v), spread(1, v), spread(2, v), spread(3, v)]
            }
            8 => [splat(words[0]), splat(words[1]), splat(words[2]), splat(words[3])],
            16 => [splat(words[0]), splat(words[0]), splat(words[1]), splat(words[1])],
            _ => [splat(words[0]); GROUP],
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn sum_packed(
    m: &Modulus,
    repeat: usize,
    stream: &[u64],
    factors: &[[&[u64]; 2]],
    [out0, out1]: [&mut [u64]; 2],
) {
    let k = Field::new(m);
    let unpacking = Unpacking::new(m, repeat);
    let words = step_words(m, repeat);
    let narrow = factors.len() <= 16;
    for start in (0..out0.len()).step_by(STEP) {
        let mut low = [[zero(); GROUP]; 2];
        let mut high = [[zero(); GROUP]; 2];
        let first = start / STEP * factors.len() * words;
        for (t, factors) in factors.iter().enumerate() {
            let at = first + t * words;
            prefetch(stream, at + STREAM_AHEAD, words);
            let x = unpacking.get(&stream[at..at + words]);
            for (r, factor) in factors.iter().enumerate() {
                let (y, _) = factor[start..start + STEP].as_chunks::<8>();
                for (g, y) in y.iter().enumerate() {
                    let y = load(y);
                    low[r][g] = lo(low[r][g], x[g], y);
                    high[r][g] = hi(high[r][g], x[g], y);
                }
            }
        }
        for (r, out) in [&mut *out0, &mut *out1].into_iter().enumerate() {
            let (blocks, _) = out[start..start + STEP].as_chunks_mut::<8>();
            for (g, block) in blocks.iter_mut().enumerate() {
                let (l, h) = (low[r][g], high[r][g]);
                store(block, if narrow { k.reduce_pair(l, h) } else { k.reduce_wide(l, h) });
            }
        }
    }
}

/// Asks for the cache lines of `count` words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn prefetch(words: &[u64], from: usize, count: usize) {
    for i in (0..count).step_by(8) {
        // A hint reads nothing, so the address may lie beyond the end.
        _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(from + i).cast());
    }
}

/// Entries `start … start + STEP` of a diagonal.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn values(words: &[u64], repeat: usize, start: usize) -> [V; GROUP] {
    let first = start / repeat;
    match repeat {
        1 => {
            let (blocks, _) = words[first..first + STEP].as_chunks::<8>();
            fetch(words, first + AHEAD, GROUP);
            [load(&blocks[0]), load(&blocks[1]), load(&blocks[2]), load(&blocks[3])]
        }
        2 => {
            let (blocks, _) = words[first..first + STEP / 2].as_chunks::<8>();
            fetch(words, first + AHEAD, GROUP / 2);
            let (a, b) = (load(&blocks[0]), load(&blocks[1]));
            let (lower, upper) = (_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), _mm512_setr_epi64(4, 4, 5, 5, 6, 6, 7, 7));
            let pick = |order, v| _mm512_permutexvar_epi64(order, v);
            [pick(lower, a), pick(upper, a), pick(lower, b), pick(upper, b)]
        }
        4 => {
            let (blocks, _) = words[first..first + STEP / 4].as_chunks::<8>();
            fetch(words, first + AHEAD, 1);
            let v = load(&blocks[0]);
            let pick = |i: i64| {
                let (a, b) = (2 * i, 2 * i + 1);
                _mm512_permutexvar_epi64(_mm512_setr_epi64(a, a, a, a, b, b, b, b), v)
            };
            [pick(0), pick(1), pick(2), pick(3)]
        }
        repeat => {
            let at = |g: usize| splat(words[(start + 8 * g) / repeat]);
            [at(0), at(1), at(2), at(3)]
        }
    }
}

/// Asks for the cache lines of `count` vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn fetch(words: &[u64], from: usize, count: usize) {
    for i in 0..count {
        // The hint reads nothing, so the address may lie beyond the end.
        _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(from + 8 * i).cast());
    }
}
