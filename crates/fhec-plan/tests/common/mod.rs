//! A small plan that uses every operation, sound by the rules of the verifier.

#![allow(dead_code, reason = "each test file uses its own part")]

use fhec_math::primes::{ntt_primes_below, ntt_primes_near};
use fhec_math::scale::Scale;
use fhec_plan::verify::derive;
use fhec_plan::*;
use std::sync::Arc;

pub(crate) const LOG_N: u32 = 6;
pub(crate) const SLOTS: usize = 1 << (LOG_N - 1);

pub(crate) fn parameters(levels: usize) -> Parameters {
    let mut q: Vec<u64> = ntt_primes_below(45, LOG_N).take(1).collect();
    q.extend(ntt_primes_near(30u32, LOG_N).take(levels));
    let p = ntt_primes_below(48, LOG_N).take(1).collect();
    Parameters { log_n: LOG_N, digits: vec![1; q.len()], q, p, security: None, bootstrap: None }
}

pub(crate) fn stride(s: i64) -> Offsets {
    Offsets::Stride(s)
}

pub(crate) fn dim(extent: usize, row: i64, col: i64, weight: i64) -> NestDim {
    NestDim { extent, row: stride(row), col: stride(col), weight: stride(weight) }
}

pub(crate) fn dense(rows: usize, cols: usize, in_period: usize, out_period: usize, tensor: u32) -> Matrix {
    let nest = Nest {
        dims: vec![dim(rows, 1, 0, cols as i64), dim(cols, 0, 1, 1)],
        row: 0,
        col: 0,
        weight: 0,
        tensor: Some(TensorId(tensor)),
        factor: 0.5,
        guards: vec![],
    };
    Matrix { slots: SLOTS, in_ciphertexts: 1, in_period, out_ciphertexts: 1, out_period, nests: vec![nest] }
}

/// A sound plan; the key manifest is the smallest.
pub(crate) fn sample() -> Plan {
    let parameters = parameters(8);
    let q = parameters.q.clone();
    let scale = Scale::pow2(30);
    let weights: Vec<f64> = (0..80).map(|i| (f64::from(i) * 0.7).sin()).collect();
    let single: Vec<f64> = (0..8).map(|i| f64::from(i) * 0.25).collect();
    let bias = Vector {
        slots: SLOTS,
        ciphertexts: 1,
        period: 8,
        nests: vec![Nest {
            dims: vec![dim(8, 1, 0, 1)],
            row: 0,
            col: 0,
            weight: 0,
            tensor: Some(TensorId(1)),
            factor: 1.0,
            guards: vec![],
        }],
    };
    let layer = |name: &str| Layer { name: name.into(), kind: "test".into() };
    let mut instructions: Vec<Instruction> = Vec::new();
    let mut next = 0;
    let mut push = |layer: u32, op: Op| {
        instructions.push(Instruction { dst: Reg(next), layer: LayerId(layer), op });
        next += 1;
        Reg(next - 1)
    };
    let x = push(0, Op::Input(0));
    let term = |src, matrix, baby| LinearTerm { src, matrix: MatrixId(matrix), baby };
    let y = push(0, Op::LinearMap { terms: vec![term(x, 0, 4)], bias: Some(VectorId(0)), out_scale: scale.clone() });
    let sq = push(1, Op::Mul(y, y));
    let lin = push(1, Op::Relinearise(sq));
    let low = push(1, Op::Rescale(lin));
    let shifted = push(1, Op::AddScalar { src: low, value: 0.25 });
    let turned = push(1, Op::Rotate { src: shifted, steps: -3 });
    let sum = push(1, Op::Add(shifted, turned));
    let neg = push(1, Op::Negate(sum));
    let diff = push(1, Op::Sub(sum, neg));
    let scaled = push(1, Op::MulScalar { src: diff, value: 0.125, scale: scale.clone() });
    let scaled = push(1, Op::Rescale(scaled));
    let masked = push(1, Op::MulVector { src: scaled, vector: VectorId(0), scale: scale.clone() });
    let masked = push(1, Op::Rescale(masked));
    let biased = push(1, Op::AddVector { src: masked, vector: VectorId(0) });
    let poly = push(2, Op::Polynomial { src: biased, poly: PolyId(0), out_scale: scale.clone() });
    let low = push(2, Op::LevelDrop { src: poly, level: 1 });
    let z =
        push(3, Op::LinearMap { terms: vec![term(low, 1, 2), term(low, 1, 2)], bias: None, out_scale: scale.clone() });
    push(3, Op::Output { src: z, output: 0 });
    let mut plan = Plan {
        compiler: "fhec test".into(),
        model: "sample".into(),
        parameters,
        keys: KeyManifest::default(),
        inputs: vec![Input {
            name: "x".into(),
            shape: vec![1, 10],
            layout: Layout::dense(10, SLOTS, 16),
            level: 8,
            scale: scale.clone(),
            factor: 1.0,
            range: (-1.0, 1.0),
            preprocess: Some(Preprocess { scale: 1.0 / 255.0, mean: vec![0.1], std: vec![0.3] }),
        }],
        outputs: vec![Output {
            name: "y".into(),
            shape: vec![1, 4],
            layout: Layout::dense(4, SLOTS, 4),
            level: 0,
            scale,
            factor: 2.0,
            range: (-4.0, 4.0),
            error_std: 1e-5,
            postprocess: vec![Postprocess::Softmax { axis: 1 }],
        }],
        complex: false,
        aided: None,
        layers: vec![layer("fc1"), layer("square"), layer("silu"), layer("fc2")],
        matrices: vec![dense(8, 10, 16, 8, 0), dense(4, 8, 8, 4, 0)],
        vectors: vec![bias],
        polynomials: vec![Polynomial { chebyshev: vec![0.1, 0.5, 0.3, -0.2], label: "cubic".into() }],
        weights: Weights::from_tensors([weights.as_slice(), single.as_slice()]),
        instructions,
        report: Report {
            sequential: 0.25,
            notes: vec!["a note".into()],
            layers: vec![LayerReport::default()],
            bootstraps: [Some(0.25), None].map(bootstrap).to_vec(),
            ..Report::default()
        },
    };
    assert_eq!(q.len(), 9);
    plan.keys = derive(&plan, Insecure::AllowForTests).expect("the sample is sound").keys().clone();
    plan
}

