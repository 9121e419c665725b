//! Diagonals against the definition of a matrix, on random convolutions, shifts and dense blocks over one and several
//! ciphertexts, evaluated the way the encrypted backend does: babies, giants, rotate-and-add.

use fhec_plan::layout::Multiplexed;
use fhec_plan::linear::groups;
use fhec_plan::*;
use proptest::prelude::*;

fn stride(s: i64) -> Offsets {
    Offsets::Stride(s)
}

fn dim(extent: usize, row: i64, col: i64, weight: i64) -> NestDim {
    NestDim { extent, row: stride(row), col: stride(col), weight: stride(weight) }
}

fn input(m: &Matrix) -> Vec<Vec<f64>> {
    let value = |c: usize, i: usize| ((i * 7 + c * 3) % 11) as f64 - 4.0;
    (0..m.in_ciphertexts).map(|c| (0..m.in_period).map(|i| value(c, i)).collect()).collect()
}

/// What the encrypted backend computes, with `baby` baby steps.
fn by_steps(m: &Matrix, weights: &Weights, x: &[Vec<f64>], baby: usize) -> Vec<Vec<f64>> {
    let diagonals = Diagonals::of(m);
    let tensors = Diagonals::tensors(m, weights);
    let term = LinearTerm { src: Reg(0), matrix: MatrixId(0), baby };
    let n = m.diagonal_period();
    let mut acc = vec![vec![0.0; n]; m.out_ciphertexts];
    let mut plain = vec![0.0; n];
    let group = &groups(&[term], |_| (m, &diagonals))[0];
    for (t, source) in group.bsgs.terms().iter().zip(&group.sources) {
        let left = t.source_row(0, m.in_period, m.out_period);
        diagonals.fill_rotated(m, &tensors, source.diagonal, left, &mut plain);
        for k in 0..n {
            // The product stands at k and is rotated by the giant.
            let x = x[t.in_block][(k as i64 + t.baby).rem_euclid(m.in_period as i64) as usize];
            acc[t.out_block][(k as i64 - t.giant).rem_euclid(n as i64) as usize] += plain[k] * x;
        }
    }
    for step in group.fold.iter() {
        for a in &mut acc {
            let old = a.clone();
            (0..n).for_each(|k| a[k] += old[(k + step) % n]);
        }
    }
    acc.into_iter().map(|a| a[..m.out_period].to_vec()).collect()
}

fn check(m: &Matrix, weights: &Weights, baby: usize) {
    let x = input(m);
    let (want, got) = (m.apply(weights, &x), by_steps(m, weights, &x, baby));
    for (w, g) in want.iter().flatten().zip(got.iter().flatten()) {
        assert!((w - g).abs() < 1e-9, "{w} != {g}");
    }
    let limits = Diagonals::checked(m, &mut structure::Budget { ..structure::Budget::NONE }, |t| weights.len_of(t));
    assert_eq!(limits.map(|d| d.keys().to_vec()), Ok(Diagonals::of(m).keys().to_vec()));
}

fn weights(n: usize) -> Weights {
    let v: Vec<f64> = (0..n).map(|i| (i as f64 * 0.37).sin() + 0.01).collect();
    Weights::from_tensors([v.as_slice()])
}

/// A convolution between multiplexed layouts.
#[derive(Clone, Debug)]
struct Convolution {
    channels: [usize; 2],
    size: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    gap: usize,
    log_slots: u32,
}

impl Convolution {
    fn matrix(&self) -> Option<(Matrix, usize)> {
        let Convolution { channels: [cin, cout], size, kernel, stride: s, pad, gap, log_slots } = *self;
        let slots = 1usize << log_slots;
        let out = (size + 2 * pad).checked_sub(kernel)? / s + 1;
        let row = size * gap;
        let plane = (row * row).next_power_of_two();
        let period = |c: usize, g: usize| {
            let planes = c.div_ceil(g * g).next_power_of_two();
            (planes * plane).min(slots)
        };
        let layout = |shape: [usize; 3], g: usize| {
            let m = Multiplexed { shape, gap: [g, g], row, plane };
            Layout::multiplexed(&m, slots, period(shape[0], g))
        };
        // The output must fit the physical grid of the input.
        if plane > slots || out == 0 || out * s > size {
            return None;
        }
        let (x, y) = (layout([cin, size, size], gap), layout([cout, out, out], gap * s));
        let steps = |l: &Layout, d: usize| l.dims[d].offsets.clone();
        let of = |offsets: Offsets| match offsets {
            Offsets::Stride(v) => v,
            Offsets::Table(_) => unreachable!("rows and columns of a multiplexed layout are regular"),
        };
        let (pixel_row, pixel) = (of(steps(&x, 1)), of(steps(&x, 2)));
        let (out_row, out_pixel) = (of(steps(&y, 1)), of(steps(&y, 2)));
        let (k, k2) = (kernel as i64, (kernel * kernel) as i64);
        let stepped = s as i64;
        let zero = stride(0);
        let guard = |y: usize, t: usize| {
            let mut coefficients = vec![0; 6];
            coefficients[y] = stepped;
            coefficients[t] = 1;
            Guard { coefficients, constant: -(pad as i64), extent: size as i64 }
        };
        let nest = Nest {
            dims: vec![
                NestDim { extent: cout, row: steps(&y, 0), col: zero.clone(), weight: stride(cin as i64 * k2) },
                NestDim { extent: cin, row: zero, col: steps(&x, 0), weight: stride(k2) },
                dim(kernel, 0, pixel_row, k),
                dim(kernel, 0, pixel, 1),
                dim(out, out_row, stepped * pixel_row, 0),
                dim(out, out_pixel, stepped * pixel, 0),
            ],
            row: 0,
            col: -(pad as i64) * (pixel_row + pixel),
            weight: 0,
            tensor: Some(TensorId(0)),
            factor: 0.5,
            guards: vec![guard(4, 2), guard(5, 3)],
        };
        let matrix = Matrix {
            slots,
            in_ciphertexts: x.ciphertexts,
            in_period: if x.ciphertexts > 1 { slots } else { x.period },
            out_ciphertexts: y.ciphertexts,
            out_period: if y.ciphertexts > 1 { slots } else { y.period },
            nests: vec![nest],
        };
        Some((matrix, cin * cout * kernel * kernel))
    }
}

