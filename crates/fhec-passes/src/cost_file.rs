//! Cost tables as files: what `fhec calibrate` writes and `--cost-table` reads.
//!
//! A file is JSON with a version, the machine it was measured on, the fitted [prices](CostTable) by which the compiler
//! goes, and the measurements that they were fitted to, each beside what the prices predict for it. The compiler does
//! not look at the measurements: they show how far a table can be trusted.
//!
//! The built-in table is such a file, `cost_table.json` beside this one. One command makes it anew:
//!
//! ```text
//! cargo run --release -p fhec-cli -- calibrate -o crates/fhec-passes/src/cost_table.json
//! ```

use crate::cost::CostTable;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// First field of every file.
pub const FORMAT: &str = "fhec cost table";
/// Version of the form that is written, and the only one that is read.
pub const VERSION: u32 = 2;

/// A table with its circumstances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostFile {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Where it was measured.
    pub machine: Machine,
    /// Threads that every measurement ran on.
    pub threads: usize,
    /// What the compiler prices with.
    pub prices: CostTable,
    /// What the prices were fitted to.
    pub measurements: Vec<Measurement>,
}

/// A machine, as far as it matters to prices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Threads that it runs at once.
    pub cores: usize,
    /// Bytes of memory; 0 where the system does not say.
    pub memory: u64,
    /// Kernels that the engine chose.
    pub kernels: String,
    /// Version of fhec.
    pub fhec: String,
}

/// One measured operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The operation.
    pub operation: String,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Level of its operands.
    pub level: usize,
    /// Special primes of the parameters.
    pub special: usize,
    /// Key-switching digits at the level.
    pub digits: usize,
    /// Median time in seconds.
    pub seconds: f64,
    /// Bytes of its result, with the keys and encoded weights that it reads.
    pub bytes: u64,
    /// What the fitted prices give for it, in seconds.
    pub predicted_seconds: f64,
}

/// Why a text is no cost table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CostFileError {
    /// It is not JSON, or fields are missing, unknown or of a wrong kind.
    #[error("it is not a cost table: {0}")]
    Form(String),
    /// JSON without the mark of a cost table.
    #[error("it is not a cost table: there is no field \"format\" that says \"{FORMAT}\"")]
    Format,
    /// Another version of the form.
    #[error("it is a cost table of version {found}; this fhec reads version {VERSION}: run fhec calibrate again")]
    Version {
        /// What the file says.
        found: String,
    },
    /// A price that is negative, or arithmetic that costs nothing.
    #[error("its prices make no sense: {0}")]
    Price(String),
}

