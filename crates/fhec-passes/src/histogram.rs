//! Histograms of values whose range is not known beforehand.

use fhec_ir::nn::Range;

/// Most bins of a histogram, as log2.
const LOG_MOST: i32 = 10;

/// Counts over bins whose width is a power of two and whose borders are multiples of it.
///
/// A histogram that has to reach further gets bins of twice the width, each of which is two of the old ones. So counts are exact, and
/// do not depend on the order in which values come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    /// log2 of the width.
    log_width: i32,
    /// Number of the first bin, which begins at so many widths.
    first: i64,
    counts: Vec<u64>,
}

impl Histogram {
    /// That of a list of finite numbers, all in `range`; empty for one that is not finite.
    pub(crate) fn of(values: &[f64], range: Range) -> Self {
        let mut this = Self::over(range);
        let bins = this.counts.len();
        if bins > 0 {
            let scale = exp2(-this.log_width);
            for x in values {
                let at = floor(x * scale).wrapping_sub(this.first) as usize;
                this.counts[at.min(bins - 1)] += 1;
            }
        }
        this
    }

    /// Empty bins over a range.
    fn over(Range { lo, hi }: Range) -> Self {
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
            return Self::default();
        }
        // Bins no narrower than the rounding of numbers of this size, so that their numbers are exact.
        let least = (f64::EPSILON * lo.abs().max(hi.abs())).max(f64::MIN_POSITIVE) * f64::from(1 << LOG_MOST);
        // Infinite where the ends are as far apart as numbers can be.
        let span = (hi - lo).clamp(least, f64::MAX);
        let mut log_width = span.log2().ceil() as i32 - LOG_MOST;
        let bin = |x: f64, log_width: i32| floor(x * exp2(-log_width));
        // One more where the range does not begin at a border.
        while bin(hi, log_width) - bin(lo, log_width) >= 1 << LOG_MOST {
            log_width += 1;
        }
        let first = bin(lo, log_width);
        Histogram { log_width, first, counts: vec![0; (bin(hi, log_width) - first + 1) as usize] }
    }

    /// Adds another one.
    pub(crate) fn add(&mut self, mut other: Histogram) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            *self = other;
            return;
        }
        let end = |h: &Histogram| h.first + h.counts.len() as i64;
        self.widen(other.log_width);
        loop {
            other.widen(self.log_width);
            let (first, end) = (self.first.min(other.first), end(self).max(end(&other)));
            if end - first <= 1 << LOG_MOST {
                let missing = (self.first - first) as usize;
                self.counts.splice(..0, std::iter::repeat_n(0, missing));
                self.first = first;
                self.counts.resize((end - first) as usize, 0);
                break;
            }
            self.widen(self.log_width + 1);
        }
        let at = (other.first - self.first) as usize;
        self.counts[at..].iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    /// Makes bins of at least a width.
    fn widen(&mut self, log_width: i32) {
        let by = log_width - self.log_width;
        if by <= 0 {
            return;
        }
        // No histogram has so many bins.
        let by = by.min(62);
        let first = self.first >> by;
        let mut counts = vec![0; (((self.first + self.counts.len() as i64 - 1) >> by) - first + 1) as usize];
        for (bin, count) in (self.first..).zip(&self.counts) {
            counts[((bin >> by) - first) as usize] += count;
        }
        *self = Histogram { log_width, first, counts };
    }

    /// Counts over so many equal bins of a range that holds all values, each old bin where its middle is.
    pub(crate) fn over_bins(&self, range: Range, bins: usize) -> Vec<u64> {
        let mut out = vec![0; bins];
        let scale = bins as f64 / (range.hi - range.lo).max(f64::MIN_POSITIVE);
        for (bin, count) in (self.first..).zip(&self.counts) {
            let middle = (bin as f64 + 0.5) * exp2(self.log_width);
            out[(((middle - range.lo) * scale) as usize).min(bins - 1)] += count;
        }
        out
    }
}

