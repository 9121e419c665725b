//! The program section: conversions between plain types and messages.

use super::head::{Convert, offsets_in, offsets_out, present, scale_in, scale_out, size};
use super::message as m;
use crate::structure::{self, check_count, check_matrix, check_vector};
use crate::{
    Dtype, Guard, Instruction, Layer, LayerId, LinearTerm, Matrix, MatrixId, Nest, NestDim, Op, Plan, PolyId,
    Polynomial, Reg, TensorId, TensorInfo, Vector, VectorId,
};
use fhec_math::chebyshev::MAX_DEGREE;

fn nest_out(nest: &Nest) -> m::Nest {
    let dim = |d: &NestDim| m::NestDim {
        extent: d.extent as u64,
        row: Some(offsets_out(&d.row)),
        col: Some(offsets_out(&d.col)),
        weight: Some(offsets_out(&d.weight)),
    };
    let guard = |g: &Guard| m::Guard { coefficients: g.coefficients.clone(), constant: g.constant, extent: g.extent };
    m::Nest {
        dims: nest.dims.iter().map(dim).collect(),
        row: nest.row,
        col: nest.col,
        weight: nest.weight,
        tensor: nest.tensor.map(|t| t.0),
        factor: nest.factor,
        guards: nest.guards.iter().map(guard).collect(),
    }
}

fn nest_in(nest: m::Nest) -> Convert<Nest> {
    let dim = |d: m::NestDim| -> Convert<NestDim> {
        Ok(NestDim {
            extent: size(d.extent, "extent")?,
            row: offsets_in(d.row)?,
            col: offsets_in(d.col)?,
            weight: offsets_in(d.weight)?,
        })
    };
    let guard = |g: m::Guard| Guard { coefficients: g.coefficients, constant: g.constant, extent: g.extent };
    Ok(Nest {
        dims: nest.dims.into_iter().map(dim).collect::<Convert<_>>()?,
        row: nest.row,
        col: nest.col,
        weight: nest.weight,
        tensor: nest.tensor.map(TensorId),
        factor: nest.factor,
        guards: nest.guards.into_iter().map(guard).collect(),
    })
}

fn matrix_out(matrix: &Matrix) -> m::Matrix {
    m::Matrix {
        slots: matrix.slots as u64,
        in_ciphertexts: matrix.in_ciphertexts as u64,
        in_period: matrix.in_period as u64,
        out_ciphertexts: matrix.out_ciphertexts as u64,
        out_period: matrix.out_period as u64,
        nests: matrix.nests.iter().map(nest_out).collect(),
    }
}

fn matrix_in(matrix: m::Matrix) -> Convert<Matrix> {
    let matrix = Matrix {
        slots: size(matrix.slots, "slot count")?,
        in_ciphertexts: size(matrix.in_ciphertexts, "ciphertext count")?,
        in_period: size(matrix.in_period, "period")?,
        out_ciphertexts: size(matrix.out_ciphertexts, "ciphertext count")?,
        out_period: size(matrix.out_period, "period")?,
        nests: matrix.nests.into_iter().map(nest_in).collect::<Convert<_>>()?,
    };
    check_matrix(&matrix)?;
    Ok(matrix)
}

fn vector_out(vector: &Vector) -> m::Vector {
    m::Vector {
        slots: vector.slots as u64,
        ciphertexts: vector.ciphertexts as u64,
        period: vector.period as u64,
        nests: vector.nests.iter().map(nest_out).collect(),
    }
}

fn vector_in(vector: m::Vector) -> Convert<Vector> {
    let vector = Vector {
        slots: size(vector.slots, "slot count")?,
        ciphertexts: size(vector.ciphertexts, "ciphertext count")?,
        period: size(vector.period, "period")?,
        nests: vector.nests.into_iter().map(nest_in).collect::<Convert<_>>()?,
    };
    check_vector(&vector)?;
    Ok(vector)
}