impl CostFile {
    /// A file of the current version.
    pub fn new(machine: Machine, threads: usize, prices: CostTable, measurements: Vec<Measurement>) -> Self {
        CostFile { format: FORMAT.into(), version: VERSION, machine, threads, prices, measurements }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// [`CostFileError`].
    pub fn parse(text: &str) -> Result<Self, CostFileError> {
        let form = |e: serde_json::Error| CostFileError::Form(e.to_string());
        let value: serde_json::Value = serde_json::from_str(text).map_err(form)?;
        if value.get("format").and_then(|f| f.as_str()) != Some(FORMAT) {
            return Err(CostFileError::Format);
        }
        // Before the rest: other versions have other fields.
        match value.get("version") {
            Some(version) if *version == VERSION => {}
            Some(other) => return Err(CostFileError::Version { found: other.to_string() }),
            None => return Err(CostFileError::Version { found: "none".into() }),
        }
        // From the text and not from the value, for the line number in the message.
        let file: CostFile = serde_json::from_str(text).map_err(form)?;
        file.prices.check().map_err(CostFileError::Price)?;
        Ok(file)
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        // Structs of numbers and strings always have a form in JSON.
        serde_json::to_string_pretty(self).expect("a struct of numbers and strings") + "\n"
    }
}

impl CostTable {
    /// All prices by name.
    pub fn named(&self) -> [(&'static str, f64); 14] {
        [
            ("butterfly", self.butterfly),
            ("multiply_accumulate", self.multiply_accumulate),
            ("diagonal", self.diagonal),
            ("stream", self.stream),
            ("pointwise", self.pointwise),
            ("convert", self.convert),
            ("fft_butterfly", self.fft_butterfly),
            ("round", self.round),
            ("fill", self.fill),
            ("overhead", self.overhead),
            ("touch", self.touch),
            ("touch_huge", self.touch_huge),
            ("expand", self.expand),
            ("read_byte", self.read_byte),
        ]
    }

    /// What is wrong with the prices: the compiler compares costs, so they have to be positive numbers.
    fn check(&self) -> Result<(), String> {
        for (name, price) in self.named() {
            if !(price.is_finite() && (0.0..1e12).contains(&price)) {
                return Err(format!("{name} is {price}"));
            }
        }
        let factors = [("bootstrap", Some(self.bootstrap)), ("bootstrap_small", self.bootstrap_small)];
        for (name, factor) in factors.into_iter().filter_map(|(name, factor)| Some((name, factor?))) {
            if !(0.01..=100.0).contains(&factor) {
                return Err(format!("{name} is {factor}, a factor from 0.01 to 100"));
            }
        }
        if !(0.0..=1.0).contains(&self.sequential) {
            return Err(format!("sequential is {}, a part of the whole", self.sequential));
        }
        // A price may be zero: a fit to few rings cannot tell all of them apart. A key switch may not.
        let arithmetic = [self.butterfly, self.multiply_accumulate, self.pointwise, self.convert];
        if arithmetic.iter().sum::<f64>() == 0.0 { Err("arithmetic costs nothing".into()) } else { Ok(()) }
    }
}

/// The built-in table, measured on a machine with AVX-512-IFMA.
pub fn built_in() -> &'static CostFile {
    static TABLE: LazyLock<CostFile> = LazyLock::new(|| {
        // A test reads it.
        CostFile::parse(include_str!("cost_table.json")).expect("the built-in cost table is well-formed")
    });
    &TABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_is_well_formed_and_survives_its_form() {
        let file = built_in();
        assert_eq!(CostFile::parse(&file.to_json()).as_ref(), Ok(file));
        assert_eq!(CostTable::default(), file.prices);
    }

    #[test]
    fn what_is_no_table_is_refused_with_a_reason() {
        let good = built_in().to_json();
        let refused = |text: &str, part: &str| {
            let error = CostFile::parse(text).expect_err(part).to_string();
            assert!(error.contains(part), "{part} in {error}");
        };
        refused("", "not a cost table");
        refused("[1, 2", "not a cost table");
        refused("{}", "\"format\"");
        refused("[]", "\"format\"");
        refused(&good.replacen("\"version\": 2", "\"version\": 1", 1), "version 1");
        refused(&good.replacen("\"version\": 2", "\"versions\": 2", 1), "version none");
        refused(&good.replacen("\"butterfly\"", "\"butterflies\"", 1), "butterflies");
        refused(&good.replacen("\"threads\": 1", "\"threads\": -1", 1), "line");
        let price = |name: &str, value: &str| {
            let at = good.find(&format!("\"{name}\": ")).expect("a price") + name.len() + 4;
            let end = at + good[at..].find([',', '\n']).expect("an end");
            format!("{}{value}{}", &good[..at], &good[end..])
        };
        refused(&price("convert", "-0.5"), "convert is -0.5");
        refused(&price("convert", "1e300"), "convert");
        refused(&price("bootstrap", "0"), "bootstrap is 0");
        refused(&price("bootstrap_small", "200"), "bootstrap_small is 200");
        refused(&price("sequential", "1.5"), "sequential is 1.5");
        let free = ["butterfly", "multiply_accumulate", "pointwise", "convert"].map(|name| price(name, "0"));
        assert!(free.iter().all(|text| CostFile::parse(text).is_ok()));
        let mut none = built_in().clone();
        (none.prices.butterfly, none.prices.multiply_accumulate) = (0.0, 0.0);
        (none.prices.pointwise, none.prices.convert) = (0.0, 0.0);
        refused(&none.to_json(), "arithmetic");
        refused(&price("stream", "null"), "line");
        assert!(CostFile::parse(&price("stream", "0.25")).is_ok_and(|f| f.prices.stream == 0.25));
    }
}
