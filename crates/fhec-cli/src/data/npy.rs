//! NumPy arrays: one `.npy` file in memory to an [`Array`], and back.
//!
//! The header is read by a scanner of our own that knows just the dictionary NumPy writes: a general
//! parser of Python literals recurses, and a hostile header could make it overflow the stack.

use super::{Array, Values};
use anyhow::{Result, bail, ensure};
use std::io::Write;

/// First bytes of an npy file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read, bytes; NumPy's own limit is 10 000.
const MAX_HEADER: usize = 1 << 14;
/// Most dimensions.
const MAX_RANK: usize = 16;

/// Reads an array.
pub(crate) fn read(file: &[u8]) -> Result<Array> {
    ensure!(file.starts_with(MAGIC), "no NumPy array: the magic bytes are missing");
    let (text, data) = split(file)?;
    let header = Header::parse(text)?;
    let elements = header.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let (order, kind, width) = dtype(&header.descr)?;
    let needed = elements.and_then(|n| n.checked_mul(width));
    ensure!(
        needed == Some(data.len()),
        "the header tells of shape {:?} in {width}-byte elements, but {} bytes follow",
        header.shape,
        data.len()
    );
    let values = decode(data, order, kind, width)?;
    let array = Array { shape: header.shape, values };
    Ok(if header.fortran { from_fortran(array) } else { array })
}

/// Header text and data of a file.
fn split(file: &[u8]) -> Result<(&[u8], &[u8])> {
    let cut = || anyhow::anyhow!("the NumPy header is cut off");
    let (start, len) = match file.get(6).ok_or_else(cut)? {
        1 => match file.get(8..10) {
            Some(b) => (10, usize::from(u16::from_le_bytes([b[0], b[1]]))),
            None => return Err(cut()),
        },
        2 | 3 => match file.get(8..12) {
            Some(b) => (12, u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize),
            None => return Err(cut()),
        },
        version => bail!("NumPy format version {version} is not known"),
    };
    ensure!(len <= MAX_HEADER, "a NumPy header of {len} bytes");
    let text = file.get(start..start + len).ok_or_else(cut)?;
    Ok((text, &file[start + len..]))
}

/// The three entries of the header.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }` in any order.
    fn parse(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text)?;
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        let mut rest = expect(text, "{")?;
        while !rest.starts_with('}') {
            let (key, after) = quoted(rest)?;
            rest = expect(after, ":")?;
            match key {
                "descr" => {
                    ensure!(!rest.starts_with('['), "arrays of records are not supported");
                    let (value, after) = quoted(rest)?;
                    (descr, rest) = (Some(value.to_owned()), after);
                }
                "fortran_order" => {
                    let value = rest.starts_with("True");
                    rest = expect(rest, if value { "True" } else { "False" })?;
                    fortran = Some(value);
                }
                "shape" => {
                    let (value, after) = tuple(rest)?;
                    (shape, rest) = (Some(value), after);
                }
                other => bail!("unknown entry '{other}' in the NumPy header"),
            }
            if let Ok(after) = expect(rest, ",") {
                rest = after;
            } else {
                ensure!(rest.starts_with('}'), "the NumPy header is malformed");
            }
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Header { descr, fortran, shape }),
            _ => bail!("the NumPy header lacks an entry"),
        }
    }
}

/// `text` behind `token` and blanks.
fn expect<'a>(text: &'a str, token: &str) -> Result<&'a str> {
    match text.trim_start().strip_prefix(token) {
        Some(rest) => Ok(rest.trim_start()),
        None => bail!("the NumPy header is malformed: no '{token}' where one belongs"),
    }
}

/// A string in single or double quotes and what follows it.
fn quoted(text: &str) -> Result<(&str, &str)> {
    let mut chars = text.chars();
    let Some(quote @ ('\'' | '"')) = chars.next() else { bail!("the NumPy header is malformed: no string") };
    match chars.as_str().split_once(quote) {
        Some((inside, rest)) => Ok((inside, rest.trim_start())),
        None => bail!("the NumPy header is malformed: a string does not end"),
    }
}

/// A tuple of sizes and what follows it.
fn tuple(text: &str) -> Result<(Vec<usize>, &str)> {
    let Some((inside, rest)) = text.strip_prefix('(').and_then(|t| t.split_once(')')) else {
        bail!("the NumPy header is malformed: no shape")
    };
    let mut shape = Vec::new();
    for part in inside.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        ensure!(shape.len() < MAX_RANK, "an array of more than {MAX_RANK} dimensions");
        shape.push(part.parse()?);
    }
    Ok((shape, rest.trim_start()))
}

/// Kind of number: NumPy's letter.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
}

