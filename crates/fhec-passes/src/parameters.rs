//! Selects encryption parameters: the cheapest that are secure and precise enough (SEALion §4).
//!
//! For one ring degree: every partition of the chain into key-switching digits is a candidate. For each, the
//! smallest primes are sought with which the noise model promises the asked precision, within the security table. The
//! free quantities are the size `b` of the chain's primes, the amplitude of inner values (scale times bound; it may
//! exceed `b`, because high levels have room), and the amplitude of the outputs, which decides `q_0`. Of all candidates
//! the one with the least predicted time wins, then the one with the smallest modulus.

use crate::cost::CostTable;
use crate::levels::Placed;
use crate::noise::{Model, Prediction};
use crate::pricing::{Price, price};
use crate::scales::{Design, Exponents, Symbolic};
use crate::shape::{MAX_LOG2_PRIME, Shape};
use fhec_ir::he::facts::bound;
use fhec_math::primes::ntt_primes_near;
use fhec_math::security::{SecurityLevel, max_log_qp};
use fhec_plan::{KeyManifest, Parameters};
use std::collections::BTreeSet;

/// Bits kept free above every value: the model bounds values, noise comes on top.
const HEADROOM: f64 = 0.2;
/// P exceeds the largest digit by at least and at most so many bits: more makes key switching noise vanish entirely.
const P_MARGIN: (f64, f64) = (0.5, 14.0);
/// Bits left below the security table's limit, for primes that are not powers of two.
const LIMIT_SLACK: f64 = 0.1;
/// Primes have at least so many bits more than N: below there are too few that are 1 modulo 2N.
const PRIME_MARGIN: u32 = 9;
/// Smallest outer amplitude tried.
const MIN_AMPLITUDE: f64 = 8.0;

/// What the parameters have to fulfil.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// Security level.
    pub security: SecurityLevel,
    /// Precision of the worst output, in bits of its range (predicted standard deviation).
    pub precision_bits: f64,
    /// Bytes that an evaluation may use.
    pub memory_budget: Option<u64>,
}

/// Parameters and what they promise.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The parameters.
    pub parameters: Parameters,
    /// Values of the unknown scales.
    pub exponents: Exponents,
    /// Predicted errors.
    pub prediction: Prediction,
    /// Predicted cost.
    pub price: Price,
}

/// Why a ring degree has no parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unfit {
    /// The chain does not fit the security table.
    Security,
    /// The asked precision cannot be reached; the best possible is given.
    Precision(f64),
    /// The memory budget is too small; the least that suffices is given.
    Memory(u64),
}

/// A point of the search.
#[derive(Clone, Debug)]
struct Point {
    shape: Shape,
    exponents: Exponents,
    bits: f64,
}

/// The search for one ring degree.
struct Search<'a> {
    placed: &'a Placed,
    symbolic: &'a Symbolic,
    model: &'a Model<'a>,
    log_n: u32,
    limit: f64,
    wanted: f64,
    /// log2 of the bound of every value.
    bounds: Vec<f64>,
}

/// Selects parameters for ring degree 2^log_n.
///
/// # Errors
/// Why there are none.
pub fn select(
    placed: &Placed,
    symbolic: &Symbolic,
    model: &Model<'_>,
    keys: &KeyManifest,
    log_n: u32,
    demands: &Demands,
    table: &CostTable,
) -> Result<Selected, Unfit> {
    let limit = max_log_qp(demands.security, log_n).ok_or(Unfit::Security)?;
    let bounds = placed.graph.nodes.iter().map(|n| bound(n).max(f64::MIN_POSITIVE).log2()).collect();
    let search = Search {
        placed,
        symbolic,
        model,
        log_n,
        limit: f64::from(limit) - LIMIT_SLACK,
        wanted: demands.precision_bits,
        bounds,
    };
    let mut best: Option<(f64, f64, Point, Price)> = None;
    let mut unfit = Unfit::Security;
    for count in 1..=placed.top() + 1 {
        let point = match search.smallest(count) {
            Ok(point) => point,
            Err(why) => {
                unfit = worse(unfit, why);
                continue;
            }
        };
        let cost = price(model, keys, &point.shape, table);
        if cost.cache(demands.memory_budget).is_none() {
            unfit = worse(unfit, Unfit::Memory(cost.fixed));
            continue;
        }
        let (seconds, size) = (cost.seconds(), point.shape.log2_qp());
        let better = best.as_ref().is_none_or(|(s, q, ..)| seconds < s * 0.999 || (seconds <= *s && size < *q));
        if better {
            best = Some((seconds, size, point, cost));
        }
    }
    let Some((_, _, point, _)) = best else { return Err(unfit) };
    search.realise(&point, keys, demands, table)
}

