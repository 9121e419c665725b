//! From ranges to polynomials, parameters and bootstraps; with higher degrees where the usual ones are not good enough.
//!
//! Degrees beyond [`USUAL`] cost a level or two more for an activation, which a chain with bootstraps in it may hardly have. So they are
//! only tried where the others miss what was asked for, one level more at a time, and the network is compiled with both: that
//! also tells what they cost. Where nobody said how good it has to be they are taken for little more time alone.

use crate::approximate::{Approximated, DEGREES, Refinable, USUAL, approximate_refinably};
use crate::driver::Driver;
use crate::joint::{Improved, improve};
use crate::mode::Mode;
use crate::packed;
use crate::parameters::{Demands, Goal};
use crate::pipeline::{CompileError, Options, PRECISION_BITS};
use crate::rings::Choice;
use fhec_ir::Tensor;
use fhec_ir::nn::{self, Op};

/// So many times the predicted time is what higher degrees are worth that nobody asked for.
const UNASKED: f64 = 1.25;

/// A network of polynomials, and what carries it.
pub(crate) struct Solved {
    pub(crate) approximated: Approximated,
    pub(crate) choice: Choice,
    pub(crate) demands: Demands,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

/// Activations become polynomials of degrees that are good enough, and all that they ask for is chosen. `outputs` are those of the
/// network, sample by sample, where they are known.
///
/// # Errors
/// As [`approximate_refinably`] and [`packed::choose`] with the usual degrees.
pub(crate) fn solve(
    graph: &nn::Graph,
    outputs: Option<&[Vec<f64>]>,
    samples: &[Vec<Tensor>],
    options: &Options,
    driver: &mut Driver<'_>,
) -> Result<Solved, CompileError> {
    let mut best = with_degrees(graph, outputs, samples, options, &DEGREES[..USUAL], driver)?;
    let usual = best.choice.objective;
    for count in USUAL + 1..=DEGREES.len() {
        if !best.approximated.missed {
            break;
        }
        // Too deep to be compiled: then it stays as it is.
        let degrees = &DEGREES[..count];
        let Ok(mut deeper) = with_degrees(graph, outputs, samples, options, degrees, driver) else { break };
        let (before, after) = (best.approximated.output_error, deeper.approximated.output_error);
        let (highest, times) = (DEGREES[count - 1], deeper.choice.objective / usual);
        tracing::debug!(highest, before, after, times, "higher degrees");
        let unasked = !options.approximate.asked();
        if after.is_nan() || after >= before || (unasked && less_precise(&deeper, &best)) {
            break;
        }
        if unasked && times > UNASKED {
            best.notes.push(format!(
                "degrees up to {highest} would change them by {:.1} % and take {times:.2} times as long: they are for a loss of \
                 accuracy that is asked for (--accuracy-drop)",
                100.0 * after
            ));
            break;
        }
        deeper.notes.push(format!(
            "activations have degrees up to {highest}, which change the outputs by {:.1} % and take {times:.2} times as long as degrees \
             up to {}, which miss what was asked for",
            100.0 * after,
            DEGREES[USUAL - 1]
        ));
        best = deeper;
    }
    Ok(best)
}

/// Whether encryption leaves less precision than was asked for, and less than another solution has.
fn less_precise(solved: &Solved, other: &Solved) -> bool {
    let bits = |s: &Solved| s.choice.selected.prediction.bits;
    bits(solved) < solved.demands.precision_bits.min(bits(other))
}

/// The same with polynomials of the given degrees.
fn with_degrees(
    graph: &nn::Graph,
    outputs: Option<&[Vec<f64>]>,
    samples: &[Vec<Tensor>],
    options: &Options,
    degrees: &[usize],
    driver: &mut Driver<'_>,
) -> Result<Solved, CompileError> {
    let (mut approximated, refinement) = polynomial(graph, outputs, options, degrees, driver)?;
    let mut notes = Vec::new();
    let batched = options.mode != Mode::Latency;
    let enough = precision(&approximated, options);
    let demands = Demands {
        security: options.security,
        precision_bits: enough,
        memory_budget: options.memory_budget,
        goal: if batched { Goal::Throughput } else { options.goal },
    };
    if options.precision_bits.is_none() && enough < PRECISION_BITS {
        notes.push(format!(
            "errors of encryption need {enough:.1} bits of precision to stay below 1/{} of what the loss of accuracy allows \
             (--precision-bits asks for more)",
            1.0 / UNSEEN
        ));
    }
    let found = packed::choose(&approximated.graph, samples, options, &demands, driver)?;
    let (mut choice, packing) = found.map_err(|reasons| {
        let notes = notes.iter().chain(&approximated.notes).cloned().collect();
        CompileError::Parameters { demands, reasons, notes }
    })?;
    // Degrees were chosen without knowing where bootstraps would be; now they are chosen together.
    if let Some(refinement) = refinement
        && let Some(better) = improve(&choice, refinement, samples, options, &demands, driver)?
    {
        let Improved { before, .. } = better;
        (approximated, choice) = (better.approximated, better.choice);
        notes.push(format!(
            "degrees of activations were chosen together with bootstraps: {:.1} s, against {before:.1} s with the fewest levels",
            choice.selected.price.seconds()
        ));
    }
    notes.append(&mut approximated.notes);
    notes.extend(packing);
    Ok(Solved { approximated, choice, demands, notes })
}

/// Activations become polynomials; from here on the network is what will be evaluated.
fn polynomial<'a>(
    graph: &'a nn::Graph,
    outputs: Option<&[Vec<f64>]>,
    options: &'a Options,
    degrees: &[usize],
    driver: &mut Driver<'_>,
) -> Result<Refinable<'a>, CompileError> {
    let mut made = None;
    driver.try_nn("approximate", graph, |_| {
        let outputs = outputs.map(<[_]>::to_vec);
        let (approximated, refinement) =
            approximate_refinably(graph, &options.samples, outputs, &options.approximate, degrees)?;
        Ok::<_, CompileError>(made.insert((approximated, refinement)).0.graph.clone())
    })?;
    Ok(made.expect("the pass ran"))
}

/// Errors of encryption that are this part of what approximations may do to the outputs do not show beside them: they make the error
/// larger by a five-hundredth.
const UNSEEN: f64 = 1.0 / 16.0;

/// Bits of precision that encryption has to leave.
fn precision(approximated: &Approximated, options: &Options) -> f64 {
    let graph = &approximated.graph;
    let allowed = |error: f64| {
        let widths = graph.outputs.iter().filter_map(|o| match graph.node(o.value) {
            nn::Node { op: Op::Softmax { .. }, inputs, .. } => graph.node(inputs[0]).range,
            node => node.range,
        });
        widths.map(|r| ((r.hi - r.lo) / (UNSEEN * error)).log2()).fold(0.0, f64::max)
    };
    let bits = approximated.allowed_error.map(allowed).filter(|bits| (1.0..PRECISION_BITS).contains(bits));
    options.bits_or(bits)
}
