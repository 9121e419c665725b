//! What `fhec compare` tells of a layer or an output: errors, and how far the original network is.

use super::super::results::largest;
use super::super::simulate::layers::{self, COMPARABLE, Moments};
use crate::format::{self, Align, Table};
use fhec_plan::verify::Verified;
use fhec_plan::{Layout, Output};
use fhec_runtime::clear::Slots;
use fhec_runtime::postprocess;
use serde_json::{Value, json};

/// Whose values a row compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Number of a layer.
    Layer(usize),
    /// Number of an output.
    Output(usize),
}

/// A layer or an output, compared.
pub(super) struct Row {
    place: Place,
    name: String,
    kind: String,
    /// Number of values.
    count: usize,
    /// Standard deviation of the plan's values without encryption.
    spread: f64,
    /// Error of the encrypted values: root mean square, largest, and what the plan predicted.
    error: [f64; 3],
    /// Against the original network.
    original: Option<Original>,
    /// The class on top of the encrypted run, the plan without encryption and the original, where an output has classes.
    classes: Option<[usize; 3]>,
}

/// What separates values from those of the original network, in the units of that.
struct Original {
    /// Standard deviation of the original values.
    spread: f64,
    /// Root mean square error of the plan without encryption, and of the encrypted values.
    rms: [f64; 2],
}

impl Row {
    /// A layer, from the slots of its result.
    pub(super) fn layer(
        verified: &Verified,
        layer: usize,
        got: &Slots,
        clear: &Slots,
        original: Option<&[f64]>,
    ) -> Self {
        let (named, report) = (&verified.plan().layers[layer], &verified.plan().report.layers[layer]);
        let values = |slots: &Slots, layout: &Layout| -> Vec<f64> {
            layers::unpack(slots, layout, &layout.positions()).collect()
        };
        let (got, clear) = match &report.value {
            Some(value) => (values(got, &value.layout), values(clear, &value.layout)),
            None => (Vec::new(), Vec::new()),
        };
        let (spread, [rms, worst]) = (spread(&clear), errors(&got, &clear));
        Row {
            place: Place::Layer(layer),
            name: named.name.clone(),
            kind: named.kind.clone(),
            count: clear.len(),
            spread,
            error: [rms, worst, report.error_std],
            original: original.and_then(|o| Original::fitted(&got, &clear, o)),
            classes: None,
        }
    }

    /// An output, in the units of the model. What is left to the client is done to the values before they are held against the
    /// original's, and not before: the plan predicts the errors of what it computes itself.
    pub(super) fn output(
        index: usize,
        output: &Output,
        mut got: Vec<f64>,
        mut clear: Vec<f64>,
        original: &[f64],
    ) -> Self {
        let (count, spread, [rms, worst]) = (clear.len(), spread(&clear), errors(&got, &clear));
        for values in [&mut got, &mut clear] {
            postprocess(&output.postprocess, &output.shape, values);
        }
        let top = |values: &[f64]| largest(values, 1).first().copied().unwrap_or(0);
        Row {
            place: Place::Output(index),
            name: output.name.clone(),
            kind: "output".into(),
            count,
            spread,
            error: [rms, worst, output.error_std],
            original: Some(Original::of(&got, &clear, original)),
            classes: is_scores(&output.shape).then(|| [top(&got), top(&clear), top(original)]),
        }
    }
}

impl Original {
    /// Of values in the original's units.
    fn of(got: &[f64], clear: &[f64], original: &[f64]) -> Self {
        Original { spread: spread(original), rms: [clear, got].map(|plan| errors(plan, original)[0]) }
    }

    /// Of values that one factor and one offset bring to the original's units. `None` where the layer's values are not those of
    /// its node in another scale, but something else.
    fn fitted(got: &[f64], clear: &[f64], original: &[f64]) -> Option<Self> {
        let pairs = |plan: &[f64]| plan.iter().copied().zip(original.iter().copied()).collect::<Vec<_>>();
        let line = Moments::of(pairs(clear).into_iter()).line();
        let left = [clear, got].map(|plan| line.squares(pairs(plan).into_iter()) / original.len().max(1) as f64);
        let comparable = line.variance > 0.0 && 1.0 - left[0] / line.variance >= COMPARABLE;
        comparable.then(|| Original { spread: line.variance.sqrt(), rms: left.map(f64::sqrt) })
    }
}

