//! The order of tiles.

use super::element_bytes;
use crate::fused::Fused;
use crate::{Facts, LinearTerm, MatrixId, NestWeights, Op, Plan, Reg, TensorId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Elements of a tile: as many sums as the engine makes at a time.
pub const TILE: usize = fhec_math::scalar_sums::WAVE;
/// Inputs of a linear map that are in memory at a time, at the least.
pub const CHUNK: usize = 256;

/// Some elements of the result of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Number of the instruction.
    pub number: usize,
    /// The elements.
    pub elements: Vec<u32>,
    /// When it begins, in groups of operands.
    time: u32,
}

/// A summand of a linear map.
#[derive(Clone, Debug)]
struct Term {
    /// Number of the first element that it reads.
    first: u32,
    matrix: MatrixId,
    tensors: Vec<NestWeights>,
}

/// The elements of a register, which are numbered through all registers.
#[derive(Clone, Copy, Debug)]
struct Span {
    reg: Reg,
    first: u32,
    count: u32,
    /// Bytes of each.
    bytes: u64,
    /// Which input of the plan it is.
    input: Option<usize>,
}

/// The tiles of a plan in the order of their evaluation.
#[derive(Clone, Debug)]
pub struct Schedule {
    spans: Vec<Span>,
    of: BTreeMap<Reg, usize>,
    tiles: Vec<Tile>,
    rounds: Vec<Range<usize>>,
    /// What linear maps sum up.
    maps: BTreeMap<usize, Vec<Term>>,
    /// Bytes of their weights, each tensor counted once.
    tensor_bytes: usize,
    fused: Fused,
    /// What each instruction reads.
    sources: Vec<Vec<Reg>>,
    /// What each instruction writes.
    results: Vec<Reg>,
    /// When each element is read: `uses[starts[e]..starts[e + 1]]`.
    starts: Vec<u32>,
    uses: Vec<u32>,
    least: u64,
}

impl Schedule {
    /// The schedule of a plan that was verified; `None` for one whose images have their ciphertexts to themselves.
    pub fn of(plan: &Plan, facts: &Facts) -> Option<Self> {
        if plan.image_slots() != 1 {
            return None;
        }
        let fused = Fused::of(&plan.instructions);
        let numbers = 0..plan.instructions.len();
        let sources = numbers.clone().map(|n| fused.sources(&plan.instructions, n)).collect();
        let mut this = Schedule {
            spans: Vec::new(),
            of: BTreeMap::new(),
            tiles: Vec::new(),
            rounds: Vec::new(),
            maps: BTreeMap::new(),
            tensor_bytes: 0,
            fused,
            sources,
            results: plan.instructions.iter().map(|i| i.dst).collect(),
            starts: Vec::new(),
            uses: Vec::new(),
            least: 0,
        };
        let (mut first, mut loaded) = (0, BTreeMap::<TensorId, Arc<Vec<f64>>>::new());
        for number in numbers {
            let instruction = &plan.instructions[number];
            if this.fused.deferred.contains(&number) {
                continue;
            }
            let register = facts.register(instruction.dst)?;
            let input = if let Op::Input(index) = instruction.op { Some(index) } else { None };
            let bytes = element_bytes(plan, register.level, register.degree);
            let count = register.ciphertexts as u32;
            this.of.insert(instruction.dst, this.spans.len());
            this.spans.push(Span { reg: instruction.dst, first, count, bytes, input });
            first += count;
            if let Op::LinearMap { terms, .. } = &instruction.op {
                let map = terms.iter().map(|term| this.term(plan, term, &mut loaded)).collect();
                this.maps.insert(number, map);
            }
        }
        this.tensor_bytes = loaded.values().map(|tensor| 8 * tensor.len()).sum();
        this.arrange(plan, facts);
        this.count_uses(plan, facts);
        Some(this)
    }

    fn term(&self, plan: &Plan, term: &LinearTerm, loaded: &mut BTreeMap<TensorId, Arc<Vec<f64>>>) -> Term {
        let mut load = |t| loaded.entry(t).or_insert_with(|| Arc::new(plan.weights.values(t))).clone();
        let nests = &plan.matrices[term.matrix.index()].nests;
        let tensors = nests.iter().map(|nest| nest.tensor.map(&mut load)).collect();
        Term { first: self.number(term.src, 0), matrix: term.matrix, tensors }
    }

    /// Calls `f` with every input (as a number of the schedule) of an element of a linear map instruction and its weight; one
    /// input may come several times. Nothing comes for other instructions.
    pub fn weights(&self, plan: &Plan, facts: &Facts, number: usize, element: u32, mut f: impl FnMut(u32, f64)) {
        for term in self.maps.get(&number).into_iter().flatten() {
            let Some(rows) = facts.diagonals(term.matrix).rows() else { continue };
            rows.for_each(&plan.matrices[term.matrix.index()], &term.tensors, element, |col, weight| {
                if weight != 0.0 {
                    f(term.first + col, weight);
                }
            });
        }
    }