/// Byte order (true: big endian), kind and width of a type such as `<f4`.
fn dtype(descr: &str) -> Result<(bool, Kind, usize)> {
    let unsupported = || anyhow::anyhow!("arrays of type '{descr}' are not supported; use float32, float64 or uint8");
    let big = match descr.as_bytes().first() {
        Some(b'>') => true,
        Some(b'<' | b'|' | b'=') => false,
        _ => return Err(unsupported()),
    };
    let (kind, width) = match &descr[1..] {
        "f4" => (Kind::Float, 4),
        "f8" => (Kind::Float, 8),
        "u1" => (Kind::Unsigned, 1),
        "u2" => (Kind::Unsigned, 2),
        "u4" => (Kind::Unsigned, 4),
        "i1" => (Kind::Signed, 1),
        "i2" => (Kind::Signed, 2),
        "i4" => (Kind::Signed, 4),
        "i8" => (Kind::Signed, 8),
        _ => return Err(unsupported()),
    };
    Ok((big, kind, width))
}

fn decode(data: &[u8], big: bool, kind: Kind, width: usize) -> Result<Values> {
    // Every element as a little-endian number of eight bytes, then cut to its width.
    let word = |b: &[u8]| {
        let mut out = [0u8; 8];
        out[..width].copy_from_slice(b);
        if big {
            out[..width].reverse();
        }
        u64::from_le_bytes(out)
    };
    let words = data.chunks_exact(width).map(word);
    Ok(match (kind, width) {
        (Kind::Unsigned, 1) => Values::Bytes(data.to_vec()),
        (Kind::Float, 4) => Values::Floats(words.map(|w| f64::from(f32::from_bits(w as u32))).collect()),
        (Kind::Float, _) => Values::Floats(words.map(f64::from_bits).collect()),
        (Kind::Unsigned, _) => Values::Integers(words.map(|w| w as i64).collect()),
        (Kind::Signed, _) => {
            let unused = 64 - 8 * width as u32;
            Values::Integers(words.map(|w| (w << unused) as i64 >> unused).collect())
        }
    })
}

/// Row-major order from column-major.
fn from_fortran(array: Array) -> Array {
    let shape = array.shape.clone();
    let mut source = Vec::with_capacity(array.len());
    let mut index = vec![0usize; shape.len()];
    for _ in 0..array.len() {
        source.push(index.iter().zip(&shape).rev().fold(0, |at, (&i, &d)| at * d + i));
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    array.gather(shape, &source)
}

/// Writes an array of float64.
pub(crate) fn write(out: &mut dyn Write, shape: &[usize], values: &[f64]) -> Result<()> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let dims = if shape.len() > 1 { dims.trim_end_matches(", ") } else { dims.trim_end() };
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({dims}), }}");
    // The data begin at a multiple of 64, behind a line end.
    let padding = (64 - (10 + header.len() + 1) % 64) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for v in values {
        out.write_all(&v.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a header and data.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([1, 0]);
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn what_is_written_reads_back() {
        for shape in [vec![], vec![3], vec![2, 3], vec![1, 2, 0]] {
            let n: usize = shape.iter().product();
            let values: Vec<f64> = (0..n).map(|i| i as f64 - 0.1).collect();
            let mut bytes = Vec::new();
            write(&mut bytes, &shape, &values).expect("writes");
            assert_eq!((bytes.len() - 8 * n) % 64, 0);
            assert_eq!(read(&bytes).expect("reads"), Array { shape, values: Values::Floats(values) });
        }
    }

    #[test]
    fn orders_and_types_are_numpys() {
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        let data: Vec<u8> = [1i16, -2, 3, -4, 5, -6].iter().flat_map(|v| v.to_be_bytes()).collect();
        let array = read(&file(header, &data)).expect("reads");
        assert_eq!(array.values, Values::Integers(vec![1, 3, 5, -2, -4, -6]));
        let header = "{\"shape\":(2,),\"descr\":\"<f4\",\"fortran_order\":False}";
        let data: Vec<u8> = [0.5f32, -1.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(&file(header, &data)).expect("reads").values, Values::Floats(vec![0.5, -1.5]));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 9999999999999), }";
        let nested = "(".repeat(10_000);
        let object = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }";
        let records = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }";
        let endless = "{'descr': '<f8";
        for header in [huge, &nested, object, records, endless, "", "{}", "{'shape': (-1,), }"] {
            assert!(read(&file(header, &[0; 8])).is_err(), "{header:.40}");
        }
        assert!(read(MAGIC).is_err());
        assert!(read(&[MAGIC, &[2, 0, 255, 255, 255, 255]].concat()).is_err());
    }
}
