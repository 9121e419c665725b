//! Primes with roots of unity for the negacyclic transform.

use crate::modulus::MAX_BITS;

/// Deterministic Miller–Rabin for every 64-bit number (bases of Sinclair, 2011).
pub fn is_prime(n: u64) -> bool {
    const SMALL: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    for q in SMALL {
        if n.is_multiple_of(q) {
            return n == q;
        }
    }
    let mul = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(n)) as u64;
    let pow = |mut base: u64, mut e: u64| {
        let mut acc = 1;
        while e != 0 {
            if e & 1 == 1 {
                acc = mul(acc, base);
            }
            base = mul(base, base);
            e >>= 1;
        }
        acc
    };
    let s = (n - 1).trailing_zeros();
    let d = (n - 1) >> s;
    [2, 325, 9375, 28178, 450_775, 9_780_504, 1_795_265_022].iter().all(|&base: &u64| {
        let a = base % n;
        if a == 0 {
            return true;
        }
        let mut x = pow(a, d);
        if x == 1 || x == n - 1 {
            return true;
        }
        for _ in 1..s {
            x = mul(x, x);
            if x == n - 1 {
                return true;
            }
        }
        false
    })
}

/// Primes `p ≡ 1 (mod 2^(log_n+1))` around `2^log2`, closest first on either side and alternating
/// between below and above, so that a chain taken from the front has a product close to a power of two.
///
/// All are below 2^50; when one side is exhausted the other goes on alone. `log2` need not be an integer.
pub fn ntt_primes_near(log2: impl Into<f64>, log_n: u32) -> impl Iterator<Item = u64> {
    let log2: f64 = log2.into();
    let limit = 1u64 << MAX_BITS;
    let center = if log2 >= f64::from(MAX_BITS) { limit } else { log2.max(1.0).exp2().round() as u64 };
    let mut below = Progression::new(center, log_n).down();
    let mut above = Progression::new(center, log_n).up();
    let (mut next_below, mut next_above) = (below.next(), above.next());
    let mut take_below = match (next_below, next_above) {
        (Some(b), Some(a)) => center - b <= a - center,
        (b, _) => b.is_some(),
    };
    std::iter::from_fn(move || {
        let below_now = if take_below { next_below.is_some() } else { next_above.is_none() };
        take_below = !below_now;
        if below_now {
            std::mem::replace(&mut next_below, below.next())
        } else {
            std::mem::replace(&mut next_above, above.next())
        }
    })
    .fuse()
}

/// Primes `p ≡ 1 (mod 2^(log_n+1))` below `2^bits`, largest first (`bits` above 50 counts as 50).
pub fn ntt_primes_below(bits: u32, log_n: u32) -> impl Iterator<Item = u64> {
    Progression::new(1 << bits.min(MAX_BITS), log_n).down()
}

/// The numbers `1 (mod 2N)` on both sides of a centre.
struct Progression {
    /// Largest member below the centre.
    below: u64,
    step: u64,
}

impl Progression {
    fn new(center: u64, log_n: u32) -> Self {
        let step = 1u64 << (log_n + 1).min(MAX_BITS);
        Self { below: center.saturating_sub(2) / step * step + 1, step }
    }

    fn down(self) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(self.below), move |x| x.checked_sub(self.step)).filter(|&x| is_prime(x))
    }

    fn up(self) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(self.below + self.step), move |x| Some(x + self.step))
            .take_while(|&x| x < 1 << MAX_BITS)
            .filter(|&x| is_prime(x))
    }
}
