//! Many images for one run of a plan in throughput mode.

use super::set::{for_each_input, named};
use super::{DataSet, InputSpec};
use anyhow::{Result, ensure};
use clap::Args;
use std::path::Path;

/// Which samples of a data set to take.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Part {
    /// Leave out the first N samples of a batch
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) skip: usize,
    /// Take at most N samples; all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

impl Part {
    /// Whether it is less than everything.
    pub(crate) fn is_given(&self) -> bool {
        self.skip > 0 || self.limit.is_some()
    }

    /// The samples to take out of `len`.
    pub(crate) fn range(&self, len: usize) -> Result<std::ops::Range<usize>> {
        ensure!(self.skip < len, "--skip {}: there are only {len} samples", self.skip);
        let limit = usize::try_from(self.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        Ok(self.skip..self.skip.saturating_add(limit).min(len))
    }
}

/// The inputs of at most `most` images, from a file or folder of samples given as `PATH`, or as `NAME=PATH` for every input.
pub(crate) fn load_batch(
    given: &[String],
    part: &Part,
    most: usize,
    specs: &[InputSpec],
) -> Result<Vec<Vec<Vec<f64>>>> {
    let sets = match given {
        [path] if named(path, specs).is_none() || Path::new(path).exists() => {
            vec![DataSet::open(Path::new(path), specs)?]
        }
        _ => for_each_input(given, specs, "give --input NAME=FILE once for each input", DataSet::open)?,
    };
    let len = sets.first().map_or(0, DataSet::len);
    ensure!(sets.iter().all(|s| s.len() == len), "the inputs have unequal numbers of samples");
    let range = part.range(len)?;
    ensure!(
        range.len() <= most,
        "{} samples, the plan takes at most {most} a run; encrypt parts of them with --skip and --limit",
        range.len()
    );
    range.map(|i| Ok(sets.iter().map(|s| s.sample(i)).collect::<Result<Vec<_>>>()?.concat())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{spec, write};
    use super::*;

    #[test]
    fn parts_of_a_batch_are_taken_and_too_much_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let given = [write(dir.path(), "x.npy", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])];
        let specs = [spec("x", &[1, 2])];
        let part = |skip, limit| Part { skip, limit };
        let load = |part, most| load_batch(&given, &part, most, &specs);
        assert_eq!(load(part(0, None), 3).expect("fits").len(), 3);
        assert_eq!(load(part(1, Some(1)), 1).expect("fits"), [[[3.0, 4.0]]]);
        assert_eq!(load(part(2, Some(9)), 4).expect("fits"), [[[5.0, 6.0]]]);
        assert!(load(part(0, None), 2).expect_err("too many").to_string().contains("--limit"));
        assert!(load(part(3, None), 2).expect_err("none left").to_string().contains("--skip"));
    }

    #[test]
    fn several_inputs_go_side_by_side() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let a = write(dir.path(), "a.npy", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let b = write(dir.path(), "b.npy", &[2, 1], &[5.0, 6.0]);
        let short = write(dir.path(), "c.npy", &[1, 1], &[5.0]);
        let specs = [spec("a", &[1, 2]), spec("b", &[1, 1])];
        let given = |b: &str| [format!("b={b}"), format!("a={a}")];
        let images = load_batch(&given(&b), &Part::default(), 9, &specs).expect("loads");
        assert_eq!(images, [[vec![1.0, 2.0], vec![5.0]], [vec![3.0, 4.0], vec![6.0]]]);
        assert!(load_batch(&given(&short), &Part::default(), 9, &specs).is_err());
        assert!(load_batch(&given(&b)[..1], &Part::default(), 9, &specs).is_err());
    }
}
