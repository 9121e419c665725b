//! Which scales slots-to-coefficients passes through.
//!
//! Between the scale of the input and that of the raise, the levels of slots-to-coefficients have the bits of their primes to
//! spend on the scales `σ` of their matrices. Two errors, relative to the values, depend on how they spend them:
//!
//! * a matrix of diagonals with period `n` is rounded: `√(2n/12)/σ`, for rounding touches only the coefficients of the
//!   subring that its diagonals lie in. Within a level errors are equal if every matrix gets half a bit more for each
//!   layer up to its last;
//! * a rescale to the scale `s` rounds: `B·2^(−l/2)/s` with `B = √(N(h+1)/12)`, after `l` layers, each of which enlarges values
//!   by `√2`.
//!
//! A large scale between two levels serves the matrices before it and the rounding, a small one the matrices after it. The sum of
//! the squares is convex in the logarithms of these scales, so the best ones are found one bit at a time.

/// One level: its matrices and its prime.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// Last layer of each matrix, in the order of use.
    pub(super) last_layers: Vec<u32>,
    /// log2 of the prime that the level ends with.
    pub(super) prime: f64,
    /// log2 of the modulus after it.
    pub(super) modulus: f64,
}

/// Bits between a scale and its modulus: values and their rounding errors, besides half a bit for each layer.
const HEADROOM: f64 = 6.0;

/// log2 of the scale after every matrix, after the rescale where one follows, for a ring of degree `2^log_n` and log2 of the
/// scales at both ends.
pub(super) fn scales(levels: &[Level], log_n: u32, [start, end]: [f64; 2]) -> Vec<f64> {
    let n = f64::from(log_n).exp2();
    let rounding = n * (2.0 * n / 3.0 + 1.0) / 12.0;
    // Scales between the levels, in whole bits.
    let mut between: Vec<f64> = levels.iter().skip(1).map(|_| ((start + end) / 2.0).round()).collect();
    let ends = |between: &[f64], i: usize| {
        let before = if i == 0 { start } else { between[i - 1] };
        [before, between.get(i).copied().unwrap_or(end)]
    };
    let error = |between: &[f64]| -> f64 {
        let one = |(i, level): (usize, &Level)| {
            let [before, after] = ends(between, i);
            let matrices = level.last_layers.len() as f64 / 6.0 * (-2.0 * share(level, before, after)).exp2();
            let layers = level.last_layers.last().map_or(0.0, |&l| f64::from(l));
            let fits = after + layers / 2.0 + HEADROOM <= level.modulus || i + 1 == levels.len();
            let rescale = rounding * (-2.0 * after - layers).exp2();
            if fits { matrices + rescale } else { f64::INFINITY }
        };
        levels.iter().enumerate().map(one).sum()
    };
    let mut least = error(&between);
    loop {
        let before = least;
        for i in 0..between.len() {
            for step in [-1.0, 1.0] {
                let mut other = between.clone();
                other[i] += step;
                let found = error(&other);
                if found < least {
                    (between, least) = (other, found);
                }
            }
        }
        // Nothing was better, or nothing fits at all.
        if least >= before {
            break;
        }
    }
    let mut all = Vec::new();
    for (i, level) in levels.iter().enumerate() {
        let [mut scale, after] = ends(&between, i);
        let share = share(level, scale, after);
        for (j, &last) in level.last_layers.iter().enumerate() {
            scale += share + f64::from(last) / 2.0;
            all.push(if j + 1 == level.last_layers.len() { after } else { scale });
        }
    }
    all
}

/// Bits that each matrix of a level gets besides half a bit for every layer.
fn share(level: &Level, before: f64, after: f64) -> f64 {
    let layers: f64 = level.last_layers.iter().map(|&last| f64::from(last) / 2.0).sum();
    (level.prime + after - before - layers) / level.last_layers.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(last_layers: &[u32], below: usize) -> Level {
        Level { last_layers: last_layers.to_vec(), prime: 50.0, modulus: 50.0 * below as f64 }
    }

    /// log2 of the scales of the matrices.
    fn matrices(levels: &[Level], log_n: u32) -> Vec<f64> {
        let mut before = 40.0;
        let mut last = levels.iter().flat_map(|l| (1..=l.last_layers.len()).map(|j| j == l.last_layers.len()));
        let scale = |after: f64| {
            let prime = if last.next() == Some(true) { 50.0 } else { 0.0 };
            let own = after + prime - before;
            before = after;
            own
        };
        scales(levels, log_n, [40.0, 40.0]).into_iter().map(scale).collect()
    }

    #[test]
    fn equal_levels_share_equally() {
        let found = matrices(&[level(&[4, 8], 2), level(&[12, 15], 1)], 16);
        // Half a bit for each layer between the matrices of a level, and all bits spent.
        assert!((found.iter().sum::<f64>() - 100.0).abs() < 1e-9, "{found:?}");
        assert!((found[1] - found[0] - 2.0).abs() < 1e-9 && (found[3] - found[2] - 1.5).abs() < 1e-9, "{found:?}");
        assert!(found.iter().all(|&bits| (20.0..30.0).contains(&bits)), "{found:?}");
    }

    #[test]
    fn levels_of_one_matrix_give_to_those_of_several() {
        for levels in [[level(&[3], 2), level(&[6, 9], 1)], [level(&[3, 6], 2), level(&[9], 1)]] {
            let found = matrices(&levels, 10);
            // 100 bits for three; the worst has more than half of its level's prime.
            assert!(found.iter().all(|&bits| bits > 27.0), "{found:?}");
            let between = scales(&levels, 10, [40.0, 40.0])[levels[0].last_layers.len() - 1];
            assert!((30.0..60.0).contains(&between), "{between}");
        }
    }

    #[test]
    fn a_scale_never_reaches_its_modulus() {
        let narrow = [Level { modulus: 48.0, ..level(&[1, 2, 3, 4], 1) }, level(&[9], 1)];
        assert!(scales(&narrow, 10, [40.0, 40.0])[3] <= 48.0 - 2.0 - HEADROOM);
    }
}
