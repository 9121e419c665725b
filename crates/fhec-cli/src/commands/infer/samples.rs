//! The samples that a command was given.

use crate::data::{DataSet, load_inputs, named};
use crate::files;
use crate::plan_file;
use anyhow::{Context, Result};
use fhec_plan::{Input, PlanHead};
use std::ops::Range;
use std::path::Path;

/// Samples that are read when they are wanted, with a tensor for each input.
pub(super) struct Samples {
    parts: Vec<Part>,
    /// Of the network.
    inputs: Vec<Input>,
}

/// Where samples are.
enum Part {
    One(Vec<Vec<f64>>),
    Set(DataSet),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::One(_) => 1,
            Part::Set(set) => set.len(),
        }
    }
}

impl Samples {
    /// The samples of all files, in order; of those that hold several only one if a number is given.
    pub(super) fn open(files: &[String], number: Option<usize>, head: &PlanHead) -> Result<Self> {
        let specs = plan_file::specs(head.network_inputs());
        let by_name = |text: &String| named(text, &specs).is_some() && !Path::new(text).exists();
        let mut samples = Samples { parts: Vec::new(), inputs: head.network_inputs().to_vec() };
        if files.iter().any(by_name) {
            samples.parts.push(Part::One(load_inputs(files, number, &specs)?));
            return Ok(samples);
        }
        for file in files {
            samples.parts.push(match number {
                Some(_) => Part::One(load_inputs(std::slice::from_ref(file), number, &specs)?),
                None => Part::Set(DataSet::open(Path::new(file), &specs)?),
            });
        }
        Ok(samples)
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// Some samples. Warns of values that the plan was not compiled for.
    pub(super) fn get(&self, range: Range<usize>) -> Result<Vec<Vec<Vec<f64>>>> {
        range.map(|i| self.sample(i)).collect()
    }

    fn sample(&self, mut index: usize) -> Result<Vec<Vec<f64>>> {
        let mut parts = self.parts.iter();
        let part = parts.find(|part| match index.checked_sub(part.len()) {
            Some(left) => {
                index = left;
                false
            }
            None => true,
        });
        let sample = match part.context("there is no such sample")? {
            Part::One(sample) => sample.clone(),
            Part::Set(set) => set.sample(index)?,
        };
        for (input, values) in self.inputs.iter().zip(&sample) {
            if let Some(warning) = plan_file::outside_range(input, values) {
                files::warn(&warning);
            }
        }
        Ok(sample)
    }
}
