//! The instructions: what each register holds and which keys are used.

use super::tables::Tables;
use super::{Facts, MIN_LOG2_SCALE, RegisterFacts, VerifyError, check_scale, rounds};
use crate::linear::{LinearGroup, groups};
use crate::stream::element_bytes;
use crate::{Instruction, KeyManifest, LOG2_PARTS, LinearTerm, Op, Plan, Reg, VectorId, bootstrap_slots, structure};
use fhec_math::chebyshev::ChebyshevOpKind;
use fhec_math::scale::Scale;
use fhec_math::{conjugation_element, galois_element};
use std::collections::{BTreeMap, BTreeSet};

/// Most terms of a linear map.
const MAX_TERMS: usize = 1 << 10;

type Check<T> = Result<T, String>;

struct Checker<'a> {
    plan: &'a Plan,
    tables: Tables,
    registers: BTreeMap<Reg, RegisterFacts>,
    groups: BTreeMap<usize, Vec<LinearGroup>>,
    keys: KeyManifest,
    /// Numbers of slots that bootstraps are for, as log2.
    bootstrap_slots: BTreeSet<u32>,
    inputs_seen: Vec<bool>,
    outputs_seen: Vec<bool>,
    /// Diagonals that linear maps may still use, each use counted.
    diagonals_left: usize,
}

/// Derives the facts of all registers.
pub(super) fn check(plan: &Plan, tables: Tables) -> Result<Facts, VerifyError> {
    let mut checker = Checker {
        plan,
        tables,
        registers: BTreeMap::new(),
        groups: BTreeMap::new(),
        keys: KeyManifest::default(),
        bootstrap_slots: BTreeSet::new(),
        inputs_seen: vec![false; plan.inputs.len()],
        outputs_seen: vec![false; plan.outputs.len()],
        diagonals_left: most_diagonals(plan),
    };
    for (number, instruction) in plan.instructions.iter().enumerate() {
        checker.step(number, instruction).map_err(|problem| VerifyError::Instruction {
            number,
            op: instruction.op.name(),
            layer: plan.layers.get(instruction.layer.index()).map_or_else(String::new, |l| l.name.clone()),
            problem,
        })?;
    }
    if let Some(index) = checker.outputs_seen.iter().position(|seen| !seen) {
        return Err(VerifyError::Entry { what: "output", index, problem: "no instruction writes it".into() });
    }
    let Checker { tables, registers, groups, mut keys, bootstrap_slots, .. } = checker;
    let bootstrap_elements = keys.add_bootstraps(&plan.parameters, &bootstrap_slots);
    let peak_register_bytes = peak_register_bytes(plan, &registers);
    // Where images share ciphertexts a run streams them, and what it takes is bounded by what it is allowed.
    if peak_register_bytes > structure::MAX_REGISTER_BYTES && plan.image_slots() != 1 {
        return Err(VerifyError::Entry {
            what: "program",
            index: 0,
            problem: format!(
                "registers of {peak_register_bytes} bytes at once, at most {}",
                structure::MAX_REGISTER_BYTES
            ),
        });
    }
    let Tables { diagonals, polynomials } = tables;
    let rounds = rounds::split(plan)?;
    let kept_bytes = rounds::kept_bytes(plan, &rounds, &registers);
    Ok(Facts {
        registers,
        diagonals,
        groups,
        polynomials,
        keys,
        bootstrap_elements,
        peak_register_bytes,
        rounds,
        kept_bytes,
    })
}

/// Most diagonals of all linear maps together.
fn most_diagonals(plan: &Plan) -> usize {
    if plan.image_slots() == 1 { structure::MAX_ELEMENT_DIAGONALS } else { structure::MAX_DIAGONALS }
}

/// Bytes of the ciphertexts of a register.
pub(super) fn register_bytes(plan: &Plan, facts: &RegisterFacts) -> u64 {
    facts.ciphertexts as u64 * element_bytes(plan, facts.level, facts.degree)
}

/// Most bytes of the registers that are live at once, each from its instruction to its last reader.
fn peak_register_bytes(plan: &Plan, registers: &BTreeMap<Reg, RegisterFacts>) -> u64 {
    let bytes = |facts: &RegisterFacts| register_bytes(plan, facts);
    let mut freed = vec![0u64; plan.instructions.len()];
    for facts in registers.values() {
        freed[facts.last_read] = freed[facts.last_read].saturating_add(bytes(facts));
    }
    let (mut live, mut peak) = (0u64, 0u64);
    for (instruction, freed) in plan.instructions.iter().zip(freed) {
        live = live.saturating_add(bytes(&registers[&instruction.dst]));
        peak = peak.max(live);
        live = live.saturating_sub(freed);
    }
    peak
}

