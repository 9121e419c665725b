//! Text form of a ciphertext graph, for snapshots and for people: one line per node, then outputs and
//! tables.
//!
//! ```text
//! graph "lola" slots=4096 {
//!   input 0 "image" : 1x1x28x28 factor=1
//!   %0 = input(0) : 784:1 in 1x4096/1024, [0, 1]
//!   %1 = linear(%0·m0/n16 + v0) : 5:[0…1025] 14:64 14:2 in 1x4096/2048, [-1, 1] @ Conv 5x5 stride 2
//!   ...
//!   output "y" = %5 : 1x10 factor=23.1
//!   m0 : 1x/1024 → 1x/2048, 1 nest (24500 points)
//! }
//! ```

use super::{Graph, Node, Op};
use crate::nn::print::Shape;
use fhec_plan::{Nest, Postprocess};
use std::fmt::{self, Display, Formatter};

/// A number to six significant digits, without trailing zeros.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let v = self.0;
        if v == 0.0 || !v.is_finite() {
            return write!(f, "{v}");
        }
        let magnitude = v.abs().log10().floor() as i32;
        if !(-4..7).contains(&magnitude) {
            return write!(f, "{v:.5e}");
        }
        let text = format!("{v:.*}", (5 - magnitude).max(0) as usize);
        f.write_str(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
    }
}

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let complex = if self.complex { " complex" } else { "" };
        writeln!(f, "graph {:?} slots={}{complex} {{", self.name, self.slots)?;
        for (i, input) in self.inputs.iter().enumerate() {
            writeln!(f, "  input {i} {:?} : {} factor={}", input.name, Shape(&input.shape), Number(input.factor))?;
        }
        for id in self.ids() {
            writeln!(f, "  %{} = {}", id.0, self.node(id))?;
        }
        for output in &self.outputs {
            write!(f, "  output {:?} = %{} : {}", output.name, output.value.0, Shape(&output.shape))?;
            write!(f, " factor={}", Number(output.factor))?;
            for step in &output.postprocess {
                match step {
                    Postprocess::Softmax { axis } => write!(f, " softmax(axis={axis})")?,
                }
            }
            writeln!(f)?;
        }
        for (i, m) in self.matrices.iter().enumerate() {
            writeln!(
                f,
                "  m{i} : {}x/{} → {}x/{}, {}",
                m.in_ciphertexts,
                m.in_period,
                m.out_ciphertexts,
                m.out_period,
                Nests(&m.nests)
            )?;
        }
        for (i, v) in self.vectors.iter().enumerate() {
            writeln!(f, "  v{i} : {}x/{}, {}", v.ciphertexts, v.period, Nests(&v.nests))?;
        }
        for (i, p) in self.polynomials.iter().enumerate() {
            writeln!(f, "  p{i} : degree {} ({})", p.chebyshev.len().saturating_sub(1), p.label)?;
        }
        for (i, t) in self.tensors.iter().enumerate() {
            writeln!(f, "  t{i} : {}", Shape(t.shape()))?;
        }
        f.write_str("}\n")
    }
}

/// Summary of a list of nests: how many, how many points, which tensors.
struct Nests<'a>(&'a [Nest]);

impl Display for Nests<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let points: usize = self.0.iter().map(Nest::points).sum();
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} nest{plural} ({points} points)", self.0.len())?;
        let mut tensors: Vec<String> = self.0.iter().filter_map(|n| n.tensor).map(|t| format!("t{t}")).collect();
        tensors.dedup();
        if !tensors.is_empty() {
            write!(f, " of {}", tensors.join(" "))?;
        }
        Ok(())
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operand = |i: usize| format!("%{}", self.inputs[i].0);
        let operands: Vec<String> = (0..self.inputs.len()).map(operand).collect();
        let scaled = |f: &mut Formatter<'_>, scale: &Option<fhec_math::scale::Scale>| match scale {
            Some(s) => write!(f, " scale=2^{}", Number(s.log2())),
            None => Ok(()),
        };
        match &self.op {
            Op::Input(i) => write!(f, "input({i})")?,
            Op::LinearMap { terms, bias, out_scale } => {
                let term = |(i, t): (usize, &super::LinearTerm)| format!("{}·m{}/n{}", operand(i), t.matrix, t.baby);
                let terms: Vec<String> = terms.iter().enumerate().map(term).collect();
                write!(f, "linear({}", terms.join(" + "))?;
                if let Some(bias) = bias {
                    write!(f, " + v{bias}")?;
                }
                f.write_str(")")?;
                scaled(f, out_scale)?;
            }
            Op::Polynomial { poly, out_scale } => {
                write!(f, "poly({}, p{poly})", operand(0))?;
                scaled(f, out_scale)?;
            }
            Op::Add => write!(f, "add({})", operands.join(", "))?,
            Op::Sub => write!(f, "sub({})", operands.join(", "))?,
            Op::Negate => write!(f, "neg({})", operand(0))?,
            Op::Mul => write!(f, "mul({})", operands.join(", "))?,
            Op::MulScalar { value, scale } => {
                write!(f, "mul_scalar({}, {})", operand(0), Number(*value))?;
                scaled(f, scale)?;
            }
            Op::MulVector { vector, scale } => {
                write!(f, "mul_vector({}, v{vector})", operand(0))?;
                scaled(f, scale)?;
            }
            Op::AddScalar(value) => write!(f, "add_scalar({}, {})", operand(0), Number(*value))?,
            Op::AddVector(vector) => write!(f, "add_vector({}, v{vector})", operand(0))?,
            Op::Rotate(steps) => write!(f, "rotate({}, {steps})", operand(0))?,
            Op::Relinearise => write!(f, "relin({})", operand(0))?,
            Op::Rescale => write!(f, "rescale({})", operand(0))?,
            Op::LevelDrop(level) => write!(f, "drop({}, {level})", operand(0))?,
            Op::Bootstrap { level, out_scale } => {
                write!(f, "bootstrap({}, {level})", operand(0))?;
                scaled(f, out_scale)?;
            }
        }
        write!(f, " : {}", self.layout.describe())?;
        if !self.layout.clean {
            f.write_str(" unclean")?;
        }
        write!(f, ", [{}, {}]", Number(self.range.lo), Number(self.range.hi))?;
        if !self.kind.is_empty() {
            write!(f, " @ {}", self.kind)?;
        }
        if !self.origin.names.is_empty() {
            write!(f, " ({})", self.origin)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Number;

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (1.0, "1"), (-0.25, "-0.25"), (1.0 / 3.0, "0.333333"), (123456.7, "123457")];
        for (v, want) in cases {
            assert_eq!(Number(v).to_string(), want);
        }
        assert_eq!(Number(1e-9).to_string(), "1.00000e-9");
        assert_eq!(Number(2e6).to_string(), "2000000");
    }
}
