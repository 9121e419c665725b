//! Which tensors the client of a batch holds, and for how long.
//!
//! The values of all images of a batch at one place of a tensor are an *element*. What the client is given or receives is stored
//! element by element, and so is what takes many operands an element (poolings, sums over axes, softmax) or is read more than once
//! or later than it could be made. Everything else is computed from its operands whenever an element of it is read.

use super::{Aided, ClientOp, ClientStep};
use crate::{Input, Output};
use std::collections::BTreeMap;

/// Most steps in a row that are computed whenever they are read.
const LONGEST: u32 = 8;

/// When something happens in the client. A round has two halves: before its ciphertexts travel, when steps are computed one after the other,
/// and while they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    half: u32,
    step: u32,
}

impl Moment {
    /// A step is computed before a round.
    pub fn making(round: u32, step: u32) -> Self {
        Moment { half: 2 * round, step }
    }

    /// The ciphertexts of a round have travelled; after the last round results were read.
    pub fn sent(round: u32) -> Self {
        Moment { half: 2 * round + 1, step: 0 }
    }
}

/// How long the tensor of each step is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives {
    stored: Vec<bool>,
    /// By round the steps that are computed before it.
    made: BTreeMap<u32, Vec<u32>>,
    /// When what is stored is read for the last time.
    ends: Vec<(Moment, u32)>,
}

/// Whether an element takes at most one element of every operand.
fn is_light(op: &ClientOp) -> bool {
    match op {
        ClientOp::Function(_)
        | ClientOp::Polynomial { .. }
        | ClientOp::Affine { .. }
        | ClientOp::Add
        | ClientOp::Sub
        | ClientOp::Mul
        | ClientOp::Reshape
        | ClientOp::Transpose(_)
        | ClientOp::Concat(_)
        | ClientOp::Slice { .. }
        | ClientOp::Pad { .. } => true,
        ClientOp::Given(_)
        | ClientOp::Received(_)
        | ClientOp::MaxPool(_)
        | ClientOp::AveragePool { .. }
        | ClientOp::Sum { .. }
        | ClientOp::Softmax(_) => false,
    }
}

impl Lives {
    fn of(aided: &Aided) -> Self {
        /// How a step is read: how often, when for the last time, and after how many steps that are not stored.
        #[derive(Clone, Copy, Default)]
        struct Reads {
            times: u32,
            last: Option<Moment>,
            depth: u32,
        }
        let known = aided.available();
        let mut reads = vec![Reads::default(); aided.steps.len()];
        let read = |reads: &mut Vec<Reads>, step: u32, times: u32, at: Moment, depth: u32| {
            if let Some(found) = reads.get_mut(step as usize) {
                found.times = found.times.saturating_add(times);
                found.last = found.last.max(Some(at));
                found.depth = found.depth.max(depth);
            }
        };
        for send in &aided.sends {
            read(&mut reads, send.step, 1, Moment::sent(send.round), 0);
        }
        for result in &aided.results {
            read(&mut reads, result.step, 1, Moment::sent(aided.rounds), 0);
        }
        let (mut stored, mut made, mut ends) = (vec![false; aided.steps.len()], BTreeMap::new(), Vec::new());
        for (number, step) in aided.steps.iter().enumerate().rev() {
            let Reads { times, last: Some(last), depth } = reads[number] else { continue };
            let round = known[number];
            let soon = last <= Moment::sent(round);
            stored[number] = !(is_light(&step.op) && times == 1 && soon && depth < LONGEST);
            let (mut at, mut after) = (last, depth + 1);
            if stored[number] {
                (at, after) = (Moment::making(round, number as u32), 0);
                ends.push((last, number as u32));
                if !matches!(step.op, ClientOp::Given(_) | ClientOp::Received(_)) {
                    made.entry(round).or_insert_with(Vec::new).push(number as u32);
                }
            }
            for &operand in &step.operands {
                // An element of a smaller operand is read for many elements of the result.
                let spread = aided.steps.get(operand as usize).is_some_and(|o| o.shape != step.shape);
                let binary = matches!(step.op, ClientOp::Add | ClientOp::Sub | ClientOp::Mul);
                read(&mut reads, operand, if binary && spread { 2 } else { 1 }, at, after);
            }
        }
        made.values_mut().for_each(|steps| steps.reverse());
        ends.sort_unstable();
        Lives { stored, made, ends }
    }

    /// Whether the tensor of a step is stored, rather than computed where it is read.
    pub fn is_stored(&self, step: usize) -> bool {
        self.stored.get(step).copied().unwrap_or(false)
    }

    /// The steps that are to be computed and stored before a round, in order; after the last round the number of rounds is given.
    pub fn made(&self, round: u32) -> &[u32] {
        self.made.get(&round).map_or(&[], Vec::as_slice)
    }

    /// The steps that are stored, by when they are read for the last time.
    pub fn ends(&self) -> &[(Moment, u32)] {
        &self.ends
    }
}

