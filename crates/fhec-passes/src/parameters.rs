//! Selects encryption parameters: the cheapest that are secure and precise enough (SEALion §4).
//!
//! For one ring degree: every number of special primes is a candidate; it decides into how few key-switching
//! digits the chain can be split. For each, the smallest primes are sought with which the noise model promises the asked precision, within the security table. The
//! free quantities are the size `b` of the chain's primes, the amplitude of inner values (scale times bound; it may
//! exceed `b`, because high levels have room), and the amplitude of the outputs, which decides `q_0`. Of all candidates
//! the one with the least predicted time ([`Goal`]) wins, then the one with the smallest modulus.

use crate::bootstrapped::Chosen;
use crate::compose;
use crate::cost::CostTable;
use crate::digits::{fewest, largest};
use crate::levels::Placed;
use crate::noise::{Model, Prediction};
use crate::pricing::{Price, price};
use crate::rotation_keys;
use crate::scales::{Design, Exponents, Symbolic};
use crate::shape::{MAX_LOG2_PRIME, Shape};
use fhec_ir::he::facts::{bound, log2_images};
use fhec_ir::he::{Op, ValueId};
use fhec_math::Scale;
use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::primes::ntt_primes_near;
use fhec_math::security::{SecurityLevel, max_log_qp};
use fhec_plan::verify::MIN_LOG2_SCALE;
use fhec_plan::{KeyManifest, Parameters, bootstrap_slots};
use std::collections::BTreeSet;

/// Bits kept free above every value: the model bounds values, noise comes on top.
pub(crate) const HEADROOM: f64 = 0.2;
/// Most special primes tried.
pub(crate) const MAX_SPECIAL: usize = 12;
/// P exceeds the largest digit by at least and at most so many bits: more makes key switching noise vanish entirely.
pub(crate) const P_MARGIN: (f64, f64) = (0.5, 14.0);
/// Bits left below the security table's limit, for primes that are not powers of two.
pub(crate) const LIMIT_SLACK: f64 = 0.1;
/// Primes have at least so many bits more than N: below there are too few that are 1 modulo 2N.
pub const PRIME_MARGIN: u32 = 9;
/// Bits of precision that the search asks for on top, because real primes differ a little from powers of two.
const PRECISION_SLACK: f64 = 0.02;
/// Times that more is asked for, where primes turned out to be too coarse, and by how many bits at least.
const ENLARGED: usize = 4;
const MORE_BITS: f64 = 0.5;
/// Smallest outer amplitude tried.
const MIN_AMPLITUDE: f64 = 8.0;

/// What is to be least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// The time of a process that evaluates one input: keys are loaded and weights are encoded.
    #[default]
    Latency,
    /// The time for each of many inputs: keys and encoded weights are there already.
    Throughput,
}

/// What the parameters have to fulfil.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// What is to be least.
    pub goal: Goal,
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
    /// It does not, and with bootstraps an operation alone would take more levels than they leave.
    Levels,
    /// The chain does not fit the security table, and bootstraps, which need a sparse secret, are not granted such security.
    Sparse,
    /// With bootstraps, values do not fit the primes at the scales of the network, or scales fall too low.
    Scales,
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

/// A shape, the unknowns, and log2 of the scales of all values.
type Sizes = (Shape, Exponents, Vec<f64>);

/// The search for one ring degree.
struct Search<'a> {
    placed: &'a Placed,
    symbolic: &'a Symbolic,
    model: &'a Model<'a>,
    log_n: u32,
    limit: f64,
    demands: &'a Demands,
    keys: &'a KeyManifest,
    table: &'a CostTable,
    /// log2 of the bound of every value, at least 0.
    bounds: Vec<f64>,
    /// Bits of precision that are asked for besides those of the demands.
    more: f64,
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
    let limit = f64::from(limit) - LIMIT_SLACK;
    let bounds = log2_bounds(placed);
    let mut search = Search { placed, symbolic, model, log_n, limit, demands, keys, table, bounds, more: 0.0 };
    let mut candidates = Vec::new();
    let mut unfit = Unfit::Security;
    for special in 1..=MAX_SPECIAL.min(placed.top() + 1) {
        match search.smallest(special).and_then(|point| Ok((search.affordable(&point.shape)?, point))) {
            Ok((price, point)) => candidates.push((price.objective(demands.goal, table), point)),
            Err(why) => unfit = nearer(unfit, why),
        }
    }
    let size = |p: &Point| p.shape.log2_qp();
    // Times closer than the model can tell apart count as equal.
    let steps = |seconds: f64| (seconds.ln() * 1000.0).round();
    candidates.sort_by(|(s, p), (t, q)| steps(*s).total_cmp(&steps(*t)).then(size(p).total_cmp(&size(q))));
    for (_, point) in candidates {
        match search.realise_or_enlarge(point) {
            Ok(selected) => return Ok(selected),
            Err(why) => unfit = nearer(unfit, why),
        }
    }
    Err(unfit)
}