    /// Calls `f` with every operand of an element of an instruction; some may come several times.
    fn each_operand(&self, plan: &Plan, facts: &Facts, number: usize, element: u32, mut f: impl FnMut(u32)) {
        match self.maps.contains_key(&number) {
            true => self.weights(plan, facts, number, element, |id, _| f(id)),
            false => self.sources[number].iter().for_each(|&src| f(self.number(src, element))),
        }
    }

    /// Cuts every instruction into tiles and puts them in order.
    fn arrange(&mut self, plan: &Plan, facts: &Facts) {
        let total = self.total();
        // How far every element is in the order of its own tensor, as a fraction of 2^32.
        let mut place = vec![0u32; total];
        // The tile that makes each element; none makes inputs.
        let mut maker = vec![u32::MAX; total];
        let mut tiles: Vec<Tile> = Vec::new();
        let mut of_round: Vec<Vec<(u64, u32)>> = vec![Vec::new(); facts.rounds().len()];
        let scaled = |at: usize, count: usize| (((at as u64) << 32) / count.max(1) as u64) as u32;
        for (number, instruction) in plan.instructions.iter().enumerate() {
            let Some(&span) = self.of.get(&instruction.dst) else { continue };
            let Span { first, count, input, .. } = self.spans[span];
            let mut order: Vec<(u32, u32)> = (0..count).map(|e| (0, e)).collect();
            if input.is_none() {
                // An element can be made as soon as the last of its operands is there.
                for (rank, e) in &mut order {
                    self.each_operand(plan, facts, number, *e, |id| *rank = (*rank).max(place[id as usize]));
                }
                order.sort_unstable();
            }
            for (at, &(_, e)) in order.iter().enumerate() {
                place[(first + e) as usize] = scaled(at, order.len());
            }
            if input.is_some() {
                continue;
            }
            let round = facts.rounds().iter().position(|r| r.contains(&number)).unwrap_or(0);
            let root = matches!(instruction.op, Op::Output { .. });
            for (k, part) in order.chunks(TILE).enumerate() {
                let elements: Vec<u32> = part.iter().map(|&(_, e)| e).collect();
                elements.iter().for_each(|e| maker[(first + e) as usize] = tiles.len() as u32);
                // What nothing in this round reads comes last.
                let urgency = u64::from(scaled(k * TILE, order.len())) + if root { 0 } else { 1 << 32 };
                of_round[round].push((urgency, tiles.len() as u32));
                tiles.push(Tile { number, elements, time: 0 });
            }
        }
        let mut done = vec![false; tiles.len()];
        let mut sequence: Vec<u32> = Vec::with_capacity(tiles.len());
        for mut roots in of_round {
            let begin = sequence.len();
            roots.sort_unstable();
            for (_, root) in roots {
                self.visit((plan, facts), root, &tiles, &maker, &mut done, &mut sequence);
            }
            self.rounds.push(begin..sequence.len());
        }
        let mut tiles: Vec<Option<Tile>> = tiles.into_iter().map(Some).collect();
        self.tiles = sequence.into_iter().filter_map(|t| tiles[t as usize].take()).collect();
    }

    /// Appends a tile to the sequence, after all that it needs.
    fn visit(
        &self,
        (plan, facts): (&Plan, &Facts),
        root: u32,
        tiles: &[Tile],
        maker: &[u32],
        done: &mut [bool],
        sequence: &mut Vec<u32>,
    ) {
        let needs = |tile: u32| {
            let tile = &tiles[tile as usize];
            let mut needs = Vec::new();
            for &e in &tile.elements {
                self.each_operand(plan, facts, tile.number, e, |id| needs.push(maker[id as usize]));
            }
            needs.sort_unstable();
            needs.dedup();
            // The first is taken first.
            needs.reverse();
            needs
        };
        if std::mem::replace(&mut done[root as usize], true) {
            return;
        }
        let mut stack = vec![(root, needs(root))];
        while let Some((tile, open)) = stack.last_mut() {
            match open.pop() {
                Some(u32::MAX) => {}
                Some(next) => {
                    if !std::mem::replace(&mut done[next as usize], true) {
                        let needs = needs(next);
                        stack.push((next, needs));
                    }
                }
                None => {
                    sequence.push(*tile);
                    stack.pop();
                }
            }
        }
    }

