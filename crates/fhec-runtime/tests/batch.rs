//! The client of a batch: the same bits as image by image, whatever the budget.

mod common;

use common::*;
use fhec_ckks::container::BundleForm;
use fhec_math::SecretRng;
use fhec_plan::{
    Activation, Aided, ClientOp, ClientResult, ClientStep, Layout, LayoutDim, Offsets, PlanHead, Send, Window,
};
use fhec_runtime::stream::{Spilling, Storage, Streaming};
use fhec_runtime::*;
use std::io::Cursor;

fn streaming(budget: u64) -> Streaming {
    let memory = || Ok(Box::new(Cursor::new(Vec::new())) as Box<dyn Storage>);
    Streaming { budget, spill: Spilling::new("".into(), memory) }
}

/// A client with every operation, in three rounds; there is no server to it.
fn everything() -> PlanHead {
    let verified = aided(true);
    let mut head = verified.plan().head();
    let window =
        |kernel: usize, stride, pads| Window { kernel: [kernel; 2], strides: [stride; 2], pads, dilations: [1; 2] };
    let four = |c: usize, h: usize, w: usize| vec![1, c, h, w];
    let step = |op, operands: &[u32], shape: Vec<usize>| ClientStep { op, operands: operands.to_vec(), shape };
    let average = ClientOp::AveragePool { window: window(3, 1, [1; 4]), counted: [1, 0, 0, 1] };
    let steps = vec![
        step(ClientOp::Given(0), &[], four(2, 6, 6)),
        step(ClientOp::Received(0), &[], four(4, 6, 6)),
        step(ClientOp::Function(Activation::Relu), &[1], four(4, 6, 6)),
        step(ClientOp::MaxPool(window(3, 2, [1, 1, 0, 0])), &[2], four(4, 3, 3)),
        step(average, &[2], four(4, 6, 6)),
        step(ClientOp::Concat(1), &[4, 0], four(6, 6, 6)),
        step(ClientOp::Function(Activation::Sigmoid), &[5], four(6, 6, 6)),
        step(ClientOp::Sum { axes: vec![2, 3], mean: true }, &[6], four(6, 1, 1)),
        step(ClientOp::Affine { mul: 1.5, add: -0.25 }, &[7], four(6, 1, 1)),
        step(ClientOp::Mul, &[6, 8], four(6, 6, 6)),
        step(ClientOp::Transpose(vec![0, 2, 3, 1]), &[9], four(6, 6, 6)),
        step(ClientOp::Slice { starts: vec![0, 5, 4, 0], steps: vec![1, -2, -2, 1] }, &[10], four(3, 3, 6)),
        step(ClientOp::Pad { before: vec![0, 1, -1, 0], value: 0.5 }, &[11], four(5, 2, 6)),
        step(ClientOp::Reshape, &[12], vec![1, 60]),
        step(ClientOp::Softmax(1), &[13], vec![1, 60]),
        step(ClientOp::Polynomial { chebyshev: vec![0.1, 0.7, -0.2, 0.05], interval: (-0.5, 1.5) }, &[14], vec![1, 60]),
        step(ClientOp::Received(1), &[], vec![1, 60]),
        step(ClientOp::Sub, &[16, 14], vec![1, 60]),
        step(ClientOp::Function(Activation::LeakyRelu { alpha: 0.1 }), &[17], vec![1, 60]),
        step(ClientOp::Sum { axes: vec![1], mean: false }, &[18], vec![1, 1]),
        step(ClientOp::Add, &[18, 19], vec![1, 60]),
        step(ClientOp::Received(2), &[], vec![1, 60]),
        step(ClientOp::Add, &[21, 20], vec![1, 60]),
    ];
    let shape = |s: u32| steps[s as usize].shape.clone();
    // One input and one output lie in another order than their elements.
    let reversed = |shape: &[usize]| {
        let len = shape.iter().product();
        let table = (0..len as i64).rev().collect();
        Layout { dims: vec![LayoutDim { extent: len, offsets: Offsets::Table(table) }], ..Layout::dense(len, 1, 1) }
    };
    let input = |(index, (step, turned)): (usize, (u32, bool))| {
        let (shape, len) = (shape(step), shape(step).iter().product());
        let layout = if turned { reversed(&shape) } else { Layout::dense(len, 1, 1) };
        fhec_plan::Input { name: format!("x{index}"), shape, layout, factor: 0.7, ..head.inputs[0].clone() }
    };
    let inputs = [(0, false), (3, true), (15, false), (20, false)].into_iter().enumerate().map(input).collect();
    let output = |(index, (step, turned)): (usize, (u32, bool))| {
        let (shape, len) = (shape(step), shape(step).iter().product());
        let layout = if turned { reversed(&shape) } else { Layout::dense(len, 1, 1) };
        fhec_plan::Output { name: format!("y{index}"), shape, layout, factor: 1.3, ..head.outputs[0].clone() }
    };
    let outputs = [(1, true), (16, false), (21, false)].into_iter().enumerate().map(output).collect();
    let send = |(step, round)| Send { step, round };
    let result = |step| ClientResult {
        name: format!("r{step}"),
        step,
        range: (-2.0, 2.0),
        error_std: 1e-6,
        postprocess: vec![],
    };
    let aided = Aided {
        rounds: 3,
        network_inputs: 1,
        sends: [(0, 0), (3, 1), (15, 1), (20, 2)].map(send).to_vec(),
        receives: vec![0, 1, 2],
        results: [22, 18, 14].map(result).to_vec(),
        steps,
    };
    (head.inputs, head.outputs) = (inputs, outputs);
    aided.check(&head.inputs, &head.outputs).expect("sound");
    head.aided = Some(aided);
    head
}

