//! One image a slot or two: whichever takes less time for an image.
//!
//! With two images a slot (nGraph-HE2 §3.3) linear layers take half the time for each, and so do all ciphertexts. A product takes a
//! conjugation besides its relinearisation, so that it takes as many key switches an image as before. It comes at four times the
//! scale, which may ask for larger primes. So both are compiled, and prices decide.

use crate::driver::Driver;
use crate::mode::{Complex, Mode};
use crate::parameters::Demands;
use crate::pipeline::{CompileError, Options};
use crate::rings::{Choice, Reasons, best};
use fhec_ir::nn::Op;
use fhec_ir::{Tensor, nn};

/// The best choice over all rings, and what the user is told of the number of images a slot.
///
/// # Errors
/// As [`best`], and [`CompileError::Complex`] where two images a slot are asked for in vain.
pub(crate) fn choose(
    graph: &nn::Graph,
    samples: &[Vec<Tensor>],
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
) -> Result<Result<(Choice, Option<String>), Reasons>, CompileError> {
    let mut with = |options: &Options| best(graph, samples, options, demands, driver);
    if options.mode == Mode::Latency || options.complex == Complex::Off {
        return Ok(with(options)?.map(|choice| (choice, None)));
    }
    let obstacle = obstacle(graph);
    if options.complex == Complex::On {
        return match obstacle {
            Some(why) => Err(CompileError::Complex(why)),
            None => Ok(with(options)?.map(|choice| (choice, Some("complex packing: on, as asked for".into())))),
        };
    }
    let single = with(options)?;
    if let Some(why) = obstacle {
        return Ok(single.map(|choice| (choice, Some(format!("complex packing: off, {why}")))));
    }
    let each = |choice: &Choice| choice.objective * 1e6;
    Ok(match (single, with(&Options { complex: Complex::On, ..options.clone() })?) {
        (Ok(single), Ok(packed)) => {
            let (a, b) = (each(&single), each(&packed));
            let (state, choice) = if b < a { ("on", packed) } else { ("off", single) };
            let note = format!(
                "complex packing: {state}; predicted for an image are {a:.1} µs with one image a slot and {b:.1} µs with two"
            );
            Ok((choice, Some(note)))
        }
        (Ok(single), Err(_)) => {
            Ok((single, Some("complex packing: off, no ring will do for two images a slot".into())))
        }
        (Err(_), Ok(packed)) => Ok((packed, Some("complex packing: on, no ring will do for one image a slot".into()))),
        (Err(reasons), Err(_)) => Err(reasons),
    })
}

/// What keeps two images from sharing a slot.
fn obstacle(graph: &nn::Graph) -> Option<&'static str> {
    let polynomial = graph.nodes.iter().any(|n| matches!(n.op, Op::Polynomial { .. }));
    polynomial.then_some(
        "polynomials would mix the two images of a slot, and evaluated for each alone they cost as much as before",
    )
}