    /// Notes when every element is read, and what the largest tile takes.
    fn count_uses(&mut self, plan: &Plan, facts: &Facts) {
        let mut reads: Vec<(u32, u32)> = Vec::new();
        let mut time = 0u32;
        for index in 0..self.tiles.len() {
            self.tiles[index].time = time;
            let tile = &self.tiles[index];
            let working = self.working(plan, facts, tile);
            self.least = self.least.max(working);
            for group in self.groups(plan, facts, tile) {
                self.least = self.least.max(working + group.iter().map(|&id| self.bytes(id)).sum::<u64>());
                reads.extend(group.into_iter().map(|id| (id, time)));
                time += 1;
            }
        }
        reads.sort_unstable();
        self.starts = vec![0; self.total() + 1];
        reads.iter().for_each(|&(id, _)| self.starts[id as usize + 1] += 1);
        for id in 0..self.total() {
            self.starts[id + 1] += self.starts[id];
        }
        self.uses = reads.into_iter().map(|(_, time)| time).collect();
    }

    /// All tiles, round after round.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// The tiles of every round.
    pub fn rounds(&self) -> &[Range<usize>] {
        &self.rounds
    }

    /// Which instructions do the work of others; those have no tiles.
    pub fn fused(&self) -> &Fused {
        &self.fused
    }

    /// Registers that the tiles of an instruction read.
    pub fn sources(&self, number: usize) -> &[Reg] {
        &self.sources[number]
    }

    /// The register that a tile writes.
    pub fn result(&self, tile: &Tile) -> Reg {
        self.results[tile.number]
    }

    /// The number of an element among those of all registers.
    ///
    /// # Panics
    /// For a register without tiles.
    pub fn number(&self, reg: Reg, element: u32) -> u32 {
        self.spans[self.of[&reg]].first + element
    }

    /// The register and the place there of a number.
    pub fn element(&self, id: u32) -> (Reg, u32) {
        let span = self.span(id);
        (span.reg, id - span.first)
    }

    /// The input of the plan that an element is of, and its place there.
    pub fn input(&self, id: u32) -> Option<(usize, u32)> {
        let span = self.span(id);
        span.input.map(|input| (input, id - span.first))
    }

    /// Bytes of an element.
    pub fn bytes(&self, id: u32) -> u64 {
        self.span(id).bytes
    }

    fn span(&self, id: u32) -> &Span {
        &self.spans[self.spans.partition_point(|s| s.first <= id) - 1]
    }

    /// Number of elements of all registers.
    pub(super) fn total(&self) -> usize {
        self.spans.last().map_or(0, |s| (s.first + s.count) as usize)
    }

    /// The operands of a tile, group after group: those of one group are in memory together. Each is ascending.
    pub fn groups(&self, plan: &Plan, facts: &Facts, tile: &Tile) -> Vec<Vec<u32>> {
        let mut ids = Vec::new();
        for &e in &tile.elements {
            self.each_operand(plan, facts, tile.number, e, |id| ids.push(id));
        }
        ids.sort_unstable();
        ids.dedup();
        match self.maps.contains_key(&tile.number) && !ids.is_empty() {
            true => ids.chunks(CHUNK).map(<[u32]>::to_vec).collect(),
            false => vec![ids],
        }
    }

    /// Bytes of results, and of sums on the way to them, that a tile holds besides its operands.
    pub fn working(&self, plan: &Plan, facts: &Facts, tile: &Tile) -> u64 {
        let instruction = &plan.instructions[tile.number];
        let level = |reg: &Reg| facts.register(*reg).map_or(0, |f| f.level);
        let each = match &instruction.op {
            Op::Output { .. } if facts.register(instruction.dst).is_none_or(|f| f.last_read == tile.number) => 0,
            Op::LinearMap { terms, .. } => {
                let sums = terms.iter().map(|t| level(&t.src)).max().unwrap_or(0);
                element_bytes(plan, sums, 1) * 2 + self.spans[self.of[&instruction.dst]].bytes
            }
            _ => self.spans[self.of[&instruction.dst]].bytes,
        };
        each * tile.elements.len() as u64
    }

    /// The first time at or after `time` at which an element is read.
    pub fn next_use(&self, id: u32, time: u32) -> Option<u32> {
        let uses = &self.uses[self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize];
        uses.get(uses.partition_point(|&t| t < time)).copied()
    }

    /// Smallest budget in which every tile fits, bytes.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// Bytes that an evaluation takes to know where its ciphertexts are.
    pub fn state_bytes(&self) -> u64 {
        16 * self.total() as u64
    }

    /// Bytes that the schedule itself takes.
    pub fn own_bytes(&self) -> u64 {
        let tiles: usize = self.tiles.iter().map(|t| size_of::<Tile>() + 4 * t.elements.len()).sum();
        (self.tensor_bytes + tiles + 4 * (self.starts.len() + self.uses.len())) as u64
    }
}
