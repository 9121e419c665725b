//! Evaluation under a memory budget: the same bits as without one.

mod common;

use common::*;
use fhec_ckks::container::{BundleEntry, BundleForm, write_ciphertexts};
use fhec_ckks::{Ciphertext, CkksError};
use fhec_plan::stream::{Schedule, forecast};
use fhec_plan::{Layout, Op, Verified};
use fhec_runtime::stream::{BundleSink, BundleSource, Spilling, Stream, Streaming, Usage};
use fhec_runtime::*;
use std::path::Path;
use std::sync::Arc;

/// A dense layer, a square, a product of two different values, constants, a polynomial, a second dense layer with two
/// sources.
fn network() -> Arc<Verified> {
    let mut b = Builder::batched(small(6), 40);
    let x = b.input(600, 1);
    let first = b.dense(300, 600, 1, 1, 0.31);
    let bias = b.vector(300, 1, 0.77);
    let y = b.linear(&[(x, first, 1)], Some(bias));
    let z = b.square(y);
    let half = fhec_math::Scale::pow2(40);
    let other = b.push(Op::LevelDrop { src: y, level: b.facts(z).level });
    let other = b.push(Op::MulScalar { src: other, value: 0.5, scale: half });
    let other = b.push(Op::Rescale(other));
    let more = b.vector(300, 1, 0.41);
    let other = b.push(Op::AddVector { src: other, vector: more });
    let z = b.push(Op::LevelDrop { src: z, level: b.facts(other).level });
    let negative = b.push(Op::Negate(other));
    let both = b.push(Op::Mul(negative, other));
    let negated = b.push(Op::Negate(both));
    let twice = b.push(Op::Mul(other, other));
    let sum = b.push(Op::Sub(twice, negated));
    let sum = b.push(Op::Relinearise(sum));
    let sum = b.push(Op::Rescale(sum));
    let (m, n) = (b.dense(40, 300, 1, 1, 0.53), b.dense(40, 300, 1, 1, 0.21));
    let same = b.push(Op::LevelDrop { src: z, level: b.facts(sum).level });
    let out = b.linear(&[(sum, m, 1), (same, n, 1)], None);
    let (forty, three) = (Layout::dense(40, 1, 1), Layout::dense(300, 1, 1));
    b.finish(&[(out, forty), (other, three)])
}

fn bytes(p: &Parties, verified: &Verified, bundle: &[BundleEntry]) -> Vec<u8> {
    let mut file = Vec::new();
    write_ciphertexts(bundle, p.client.context(), verified.hash(), &mut file).expect("writes");
    file
}

fn spilling(folder: &Path) -> Spilling {
    let inside = folder.to_owned();
    Spilling::new(folder.to_owned(), move || Ok(Box::new(tempfile::tempfile_in(&inside)?)))
}

fn stream(
    p: &Parties,
    verified: &Arc<Verified>,
    input: &[u8],
    budget: u64,
    folder: &Path,
    again: bool,
) -> Result<(Vec<u8>, Usage)> {
    let schedule = Arc::new(Schedule::of(verified.plan(), verified.facts()).expect("batched"));
    let context = p.server.backend().context();
    let mut source = BundleSource::open(Arc::new(input.to_vec()), context, verified, 0)?;
    let file = tempfile::tempfile().expect("temporary file");
    let mut sink = BundleSink::begin(file, context, verified, 0, source.images())?;
    let mut run = Stream::new(&schedule, &Streaming { budget, spill: spilling(folder) }, again)?;
    run.round(p.server.backend(), 0, &mut source, &mut sink, &mut |_| Ok(()))?;
    let usage = run.usage();
    assert_eq!(run.bytes(), 0, "everything is dropped at the end");
    let mut file = sink.finish()?;
    let mut out = Vec::new();
    std::io::Seek::rewind(&mut file).expect("seeks");
    std::io::Read::read_to_end(&mut file, &mut out).expect("reads");
    Ok((out, usage))
}