/// Parameters of the shape that bootstraps were placed for.
///
/// # Errors
/// Why there are none; precision is not looked at.
pub fn select_bootstrapped(
    placed: &Placed,
    symbolic: &Symbolic,
    model: &Model<'_>,
    chosen: &Chosen,
    demands: &Demands,
    table: &CostTable,
) -> Result<(Selected, KeyManifest), Unfit> {
    let shape = &chosen.shape;
    let design = Design { log2_q: shape.log2_q.clone(), inner: chosen.amplitude, outer: shape.log2_q[0] - 3.0 };
    let exponents = symbolic.exponents(placed, &design);
    let mut parameters = realise(shape, demands.security, |q| Some(q[0])).ok_or(Unfit::Security)?;
    let log2_q = Shape::of(&parameters).log2_q;
    let scales = symbolic.log2_scales(&exponents, &log2_q);
    // Bootstraps take what the largest value that any of them gets needs.
    let graph = &placed.graph;
    let refreshed: Vec<ValueId> =
        graph.nodes.iter().filter(|n| matches!(n.op, Op::Bootstrap { .. })).map(|n| n.inputs[0]).collect();
    let amplitude = |v: &ValueId| scales[v.index()] + bound(graph.node(*v)).max(f64::MIN_POSITIVE).log2();
    let largest = refreshed.iter().map(amplitude).fold(f64::NEG_INFINITY, f64::max);
    let slots = refreshed.iter().map(|&v| bootstrap_slots(graph.node(v).layout.period)).collect();
    parameters.bootstrap = shape
        .bootstrap
        .clone()
        .map(|spec| BootstrapSpec { input_scale: Scale::pow2(largest.max(chosen.amplitude).ceil() as i64), ..spec });
    let mut keys = rotation_keys::manifest(model, parameters.log_n);
    let bootstraps = keys.add_bootstraps(&parameters, &slots);
    let shape = Shape::of(&parameters);
    let (log_n, limit, bounds) = (shape.log_n, shape.log2_qp(), log2_bounds(placed));
    let search = Search { placed, symbolic, model, log_n, limit, demands, keys: &keys, table, bounds, more: 0.0 };
    // Sizes are those of the template, so all that is left is to see whether they do.
    let holds = search.least_q0(&scales, &log2_q).is_some_and(|least| least <= log2_q[0]);
    if !holds || !search.fine_enough(&scales, &log2_q, MIN_LOG2_SCALE) {
        return Err(Unfit::Scales);
    }
    let attempt = |model: &Model<'_>, keys: &KeyManifest| {
        let price = affordable(model, keys, &shape, demands, table)?;
        Ok((price, model.predict(&shape, &scales)))
    };
    let ((price, prediction), keys) = compose::fitted(model, keys.clone(), (log_n, &bootstraps), attempt)?;
    Ok((Selected { parameters, exponents, prediction, price }, keys))
}

/// log2 of what a slot of every value holds at most, at least 0: scales themselves must stay below the modulus too, whatever the
/// values.
fn log2_bounds(placed: &Placed) -> Vec<f64> {
    let images = log2_images(&placed.graph);
    placed.graph.nodes.iter().map(|n| bound(n).max(1.0).log2() + images).collect()
}

/// The reason that is nearer to success.
pub(crate) fn nearer(a: Unfit, b: Unfit) -> Unfit {
    match (a, b) {
        (Unfit::Memory(x), Unfit::Memory(y)) => Unfit::Memory(x.min(y)),
        (Unfit::Memory(x), _) | (_, Unfit::Memory(x)) => Unfit::Memory(x),
        (Unfit::Precision(x), Unfit::Precision(y)) => Unfit::Precision(x.max(y)),
        (Unfit::Precision(x), _) | (_, Unfit::Precision(x)) => Unfit::Precision(x),
        (Unfit::Scales, _) | (_, Unfit::Scales) => Unfit::Scales,
        (Unfit::Levels, _) | (_, Unfit::Levels) => Unfit::Levels,
        (Unfit::Sparse, _) | (_, Unfit::Sparse) => Unfit::Sparse,
        (Unfit::Security, Unfit::Security) => Unfit::Security,
    }
}

/// The price of a shape, if the memory budget allows it.
fn affordable(
    model: &Model<'_>,
    keys: &KeyManifest,
    shape: &Shape,
    demands: &Demands,
    table: &CostTable,
) -> Result<Price, Unfit> {
    let price = price(model, keys, shape, table, demands.memory_budget);
    match price.cache(demands.memory_budget) {
        Some(_) => Ok(price),
        None => Err(Unfit::Memory(price.least)),
    }
}