/// The largest integer that is no larger; without the function of that name, which is called for every number on processors of which
/// nothing is assumed.
fn floor(x: f64) -> i64 {
    let towards_zero = x as i64;
    towards_zero - i64::from(towards_zero as f64 > x)
}

fn exp2(exponent: i32) -> f64 {
    f64::from(exponent).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(values: &[f64]) -> Range {
        let fold = |from: f64, f: fn(f64, f64) -> f64| values.iter().copied().fold(from, f);
        Range { lo: fold(f64::INFINITY, f64::min), hi: fold(f64::NEG_INFINITY, f64::max) }
    }

    fn of(values: &[f64]) -> Histogram {
        Histogram::of(values, range(values))
    }

    /// Numbers of very different sizes.
    fn lists() -> Vec<Vec<f64>> {
        let wave = |n: usize, size: f64| (0..n).map(|i| size * (1.3 * i as f64 + size).sin()).collect::<Vec<_>>();
        vec![
            wave(500, 1.0),
            wave(300, 1e-3),
            vec![0.0],
            wave(700, 40.0),
            vec![-7.0; 5],
            vec![1e-300, 0.0],
            vec![3e8, 3e8 + 1.0],
            wave(10, 1e-9),
        ]
    }

    #[test]
    fn sums_are_the_histogram_of_all_values_in_any_order() {
        let lists = lists();
        let all = lists.concat();
        let whole = of(&all);
        assert_eq!(whole.counts.iter().sum::<u64>(), all.len() as u64);
        for turn in 0..lists.len() {
            let mut sum = Histogram::default();
            for k in 0..lists.len() {
                sum.add(of(&lists[(k + turn) % lists.len()]));
            }
            assert_eq!(sum, whole, "from list {turn}");
        }
    }

    #[test]
    fn every_value_is_in_its_bin() {
        for list in lists() {
            let h = of(&list);
            assert!(h.counts.len() <= 1 << LOG_MOST, "{} bins", h.counts.len());
            let width = exp2(h.log_width);
            for (k, &count) in h.counts.iter().enumerate() {
                let lo = (h.first + k as i64) as f64 * width;
                let inside = list.iter().filter(|x| (lo..lo + width).contains(*x)).count();
                assert_eq!(count, inside as u64, "bin {k} of {:?}", range(&list));
            }
        }
    }

    #[test]
    fn numbers_may_be_as_far_apart_as_there_are() {
        let h = of(&[f64::MIN, 0.0, f64::MAX]);
        assert!(h.counts.len() <= 1 << LOG_MOST && h.counts.iter().sum::<u64>() == 3, "{} bins", h.counts.len());
        let mut sum = of(&[f64::MIN]);
        sum.add(of(&[f64::MAX, 0.0]));
        assert_eq!(sum, h);
    }

    #[test]
    fn coarser_bins_are_those_of_the_values() {
        let list: Vec<f64> = (0..20_000).map(|i| (1.7 * f64::from(i)).sin()).collect();
        let wide = Range { lo: -1.4, hi: 1.4 };
        let found = of(&list).over_bins(wide, 64);
        assert_eq!(found.iter().sum::<u64>(), 20_000);
        for (k, &count) in found.iter().enumerate() {
            let border = |k: usize| wide.lo + (wide.hi - wide.lo) * k as f64 / 64.0;
            let exact = list.iter().filter(|x| (border(k)..border(k + 1)).contains(*x)).count();
            assert!(count.abs_diff(exact as u64) <= 20 + exact as u64 / 10, "bin {k}: {count}, {exact} values");
        }
    }

    #[test]
    fn what_is_not_finite_has_no_bins() {
        assert_eq!(Histogram::of(&[1.0], Range { lo: 0.0, hi: f64::INFINITY }), Histogram::default());
        assert_eq!(Histogram::of(&[], Range { lo: f64::INFINITY, hi: f64::NEG_INFINITY }), Histogram::default());
        assert_eq!(Histogram::default().over_bins(Range { lo: 0.0, hi: 1.0 }, 4), [0; 4]);
    }
}