fn op_out(op: &Op) -> m::Op {
    let pair = |a: &Reg, b: &Reg| m::Pair { a: a.0, b: b.0 };
    let index = |src: &Reg, index: usize| m::IndexOp { src: src.0, index: index as u64 };
    match op {
        Op::Input(i) => m::Op::Input(*i as u64),
        Op::LinearMap { terms, bias, out_scale } => {
            let term = |t: &LinearTerm| m::LinearTerm { src: t.src.0, matrix: t.matrix.0, baby: t.baby as u64 };
            m::Op::LinearMap(m::LinearMap {
                terms: terms.iter().map(term).collect(),
                bias: bias.map(|b| b.0),
                out_scale: Some(scale_out(out_scale)),
            })
        }
        Op::Polynomial { src, poly, out_scale } => {
            m::Op::Polynomial(m::PolynomialOp { src: src.0, poly: poly.0, out_scale: Some(scale_out(out_scale)) })
        }
        Op::Add(a, b) => m::Op::Add(pair(a, b)),
        Op::Sub(a, b) => m::Op::Sub(pair(a, b)),
        Op::Mul(a, b) => m::Op::Mul(pair(a, b)),
        Op::Negate(a) => m::Op::Negate(a.0),
        Op::MulScalar { src, value, scale } => {
            m::Op::MulScalar(m::ScalarOp { src: src.0, value: *value, scale: Some(scale_out(scale)) })
        }
        Op::AddScalar { src, value } => m::Op::AddScalar(m::ScalarOp { src: src.0, value: *value, scale: None }),
        Op::MulVector { src, vector, scale } => {
            m::Op::MulVector(m::VectorOp { src: src.0, vector: vector.0, scale: Some(scale_out(scale)) })
        }
        Op::AddVector { src, vector } => m::Op::AddVector(m::VectorOp { src: src.0, vector: vector.0, scale: None }),
        Op::Rotate { src, steps } => m::Op::Rotate(m::RotateOp { src: src.0, steps: *steps }),
        Op::Relinearise(a) => m::Op::Relinearise(a.0),
        Op::Rescale(a) => m::Op::Rescale(a.0),
        Op::LevelDrop { src, level } => m::Op::LevelDrop(index(src, *level)),
        Op::Bootstrap { src, level, out_scale } => {
            m::Op::Bootstrap(m::BootstrapOp { src: src.0, level: *level as u64, out_scale: Some(scale_out(out_scale)) })
        }
        Op::Output { src, output } => m::Op::Output(index(src, *output)),
    }
}

fn no_scale(scale: Option<m::Scale>) -> Convert<()> {
    scale.map_or(Ok(()), |_| Err("a sum with a scale of its own".into()))
}

fn op_in(op: m::Op) -> Convert<Op> {
    Ok(match op {
        m::Op::Input(i) => Op::Input(size(i, "input")?),
        m::Op::LinearMap(l) => {
            let term = |t: m::LinearTerm| -> Convert<LinearTerm> {
                Ok(LinearTerm { src: Reg(t.src), matrix: MatrixId(t.matrix), baby: size(t.baby, "baby count")? })
            };
            Op::LinearMap {
                terms: l.terms.into_iter().map(term).collect::<Convert<_>>()?,
                bias: l.bias.map(VectorId),
                out_scale: scale_in(l.out_scale)?,
            }
        }
        m::Op::Polynomial(p) => {
            Op::Polynomial { src: Reg(p.src), poly: PolyId(p.poly), out_scale: scale_in(p.out_scale)? }
        }
        m::Op::Add(p) => Op::Add(Reg(p.a), Reg(p.b)),
        m::Op::Sub(p) => Op::Sub(Reg(p.a), Reg(p.b)),
        m::Op::Mul(p) => Op::Mul(Reg(p.a), Reg(p.b)),
        m::Op::Negate(a) => Op::Negate(Reg(a)),
        m::Op::MulScalar(s) => Op::MulScalar { src: Reg(s.src), value: s.value, scale: scale_in(s.scale)? },
        m::Op::AddScalar(s) => {
            no_scale(s.scale)?;
            Op::AddScalar { src: Reg(s.src), value: s.value }
        }
        m::Op::MulVector(v) => Op::MulVector { src: Reg(v.src), vector: VectorId(v.vector), scale: scale_in(v.scale)? },
        m::Op::AddVector(v) => {
            no_scale(v.scale)?;
            Op::AddVector { src: Reg(v.src), vector: VectorId(v.vector) }
        }
        m::Op::Rotate(r) => Op::Rotate { src: Reg(r.src), steps: r.steps },
        m::Op::Relinearise(a) => Op::Relinearise(Reg(a)),
        m::Op::Rescale(a) => Op::Rescale(Reg(a)),
        m::Op::LevelDrop(i) => Op::LevelDrop { src: Reg(i.src), level: size(i.index, "level")? },
        m::Op::Bootstrap(b) => {
            Op::Bootstrap { src: Reg(b.src), level: size(b.level, "level")?, out_scale: scale_in(b.out_scale)? }
        }
        m::Op::Output(i) => Op::Output { src: Reg(i.src), output: size(i.index, "output")? },
    })
}

