//! Cost tables as files: what `fhec calibrate` writes and `--cost-table` reads.
//!
//! A file is JSON with a version, the machine it was measured on, the fitted [prices](CostTable) by which the compiler
//! goes, and the measurements that they were fitted to, each beside what the prices predict for it. The compiler does
//! not look at the measurements: they show how far a table can be trusted.
//!
//! The built-in table is the mean of such files, those in `cost_tables`, each of another machine: times of plans that are made for nobody's
//! machine in particular should be wrong on none by much. One command makes one anew:
//!
//! ```text
//! cargo run --release -p fhec-cli -- calibrate -o crates/fhec-passes/src/cost_tables/NAME.json
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

/// Tables of machines, all with AVX-512-IFMA, of which the built-in one is the mean.
const TABLES: [&str; 2] = [include_str!("cost_tables/amd_epyc.json"), include_str!("cost_tables/intel_xeon.json")];

/// The built-in table.
pub fn built_in() -> &'static CostFile {
    static TABLE: LazyLock<CostFile> = LazyLock::new(|| {
        // A test reads them.
        let parse = |text: &&str| CostFile::parse(text).expect("the built-in cost tables are well-formed");
        let tables: Vec<CostFile> = TABLES.iter().map(parse).collect();
        mean(&tables).expect("there are built-in tables")
    });
    &TABLE
}

/// The table of means, price by price, without measurements; nothing for no tables. What an operation costs is a sum of prices, so
/// predictions are means as well, but for bootstraps, whose prices are multiplied by one of their own.
fn mean(tables: &[CostFile]) -> Option<CostFile> {
    let mut mean = tables.first()?.clone();
    let of = |price: &dyn Fn(&CostTable) -> f64| {
        four_figures(tables.iter().map(|t| price(&t.prices)).sum::<f64>() / tables.len() as f64)
    };
    mean.prices = CostTable {
        butterfly: of(&|p| p.butterfly),
        multiply_accumulate: of(&|p| p.multiply_accumulate),
        diagonal: of(&|p| p.diagonal),
        stream: of(&|p| p.stream),
        pointwise: of(&|p| p.pointwise),
        convert: of(&|p| p.convert),
        fft_butterfly: of(&|p| p.fft_butterfly),
        round: of(&|p| p.round),
        fill: of(&|p| p.fill),
        overhead: of(&|p| p.overhead),
        touch: of(&|p| p.touch),
        touch_huge: of(&|p| p.touch_huge),
        expand: of(&|p| p.expand),
        read_byte: of(&|p| p.read_byte),
        bootstrap: of(&|p| p.bootstrap),
        bootstrap_small: Some(of(&|p| p.bootstrap_small.unwrap_or(p.bootstrap))),
        sequential: of(&|p| p.sequential),
        base_memory: tables.iter().map(|t| t.prices.base_memory).max()?,
    };
    let processors: Vec<&str> = tables.iter().map(|t| t.machine.processor.as_str()).collect();
    mean.machine.processor = format!("mean of {}", processors.join(" and "));
    mean.measurements = Vec::new();
    Some(mean)
}

/// A number as people write it, which also survives its decimal form: what a measurement can tell.
pub fn four_figures(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
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
    fn the_mean_of_tables_is_between_them() {
        let [one, other] = TABLES.map(|text| CostFile::parse(text).expect("well-formed"));
        let found = mean(&[one.clone(), other.clone()]).expect("of two");
        for (((name, mean), (_, a)), (_, b)) in
            found.prices.named().iter().zip(one.prices.named()).zip(other.prices.named())
        {
            assert!((mean - (a + b) / 2.0).abs() <= 1e-3 * mean, "{name}: {mean} of {a} and {b}");
        }
        let middle = |price: fn(&CostTable) -> f64| {
            let [mean, a, b] = [&found, &one, &other].map(|file| price(&file.prices));
            (mean - (a + b) / 2.0).abs() <= 1e-3 * mean
        };
        assert!(
            middle(|p| p.bootstrap) && middle(|p| p.bootstrap_small.expect("measured")) && middle(|p| p.sequential)
        );
        assert_eq!(found.prices.base_memory, one.prices.base_memory.max(other.prices.base_memory));
        assert!(found.machine.processor.contains(&other.machine.processor), "{}", found.machine.processor);
        assert_eq!(mean(std::slice::from_ref(&one)).expect("of one").prices, one.prices);
        assert_eq!(mean(&[]), None);
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

    #[test]
    fn figures_survive_their_decimal_form() {
        for x in [0.0, 0.123456, 3141.59, 1e-9] {
            let short = four_figures(x);
            assert!((short - x).abs() <= 5e-4 * x);
            assert_eq!(short.to_string().parse(), Ok(short));
        }
    }
}
