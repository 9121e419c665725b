//! Names of keys and requests: bytes, in paths as hexadecimal digits.

use std::fmt;
use std::str::FromStr;

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A name that is not the hexadecimal form of the right number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name of {expected} lower-case hexadecimal digits")]
pub struct NameError {
    /// Digits wanted.
    pub expected: usize,
}

/// Only lower-case digits, so that a name has one form.
fn parse<const N: usize>(text: &str) -> Result<[u8; N], NameError> {
    let error = NameError { expected: 2 * N };
    if text.len() != 2 * N {
        return Err(error);
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(error),
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(out)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                parse(text).map(Self)
            }
        }
    };
}

name!(
    /// Names a file of evaluation keys: its BLAKE3 hash.
    KeyId,
    32
);
name!(
    /// Names a request of the owner of a key: random, so that nobody else guesses it.
    RequestId,
    16
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        let id = RequestId(std::array::from_fn(|i| (i * 17) as u8));
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "00",
            "00112233445566778899AABBCCDDEEFF",
            "00112233445566778899aabbccddeefg",
            "+0112233445566778899aabbccddeeff",
        ] {
            assert_eq!(bad.parse::<RequestId>(), Err(NameError { expected: 32 }), "{bad}");
        }
        // Characters of several bytes whose number of bytes is right.
        assert!("ä".repeat(16).parse::<RequestId>().is_err());
    }
}