/// The reason that is nearer to success.
fn worse(a: Unfit, b: Unfit) -> Unfit {
    match (a, b) {
        (Unfit::Memory(x), Unfit::Memory(y)) => Unfit::Memory(x.min(y)),
        (Unfit::Memory(x), _) | (_, Unfit::Memory(x)) => Unfit::Memory(x),
        (Unfit::Precision(x), Unfit::Precision(y)) => Unfit::Precision(x.max(y)),
        (Unfit::Precision(x), Unfit::Security) | (Unfit::Security, Unfit::Precision(x)) => Unfit::Precision(x),
        (Unfit::Security, Unfit::Security) => Unfit::Security,
    }
}

impl Search<'_> {
    /// The point of least modulus with `count` digits that is precise enough.
    fn smallest(&self, count: usize) -> Result<Point, Unfit> {
        let mut best: Option<Point> = None;
        let mut unfit = Unfit::Security;
        // Amplitude of inner values above the size of the primes, in bits.
        for extra in 0..=6 {
            match self.smallest_prime(count, f64::from(extra)) {
                Ok(point) => {
                    let size = |p: &Point| p.shape.log2_qp();
                    if best.as_ref().is_none_or(|b| size(&point) < size(b)) {
                        best = Some(point);
                    }
                }
                Err(why) => unfit = worse(unfit, why),
            }
        }
        best.ok_or(unfit)
    }

    /// The smallest size of primes for which the outputs can be precise enough.
    ///
    /// Not a bisection: larger primes are more precise, until they leave the outputs too little of the modulus.
    fn smallest_prime(&self, count: usize, extra: f64) -> Result<Point, Unfit> {
        let mut unfit = Unfit::Security;
        for b in self.log_n + PRIME_MARGIN..=MAX_LOG2_PRIME as u32 {
            match self.precise(count, f64::from(b), extra) {
                Ok(point) => return Ok(point),
                // Larger primes will not fit either.
                Err(Unfit::Security) => break,
                Err(why) => unfit = worse(unfit, why),
            }
        }
        Err(unfit)
    }

    /// The smallest outer amplitude that is precise enough, for primes of `b` bits.
    fn precise(&self, count: usize, b: f64, extra: f64) -> Result<Point, Unfit> {
        let (mut low, mut high) = (MIN_AMPLITUDE as i32, MAX_LOG2_PRIME as i32);
        let mut found = Err(Unfit::Security);
        let mut most: Option<f64> = None;
        while low <= high {
            let middle = low + (high - low) / 2;
            match self.point(count, b, extra, f64::from(middle)) {
                Some(point) if point.bits >= self.wanted => {
                    found = Ok(point);
                    high = middle - 1;
                }
                Some(point) => {
                    most = Some(most.map_or(point.bits, |m| m.max(point.bits)));
                    low = middle + 1;
                }
                None => high = middle - 1,
            }
        }
        match (found, most) {
            (Err(_), Some(bits)) => Err(Unfit::Precision(bits)),
            (found, _) => found,
        }
    }

    /// Sizes for given `b` and amplitudes, and their precision; `None` where they do not fit.
    fn point(&self, count: usize, b: f64, extra: f64, outer: f64) -> Option<Point> {
        let top = self.placed.top();
        // q_0 does not occur in scales, so they can be found before it.
        let mut log2_q = vec![b; top + 1];
        let design = Design { log2_q: log2_q.clone(), inner: b + extra, outer };
        let exponents = self.symbolic.exponents(self.placed, &design);
        let scales = self.symbolic.log2_scales(&exponents, &log2_q);
        log2_q[0] = self.least_q0(&scales, &log2_q)?;
        let digits = balanced(&log2_q, count);
        let mut start = 0;
        let largest = digits
            .iter()
            .map(|&len| {
                start += len;
                log2_q[start - len..start].iter().sum::<f64>()
            })
            .fold(0.0, f64::max);
        let special = ((largest + P_MARGIN.0) / MAX_LOG2_PRIME).ceil().max(1.0);
        let room = self.limit - log2_q.iter().sum::<f64>();
        let log2_p = room.min(special * MAX_LOG2_PRIME).min(largest + P_MARGIN.1);
        if log2_p < largest + P_MARGIN.0 {
            return None;
        }
        let log2_p = vec![(log2_p / special).max(f64::from(self.log_n + PRIME_MARGIN)); special as usize];
        let shape = Shape { log_n: self.log_n, log2_q, log2_p, digits };
        if shape.log2_qp() > self.limit {
            return None;
        }
        let bits = self.model.predict(&shape, &scales).bits;
        Some(Point { shape, exponents, bits })
    }

    /// The least log2 of q_0 that holds all values of level 0, and with the other primes all values above.
    fn least_q0(&self, scales: &[f64], log2_q: &[f64]) -> Option<f64> {
        let mut least = f64::from(self.log_n + PRIME_MARGIN);
        for (i, &level) in self.placed.levels.iter().enumerate() {
            let above: f64 = log2_q[1..=level].iter().sum();
            least = least.max(scales[i] + self.bounds[i] + 1.0 + HEADROOM - above);
        }
        (least <= MAX_LOG2_PRIME).then_some(least)
    }

    /// Finds primes of the sizes of `point` and predicts with them.
    fn realise(
        &self,
        point: &Point,
        keys: &KeyManifest,
        demands: &Demands,
        table: &CostTable,
    ) -> Result<Selected, Unfit> {
        let q0 = |log2_q: &[f64]| {
            let scales = self.symbolic.log2_scales(&point.exponents, log2_q);
            self.least_q0(&scales, log2_q)
        };
        let parameters = realise(&point.shape, demands.security, q0).ok_or(Unfit::Security)?;
        let shape = Shape::of(&parameters);
        let scales = self.symbolic.log2_scales(&point.exponents, &shape.log2_q);
        let prediction = self.model.predict(&shape, &scales);
        let price = price(self.model, keys, &shape, table);
        Ok(Selected { parameters, exponents: point.exponents.clone(), prediction, price })
    }
}