/// Standard deviation.
fn spread(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// Root mean square and largest difference.
fn errors(got: &[f64], reference: &[f64]) -> [f64; 2] {
    let differences = || got.iter().zip(reference).map(|(g, r)| (g - r).abs());
    let squares: f64 = differences().map(|d| d * d).sum();
    [(squares / reference.len().max(1) as f64).sqrt(), differences().fold(0.0, f64::max)]
}

/// Whether values of this shape look like the scores of classes: one line of several.
fn is_scores(shape: &[usize]) -> bool {
    let mut long = shape.iter().filter(|&&d| d != 1);
    long.next().is_some_and(|&d| d > 1) && long.next().is_none()
}

/// How many bits an error lies below the spread; `None` for no error, and where all values are the same.
fn bits(spread: f64, error: f64) -> Option<f64> {
    (error > 0.0 && spread > 0.0).then(|| (spread / error).log2())
}

/// Brings rows into the plan's order, outputs last.
pub(super) fn sort(rows: &mut [Row]) {
    rows.sort_by_key(|row| row.place);
}

/// The rows as a table, and below it the classes.
pub(super) fn table(rows: &[Row]) -> String {
    let outputs = rows.iter().all(|row| matches!(row.place, Place::Output(_)));
    let mut table = Table::new(&[
        (if outputs { "output" } else { "layer" }, Align::Left),
        ("kind", Align::Left),
        ("values", Align::Right),
        ("spread", Align::Right),
        ("error (rms)", Align::Right),
        ("bits", Align::Right),
        ("worst", Align::Right),
        ("bits", Align::Right),
        ("predicted", Align::Right),
        ("bits", Align::Right),
        ("original: plan", Align::Right),
        ("encrypted", Align::Right),
    ]);
    for row in rows {
        let in_bits = |spread: f64, error: f64| match bits(spread, error) {
            Some(bits) => format!("{bits:.1}"),
            None if error > 0.0 => "?".into(),
            None => "exact".into(),
        };
        let mut cells = vec![row.name.clone(), row.kind.clone(), row.count.to_string(), format::figures(row.spread)];
        cells.extend(row.error.iter().flat_map(|&error| [format::small(error), in_bits(row.spread, error)]));
        match &row.original {
            Some(o) => cells.extend(o.rms.map(|rms| in_bits(o.spread, rms))),
            None => cells.extend(["?".to_owned(), "?".to_owned()]),
        }
        table.row(cells);
    }
    let classes = rows.iter().filter_map(|row| Some((&row.name, row.classes?)));
    let lines = classes.map(|(name, [encrypted, plan, original])| match encrypted == plan && plan == original {
        true => format!("  class of {name}: {original}, the same encrypted, by the plan and by the original\n"),
        false => format!("  class of {name}: {encrypted} encrypted, {plan} by the plan, {original} by the original\n"),
    });
    lines.fold(table.render(), |text, line| text + &line)
}

/// The rows for scripts.
pub(super) fn as_json(rows: &[Row]) -> Value {
    let entry = |row: &Row| {
        let [rms, worst, predicted] = row.error;
        let mut entry = json!({
            "name": row.name, "kind": row.kind, "values": row.count, "spread": row.spread,
            "rms": rms, "bits": bits(row.spread, rms),
            "worst": worst, "worst_bits": bits(row.spread, worst),
            "predicted_rms": predicted, "predicted_bits": bits(row.spread, predicted),
            "original": row.original.as_ref().map(|o| json!({
                "spread": o.spread,
                "plan_rms": o.rms[0], "plan_bits": bits(o.spread, o.rms[0]),
                "encrypted_rms": o.rms[1], "encrypted_bits": bits(o.spread, o.rms[1]),
            })),
        });
        match row.place {
            Place::Layer(layer) => entry["layer"] = layer.into(),
            Place::Output(output) => entry["output"] = output.into(),
        }
        if let Some([encrypted, plan, original]) = row.classes {
            entry["class"] = json!({ "encrypted": encrypted, "plan": plan, "original": original });
        }
        entry
    };
    rows.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_math::Scale;
    use fhec_plan::Postprocess;

    #[test]
    fn errors_against_the_original_are_in_its_units() {
        let clear: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        let original: Vec<f64> = clear.iter().map(|v| 4.0 * v + 1.0).collect();
        let got: Vec<f64> = clear.iter().enumerate().map(|(i, v)| v + if i % 2 == 0 { 1e-3 } else { -1e-3 }).collect();
        let o = Original::fitted(&got, &clear, &original).expect("comparable");
        assert!(o.rms[0] < 1e-12 && (o.rms[1] / 4e-3 - 1.0).abs() < 1e-6, "{:?}", o.rms);
        let other: Vec<f64> = (0..50).map(|i| f64::from(i * i % 7)).collect();
        assert!(Original::fitted(&got, &clear, &other).is_none());
        // An output has the units of the original: nothing is fitted.
        assert!(Original::of(&got, &clear, &original).rms[0] > 1.0);
        assert_eq!(bits(1.0, 0.25), Some(2.0));
        assert_eq!((bits(1.0, 0.0), bits(0.0, 1.0)), (None, None));
    }

    #[test]
    fn outputs_are_compared_before_softmax_with_the_plan_and_after_it_with_the_original() {
        let output = Output {
            name: "y".into(),
            shape: vec![1, 2],
            layout: Layout::dense(2, 64, 2),
            level: 0,
            scale: Scale::pow2(30),
            factor: 1.0,
            range: (-1.0, 1.0),
            error_std: 0.5,
            postprocess: vec![Postprocess::Softmax { axis: 1 }],
        };
        let row = Row::output(0, &output, vec![1.0, -1.0], vec![0.0, 0.0], &[0.25, 0.75]);
        assert_eq!((row.error, row.classes), ([1.0, 1.0, 0.5], Some([0, 0, 1])));
        assert_eq!(row.original.expect("always").rms[0], 0.25);
        let text = table(&[Row::output(0, &output, vec![1.0, -1.0], vec![0.0, 0.0], &[0.25, 0.75])]);
        assert!(text.contains("class of y: 0 encrypted, 0 by the plan, 1 by the original"), "{text}");
    }

    #[test]
    fn only_lines_of_several_values_have_classes() {
        assert!(is_scores(&[1, 10]) && is_scores(&[2]) && is_scores(&[1, 10, 1, 1]));
        assert!(!is_scores(&[1, 1]) && !is_scores(&[]) && !is_scores(&[1, 3, 8, 8]));
    }
}