/// A sound plan of two rounds with a ReLU between them.
pub(crate) fn aided_sample() -> Plan {
    let mut plan = sample();
    let eight = || (vec![1, 8], Layout::dense(8, SLOTS, 8));
    let x = Input { level: 1, ..plan.inputs[0].clone() };
    let (shape, layout) = eight();
    let sent = Input { name: "send.0".into(), shape, layout, preprocess: None, ..x.clone() };
    let y = plan.outputs[0].clone();
    let (shape, layout) = eight();
    let received = Output { name: "receive.0".into(), shape, layout, postprocess: vec![], ..y.clone() };
    (plan.inputs, plan.outputs) = (vec![x, sent], vec![received, y]);
    let map = |src, matrix, bias| {
        let terms = vec![LinearTerm { src: Reg(src), matrix: MatrixId(matrix), baby: 2 }];
        Op::LinearMap { terms, bias, out_scale: Scale::pow2(30) }
    };
    let output = |src, output| Op::Output { src: Reg(src), output };
    let ops = [Op::Input(0), map(0, 0, Some(VectorId(0))), output(1, 0), Op::Input(1), map(3, 1, None), output(4, 1)];
    let instruction = |(dst, op)| Instruction { dst: Reg(dst), layer: LayerId(0), op };
    plan.instructions = (0..).zip(ops).map(instruction).collect();
    let step = |op, operands: &[u32], size| ClientStep { op, operands: operands.to_vec(), shape: vec![1, size] };
    plan.aided = Some(Aided {
        rounds: 2,
        network_inputs: 1,
        steps: vec![
            step(ClientOp::Given(0), &[], 10),
            step(ClientOp::Received(0), &[], 8),
            step(ClientOp::Function(Activation::LeakyRelu { alpha: 0.25 }), &[1], 8),
            step(ClientOp::Pad { before: vec![0, -1], value: 0.5 }, &[2], 8),
            step(ClientOp::Received(1), &[], 4),
            step(ClientOp::Softmax(1), &[4], 4),
        ],
        sends: vec![Send { step: 0, round: 0 }, Send { step: 3, round: 1 }],
        receives: vec![0, 1],
        results: vec![ClientResult {
            name: "y".into(),
            step: 5,
            range: (0.0, 1.0),
            error_std: 1e-6,
            postprocess: vec![Postprocess::Softmax { axis: 1 }],
        }],
    });
    plan.keys = derive(&plan, Insecure::AllowForTests).expect("the sample is sound").keys().clone();
    plan
}

fn bootstrap(without: Option<f64>) -> BootstrapReport {
    BootstrapReport { reg: Reg(3), level_in: 2, level_out: 9, seconds: 0.75, without, instead: vec![Reg(1), Reg(2)] }
}

pub(crate) fn read(bytes: Vec<u8>) -> Result<Plan, PlanError> {
    Plan::read(Arc::new(bytes))
}