/// Splits a chain into `count` digits whose largest is as small as possible; fewer where `count` exceeds the limbs.
pub fn balanced(log2_q: &[f64], count: usize) -> Vec<usize> {
    let n = log2_q.len();
    let count = count.clamp(1, n);
    let sum = |from: usize, to: usize| log2_q[from..to].iter().sum::<f64>();
    // best[k][i]: least possible largest digit when the first i limbs are split into k digits, and the last cut.
    let mut best = vec![vec![(f64::INFINITY, 0); n + 1]; count + 1];
    best[0][0] = (0.0, 0);
    for k in 1..=count {
        for i in k..=n {
            for cut in k - 1..i {
                let largest = best[k - 1][cut].0.max(sum(cut, i));
                if largest < best[k][i].0 {
                    best[k][i] = (largest, cut);
                }
            }
        }
    }
    let mut digits = Vec::with_capacity(count);
    let mut end = n;
    for k in (1..=count).rev() {
        let cut = best[k][end].1;
        digits.push(end - cut);
        end = cut;
    }
    digits.reverse();
    digits
}

/// Primes for a shape: around their sizes, and then `q_0` at least as large as `least_q0` says for them.
fn realise(shape: &Shape, security: SecurityLevel, least_q0: impl Fn(&[f64]) -> Option<f64>) -> Option<Parameters> {
    let mut used = BTreeSet::new();
    let mut take = |log2: f64, least: f64| -> Option<u64> {
        let fits = |p: &u64| (*p as f64).log2() >= least && !used.contains(p);
        let prime = ntt_primes_near(log2, shape.log_n).find(fits)?;
        used.insert(prime);
        Some(prime)
    };
    let mut q = vec![0];
    let mut log2_q = shape.log2_q.clone();
    for log2 in &mut log2_q[1..] {
        let prime = take(*log2, 0.0)?;
        *log2 = (prime as f64).log2();
        q.push(prime);
    }
    let least = least_q0(&log2_q)?;
    q[0] = take(least, least)?;
    let p = shape.log2_p.iter().map(|&log2| take(log2, 0.0)).collect::<Option<Vec<u64>>>()?;
    let parameters = Parameters { log_n: shape.log_n, q, p, digits: shape.digits.clone(), security: Some(security) };
    let within = max_log_qp(security, shape.log_n).is_some_and(|limit| parameters.log_qp() <= f64::from(limit));
    let log2_p: f64 = Shape::of(&parameters).log2_p.iter().sum();
    let holds = {
        let real = Shape::of(&parameters);
        real.digit_ranges().all(|r| real.log2_q[r].iter().sum::<f64>() < log2_p)
    };
    (within && holds).then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_balanced_by_bits() {
        assert_eq!(balanced(&[50.0, 30.0, 30.0, 30.0, 30.0], 2), [2, 3]);
        assert_eq!(balanced(&[30.0; 6], 3), [2, 2, 2]);
        assert_eq!(balanced(&[30.0; 3], 9), [1, 1, 1]);
        assert_eq!(balanced(&[30.0; 3], 1), [3]);
    }

    #[test]
    fn real_primes_keep_to_the_security_table() {
        let shape = Shape { log_n: 13, log2_q: vec![30.0, 27.0, 27.0, 27.0], log2_p: vec![40.0], digits: vec![1; 4] };
        let p = realise(&shape, SecurityLevel::Bits128, |q| Some(q[0])).expect("151 of 214 bits");
        assert!(p.log_qp() < 152.0 && p.q[0] >= 1 << 30);
        let mut all: Vec<u64> = p.q.iter().chain(&p.p).copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
        assert!(realise(&shape, SecurityLevel::Bits256, |q| Some(q[0])).is_none(), "only 114 bits");
    }
}
