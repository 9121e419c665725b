//! Evaluations that are ended anywhere and gone on with by another process.

mod common;

use common::*;
use fhec_ckks::container::{BundleEntry, read_ciphertexts, write_ciphertexts};
use fhec_plan::{Reg, Verified};
use fhec_runtime::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The bytes of a bundle, as they are written to a file.
fn bytes(verified: &Verified, server: &Server, bundle: &[BundleEntry]) -> Vec<u8> {
    let mut file = Vec::new();
    write_ciphertexts(bundle, server.backend().context(), verified.hash(), &mut file).expect("writes");
    file
}

/// Runs the instructions before `end`, or all.
fn advance(evaluation: &mut Evaluation<'_>, end: Option<usize>) {
    while end.is_none_or(|end| evaluation.next() < end) && evaluation.step().expect("runs").is_some() {}
}

/// Everything that an evaluation holds, as files.
fn save(verified: &Verified, server: &Server, evaluation: &mut Evaluation<'_>) -> Option<BTreeMap<Held, Vec<u8>>> {
    let held = evaluation.held()?;
    let file = |held: Held, evaluation: &mut Evaluation<'_>| {
        let file = evaluation.lend(held, |bundle| bytes(verified, server, bundle)).expect("is there");
        assert!(file.len() as u64 <= evaluation.file_bytes(held), "{held}: {} bytes", file.len());
        file
    };
    Some(held.into_iter().map(|h| (h, file(h, evaluation))).collect())
}

fn ends_and_goes_on_anywhere(verified: &Arc<Verified>) {
    let mut parties = Parties::new(verified, 0);
    let inputs = inputs(verified, 0.37);
    let key = EncryptionKey::Secret(&parties.secret);
    let bundle = parties.client.encrypt(&inputs, key, &mut parties.rng).expect("encrypts");
    let server = &parties.server;
    let finish = |evaluation: Evaluation<'_>| bytes(verified, server, &evaluation.finish().0);
    let want = bytes(verified, server, &server.run(&bundle, &mut |_| ()).expect("runs").0);
    let total = verified.plan().instructions.len();
    let all = server.begin(&bundle).expect("begins").all_held();
    assert_eq!(all.len(), total + 1);
    let mut places = 0;
    for (next, expected) in all.iter().enumerate() {
        let mut first = server.begin(&bundle).expect("begins");
        advance(&mut first, Some(next));
        assert_eq!(first.held(), *expected);
        let Some(files) = save(verified, server, &mut first) else { continue };
        places += 1;
        let mut second = server.begin(&bundle).expect("begins");
        let context = second.context();
        let read = |held: Held| Ok::<_, RuntimeError>(read_ciphertexts(&files[&held], &context, verified.hash())?);
        second.resume(next, read).expect("goes on");
        assert_eq!(second.next(), next);
        advance(&mut second, None);
        assert!(finish(second) == want, "gone on with from instruction {next}");
        // Nor does it harm an evaluation to have been saved.
        advance(&mut first, None);
        assert!(finish(first) == want, "saved before instruction {next}");
    }
    assert!(places > total / 2, "only {places} of {total} places");
}

#[test]
fn every_place_is_as_good_as_the_beginning() {
    for verified in [mlp(), convolution(8), everything(), several_terms(), wide()] {
        ends_and_goes_on_anywhere(&verified);
    }
}

#[test]
fn bootstrapped_values_can_be_gone_on_with() {
    ends_and_goes_on_anywhere(&refreshed());
}

#[test]
fn what_does_not_belong_there_is_refused() {
    let verified = wide();
    let mut parties = Parties::new(&verified, 0);
    let key = EncryptionKey::Secret(&parties.secret);
    let bundle = parties.client.encrypt(&inputs(&verified, 0.37), key, &mut parties.rng).expect("encrypts");
    let server = &parties.server;
    let total = verified.plan().instructions.len();
    let mut fresh = server.begin(&bundle).expect("begins");
    let nothing = |_: Held| Ok::<_, RuntimeError>(Vec::new());
    let refused = fresh.resume(total + 1, nothing).expect_err("beyond the end").to_string();
    assert!(refused.contains(&format!("of {total}")), "{refused}");
    let refused = fresh.resume(1, nothing).expect_err("no ciphertexts").to_string();
    assert!(refused.contains("\"r0\"") && refused.contains("is missing"), "{refused}");
    // The input itself, under the name of the register, but read at another scale.
    let altered = |_: Held| {
        let mut entries = bundle.clone();
        for entry in &mut entries {
            entry.name = "r0".into();
            let full = entry.form.expand(server.backend().context())?.with_scale(fhec_math::Scale::pow2(39));
            entry.form = fhec_ckks::container::BundleForm::Full(full);
        }
        Ok::<_, RuntimeError>(entries)
    };
    let refused = fresh.resume(1, altered).expect_err("another scale").to_string();
    assert!(refused.contains("scale 2^39"), "{refused}");
    assert!(fresh.lend(Held::Register(Reg(0)), |_| ()).is_none(), "nothing was taken over");
    assert!(fresh.lend(Held::Output(9), |_| ()).is_none());
    advance(&mut fresh, None);
    assert!(fresh.finish().0.len() == verified.plan().outputs[0].layout.ciphertexts);
}