#[test]
fn runs_of_a_convolution_are_its_taps_however_many_ciphertexts() {
    for log_slots in [4, 5, 6, 7, 8] {
        let c = Convolution { channels: [4, 4], size: 4, kernel: 3, stride: 1, pad: 1, gap: 1, log_slots };
        let (m, n) = c.matrix().unwrap();
        check(&m, &weights(n), 3);
        assert_eq!(Diagonals::of(&m).runs(), 4 * 4 * 9, "{} ciphertexts", m.in_ciphertexts);
    }
}

#[test]
fn loops_that_cross_ciphertexts_are_enumerated() {
    // A shift by 3 of 40 slots in ciphertexts of 16: the loop moves row and column alike, but crosses.
    let nest = Nest {
        dims: vec![dim(40, 1, 1, 1)],
        row: 0,
        col: 3,
        weight: 0,
        tensor: Some(TensorId(0)),
        factor: 1.0,
        guards: vec![],
    };
    let m =
        Matrix { slots: 16, in_ciphertexts: 3, in_period: 16, out_ciphertexts: 3, out_period: 16, nests: vec![nest] };
    check(&m, &weights(40), 2);
    // Backwards: negative steps.
    let mut back = m;
    back.nests[0].dims[0] = dim(40, -1, -1, 1);
    back.nests[0].row = 39;
    back.nests[0].col = 42;
    check(&back, &weights(40), 4);
}

#[test]
fn guards_over_two_parallel_loops() {
    // The lower triangle of a 4×4 picture, copied: a condition on both pixel loops.
    let nest = Nest {
        dims: vec![dim(4, 4, 4, 0), dim(4, 1, 1, 0)],
        row: 0,
        col: 16,
        weight: 0,
        tensor: None,
        factor: 2.0,
        guards: vec![Guard { coefficients: vec![1, -1], constant: 0, extent: 4 }],
    };
    let m =
        Matrix { slots: 64, in_ciphertexts: 1, in_period: 32, out_ciphertexts: 1, out_period: 16, nests: vec![nest] };
    check(&m, &weights(1), 1);
    assert_eq!(Diagonals::of(&m).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions(cin in 1usize..6, cout in 1usize..6, size in 1usize..6, kernel in 1usize..4, stride in 1usize..3,
                    pad in 0usize..3, gap in 1usize..3, log_slots in 5u32..9, baby in 1usize..20) {
        let c = Convolution { channels: [cin, cout], size, kernel, stride, pad, gap, log_slots };
        if let Some((m, n)) = c.matrix() {
            check(&m, &weights(n), baby);
        }
    }

    #[test]
    fn dense_blocks(rows in 1usize..40, cols in 1usize..40, log_slots in 3u32..6, extra in 0u32..3, baby in 1usize..40) {
        let slots = 1usize << log_slots;
        let packing = |n: usize| {
            let ciphertexts = n.div_ceil(slots);
            let period = if ciphertexts > 1 { slots } else { (n.next_power_of_two() << extra).min(slots) };
            (ciphertexts, period)
        };
        let ((in_ciphertexts, in_period), (out_ciphertexts, out_period)) = (packing(cols), packing(rows));
        let dims = vec![dim(rows, 1, 0, cols as i64), dim(cols, 0, 1, 1)];
        let nest = Nest { dims, row: 0, col: 0, weight: 0, tensor: Some(TensorId(0)), factor: 1.5, guards: vec![] };
        // Twice the same nest: entries add up.
        let nests = vec![nest.clone(), nest];
        check(&Matrix { slots, in_ciphertexts, in_period, out_ciphertexts, out_period, nests }, &weights(rows * cols), baby);
    }
}