impl Aided {
    /// The client's part of a plan of one round: what it is given is sent, what it receives is the result.
    pub fn plain(inputs: &[Input], outputs: &[Output]) -> Self {
        let step = |op, shape: &[usize]| ClientStep { op, operands: vec![], shape: shape.to_vec() };
        let given = inputs.iter().enumerate().map(|(i, input)| step(ClientOp::Given(i), &input.shape));
        let received = outputs.iter().enumerate().map(|(i, output)| step(ClientOp::Received(i), &output.shape));
        let first = inputs.len() as u32;
        let result = |(output, step): (&Output, u32)| super::ClientResult {
            name: output.name.clone(),
            step,
            range: output.range,
            error_std: output.error_std,
            postprocess: output.postprocess.clone(),
        };
        Aided {
            rounds: 1,
            network_inputs: inputs.len(),
            steps: given.chain(received).collect(),
            sends: (0..first).map(|step| super::Send { step, round: 0 }).collect(),
            receives: vec![0; outputs.len()],
            results: outputs.iter().zip(first..).map(result).collect(),
        }
    }

    /// Which tensors the client of a batch stores, and for how long.
    pub fn lives(&self) -> Lives {
        Lives::of(self)
    }

    /// Most elements of tensors that the client of a batch stores at once; each takes eight bytes an image.
    pub fn peak_elements(&self) -> u64 {
        let (lives, known) = (self.lives(), self.available());
        let mut changes: Vec<(Moment, i64)> = Vec::new();
        for &(end, number) in &lives.ends {
            let step = &self.steps[number as usize];
            let born = match step.op {
                ClientOp::Given(_) => Moment::making(0, 0),
                ClientOp::Received(output) => Moment::sent(self.receives.get(output).copied().unwrap_or(0)),
                _ => Moment::making(known[number as usize], number),
            };
            let elements = step.shape.iter().product::<usize>() as i64;
            changes.push((born, elements));
            changes.push((end.max(born), -elements));
        }
        // At one moment what is new is there before the old goes.
        changes.sort_unstable_by_key(|&(moment, change)| (moment, -change));
        let (mut now, mut most) = (0i64, 0i64);
        for (_, change) in changes {
            now += change;
            most = most.max(now);
        }
        most.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aided::{ClientResult, Send};
    use crate::{Activation, Window};

    fn step(op: ClientOp, operands: &[u32], shape: &[usize]) -> ClientStep {
        ClientStep { op, operands: operands.to_vec(), shape: shape.to_vec() }
    }

    fn relu() -> ClientOp {
        ClientOp::Function(Activation::Relu)
    }

    /// A picture is sent; ReLU and a pooling of what comes back; then twice a ReLU with a shortcut around the second.
    fn network() -> Aided {
        let window = Window { kernel: [2; 2], strides: [2; 2], pads: [0; 4], dilations: [1; 2] };
        let (large, small) = ([1, 1, 4, 4], [1, 1, 2, 2]);
        let steps = vec![
            step(ClientOp::Given(0), &[], &large),
            step(ClientOp::Received(0), &[], &large),
            step(relu(), &[1], &large),
            step(ClientOp::MaxPool(window), &[2], &small),
            step(ClientOp::Received(1), &[], &small),
            step(relu(), &[4], &small),
            step(ClientOp::Received(2), &[], &small),
            step(ClientOp::Add, &[5, 6], &small),
            step(relu(), &[7], &small),
            step(relu(), &[0], &large),
        ];
        let send = |step, round| Send { step, round };
        let result = ClientResult { name: "y".into(), step: 8, range: (0.0, 1.0), error_std: 0.0, postprocess: vec![] };
        Aided {
            rounds: 3,
            network_inputs: 1,
            steps,
            sends: vec![send(0, 0), send(3, 1), send(5, 2)],
            receives: vec![0, 1, 2],
            results: vec![result],
        }
    }

    #[test]
    fn what_is_read_once_and_soon_is_not_stored() {
        let (aided, lives) = (network(), network().lives());
        assert_eq!(aided.steps.len(), 10);
        let stored: Vec<usize> = (0..10).filter(|&s| lives.is_stored(s)).collect();
        // The second ReLU is sent and wanted again; the last one nobody reads.
        assert_eq!(stored, [0, 1, 3, 4, 5, 6]);
        assert_eq!([0, 1, 2, 3].map(|round| lives.made(round).to_vec()), [vec![], vec![3], vec![5], vec![]]);
        let ends: Vec<u32> = lives.ends().iter().map(|&(_, step)| step).collect();
        assert_eq!(ends, [0, 1, 3, 4, 5, 6]);
        assert_eq!(lives.ends()[1].0, Moment::making(1, 3));
        assert_eq!(lives.ends()[4].0, Moment::sent(3), "the shortcut is wanted after the last round");
        // The picture while it is sent and what comes back; later the pooling takes less.
        assert_eq!(aided.peak_elements(), 32);
    }

    #[test]
    fn long_rows_of_functions_are_cut() {
        let mut aided = network();
        aided.steps.truncate(1);
        aided.steps.extend((0..100u32).map(|i| step(relu(), &[i], &[4])));
        (aided.sends, aided.receives) = (vec![Send { step: 100, round: 0 }], vec![0]);
        aided.results[0].step = 100;
        let lives = aided.lives();
        let stored: Vec<u32> = lives.made(0).to_vec();
        assert_eq!(stored.last(), Some(&100), "read twice");
        assert!(stored.windows(2).all(|w| w[1] - w[0] <= LONGEST + 1) && stored.len() < 20, "{stored:?}");
    }

    #[test]
    fn plans_of_one_round_have_a_client_too() {
        let aided = Aided::plain(&[], &[]);
        assert_eq!((aided.peak_elements(), aided.rounds), (0, 1));
    }
}
