//! A plan for people: parameters, keys, ports and one line per instruction with derived level and scale.

use crate::{Facts, Instruction, LinearTerm, Op, Plan, Reg};
use std::fmt::{self, Write};

/// Lists `plan`. With facts from the verifier each instruction shows level, scale and packing.
pub fn listing(plan: &Plan, facts: Option<&Facts>) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_listing(&mut out, plan, facts);
    out
}

fn write_listing(out: &mut String, plan: &Plan, facts: Option<&Facts>) -> fmt::Result {
    let p = &plan.parameters;
    writeln!(out, "plan {} by {}", plan.model, plan.compiler)?;
    writeln!(
        out,
        "parameters: N = 2^{}, {} levels, log2(QP) = {:.1}, security {}",
        p.log_n,
        p.max_level(),
        p.log_qp(),
        p.security.map_or("none (test plan)".into(), |s| format!("{} bits", s.bits()))
    )?;
    let bits =
        |primes: &[u64]| primes.iter().map(|&q| format!("{:.2}", (q as f64).log2())).collect::<Vec<_>>().join(" ");
    writeln!(out, "  q: {}", bits(&p.q))?;
    writeln!(out, "  p: {}   digits: {:?}", bits(&p.p), p.digits)?;
    if plan.is_batched() {
        let each = if plan.complex { "two" } else { "one" };
        writeln!(out, "throughput mode: {} images, {each} a slot", plan.batch())?;
    }
    if let Some(spec) = &p.bootstrap {
        writeln!(
            out,
            "bootstraps: to level {}, message ratio 2^{}, sparse secret of weight {}",
            p.message_level(),
            spec.log_message_ratio,
            spec.sparse_weight
        )?;
    }
    match plan.keys.relin {
        Some(level) => {
            writeln!(out, "keys: relinearisation up to level {level}, {} rotations", plan.keys.galois.len())?
        }
        None => writeln!(out, "keys: {} rotations", plan.keys.galois.len())?,
    }
    for (element, level) in &plan.keys.galois {
        writeln!(out, "  element {element} up to level {level}")?;
    }
    for (element, [first, second]) in &plan.keys.composed {
        writeln!(out, "  element {element} as {first} and {second}")?;
    }
    for (log_n, keys) in &plan.keys.low {
        writeln!(
            out,
            "keys of the ring of degree 2^{log_n}: {} rotations up to level {}",
            keys.galois.len(),
            keys.level
        )?;
    }
    for (i, input) in plan.inputs.iter().enumerate() {
        let (shape, layout) = (&input.shape, input.layout.describe());
        writeln!(out, "input {i} {:?} {shape:?}: {layout}, level {}, scale {}", input.name, input.level, input.scale)?;
    }
    for (i, output) in plan.outputs.iter().enumerate() {
        let (shape, layout) = (&output.shape, output.layout.describe());
        writeln!(
            out,
            "output {i} {:?} {shape:?}: {layout}, level {}, scale {}",
            output.name, output.level, output.scale
        )?;
    }
    if let Some(aided) = &plan.aided {
        writeln!(out, "client-aided: {} rounds", aided.rounds)?;
        for (i, step) in aided.steps.iter().enumerate() {
            let operands: Vec<String> = step.operands.iter().map(|v| format!("c{v}")).collect();
            write!(out, "  c{i} = {} {} : {:?}", step.op.name(), operands.join(" "), step.shape)?;
            if let crate::ClientOp::Received(output) = step.op {
                write!(out, "   output {output} of round {}", plan.output_round(output))?;
            }
            for (input, send) in aided.sends.iter().enumerate().filter(|(_, s)| s.step as usize == i) {
                write!(out, "   sent as input {input} in round {}", send.round)?;
            }
            writeln!(out)?;
        }
    }
    let bytes = plan.weights.bytes().len();
    writeln!(out, "weights: {} tensors, {bytes} bytes", plan.weights.tensors().len())?;
    for (number, instruction) in plan.instructions.iter().enumerate() {
        write_instruction(out, plan, facts, number, instruction)?;
    }
    Ok(())
}

fn write_instruction(
    out: &mut String,
    plan: &Plan,
    facts: Option<&Facts>,
    number: usize,
    instruction: &Instruction,
) -> fmt::Result {
    write!(out, "{number:>4}  r{} = {}", instruction.dst, instruction.op.name())?;
    write_operands(out, plan, facts, &instruction.op)?;
    if let Some(f) = facts.and_then(|f| f.register(instruction.dst)) {
        write!(out, "   ; level {} scale 2^{:.3}", f.level, f.scale.log2())?;
        if f.degree == 2 {
            out.write_str(" degree 2")?;
        }
        write!(out, " {}x{}", f.ciphertexts, f.period)?;
    }
    match plan.layers.get(instruction.layer.index()) {
        Some(layer) => writeln!(out, "   [{}: {}]", layer.name, layer.kind),
        None => writeln!(out),
    }
}

fn write_operands(out: &mut String, plan: &Plan, facts: Option<&Facts>, op: &Op) -> fmt::Result {
    let reg = |r: &Reg| format!("r{r}");
    match op {
        Op::Input(i) | Op::Output { output: i, .. } => {
            for src in op.sources() {
                write!(out, " {}", reg(&src))?;
            }
            write!(out, " #{i}")
        }
        Op::LinearMap { terms, bias, out_scale } => {
            let term = |t: &LinearTerm| {
                let diagonals = facts
                    .and_then(|f| f.diagonals.get(t.matrix.index()))
                    .map_or(String::new(), |d| format!(" ({} diagonals, n1 = {})", d.len(), t.baby));
                format!("m{}{diagonals}·{}", t.matrix, reg(&t.src))
            };
            write!(out, " {}", terms.iter().map(term).collect::<Vec<_>>().join(" + "))?;
            if let Some(bias) = bias {
                write!(out, " + v{bias}")?;
            }
            write!(out, " at {out_scale}")
        }
        Op::Polynomial { src, poly, out_scale } => {
            let label = plan.polynomials.get(poly.index()).map_or("?", |p| &p.label);
            write!(out, " p{poly} ({label}) of {} at {out_scale}", reg(src))
        }
        Op::Add(a, b) | Op::Sub(a, b) | Op::Mul(a, b) => write!(out, " {} {}", reg(a), reg(b)),
        Op::Negate(a) | Op::Relinearise(a) | Op::Rescale(a) => write!(out, " {}", reg(a)),
        Op::MulScalar { src, value, scale } => write!(out, " {} by {value} at {scale}", reg(src)),
        Op::MulVector { src, vector, scale } => write!(out, " {} by v{vector} at {scale}", reg(src)),
        Op::AddScalar { src, value } => write!(out, " {} and {value}", reg(src)),
        Op::AddVector { src, vector } => write!(out, " {} and v{vector}", reg(src)),
        Op::Rotate { src, steps } => write!(out, " {} by {steps}", reg(src)),
        Op::LevelDrop { src, level } => write!(out, " {} to level {level}", reg(src)),
        Op::Bootstrap { src, level, out_scale } => write!(out, " {} to level {level} at {out_scale}", reg(src)),
    }
}