/// The message of the program section.
pub(super) fn encode(plan: &Plan) -> m::Program {
    let tensor =
        |t: &TensorInfo| m::Tensor { offset: t.offset as u64, len: t.len as u64, width: t.dtype.bytes() as u32 };
    m::Program {
        layers: plan.layers.iter().map(|l| m::Layer { name: l.name.clone(), kind: l.kind.clone() }).collect(),
        matrices: plan.matrices.iter().map(matrix_out).collect(),
        vectors: plan.vectors.iter().map(vector_out).collect(),
        polynomials: plan
            .polynomials
            .iter()
            .map(|p| m::Polynomial { chebyshev: p.chebyshev.clone(), label: p.label.clone() })
            .collect(),
        instructions: plan
            .instructions
            .iter()
            .map(|i| m::Instruction { dst: i.dst.0, layer: i.layer.0, op: Some(op_out(&i.op)) })
            .collect(),
        tensors: plan.weights.tensors().iter().map(tensor).collect(),
    }
}

/// What the program section holds.
pub(super) struct ProgramParts {
    pub(super) layers: Vec<Layer>,
    pub(super) matrices: Vec<Matrix>,
    pub(super) vectors: Vec<Vector>,
    pub(super) polynomials: Vec<Polynomial>,
    pub(super) instructions: Vec<Instruction>,
    pub(super) tensors: Vec<TensorInfo>,
}

/// Converts a list, naming the offending entry.
fn list<A, B>(what: &str, items: Vec<A>, f: impl Fn(A) -> Convert<B>) -> Convert<Vec<B>> {
    items.into_iter().enumerate().map(|(i, item)| f(item).map_err(|e| format!("{what} {i}: {e}"))).collect()
}

/// The plain types of the program section.
pub(super) fn decode(program: m::Program) -> Convert<ProgramParts> {
    check_count("instructions", program.instructions.len(), structure::MAX_INSTRUCTIONS)?;
    check_count("layers", program.layers.len(), structure::MAX_LAYERS)?;
    check_count("matrices", program.matrices.len(), structure::MAX_TABLE)?;
    check_count("vectors", program.vectors.len(), structure::MAX_TABLE)?;
    check_count("weight tensors", program.tensors.len(), structure::MAX_TABLE)?;
    check_count("polynomials", program.polynomials.len(), structure::MAX_POLYNOMIALS)?;
    for polynomial in &program.polynomials {
        check_count("coefficients of a polynomial", polynomial.chebyshev.len(), MAX_DEGREE + 1)?;
    }
    let tensor = |t: m::Tensor| -> Convert<TensorInfo> {
        let dtype = match t.width {
            4 => Dtype::F32,
            8 => Dtype::F64,
            other => return Err(format!("elements of {other} bytes")),
        };
        Ok(TensorInfo { offset: size(t.offset, "offset")?, len: size(t.len, "length")?, dtype })
    };
    let instruction = |i: m::Instruction| -> Convert<Instruction> {
        Ok(Instruction { dst: Reg(i.dst), layer: LayerId(i.layer), op: op_in(present(i.op, "a known operation")?)? })
    };
    Ok(ProgramParts {
        layers: program.layers.into_iter().map(|l| Layer { name: l.name, kind: l.kind }).collect(),
        matrices: list("matrix", program.matrices, matrix_in)?,
        vectors: list("vector", program.vectors, vector_in)?,
        polynomials: program
            .polynomials
            .into_iter()
            .map(|p| Polynomial { chebyshev: p.chebyshev, label: p.label })
            .collect(),
        instructions: list("instruction", program.instructions, instruction)?,
        tensors: list("tensor", program.tensors, tensor)?,
    })
}