/// What a server might answer: by image, the values of each ciphertext.
fn answer(head: &PlanHead, output: usize, image: usize) -> Vec<f64> {
    pseudo(head.outputs[output].layout.ciphertexts, 0.3 + output as f64 + 0.01 * image as f64)
}

type Told = (Vec<Vec<Vec<f64>>>, Vec<Vec<Vec<f64>>>);

/// What is sent, by input, ciphertext and image, and the results, by result and image.
fn one_by_one(head: &PlanHead, images: &[Vec<Vec<f64>>]) -> Told {
    let aided = head.aided.as_ref().expect("aided");
    let mut plays: Vec<Play<'_>> = images.iter().map(|i| Play::new(aided, &head.inputs, i).expect("fits")).collect();
    let mut sent = vec![vec![]; head.inputs.len()];
    for round in 0..aided.rounds {
        plays.iter_mut().for_each(|play| play.advance(round));
        for (index, port) in head.inputs.iter().enumerate().filter(|(i, _)| head.input_round(*i) == round) {
            sent[index] = vec![vec![0.0; images.len()]; port.layout.ciphertexts];
            for (i, play) in plays.iter().enumerate() {
                let scaled: Vec<f64> = play.input(index).expect("known").iter().map(|v| v * port.factor).collect();
                port.layout.pack(&scaled).iter().zip(&mut sent[index]).for_each(|(slot, all)| all[i] = slot[0]);
            }
        }
        for (index, port) in head.outputs.iter().enumerate().filter(|(i, _)| head.output_round(*i) == round) {
            for (i, play) in plays.iter_mut().enumerate() {
                let slots: Vec<Vec<f64>> = answer(head, index, i).into_iter().map(|v| vec![v]).collect();
                let values: Vec<f64> = port.layout.unpack(&slots).iter().map(|v| v * port.factor).collect();
                play.receive(index, &values);
            }
        }
    }
    plays.iter_mut().for_each(|play| play.advance(aided.rounds));
    let result = |index| plays.iter().map(|play| play.result(index).expect("known").to_vec()).collect();
    (sent, (0..aided.results.len()).map(result).collect())
}

/// The same of all images together, a few ciphertexts at a time.
fn together(head: &PlanHead, images: &[Vec<Vec<f64>>], budget: u64) -> (Told, u64, u64) {
    let mut batch = Batch::new(head, images.len(), &streaming(budget)).expect("fits");
    assert!(batch.advance(0).is_err(), "no images yet");
    for group in images.chunks(batch.group().min(3)) {
        batch.give(group).expect("fits");
    }
    assert!(batch.give(&images[..1]).is_err(), "too many");
    let mut sent = vec![vec![]; head.inputs.len()];
    for round in 0..head.rounds() {
        batch.advance(round).expect("known");
        for index in (0..head.inputs.len()).filter(|&i| head.input_round(i) == round) {
            let all: Vec<u32> = (0..head.inputs[index].layout.ciphertexts as u32).collect();
            for part in all.chunks(batch.width().min(7)) {
                sent[index].extend(batch.input(index, part).expect("known"));
            }
        }
        for index in (0..head.outputs.len()).filter(|&i| head.output_round(i) == round) {
            let answers: Vec<Vec<f64>> = (0..images.len()).map(|i| answer(head, index, i)).collect();
            // They come in any order.
            let all: Vec<u32> = (0..head.outputs[index].layout.ciphertexts as u32).rev().collect();
            for part in all.chunks(5) {
                let values = part.iter().map(|&c| answers.iter().map(|a| a[c as usize]).collect()).collect();
                batch.receive(index, part, values).expect("fits");
            }
            assert_eq!(batch.sizes(round).len(), 1);
        }
    }
    batch.advance(head.rounds()).expect("known");
    let results = (0..head.network_outputs().len()).map(|i| batch.result(i).expect("known")).collect();
    let usage = batch.usage();
    assert_eq!(usage.transfers.written > 0, usage.transfers.read > 0);
    ((sent, results), usage.peak, usage.transfers.written)
}

