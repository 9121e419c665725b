//! Numbers and tables for people.

use std::fmt::Write;

/// A size in bytes with a binary unit: "640 B", "1.5 KiB", "212 MiB".
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as "1024".
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", figures(value), UNITS[unit])
}

/// Predicted seconds of an evaluation, on one thread and on so many.
pub(crate) fn on_threads(report: &fhec_plan::Report, threads: usize) -> String {
    let one = format!("{} on one thread", seconds(report.seconds));
    if threads <= 1 { one } else { format!("{one}, {} on {threads}", seconds(report.seconds_on(threads))) }
}

/// A time with a fitting unit: "850 µs", "12.3 ms", "4.56 s", "3 min 20 s". Times below zero, which differences of estimates
/// come to, are none.
pub(crate) fn seconds(s: f64) -> String {
    if !s.is_finite() {
        return "?".into();
    }
    if s <= 0.0 {
        return "0 s".into();
    }
    if s >= 120.0 {
        let whole = s.round() as u64;
        return format!("{} min {} s", whole / 60, whole % 60);
    }
    match s {
        s if s >= 0.9995 => format!("{} s", figures(s)),
        s if s >= 0.9995e-3 => format!("{} ms", figures(s * 1e3)),
        s => format!("{} µs", figures(s * 1e6)),
    }
}

/// A number of ordinary size in three figures, without a superfluous point.
pub(crate) fn figures(x: f64) -> String {
    let digits = match x.abs() {
        a if a >= 99.95 => 0,
        a if a >= 9.995 => 1,
        _ => 2,
    };
    format!("{x:.digits$}")
}

/// A small quantity such as an error: "3.1e-5", and "–" for nothing.
pub(crate) fn small(x: f64) -> String {
    if x == 0.0 { "–".into() } else { format!("{x:.1e}") }
}

/// A shape: "1×28×28".
pub(crate) fn shape(dims: &[usize]) -> String {
    if dims.is_empty() {
        return "scalar".into();
    }
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// A count with its noun: "1 layer", "3 layers".
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// What a run of several images costs each of them, to put after its time; nothing for a single one.
pub(crate) fn batch(images: usize, run: f64) -> String {
    if images == 1 { String::new() } else { format!(" ({} an image for {images})", seconds(run / images as f64)) }
}

/// A size that a user gives: `8GiB`, `500MB`, `4096`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| format!("'{text}' does not begin with a number"))?;
    let factor: f64 = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1048576.0,
        "g" | "gib" => 1073741824.0,
        "t" | "tib" => 1099511627776.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        unit => return Err(format!("unknown unit '{unit}'; use B, KiB, MiB, GiB, TiB, KB, MB, GB or TB")),
    };
    let value = (number * factor).round();
    if (1.0..1e18).contains(&value) { Ok(value as u64) } else { Err(format!("'{text}' is no usable size")) }
}

/// A time that a user gives: `90s`, `10m`, `24h`, `7d`; a bare number are seconds.
pub(crate) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| format!("'{text}' does not begin with a number"))?;
    let factor = match text[end..].trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        unit => return Err(format!("unknown unit '{unit}'; use s, m, h or d")),
    };
    match number.checked_mul(factor) {
        Some(seconds @ 1..=1_000_000_000) => Ok(std::time::Duration::from_secs(seconds)),
        _ => Err(format!("'{text}' is no usable time")),
    }
}

/// Which side of a column its entries are moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table of columns as wide as their widest entry.
pub(crate) struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        Table {
            align: columns.iter().map(|c| c.1).collect(),
            rows: vec![columns.iter().map(|c| c.0.to_owned()).collect()],
        }
    }

    /// Adds a row, one entry per column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.align.len());
        self.rows.push(cells);
    }

    /// The table as lines, each indented by two blanks.
    pub(crate) fn render(&self) -> String {
        let width = |s: &String| s.chars().count();
        let columns = self.align.len();
        let widths: Vec<usize> =
            (0..columns).map(|c| self.rows.iter().map(|r| width(&r[c])).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c] - width(cell));
                // Writing to a string cannot fail.
                let _ = match self.align[c] {
                    Align::Left => write!(line, "  {cell}{pad}"),
                    Align::Right => write!(line, "  {pad}{cell}"),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Names and values below each other, the values aligned.
pub(crate) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut out, (name, value)| {
        let pad = " ".repeat(width - name.chars().count());
        let _ = writeln!(out, "  {name}{pad}  {value}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_three_figures_and_a_unit() {
        let sizes = [0, 640, 1536, 1_048_575, 222_298_112, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "640 B", "1.50 KiB", "1.00 MiB", "212 MiB", "16384 PiB"]);
        let times = [3e-6, 0.0123, 0.99951, 4.56, 99.95, 200.0, f64::NAN].map(seconds);
        assert_eq!(times, ["3.00 µs", "12.3 ms", "1.00 s", "4.56 s", "100 s", "3 min 20 s", "?"]);
        // A sum of nothing is -0.
        assert_eq!([0.0, -0.0, -1e-9, [].iter().sum::<f64>()].map(seconds), ["0 s"; 4]);
    }

    #[test]
    fn given_sizes_are_read_or_refused() {
        assert_eq!(parse_bytes("8GiB"), Ok(8 << 30));
        assert_eq!(parse_bytes(" 1.5 kb "), Ok(1500));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        for bad in ["", "GiB", "-1", "0", "1e3", "9999999999TiB", "8 apples"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn given_times_are_read_or_refused() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs());
        assert_eq!(["90", "90s", " 10 m", "24h", "7d"].map(seconds), [90, 90, 600, 86400, 604800].map(Ok));
        for bad in ["", "s", "-1", "0", "1.5h", "1w", "99999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("layer", Align::Left), ("ms", Align::Right)]);
        table.row(vec!["conv".into(), "12".into()]);
        table.row(vec!["activation µ".into(), "3".into()]);
        assert_eq!(table.render(), "  layer         ms\n  conv          12\n  activation µ   3\n");
    }
}
