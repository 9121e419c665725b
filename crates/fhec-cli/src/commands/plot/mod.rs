//! The time of every layer as a picture: from the trace of a run, or from what a plan predicts.

mod svg;

use super::run::Estimate;
use crate::files::{self, Access};
use crate::{format, plan_file};
use anyhow::{Context, Result, bail, ensure};
use fhec_plan::verify::Verified;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Layers that take less than this part of all time are drawn as one.
const SMALL: f64 = 0.002;

/// What an instruction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Activation,
    Bootstrap,
    Other,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Linear, Kind::Activation, Kind::Bootstrap, Kind::Other];

    /// Of an operation, by its name in listings and traces.
    fn of(op: &str) -> Self {
        match op {
            "linear" | "rotate" | "mul_vector" | "add_vector" => Kind::Linear,
            "poly" | "mul" | "relin" | "rescale" => Kind::Activation,
            "bootstrap" => Kind::Bootstrap,
            _ => Kind::Other,
        }
    }

    /// For the legend.
    fn name(self) -> &'static str {
        match self {
            Kind::Linear => "linear",
            Kind::Activation => "activation",
            Kind::Bootstrap => "bootstrap",
            Kind::Other => "other",
        }
    }
}

/// A layer's bar.
#[derive(Clone, Debug, Default, PartialEq)]
struct Bar {
    name: String,
    /// Seconds, by kind in the order of [`Kind::ALL`].
    parts: [f64; 4],
    /// Predicted seconds.
    predicted: f64,
}

impl Bar {
    fn seconds(&self) -> f64 {
        self.parts.iter().sum()
    }
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
struct Picture {
    title: String,
    subtitle: String,
    bars: Vec<Bar>,
    /// Predictions stand beside what was measured.
    compared: bool,
}

/// Draws the last evaluation in a trace.
pub(super) fn of_trace(trace: &Path, output: &Path) -> Result<()> {
    let text = String::from_utf8(files::read(trace)?).ok().context("it is not a trace: not UTF-8");
    let picture = text.and_then(|text| from_trace(&text)).with_context(|| trace.display().to_string())?;
    write(&picture, output)
}

/// Draws what a plan predicts.
pub(super) fn of_plan(plan: &Path, output: &Path) -> Result<()> {
    write(&from_plan(&plan_file::open(plan)?), output)
}

fn write(picture: &Picture, output: &Path) -> Result<()> {
    let text = svg::draw(picture);
    files::write(output, Access::Public, |out| Ok(out.write_all(text.as_bytes())?))
}

/// A line of a trace, as far as it is drawn.
#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Record {
    Run { model: String, threads: u64, first: u64, predicted_seconds: f64, machine: String },
    Node { op: String, layer: u64, name: String, seconds: f64, predicted_seconds: f64 },
    End {},
}

fn from_trace(text: &str) -> Result<Picture> {
    let mut head = None;
    let mut layers: BTreeMap<u64, Bar> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let at = || format!("line {} is not one of a trace", number + 1);
        match serde_json::from_str(line).with_context(at)? {
            Record::Run { model, threads, first, predicted_seconds, machine } => {
                head = Some((model, threads, first, predicted_seconds, machine));
                layers.clear();
            }
            Record::Node { op, layer, name, seconds, predicted_seconds } => {
                ensure!(seconds >= 0.0 && predicted_seconds >= 0.0, at());
                add(layers.entry(layer).or_default(), name, &op, seconds, predicted_seconds);
            }
            Record::End {} => {}
        }
    }
    let Some((model, threads, first, predicted, machine)) = head else { bail!("it is an empty trace") };
    let bars = merged(layers.into_values().collect());
    let total: f64 = bars.iter().map(Bar::seconds).sum();
    let threads = format::count(usize::try_from(threads).unwrap_or(usize::MAX), "thread");
    let part = if first > 0 { format!(", from instruction {first} on") } else { String::new() };
    Ok(Picture {
        title: format!("{model}: {} on {threads}{part}", format::seconds(total)),
        subtitle: format!("{machine}; marks: predicted for one thread, {} in all", format::seconds(predicted)),
        bars,
        compared: true,
    })
}

fn from_plan(verified: &Verified) -> Picture {
    let (plan, estimate) = (verified.plan(), Estimate::of(verified));
    let mut layers: BTreeMap<usize, Bar> = BTreeMap::new();
    for (number, instruction) in plan.instructions.iter().enumerate() {
        let (layer, seconds) = (instruction.layer.index(), estimate.seconds(number));
        let name = plan.layers[layer].name.clone();
        add(layers.entry(layer).or_default(), name, instruction.op.name(), seconds, seconds);
    }
    let bars = merged(layers.into_values().collect());
    let total: f64 = bars.iter().map(Bar::seconds).sum();
    Picture {
        title: format!("{}: {} predicted", plan.model, format::seconds(total)),
        subtitle: "one thread of the machine that the cost table was measured on".into(),
        bars,
        compared: false,
    }
}

fn add(bar: &mut Bar, name: String, op: &str, seconds: f64, predicted: f64) {
    bar.name = name;
    bar.parts[Kind::of(op) as usize] += seconds;
    bar.predicted += predicted;
}

/// The layers that take time, and one bar for all that hardly do.
fn merged(bars: Vec<Bar>) -> Vec<Bar> {
    let total: f64 = bars.iter().map(Bar::seconds).sum();
    let (mut large, small): (Vec<Bar>, Vec<Bar>) =
        bars.into_iter().filter(|b| b.seconds() > 0.0).partition(|b| b.seconds() >= SMALL * total);
    if !small.is_empty() {
        let mut rest = Bar { name: format!("{} more", format::count(small.len(), "layer")), ..Bar::default() };
        for bar in &small {
            rest.parts.iter_mut().zip(bar.parts).for_each(|(sum, part)| *sum += part);
            rest.predicted += bar.predicted;
        }
        large.push(rest);
    }
    large
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(layer: u64, op: &str, seconds: f64) -> String {
        format!(
            "{{\"record\":\"node\",\"number\":1,\"op\":\"{op}\",\"layer\":{layer},\"name\":\"l{layer}\",\
             \"seconds\":{seconds},\"predicted_seconds\":0.5}}\n"
        )
    }

    const RUN: &str = "{\"record\":\"run\",\"model\":\"net\",\"threads\":2,\"first\":0,\"predicted_seconds\":3.0,\
                       \"machine\":\"a computer\"}\n";

    #[test]
    fn the_last_evaluation_of_a_trace_is_drawn() {
        let first = [RUN, &node(0, "linear", 9.0), "{\"record\":\"end\",\"seconds\":9}\n"].concat();
        let parts = [node(1, "linear", 1.0), node(2, "poly", 0.5), node(1, "bootstrap", 2.0), node(3, "add", 0.001)];
        let picture = from_trace(&format!("{first}{RUN}{}", parts.concat())).expect("reads");
        assert!(picture.title.contains("net: 3.50 s on 2 threads"), "{}", picture.title);
        assert_eq!(picture.bars.len(), 3);
        assert_eq!(picture.bars[0], Bar { name: "l1".into(), parts: [1.0, 0.0, 2.0, 0.0], predicted: 1.0 });
        assert_eq!((picture.bars[2].name.as_str(), picture.bars[2].seconds()), ("1 layer more", 0.001));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        assert!(from_trace("").is_err());
        assert!(from_trace("{}").expect_err("no record").to_string().contains("line 1"));
        let bad = format!("{RUN}{}", node(1, "linear", -1.0));
        assert!(from_trace(&bad).expect_err("negative").to_string().contains("line 2"));
    }
}
