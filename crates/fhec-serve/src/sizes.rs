//! What serving a plan takes, worked out before anybody connects: every size follows from the plan, so nothing that a client
//! says is needed to bound it.

use crate::config::Config;
use crate::error::ServeError;
use fhec_ckks::container::{KeySizes, bundle_bytes};
use fhec_ckks::{Context, KeyRequest, UniformHalves};
use fhec_plan::Verified;

/// Sizes in bytes, and the numbers that follow from them and from what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// A file of evaluation keys, exactly.
    pub key_file: u64,
    /// Evaluation keys in memory.
    pub key_memory: u64,
    /// Whether both halves of keys are kept in memory.
    pub halves: UniformHalves,
    /// Most bytes of a file with the inputs of a round.
    pub inputs: u64,
    /// Most bytes of a file with what answers a round.
    pub outputs: u64,
    /// Most bytes that are kept of a request from one round to the next.
    pub kept: u64,
    /// One evaluation, keys apart.
    pub run: u64,
    /// Where the ciphertexts of a round do not fit memory, those that an evaluation has there at a time. Then payloads, and what
    /// is kept from one round to the next, are in temporary files.
    pub streamed: Option<u64>,
    /// Evaluations at a time.
    pub runs: usize,
    /// Sets of keys in memory at a time.
    pub keys_in_memory: usize,
    /// Sets of keys on disk.
    pub keys_on_disk: usize,
    /// Requests at a time.
    pub requests: usize,
}

/// What is known of a plan before the numbers are chosen.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// Keys with both halves kept, and with one.
    pub(crate) keys: [(UniformHalves, KeySizes); 2],
    pub(crate) inputs: u64,
    pub(crate) outputs: u64,
    pub(crate) kept: u64,
    /// Most that a request holds while it is not evaluated.
    pub(crate) held: u64,
    /// Weights as they stand in the plan and as they are kept encoded.
    pub(crate) fixed: u64,
    /// Registers and scratch of an evaluation with a number of threads.
    pub(crate) run: u64,
}

impl Demand {
    /// The sizes of what travels.
    pub(crate) fn of(
        verified: &Verified,
        context: &Context,
        request: &KeyRequest,
        fixed: u64,
        run: u64,
    ) -> Result<Self, ServeError> {
        let plan = verified.plan();
        let inputs = |round| {
            let own = plan.inputs.iter().enumerate().filter(move |(i, _)| plan.input_round(*i) == round);
            own.flat_map(|(_, p)| vec![(p.name.as_str(), p.level, &p.scale); p.layout.ciphertexts])
        };
        let outputs = |round| {
            let own = plan.outputs.iter().enumerate().filter(move |(i, _)| plan.output_round(*i) == round);
            own.flat_map(|(_, p)| vec![(p.name.as_str(), p.level, &p.scale); p.layout.ciphertexts])
        };
        let inputs = |round| bundle_bytes(inputs(round), context);
        let outputs = |round| bundle_bytes(outputs(round), context);
        let rounds = 0..plan.rounds();
        // What answers a round stays until the next one has come, for it may be asked for again.
        let next = |round: u32| if round + 1 < plan.rounds() { inputs(round + 1) } else { 0 };
        let held = rounds.clone().map(|round| inputs(round).max(outputs(round) + next(round))).max();
        let kept = verified.facts().kept_bytes();
        let keys = |halves| -> Result<_, ServeError> { Ok((halves, KeySizes::of(request, context, halves)?)) };
        Ok(Demand {
            keys: [keys(UniformHalves::Kept)?, keys(UniformHalves::MadeOnUse)?],
            inputs: rounds.clone().map(inputs).max().unwrap_or(0),
            outputs: rounds.map(outputs).max().unwrap_or(0),
            kept,
            held: held.unwrap_or(0).saturating_add(kept),
            fixed,
            run,
        })
    }
}

impl Sizes {
    /// The share of the memory that requests and results may take.
    const SHARE: u64 = 8;

    /// Chooses the numbers.
    pub(crate) fn choose(demand: &Demand, config: &Config) -> Result<Self, ServeError> {
        let file = demand.keys[0].1.file;
        let keys_on_disk = usize::try_from(config.disk / file.max(1)).unwrap_or(usize::MAX);
        if keys_on_disk == 0 {
            return Err(ServeError::Disk { needed: file, allowed: config.disk });
        }
        let largest = demand.held.max(1);
        // A result of one and an input of another run, at the least.
        let requests = (config.memory / Self::SHARE / largest).min(config.requests as u64).max(2);
        let held = demand.fixed.saturating_add(requests.saturating_mul(largest));
        let needed = |runs: u64, keys: u64| held.saturating_add(runs.saturating_mul(demand.run + keys));
        let least = demand.keys[1].1.memory;
        let runs = match config.runs {
            Some(runs) => runs.max(1) as u64,
            None => {
                let wanted = (config.threads / 4).max(1) as u64;
                (1..=wanted).rev().find(|&runs| needed(runs, least) <= config.memory).unwrap_or(1)
            }
        };
        let total = needed(runs, least);
        if total > config.memory {
            return Err(ServeError::Memory { runs: runs as usize, needed: total, allowed: config.memory });
        }
        let room = config.memory - held - runs * demand.run;
        // Both halves, unless fewer clients than one more than run would find room.
        let (halves, keys) = if room / demand.keys[0].1.memory.max(1) > runs { demand.keys[0] } else { demand.keys[1] };
        Ok(Sizes {
            key_file: file,
            key_memory: keys.memory,
            halves,
            inputs: demand.inputs,
            outputs: demand.outputs,
            kept: demand.kept,
            run: demand.run,
            streamed: None,
            runs: runs as usize,
            keys_in_memory: usize::try_from(room / keys.memory.max(1)).unwrap_or(usize::MAX).max(runs as usize),
            keys_on_disk,
            requests: requests as usize,
        })
    }
}

