//! The plan file: round trips, and what happens to damaged ones.

mod common;

use common::{aided_sample, read, sample};
use fhec_plan::*;
use std::sync::Arc;

fn same(a: &Plan, b: &Plan) {
    assert_eq!((&a.compiler, &a.model, &a.parameters, &a.keys), (&b.compiler, &b.model, &b.parameters, &b.keys));
    assert_eq!((&a.inputs, &a.outputs, &a.layers), (&b.inputs, &b.outputs, &b.layers));
    assert_eq!((&a.matrices, &a.vectors, &a.polynomials), (&b.matrices, &b.vectors, &b.polynomials));
    assert_eq!((&a.instructions, &a.report), (&b.instructions, &b.report));
    assert_eq!(a.weights.tensors(), b.weights.tensors());
    assert_eq!(a.weights.bytes(), b.weights.bytes());
}

#[test]
fn writing_and_reading_gives_the_same_plan() {
    let plan = sample();
    let bytes = plan.to_bytes();
    let mut written = Vec::new();
    plan.write_to(&mut written).unwrap();
    assert_eq!(bytes, written);
    let again = read(bytes.clone()).unwrap();
    same(&plan, &again);
    assert_eq!(again.to_bytes(), bytes, "writing is deterministic");
    assert_eq!(again.hash(), plan.hash());
}

#[test]
fn a_client_reads_only_the_beginning() {
    let plan = sample();
    let bytes = plan.to_bytes();
    let head = PlanHead::read(&bytes).unwrap();
    assert_eq!(head, plan.head());
    assert_eq!(head.hash, plan.hash());
    // 320 bytes of header and the head section are enough.
    let end = 320 + u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    assert!(end < bytes.len() / 2);
    assert_eq!(PlanHead::read(&bytes[..end]).unwrap(), head);
    let mut alone = Vec::new();
    plan.write_head_to(&mut alone).unwrap();
    assert_eq!(alone, bytes[..end]);
    assert!(matches!(PlanHead::read(&bytes[..end - 1]), Err(PlanError::Truncated { section: Section::Head, .. })));
}

#[test]
fn rounds_and_client_functions_come_back() {
    let plan = aided_sample();
    let back = read(plan.to_bytes()).expect("reads");
    assert_eq!(back.aided, plan.aided);
    let mut head = Vec::new();
    plan.write_head_to(&mut head).expect("writes");
    let head = PlanHead::read(&head).expect("reads");
    assert_eq!((head.aided.as_ref(), head.rounds()), (plan.aided.as_ref(), 2));
    let verified = Verified::new(back, Insecure::AllowForTests).expect("sound");
    // Three instructions a round, and nothing that lives on.
    assert_eq!((verified.facts().rounds(), verified.facts().kept_bytes()), (&[0..3, 3..6][..], 0));
}

/// The flag of two images a slot is part of the head, and absent where it is not set.
#[test]
fn two_images_a_slot_come_back() {
    let mut plan = sample();
    let single = plan.to_bytes();
    plan.complex = true;
    let bytes = plan.to_bytes();
    assert_eq!(section(&bytes, 0).len(), section(&single, 0).len() + 2);
    assert!(PlanHead::read(&bytes).expect("reads").complex);
    assert!(Plan::read(Arc::new(bytes)).expect("reads").complex);
    assert_ne!(plan.hash(), sample().hash());
}

#[test]
fn weights_are_borrowed_from_the_file() {
    let file: SharedBytes = Arc::new(sample().to_bytes());
    let plan = Plan::read(Arc::clone(&file)).unwrap();
    let all = (*file).as_ref().as_ptr_range();
    assert!(all.contains(&plan.weights.bytes().as_ptr()));
    let offset = plan.weights.bytes().as_ptr() as usize - all.start as usize;
    assert_eq!(offset % 64, 0);
}

#[test]
fn the_hash_depends_on_every_section() {
    let plan = sample();
    let mut others = vec![plan.clone(); 4];
    others[0].model = "other".into();
    others[1].polynomials[0].chebyshev[0] = 0.2;
    others[2].weights = Weights::from_tensors([[1.0; 80].as_slice(), &[2.0; 8]]);
    others[3].report.seconds = 1.0;
    for other in others {
        assert_ne!(other.hash(), plan.hash());
    }
}