#[test]
fn a_budget_changes_no_bit() {
    let verified = network();
    let schedule = Schedule::of(verified.plan(), verified.facts()).expect("batched");
    let mut p = Parties::new(&verified, 0);
    let values = inputs(&verified, 0.37);
    let bundle = p.client.encrypt(&values, EncryptionKey::Secret(&p.secret), &mut p.rng).expect("encrypts");
    let (expected, trace) = p.server.run(&bundle, &mut |_| ()).expect("runs");
    let expected = bytes(&p, &verified, &expected);
    let input = bytes(&p, &verified, &bundle);
    let folder = tempfile::tempdir().expect("temporary folder");
    let least = schedule.least();
    assert!(least < trace.peak_register_bytes as u64, "{least} of {}", trace.peak_register_bytes);
    for (budget, again) in [(least, true), (least, false), (least + least / 3, true), (u64::MAX, true)] {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let (out, usage) =
                pool.install(|| stream(&p, &verified, &input, budget, folder.path(), again)).expect("runs");
            assert!(out == expected, "budget {budget}, {threads} threads: other bits");
            assert!(usage.peak <= budget, "{usage:?} of {budget}");
            assert_eq!(usage.transfers.written > 0, budget < u64::MAX, "{usage:?}");
            assert!(usage.transfers.read >= usage.transfers.written, "what is written is read: {usage:?}");
            let predicted = forecast(verified.plan(), verified.facts(), &schedule, budget, again);
            assert_eq!((predicted.peak, predicted.transfers), (usage.peak, usage.transfers));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
    let error = stream(&p, &verified, &input, least - 1, folder.path(), true).expect_err("too little").to_string();
    assert!(error.contains(&format!("needs {least} bytes")), "{error}");
}

/// Windows of three along a line, a square, and windows again.
fn windows(len: usize) -> Arc<Verified> {
    let mut b = Builder::batched(small(3), 40);
    let window = |b: &mut Builder, outputs: usize| {
        let tensor = Some(b.tensor(pseudo(3, 0.31)));
        let dims = vec![dim(outputs, 1, 1, 0), dim(3, 0, 1, 1)];
        let nest = fhec_plan::Nest { dims, row: 0, col: 0, weight: 0, tensor, factor: 0.5, guards: vec![] };
        b.matrix(fhec_plan::Matrix {
            slots: 1,
            in_ciphertexts: outputs + 2,
            in_period: 1,
            out_ciphertexts: outputs,
            out_period: 1,
            nests: vec![nest],
        })
    };
    let x = b.input(len, 1);
    let m = window(&mut b, len - 2);
    let y = b.linear(&[(x, m, 1)], None);
    let y = b.square(y);
    let m = window(&mut b, len - 4);
    let y = b.linear(&[(y, m, 1)], None);
    b.finish(&[(y, Layout::dense(len - 4, 1, 1))])
}

#[test]
fn layers_are_made_window_by_window() {
    let verified = windows(4000);
    let schedule = Schedule::of(verified.plan(), verified.facts()).expect("batched");
    let all = forecast(verified.plan(), verified.facts(), &schedule, u64::MAX, true);
    assert_eq!(all.transfers, Default::default());
    // A few hundred elements of each layer, not four thousand of two layers.
    let whole = verified.facts().peak_register_bytes();
    assert!(all.peak * 4 < whole, "{} of {whole}", all.peak);
    assert!(all.least <= all.peak);
    // Every tile comes once, after all that it reads.
    let mut made = std::collections::BTreeSet::new();
    for tile in schedule.tiles() {
        for id in schedule.groups(verified.plan(), verified.facts(), tile).concat() {
            assert!(schedule.input(id).is_some() || made.contains(&id), "read before it is made");
        }
        for &element in &tile.elements {
            assert!(made.insert(schedule.number(schedule.result(tile), element)), "made twice");
        }
    }
    assert_eq!(made.len(), 3998 + 3998 + 3996 + 3996);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let verified = network();
    let least = Schedule::of(verified.plan(), verified.facts()).expect("batched").least();
    let mut p = Parties::new(&verified, 0);
    let values = inputs(&verified, 0.37);
    let bundle = p.client.encrypt(&values, EncryptionKey::Secret(&p.secret), &mut p.rng).expect("encrypts");
    let input = bytes(&p, &verified, &bundle);
    let folder = tempfile::tempdir().expect("temporary folder");
    let missing = folder.path().join("missing");
    let error = stream(&p, &verified, &input, least, &missing, true).expect_err("no folder").to_string();
    assert!(error.contains("cannot spill to") && error.contains("missing"), "{error}");
    // Where all fits, nobody needs the folder.
    stream(&p, &verified, &input, u64::MAX, &missing, true).expect("runs");
}

#[test]
fn bundles_that_do_not_fit_are_refused() {
    let verified = network();
    let mut p = Parties::new(&verified, 0);
    let values = inputs(&verified, 0.37);
    let bundle = p.client.encrypt(&values, EncryptionKey::Secret(&p.secret), &mut p.rng).expect("encrypts");
    let folder = tempfile::tempdir().expect("temporary folder");
    let refused = |bundle: &[BundleEntry], words: &str| {
        let input = bytes(&p, &verified, bundle);
        let error = stream(&p, &verified, &input, u64::MAX, folder.path(), true).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&bundle[1..], "ciphertext 0 of 600 is missing");
    let mut twice = bundle.clone();
    twice[1].index = 0;
    refused(&twice, "there twice");
    let mut beyond = bundle.clone();
    beyond[1].index = 600;
    refused(&beyond, "there is a ciphertext 600");
    let mut other = bundle.clone();
    let full = other[5].form.expand(p.server.backend().context()).expect("expands");
    other[5].form = BundleForm::Full(full.with_scale(fhec_math::Scale::pow2(39)));
    refused(&other, "scale 2^39");
    let mut damaged = bytes(&p, &verified, &bundle);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert!(stream(&p, &verified, &damaged, u64::MAX, folder.path(), true).is_err());
}

/// A sink that remembers.
#[derive(Default)]
struct Collect(std::collections::BTreeMap<(usize, u32), Ciphertext>);

impl stream::Sink for Collect {
    fn write(&mut self, output: usize, values: &[(u32, &Ciphertext)]) -> fhec_runtime::backend::OpResult<()> {
        for &(index, value) in values {
            assert!(self.0.insert((output, index), value.clone()).is_none(), "twice");
        }
        Ok(())
    }
}

#[test]
fn rounds_go_on_from_what_they_left() {
    let verified = aided(true);
    let mut p = Parties::new(&verified, 0);
    let context = Arc::clone(p.client.context());
    let schedule = Arc::new(Schedule::of(verified.plan(), verified.facts()).expect("batched"));
    let folder = tempfile::tempdir().expect("temporary folder");
    let streaming = Streaming { budget: schedule.least(), spill: spilling(folder.path()) };
    let mut run = Stream::new(&schedule, &streaming, true).expect("fits");
    let mut kept = None;
    for round in 0..3 {
        let mut bundle = Vec::new();
        for (index, _) in
            verified.plan().inputs.iter().enumerate().filter(|(i, _)| verified.plan().input_round(*i) == round)
        {
            let values = pseudo(verified.plan().inputs[index].layout.elements(), 0.3 + f64::from(round));
            let key = EncryptionKey::Secret(&p.secret);
            bundle.extend(p.client.encrypt_input(index, &[&values], key, &mut p.rng).expect("encrypts"));
        }
        let expected = p.server.round(round, &mut kept, &bundle, &mut |_| ()).expect("runs");
        let input = bytes(&p, &verified, &bundle);
        let mut source = BundleSource::open(Arc::new(input), &context, &verified, round).expect("fits");
        let mut sink = Collect::default();
        let backend = p.server.backend();
        run.round(backend, round, &mut source, &mut sink, &mut |_| Ok(())).expect("runs");
        assert_eq!(sink.0.len(), expected.len());
        for (entry, found) in expected.iter().zip(sink.0.values()) {
            let full: Result<Ciphertext, CkksError> = entry.form.expand(&context);
            let full = full.expect("expands");
            assert!(full.c0().data() == found.c0().data() && full.c1().data() == found.c1().data());
        }
        assert!(run.round(backend, round, &mut source, &mut sink, &mut |_| Ok(())).is_err(), "a round comes once");
    }
    assert_eq!(run.bytes(), 0);
}