/// What evaluations take whose ciphertexts do not fit memory.
#[derive(Clone, Debug)]
pub(crate) struct StreamDemand {
    /// The demand of one with the fewest ciphertexts in memory.
    pub(crate) demand: Demand,
    /// These ciphertexts.
    pub(crate) least: u64,
    /// Bytes of temporary files that a request takes while it is not evaluated.
    pub(crate) held: u64,
}

impl StreamDemand {
    /// The part of what is left that keys may have.
    const KEYS: u64 = 4;

    /// Chooses the numbers. `spilled` says what an evaluation with so many bytes of ciphertexts in memory has on disk.
    pub(crate) fn choose(&self, config: &Config, spilled: impl Fn(u64) -> u64) -> Result<Sizes, ServeError> {
        let Self { demand, least, held } = self;
        let mut sizes = Sizes::choose(demand, config)?;
        let runs = sizes.runs as u64;
        let spent = demand.fixed + sizes.requests as u64 * demand.held.max(1) + runs * demand.run;
        let room = config.memory - spent;
        let keys = (room / Self::KEYS / sizes.key_memory.max(1)).max(runs);
        sizes.keys_in_memory = usize::try_from(keys).unwrap_or(usize::MAX).min(sizes.keys_in_memory);
        let more = (room - sizes.keys_in_memory as u64 * sizes.key_memory) / runs;
        sizes.run += more;
        sizes.streamed = Some(least + more);
        let evaluated = runs.saturating_mul(spilled(least + more));
        let requests = config.spill_bytes.saturating_sub(evaluated) / (*held).max(1);
        if requests == 0 {
            return Err(ServeError::Spill { needed: evaluated.saturating_add(*held), allowed: config.spill_bytes });
        }
        sizes.requests = sizes.requests.min(usize::try_from(requests).unwrap_or(usize::MAX));
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn demand() -> Demand {
        let keys = |memory| KeySizes { file: 100 * MIB, memory: memory * MIB };
        Demand {
            keys: [(UniformHalves::Kept, keys(200)), (UniformHalves::MadeOnUse, keys(110))],
            inputs: 2 * MIB,
            outputs: MIB,
            kept: 0,
            held: 2 * MIB,
            fixed: 50 * MIB,
            run: 300 * MIB,
        }
    }

    fn choose(memory: u64, threads: usize, runs: Option<usize>) -> Result<Sizes, ServeError> {
        Sizes::choose(&demand(), &Config { threads, runs, ..Config::new("keys", memory * MIB) })
    }

    #[test]
    fn numbers_follow_from_memory() {
        let roomy = choose(16 << 10, 16, None).expect("fits");
        assert_eq!((roomy.runs, roomy.halves, roomy.requests), (4, UniformHalves::Kept, 256));
        assert_eq!(roomy.keys_in_memory as u64, ((16 << 10) - 50 - 512 - 4 * 300) / 200);
        assert_eq!(roomy.keys_on_disk, 327);
        // Memory decides before threads do.
        let tight = choose(900, 16, None).expect("fits");
        assert_eq!((tight.runs, tight.requests), (1, 56));
        assert_eq!((tight.halves, tight.keys_in_memory), (UniformHalves::Kept, (900 - 50 - 112 - 300) / 200));
        let tighter = choose(600, 16, None).expect("fits");
        assert_eq!((tighter.runs, tighter.halves, tighter.keys_in_memory), (1, UniformHalves::MadeOnUse, 1));
    }

    #[test]
    fn what_is_streamed_shares_what_is_left() {
        let demand = Demand { fixed: 60 * MIB, held: MIB, run: 30 * MIB, ..demand() };
        let stream = StreamDemand { demand, least: 20 * MIB, held: 300 * MIB };
        let config = |memory: u64, spill: u64| Config {
            threads: 2,
            spill_bytes: spill * MIB,
            ..Config::new("keys", memory * MIB)
        };
        let choose =
            |memory, spill| stream.choose(&config(memory, spill), |budget| (1000 * MIB).saturating_sub(budget));
        let sizes = choose(1000, 2000).expect("fits");
        assert_eq!((sizes.runs, sizes.halves, sizes.keys_in_memory), (1, UniformHalves::Kept, 1));
        // Memory has 125 requests for which no more than five have room on disk.
        assert_eq!(sizes.requests, 5);
        let left = 1000 - 60 - 125 - 30 - 200;
        assert_eq!((sizes.streamed, sizes.run), (Some((20 + left) * MIB), (30 + left) * MIB));
        assert!(matches!(choose(1000, 100), Err(ServeError::Spill { .. })));
        assert!(matches!(choose(150, 2000), Err(ServeError::Memory { .. })));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        assert!(matches!(choose(400, 2, None), Err(ServeError::Memory { runs: 1, .. })));
        assert_eq!(choose(1000, 16, None).expect("fits").runs, 2);
        assert!(matches!(choose(1000, 2, Some(3)), Err(ServeError::Memory { runs: 3, .. })));
        let small = Config { disk: 99 * MIB, ..Config::new("keys", 1 << 40) };
        assert!(matches!(Sizes::choose(&demand(), &small), Err(ServeError::Disk { .. })));
    }
}