impl Checker<'_> {
    fn step(&mut self, number: usize, instruction: &Instruction) -> Check<()> {
        if instruction.layer.index() >= self.plan.layers.len() {
            return Err(format!("there is no layer {}", instruction.layer));
        }
        for src in instruction.op.sources() {
            match self.registers.get_mut(&src) {
                Some(facts) => facts.last_read = number,
                None => return Err(format!("register {src} is read before it is written")),
            }
        }
        if self.registers.contains_key(&instruction.dst) {
            return Err(format!("register {} is written twice", instruction.dst));
        }
        let mut facts = self.derive(number, &instruction.op)?;
        check_scale(&self.plan.parameters.q, facts.level, &facts.scale)?;
        facts.written = number;
        facts.last_read = number;
        self.registers.insert(instruction.dst, facts);
        Ok(())
    }

    fn get(&self, reg: Reg) -> Check<RegisterFacts> {
        self.registers.get(&reg).cloned().ok_or_else(|| format!("register {reg} is read before it is written"))
    }

    /// A register that must have been relinearised.
    fn linear(&self, reg: Reg) -> Check<RegisterFacts> {
        let facts = self.get(reg)?;
        if facts.degree == 1 {
            Ok(facts)
        } else {
            Err(format!("register {reg} is a product that was not relinearised"))
        }
    }

    /// Two registers of one level and one number of ciphertexts.
    fn pair(&self, a: Reg, b: Reg) -> Check<(RegisterFacts, RegisterFacts)> {
        let (x, y) = (self.get(a)?, self.get(b)?);
        if x.level != y.level {
            return Err(format!("levels differ, {} and {}", x.level, y.level));
        }
        if x.ciphertexts != y.ciphertexts {
            return Err(format!("numbers of ciphertexts differ, {} and {}", x.ciphertexts, y.ciphertexts));
        }
        Ok((x, y))
    }

    /// Refuses what mixes or counts slots where they belong to different images.
    fn one_image(&self, what: &str) -> Check<()> {
        if self.plan.is_batched() { Err(format!("slots of different images are {what}")) } else { Ok(()) }
    }

    fn derive(&mut self, number: usize, op: &Op) -> Check<RegisterFacts> {
        match op {
            Op::Input(index) => self.input(*index),
            Op::LinearMap { terms, bias, out_scale } => self.linear_map(number, terms, *bias, out_scale),
            Op::Polynomial { src, poly, out_scale } => {
                let x = self.linear(*src)?;
                if self.plan.complex {
                    return Err("a polynomial of slots that hold two images".into());
                }
                let plan = self
                    .tables
                    .polynomials
                    .get(poly.index())
                    .ok_or_else(|| format!("there is no polynomial {poly}"))?;
                let depth = plan.depth();
                let level = x.level.checked_sub(depth).ok_or_else(|| {
                    format!("a polynomial of degree {} needs {depth} levels, {} are left", plan.degree(), x.level)
                })?;
                let relin =
                    plan.operations().iter().filter(|o| o.kind == ChebyshevOpKind::Relinearise).map(|o| o.depth).min();
                if let Some(highest) = relin {
                    self.use_relin(x.level - highest);
                }
                Ok(RegisterFacts { level, scale: out_scale.clone(), ..x })
            }
            Op::Add(a, b) | Op::Sub(a, b) => {
                let (x, y) = self.pair(*a, *b)?;
                if x.scale != y.scale {
                    return Err(format!("scales differ, {} and {}", x.scale, y.scale));
                }
                if x.degree != y.degree {
                    return Err(format!("degrees differ, {} and {}", x.degree, y.degree));
                }
                Ok(RegisterFacts { period: x.period.max(y.period), ..x })
            }
            Op::Mul(a, b) => {
                let (x, y) = self.pair(*a, *b)?;
                self.linear(*a)?;
                self.linear(*b)?;
                let mut scale = x.scale.mul(&y.scale);
                if self.plan.complex {
                    // Slots are split into their parts, which come with a factor that is free in the scale.
                    self.use_element(conjugation_element(self.plan.parameters.log_n), x.level);
                    scale = scale.mul(&Scale::pow2(LOG2_PARTS));
                }
                Ok(RegisterFacts { degree: 2, scale, period: x.period.max(y.period), ..x })
            }
            Op::Negate(src) => self.get(*src),
            Op::MulScalar { src, value, scale } => {
                let x = self.linear(*src)?;
                self.constant(*value, scale)?;
                Ok(RegisterFacts { scale: x.scale.mul(scale), ..x })
            }
            Op::AddScalar { src, value } => {
                if !value.is_finite() {
                    return Err(format!("constant {value}"));
                }
                self.linear(*src)
            }
            Op::MulVector { src, vector, scale } => {
                let x = self.linear(*src)?;
                self.plaintext_scale(scale)?;
                let period = self.vector_period(*vector, x.ciphertexts)?;
                Ok(RegisterFacts { scale: x.scale.mul(scale), period: x.period.max(period), ..x })
            }
            Op::AddVector { src, vector } => {
                let x = self.linear(*src)?;
                let period = self.vector_period(*vector, x.ciphertexts)?;
                Ok(RegisterFacts { period: x.period.max(period), ..x })
            }
            Op::Rotate { src, steps } => {
                let x = self.linear(*src)?;
                self.one_image("rotated")?;
                self.use_rotation(*steps, x.level);
                Ok(x)
            }
            Op::Relinearise(src) => {
                let x = self.get(*src)?;
                if x.degree != 2 {
                    return Err(format!("register {src} is not a product"));
                }
                self.use_relin(x.level);
                Ok(RegisterFacts { degree: 1, ..x })
            }
            Op::Rescale(src) => {
                let x = self.get(*src)?;
                let level = x.level.checked_sub(1).ok_or("no level is left to rescale")?;
                let q = self.plan.parameters.q[x.level];
                Ok(RegisterFacts { level, scale: x.scale.div(&Scale::prime(q)), ..x })
            }
            Op::LevelDrop { src, level } => {
                let x = self.get(*src)?;
                if *level > x.level {
                    return Err(format!("a drop from level {} to {level}", x.level));
                }
                Ok(RegisterFacts { level: *level, ..x })
            }
            Op::Bootstrap { src, level, out_scale } => self.bootstrap(*src, *level, out_scale),
            Op::Output { src, output } => self.output(*src, *output),
        }
    }

    fn bootstrap(&mut self, src: Reg, level: usize, out_scale: &Scale) -> Check<RegisterFacts> {
        let x = self.linear(src)?;
        // The contents of its slots belong to different images, which no period tells of.
        self.one_image("bootstrapped")?;
        let parameters = &self.plan.parameters;
        let spec = parameters.bootstrap.as_ref().ok_or("the parameters have no bootstraps")?;
        let (log_slots, highest) = (bootstrap_slots(x.period), parameters.message_level());
        let least = spec.input_level(log_slots);
        if x.level < least {
            return Err(format!("level {}, a bootstrap of period {} begins at {least}", x.level, x.period));
        }
        if level > highest {
            return Err(format!("level {level} asked for, bootstraps reach {highest}"));
        }
        self.bootstrap_slots.insert(log_slots);
        Ok(RegisterFacts { level, scale: out_scale.clone(), ..x })
    }

    fn input(&mut self, index: usize) -> Check<RegisterFacts> {
        let input = self.plan.inputs.get(index).ok_or_else(|| format!("there is no input {index}"))?;
        if std::mem::replace(&mut self.inputs_seen[index], true) {
            return Err(format!("input {index} is read twice"));
        }
        Ok(RegisterFacts {
            level: input.level,
            scale: input.scale.clone(),
            degree: 1,
            ciphertexts: input.layout.ciphertexts,
            period: input.layout.period,
            written: 0,
            last_read: 0,
        })
    }

    fn output(&mut self, src: Reg, index: usize) -> Check<RegisterFacts> {
        let x = self.linear(src)?;
        let output = self.plan.outputs.get(index).ok_or_else(|| format!("there is no output {index}"))?;
        if std::mem::replace(&mut self.outputs_seen[index], true) {
            return Err(format!("output {index} is written twice"));
        }
        if (x.level, x.ciphertexts) != (output.level, output.layout.ciphertexts) {
            return Err(format!(
                "{} ciphertexts at level {}, the output says {} at level {}",
                x.ciphertexts, x.level, output.layout.ciphertexts, output.level
            ));
        }
        if x.scale != output.scale {
            return Err(format!("scale {}, the output says {}", x.scale, output.scale));
        }
        if x.period > output.layout.period {
            return Err(format!("contents of period {}, the output says {}", x.period, output.layout.period));
        }
        Ok(x)
    }

    fn plaintext_scale(&self, scale: &Scale) -> Check<()> {
        check_scale(&self.plan.parameters.q, self.plan.parameters.max_level(), scale)
    }

    /// A scalar constant: finite, and its scale large enough unless it is an integer there.
    fn constant(&self, value: f64, scale: &Scale) -> Check<()> {
        if !value.is_finite() {
            return Err(format!("constant {value}"));
        }
        let exact = scale.to_parts().1.is_empty() && scale.log2() >= 0.0 && (value * scale.to_f64()).fract() == 0.0;
        if exact && scale.log2() < MIN_LOG2_SCALE { Ok(()) } else { self.plaintext_scale(scale) }
    }

    fn vector_period(&self, vector: VectorId, ciphertexts: usize) -> Check<usize> {
        let v = self.plan.vectors.get(vector.index()).ok_or_else(|| format!("there is no vector {vector}"))?;
        if v.ciphertexts != ciphertexts {
            return Err(format!("vector {vector} covers {} ciphertexts, the operand has {ciphertexts}", v.ciphertexts));
        }
        Ok(v.period)
    }

    fn linear_map(
        &mut self,
        number: usize,
        terms: &[LinearTerm],
        bias: Option<VectorId>,
        out_scale: &Scale,
    ) -> Check<RegisterFacts> {
        if terms.is_empty() || terms.len() > MAX_TERMS {
            return Err(format!("{} terms", terms.len()));
        }
        let level = self.get(terms[0].src)?.level;
        if level == 0 {
            return Err("a linear map rescales once, but no level is left".into());
        }
        let first = terms[0].matrix;
        let q = Scale::prime(self.plan.parameters.q[level]);
        let mut inputs = 0;
        for term in terms {
            let x = self.linear(term.src)?;
            let m = self
                .plan
                .matrices
                .get(term.matrix.index())
                .ok_or_else(|| format!("there is no matrix {}", term.matrix))?;
            if x.level != level {
                return Err(format!("sources at levels {level} and {}", x.level));
            }
            if x.ciphertexts != m.in_ciphertexts || x.period > m.in_period {
                return Err(format!(
                    "register {} has {} ciphertexts of period {}, matrix {} expects {} of period {}",
                    term.src, x.ciphertexts, x.period, term.matrix, m.in_ciphertexts, m.in_period
                ));
            }
            let other = &self.plan.matrices[first.index()];
            if (m.out_ciphertexts, m.out_period) != (other.out_ciphertexts, other.out_period) {
                return Err(format!(
                    "matrices {first} and {} have outputs of {} and {} ciphertexts, periods {} and {}",
                    term.matrix, other.out_ciphertexts, m.out_ciphertexts, other.out_period, m.out_period
                ));
            }
            if term.baby == 0 || term.baby > m.diagonal_period() {
                return Err(format!("{} baby steps at period {}", term.baby, m.diagonal_period()));
            }
            // Before anything is made of them: a few bytes of program can use a matrix a thousand times.
            let used = self.tables.diagonals[term.matrix.index()].len();
            self.diagonals_left = self.diagonals_left.checked_sub(used).ok_or_else(|| {
                format!("the linear maps use more than {} diagonals together", most_diagonals(self.plan))
            })?;
            inputs += m.in_ciphertexts;
            if inputs * m.diagonal_period() > structure::MAX_LINEAR_SLOTS {
                return Err(format!("{inputs} input ciphertexts are too many"));
            }
            let scale = out_scale.mul(&q).div(&x.scale);
            self.plaintext_scale(&scale).map_err(|e| format!("diagonals of matrix {}: {e}", term.matrix))?;
        }
        let m = &self.plan.matrices[first.index()];
        let (ciphertexts, mut period) = (m.out_ciphertexts, m.out_period);
        if let Some(bias) = bias {
            period = period.max(self.vector_period(bias, ciphertexts)?);
        }
        let (plan, diagonals) = (self.plan, &self.tables.diagonals);
        let list = groups(terms, |t| (&plan.matrices[t.matrix.index()], &*diagonals[t.matrix.index()]));
        for group in &list {
            for rotation in group.bsgs.rotations() {
                self.use_rotation(rotation, level);
            }
            for &step in &group.fold {
                self.use_rotation(step as i64, level - 1);
            }
        }
        self.groups.insert(number, list);
        let scale = out_scale.clone();
        Ok(RegisterFacts { level: level - 1, scale, degree: 1, ciphertexts, period, written: 0, last_read: 0 })
    }

    fn use_rotation(&mut self, steps: i64, level: usize) {
        let element = galois_element(steps, self.plan.parameters.log_n);
        if element != 1 {
            self.use_element(element, level);
        }
    }

    fn use_element(&mut self, element: u64, level: usize) {
        let highest = self.keys.galois.entry(element).or_insert(0);
        *highest = level.max(*highest);
    }

    fn use_relin(&mut self, level: usize) {
        self.keys.relin = Some(self.keys.relin.map_or(level, |l| l.max(level)));
    }
}