#[test]
fn every_flipped_byte_is_noticed_and_its_section_named() {
    let bytes = sample().to_bytes();
    let entry = |i: usize, at: usize| {
        let at = 16 + 56 * i + at;
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    };
    let sections = [Section::Head, Section::Program, Section::Weights, Section::Report];
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let error = read(bad).expect_err("a flipped byte");
        match at {
            0..8 => assert_eq!(error, PlanError::NotAPlan),
            8..12 => assert!(matches!(error, PlanError::Version { .. })),
            12..272 => assert_eq!(error, PlanError::Hash { section: Section::Header }),
            _ => {
                let inside = (0..4).find(|&i| (entry(i, 8)..entry(i, 8) + entry(i, 16)).contains(&at));
                match inside {
                    Some(i) => assert_eq!(error, PlanError::Hash { section: sections[i] }),
                    None => assert!(matches!(error, PlanError::Malformed { .. }), "{at}: {error}"),
                }
            }
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = sample().to_bytes();
    for end in (0..bytes.len()).step_by(7) {
        let error = read(bytes[..end].to_vec()).expect_err("a truncated file");
        match end {
            0..8 => assert_eq!(error, PlanError::NotAPlan),
            _ => assert!(matches!(error, PlanError::Truncated { .. }), "{end}: {error}"),
        }
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(read(longer), Err(PlanError::Malformed { section: Section::Header, .. })));
}

#[test]
fn another_version_is_refused_with_both_numbers() {
    let mut bytes = sample().to_bytes();
    bytes[8] = 9;
    let error = read(bytes).unwrap_err();
    assert_eq!(error, PlanError::Version { found: 9, expected: wire::VERSION });
    let text = format!("plan format version 9; this build reads version {}", wire::VERSION);
    assert_eq!(error.to_string(), text);
}

/// Replaces a section and repairs all hashes and offsets: what a hostile writer would do.
fn forge(bytes: &[u8], section: usize, content: &[u8]) -> Vec<u8> {
    let entry = |i: usize, at: usize| {
        let at = 16 + 56 * i + at;
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    };
    let mut out = bytes[..320].to_vec();
    for i in 0..4 {
        let old = &bytes[entry(i, 8)..entry(i, 8) + entry(i, 16)];
        let new = if i == section { content } else { old };
        out.resize(out.len().next_multiple_of(64), 0);
        let at = 16 + 56 * i;
        let offset = out.len() as u64;
        out[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        out[at + 16..at + 24].copy_from_slice(&(new.len() as u64).to_le_bytes());
        out[at + 24..at + 56].copy_from_slice(blake3::hash(new).as_bytes());
        out.extend_from_slice(new);
    }
    let hash = *blake3::hash(&out[..240]).as_bytes();
    out[240..272].copy_from_slice(&hash);
    out
}

fn section(bytes: &[u8], i: usize) -> Vec<u8> {
    let at = 16 + 56 * i + 8;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    bytes[word(at)..word(at) + word(at + 8)].to_vec()
}

#[test]
fn forging_nothing_changes_nothing() {
    let bytes = sample().to_bytes();
    for i in 0..4 {
        assert_eq!(forge(&bytes, i, &section(&bytes, i)), bytes);
    }
}

#[test]
fn unknown_fields_are_refused() {
    let bytes = sample().to_bytes();
    for (i, name) in [(0, Section::Head), (1, Section::Program), (3, Section::Report)] {
        let mut content = section(&bytes, i);
        content.extend_from_slice(&[0x98, 0x06, 0x01]); // field 99, varint 1
        let error = read(forge(&bytes, i, &content)).unwrap_err();
        assert_eq!(error, PlanError::Malformed { section: name, problem: "not in canonical form".into() });
    }
}

#[test]
fn tables_that_are_too_long_are_not_decoded() {
    let refused = |word: &str, spoil: &dyn Fn(&mut Plan)| {
        let mut plan = sample();
        spoil(&mut plan);
        let error = read(plan.to_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused("inputs", &|p| p.inputs = vec![p.inputs[0].clone(); structure::MAX_PORTS + 1]);
    refused("outputs", &|p| p.outputs = vec![p.outputs[0].clone(); structure::MAX_PORTS + 1]);
    refused("layers", &|p| p.layers = vec![p.layers[0].clone(); structure::MAX_LAYERS + 1]);
    refused("polynomials", &|p| p.polynomials = vec![p.polynomials[0].clone(); structure::MAX_POLYNOMIALS + 1]);
    refused("coefficients of a polynomial", &|p| p.polynomials[0].chebyshev = vec![0.5; 513]);
    refused("vectors", &|p| p.vectors = vec![p.vectors[0].clone(); structure::MAX_TABLE + 1]);
}

#[test]
fn missing_weights_are_noticed() {
    let bytes = sample().to_bytes();
    let weights = section(&bytes, 2);
    let error = read(forge(&bytes, 2, &weights[..100])).unwrap_err();
    assert!(matches!(error, PlanError::Malformed { section: Section::Weights, .. }), "{error}");
}

mod mutations {
    use super::*;
    use peak_alloc::PeakAlloc;
    use proptest::prelude::*;

    #[global_allocator]
    static MEMORY: PeakAlloc = PeakAlloc;

    /// Most memory of this process: a plan of a few kilobytes explains no more, whatever its tables say.
    const MOST_MIB: f32 = 256.0;

    /// Whatever a section holds, reading and verifying end with a plan or an error.
    fn survive(bytes: Vec<u8>) -> Result<(), TestCaseError> {
        let _ = PlanHead::read(&bytes);
        if let Ok(plan) = read(bytes)
            && Verified::new(plan.clone(), Insecure::AllowForTests).is_ok()
        {
            let _ = print::listing(&plan, None);
        }
        prop_assert!(MEMORY.peak_usage_as_mb() < MOST_MIB, "{} MiB", MEMORY.peak_usage_as_mb());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn raw_bytes(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
                     end in any::<prop::sample::Index>()) {
            let mut bytes = sample().to_bytes();
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let end = end.index(2 * bytes.len());
            bytes.truncate(end);
            survive(bytes)?;
        }

        /// The same for the head of a client-aided plan, which clients take from servers.
        #[test]
        fn forged_client_functions(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let bytes = aided_sample().to_bytes();
            let mut content = section(&bytes, 0);
            for (at, value) in edits {
                let at = at.index(content.len());
                content[at] = value;
            }
            let forged = forge(&bytes, 0, &content);
            if let Ok(head) = PlanHead::read(&forged) {
                let _ = head.check(Insecure::AllowForTests);
            }
            survive(forged)?;
        }

        /// Edits below the hashes, which a hostile writer repairs.
        #[test]
        fn forged_sections(which in 0usize..4,
                           edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
                           cut in prop::option::of(any::<prop::sample::Index>())) {
            let bytes = sample().to_bytes();
            let mut content = section(&bytes, which);
            for (at, value) in edits {
                let at = at.index(content.len());
                content[at] = value;
            }
            if let Some(cut) = cut {
                let end = cut.index(content.len());
                content.truncate(end);
            }
            survive(forge(&bytes, which, &content))?;
        }
    }
}
