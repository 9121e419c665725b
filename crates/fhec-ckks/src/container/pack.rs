//! Residues packed bit by bit.

/// Bytes of `n` values of `bits` bits each.
pub(super) fn packed_len(n: usize, bits: u32) -> usize {
    (n * bits as usize).div_ceil(8)
}

/// Appends `values`, each below `2^bits` with `bits ≤ 64`, lowest bits first.
pub(super) fn pack(bits: u32, values: &[u64], out: &mut Vec<u8>) {
    out.reserve(packed_len(values.len(), bits));
    let mut pending = 0u128;
    let mut filled = 0;
    for &value in values {
        pending |= u128::from(value) << filled;
        filled += bits;
        if filled >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            filled -= 64;
        }
    }
    let rest = filled.div_ceil(8) as usize;
    out.extend_from_slice(&(pending as u64).to_le_bytes()[..rest]);
}

/// The inverse of [`pack`]; `bytes` has exactly the packed length.
pub(super) fn unpack(bits: u32, bytes: &[u8], values: &mut [u64]) {
    let mask = u64::MAX >> (64 - bits);
    let mut words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut pending = 0u128;
    let mut filled = 0;
    for value in values {
        if filled < bits {
            pending |= u128::from(words.next().unwrap_or(0)) << filled;
            filled += 64;
        }
        *value = pending as u64 & mask;
        pending >>= bits;
        filled -= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_at_every_width() {
        for bits in 1..=50 {
            let mask = (1u64 << bits) - 1;
            for n in [16, 64, 100] {
                let mut values: Vec<u64> =
                    (0..n).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3 & mask).collect();
                values[0] = mask;
                values[n as usize - 1] = mask;
                let mut bytes = Vec::new();
                pack(bits, &values, &mut bytes);
                assert_eq!(bytes.len(), packed_len(values.len(), bits));
                let mut back = vec![0; values.len()];
                unpack(bits, &bytes, &mut back);
                assert_eq!(back, values, "{bits} bits");
            }
        }
    }

    #[test]
    fn layout_is_little_endian() {
        let mut bytes = Vec::new();
        pack(12, &[0xabc, 0x123], &mut bytes);
        assert_eq!(bytes, [0xbc, 0x3a, 0x12]);
    }
}