impl Search<'_> {
    /// Bits that the search asks for.
    fn wanted(&self) -> f64 {
        self.demands.precision_bits + PRECISION_SLACK + self.more
    }

    /// The price of a shape, if the memory budget allows it.
    fn affordable(&self, shape: &Shape) -> Result<Price, Unfit> {
        affordable(self.model, self.keys, shape, self.demands, self.table)
    }

    /// The point of least modulus with `special` special primes that is precise enough.
    fn smallest(&self, special: usize) -> Result<Point, Unfit> {
        let mut best: Option<Point> = None;
        let mut unfit = Unfit::Security;
        // Amplitude of inner values above the size of the primes, in bits.
        for extra in 0..=6 {
            match self.smallest_prime(special, f64::from(extra)) {
                Ok(point) => {
                    let size = |p: &Point| p.shape.log2_qp();
                    if best.as_ref().is_none_or(|b| size(&point) < size(b)) {
                        best = Some(point);
                    }
                }
                Err(why) => unfit = nearer(unfit, why),
            }
        }
        best.ok_or(unfit)
    }

    /// The smallest size of primes for which the outputs can be precise enough.
    ///
    /// Not a bisection: larger primes are more precise, until they leave the outputs too little of the modulus.
    fn smallest_prime(&self, special: usize, extra: f64) -> Result<Point, Unfit> {
        let mut unfit = Unfit::Security;
        for b in self.log_n + PRIME_MARGIN..=MAX_LOG2_PRIME as u32 {
            match self.precise(special, f64::from(b), extra) {
                Ok(point) => return Ok(point),
                // Larger primes will not fit either.
                Err(Unfit::Security) => break,
                Err(why) => unfit = nearer(unfit, why),
            }
        }
        Err(unfit)
    }

    /// The smallest outer amplitude that is precise enough, for primes of `b` bits.
    fn precise(&self, special: usize, b: f64, extra: f64) -> Result<Point, Unfit> {
        let (mut low, mut high) = (MIN_AMPLITUDE as i32, MAX_LOG2_PRIME as i32);
        // The largest amplitude that fits: precision grows with it.
        let mut most = None;
        while low <= high {
            let middle = low + (high - low) / 2;
            match self.layout(special, b, extra, f64::from(middle)) {
                Some(layout) => {
                    most = Some((middle, layout));
                    low = middle + 1;
                }
                None => high = middle - 1,
            }
        }
        let Some((most, layout)) = most else { return Err(Unfit::Security) };
        let best = self.point(layout);
        if best.bits < self.wanted() {
            return Err(Unfit::Precision(best.bits));
        }
        let (mut low, mut high, mut found) = (MIN_AMPLITUDE as i32, most - 1, best);
        while low <= high {
            let middle = low + (high - low) / 2;
            match self.layout(special, b, extra, f64::from(middle)).map(|l| self.point(l)) {
                Some(point) if point.bits >= self.wanted() => {
                    found = point;
                    high = middle - 1;
                }
                _ => low = middle + 1,
            }
        }
        Ok(found)
    }

    fn point(&self, (shape, exponents, scales): Sizes) -> Point {
        let bits = self.model.predict(&shape, &scales).bits;
        Point { shape, exponents, bits }
    }

    /// Sizes for given `b` and amplitudes; `None` where they do not fit.
    fn layout(&self, special: usize, b: f64, extra: f64, outer: f64) -> Option<Sizes> {
        let top = self.placed.top();
        // q_0 does not occur in scales, so they can be found before it.
        let mut log2_q = vec![b; top + 1];
        let design = Design { log2_q: log2_q.clone(), inner: b + extra, outer };
        let exponents = self.symbolic.exponents(self.placed, &design);
        let scales = self.symbolic.log2_scales(&exponents, &log2_q);
        // Real primes differ a little from 2^b.
        if !self.fine_enough(&scales, &log2_q, MIN_LOG2_SCALE + 1.0) {
            return None;
        }
        log2_q[0] = self.least_q0(&scales, &log2_q)?;
        let room = self.limit - log2_q.iter().sum::<f64>();
        // As few digits as the special primes can cover.
        let most_p = room.min(special as f64 * MAX_LOG2_PRIME);
        let digits = fewest(&log2_q, most_p - P_MARGIN.0)?;
        let log2_p = most_p.min(largest(&log2_q, &digits) + P_MARGIN.1);
        // Fewer special primes would do as well.
        if log2_p <= (special - 1) as f64 * MAX_LOG2_PRIME {
            return None;
        }
        let log2_p = vec![log2_p / special as f64; special];
        Some((Shape { log_n: self.log_n, log2_q, log2_p, digits, bootstrap: None }, exponents, scales))
    }

    /// Whether every scale, the scale of every constant, and every scale inside a polynomial is at least 2^`least`.
    fn fine_enough(&self, scales: &[f64], log2_q: &[f64], least: f64) -> bool {
        let graph = &self.placed.graph;
        let values = graph.ids().all(|id| {
            let node = graph.node(id);
            let own = scales[id.index()];
            let mut operands = node.inputs.iter().map(|v| scales[v.index()]);
            own >= least
                && match &node.op {
                    Op::LinearMap { .. } => {
                        let prime = log2_q[self.placed.levels[node.inputs[0].index()]];
                        operands.all(|s| own + prime - s >= least)
                    }
                    Op::MulScalar { .. } | Op::MulVector { .. } => operands.all(|s| own - s >= least),
                    _ => true,
                }
        });
        values && self.model.inner_values(log2_q, scales).iter().all(|inner| inner.scale >= least)
    }

    /// The least log2 of q_0 that holds all values of level 0, and with the other primes all values above; those inside
    /// polynomials too.
    fn least_q0(&self, scales: &[f64], log2_q: &[f64]) -> Option<f64> {
        let mut least = f64::from(self.log_n + PRIME_MARGIN);
        let mut hold = |level: usize, amplitude: f64| {
            let above: f64 = log2_q[1..=level].iter().sum();
            least = least.max(amplitude + 1.0 + HEADROOM - above);
        };
        for (i, &level) in self.placed.levels.iter().enumerate() {
            hold(level, scales[i] + self.bounds[i]);
        }
        for inner in self.model.inner_values(log2_q, scales) {
            hold(inner.level, inner.amplitude);
        }
        (least <= MAX_LOG2_PRIME).then_some(least)
    }

    /// [`realise`](Self::realise), with larger primes where those that there are turn out to be too coarse: of small primes there are few, and
    /// they are far from the sizes that were asked for.
    fn realise_or_enlarge(&mut self, mut point: Point) -> Result<Selected, Unfit> {
        let special = point.shape.log2_p.len();
        self.more = 0.0;
        for _ in 0..ENLARGED {
            match self.realise(&point) {
                Err(Unfit::Precision(bits)) => {
                    self.more += (self.demands.precision_bits - bits).max(0.0) + MORE_BITS;
                    point = self.smallest(special)?;
                }
                other => return other,
            }
        }
        self.realise(&point)
    }

    /// Finds primes of the sizes of `point`, and holds them against all demands.
    fn realise(&self, point: &Point) -> Result<Selected, Unfit> {
        let exponents = &point.exponents;
        let q0 = |log2_q: &[f64]| self.least_q0(&self.symbolic.log2_scales(exponents, log2_q), log2_q);
        let parameters = realise(&point.shape, self.demands.security, q0).ok_or(Unfit::Security)?;
        let shape = Shape::of(&parameters);
        let scales = self.symbolic.log2_scales(exponents, &shape.log2_q);
        let prediction = self.model.predict(&shape, &scales);
        if prediction.bits < self.demands.precision_bits || !self.fine_enough(&scales, &shape.log2_q, MIN_LOG2_SCALE) {
            return Err(Unfit::Precision(prediction.bits));
        }
        let price = self.affordable(&shape)?;
        Ok(Selected { parameters, exponents: exponents.clone(), prediction, price })
    }
}

/// Primes for a shape: around their sizes, and then `q_0` at least as large as `least_q0` says for them.
pub(crate) fn realise(
    shape: &Shape,
    security: SecurityLevel,
    least_q0: impl Fn(&[f64]) -> Option<f64>,
) -> Option<Parameters> {
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
    let parameters = Parameters {
        log_n: shape.log_n,
        q,
        p,
        digits: shape.digits.clone(),
        security: Some(security),
        bootstrap: None,
    };
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
    fn real_primes_keep_to_the_security_table() {
        let shape = Shape {
            log_n: 13,
            log2_q: vec![30.0, 27.0, 27.0, 27.0],
            log2_p: vec![40.0],
            digits: vec![1; 4],
            bootstrap: None,
        };
        let p = realise(&shape, SecurityLevel::Bits128, |q| Some(q[0])).expect("151 of 214 bits");
        assert!(p.log_qp() < 152.0 && p.q[0] >= 1 << 30);
        let mut all: Vec<u64> = p.q.iter().chain(&p.p).copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
        assert!(realise(&shape, SecurityLevel::Bits256, |q| Some(q[0])).is_none(), "only 114 bits");
    }
}