fn bits(told: &Told) -> Vec<u64> {
    told.0.iter().chain(&told.1).flatten().flatten().map(|v| v.to_bits()).collect()
}

#[test]
fn a_budget_changes_no_bit_of_any_function() {
    let head = everything();
    let images: Vec<Vec<Vec<f64>>> = (0..11).map(|i| vec![pseudo(72, 0.2 + 0.03 * f64::from(i))]).collect();
    let expected = one_by_one(&head, &images);
    let most = Batch::most(&head, images.len());
    for budget in [0, Batch::least(images.len()), 10_000, 30_000, most] {
        let (told, peak, written) = together(&head, &images, budget);
        assert_eq!(told.0.len(), expected.0.len());
        assert!(bits(&told) == bits(&expected), "other bits with {budget} bytes");
        assert!(peak <= budget, "{peak} of {budget}");
        assert_eq!(written > 0, budget < most, "{written} with {budget} of {most}");
    }
}

#[test]
fn wrong_images_and_missing_answers_are_told() {
    let head = everything();
    let mut batch = Batch::new(&head, 2, &streaming(1 << 20)).expect("fits");
    assert!(
        Batch::new(&head, head.batch() + 1, &streaming(1 << 20)).is_err()
            && Batch::new(&head, 0, &streaming(1)).is_err()
    );
    let good = vec![pseudo(72, 0.5)];
    for (wrong, says) in [(vec![], "inputs"), (vec![vec![0.0; 71]], "71 values"), (vec![vec![f64::NAN; 72]], "finite")]
    {
        let error = batch.give(&[good.clone(), wrong]).expect_err("wrong").to_string();
        assert!(error.contains(says), "{error}");
    }
    batch.give(&[good.clone(), good]).expect("fits");
    batch.advance(0).expect("known");
    assert!(batch.input(9, &[0]).is_err() && batch.receive(9, &[0], vec![vec![0.0; 2]]).is_err());
    assert!(
        batch.receive(0, &[0], vec![vec![0.0; 3]]).is_err() && batch.receive(0, &[144], vec![vec![0.0; 2]]).is_err()
    );
    let error = batch.advance(1).expect_err("nothing was received").to_string();
    assert!(error.contains("nothing was received"), "{error}");
}

#[test]
fn ciphertexts_are_the_same_bits_as_those_of_whole_tensors() {
    let verified = aided(true);
    let p = Parties::new(&verified, 0);
    let (head, key) = (p.client.head(), EncryptionKey::Secret(&p.secret));
    let images: Vec<Vec<Vec<f64>>> = (0..5).map(|i| vec![pseudo(16, 0.2 + f64::from(i))]).collect();
    let aided = head.aided.as_ref().expect("aided");
    let plays: Vec<Play<'_>> = images.iter().map(|i| Play::new(aided, &head.inputs, i).expect("fits")).collect();
    let mut batch = Batch::new(head, images.len(), &streaming(0)).expect("fits");
    batch.give(&images).expect("fits");
    batch.advance(0).expect("known");
    let mut rng = SecretRng::from_seed(&[3; 32]);
    let whole = p.client.encrypt_round(&plays, 0, key, &mut rng).expect("encrypts");
    let mut rng = SecretRng::from_seed(&[3; 32]);
    let all: Vec<u32> = (0..16).collect();
    let mut parts = Vec::new();
    for part in all.chunks(3) {
        let values = batch.input(0, part).expect("known");
        parts.extend(p.client.encrypt_elements(0, part, &values, key, &mut rng).expect("encrypts"));
    }
    assert_eq!(whole.len(), parts.len());
    for (a, b) in whole.iter().zip(&parts) {
        assert_eq!((&a.name, a.index, a.images), (&b.name, b.index, b.images));
        let (BundleForm::Seeded(_), BundleForm::Seeded(_)) = (&a.form, &b.form) else { panic!("seeded") };
        let of = |form: &BundleForm| form.expand(p.client.context()).expect("expands");
        let (a, b) = (of(&a.form), of(&b.form));
        assert!(a.c0().data() == b.c0().data() && a.c1().data() == b.c1().data());
    }
    assert!(p.client.encrypt_elements(0, &[0], &[], key, &mut rng).is_err());
    let many = vec![vec![0.0; head.batch() + 1]];
    assert!(p.client.encrypt_elements(0, &[0], &many, key, &mut rng).is_err());
}
