//! The security table: how large the modulus may be for a ring degree.
//!
//! Bossuat et al., *Security Guidelines for Implementing Homomorphic Encryption* (ePrint 2024/463), table
//! 5.2, and the 2018 Homomorphic Encryption Standard: the smaller entry where they differ. Uniform ternary secret, σ = 3.19,
//! classical attacks. The bound is on `log2(Q·P)`, special primes included.

/// Bits of classical security.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecurityLevel {
    /// 128 bits.
    Bits128,
    /// 192 bits.
    Bits192,
    /// 256 bits.
    Bits256,
}

impl SecurityLevel {
    /// All levels, weakest first.
    pub const ALL: [Self; 3] = [Self::Bits128, Self::Bits192, Self::Bits256];

    /// The number of bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits128 => 128,
            Self::Bits192 => 192,
            Self::Bits256 => 256,
        }
    }
}

/// `log_n`, then the largest `log2(Q·P)` at 128, 192 and 256 bits; 0 where the table has no entry.
const TABLE: [(u32, [u32; 3]); 8] = [
    (10, [26, 0, 0]),
    (11, [53, 36, 27]),
    (12, [106, 73, 56]),
    (13, [214, 147, 114]),
    (14, [430, 297, 230]),
    (15, [868, 597, 462]),
    (16, [1747, 1199, 929]),
    (17, [3523, 2411, 1866]),
];

fn row(log_n: u32) -> Option<[u32; 3]> {
    TABLE.iter().find(|(n, _)| *n == log_n).map(|(_, limits)| *limits)
}

/// The largest `log2(Q·P)` in bits at which `N = 2^log_n` gives the level, or `None` where the table has no entry.
pub fn max_log_qp(level: SecurityLevel, log_n: u32) -> Option<u32> {
    let limits = row(log_n)?;
    let limit = match level {
        SecurityLevel::Bits128 => limits[0],
        SecurityLevel::Bits192 => limits[1],
        SecurityLevel::Bits256 => limits[2],
    };
    (limit != 0).then_some(limit)
}

/// The largest `log2(q_0·p_0)` in bits under which a sparse ternary secret with `weight` coefficients ±1 gives the level at
/// `N = 2^log_n`, or `None` where nothing is known.
///
/// For the secret of encapsulation (2022/024), under which only keys of two primes exist, from the main secret and from that of each smaller ring. No
/// guideline has a table for sparse secrets: these are the sizes of the parameter sets that the paper estimates at 128 bits with
/// `h = 32`, and nothing is granted beyond them.
pub fn max_log_sparse(level: SecurityLevel, log_n: u32, weight: u32) -> Option<u32> {
    match (level, log_n) {
        _ if weight < 32 => None,
        (SecurityLevel::Bits128, 15) => Some(100),
        (SecurityLevel::Bits128, 16..=17) => Some(121),
        _ => None,
    }
}

/// The security in bits that is granted to the sparse secret of encapsulation under a modulus of `log_modulus` bits: that of the highest
/// level whose [limit](max_log_sparse) holds it, or `None` where no limit does.
pub fn sparse_security(log_n: u32, weight: u32, log_modulus: f64) -> Option<f64> {
    let holds =
        |level: SecurityLevel| max_log_sparse(level, log_n, weight).is_some_and(|l| log_modulus <= f64::from(l));
    let level = SecurityLevel::ALL.into_iter().rev().find(|&level| holds(level))?;
    Some(f64::from(level.bits()))
}

/// An estimate of the security in bits for reports, or `None` outside the table.
///
/// Security is nearly linear in `1/log2(Q·P)`, so the estimate interpolates there between table entries, and is
/// proportional to it outside. A modulus above the entry of a level gives less than that level; at degrees for which
/// the table has no entry for the higher levels (2^10), values above its last entry are extrapolated and grant nothing:
/// parameters are held against [`max_log_qp`], never against this.
pub fn security_estimate(log_n: u32, log_qp: f64) -> Option<f64> {
    let limits = row(log_n)?;
    if log_qp.is_nan() || log_qp <= 0.0 {
        return None;
    }
    let points: Vec<(f64, f64)> = SecurityLevel::ALL
        .iter()
        .zip(limits)
        .filter(|(_, limit)| *limit != 0)
        .map(|(level, limit)| (1.0 / f64::from(limit), f64::from(level.bits())))
        .collect();
    let x = 1.0 / log_qp;
    let (first, last) = (points.first()?, points.last()?);
    if x <= first.0 {
        return Some(first.1 * x / first.0);
    }
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        if x <= x1 {
            return Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0));
        }
    }
    Some(last.1 * x / last.0)
}

/// `log2` of the product of the factors, such as the primes of a chain.
pub fn log2_product(factors: &[u64]) -> f64 {
    factors.iter().map(|&q| (q as f64).log2()).sum()
}
