//! The verifier: what it derives from a sound plan, and what it says about broken ones.

mod common;

use common::{LOG_N, read, sample, stride};
use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::galois_element;
use fhec_math::scale::Scale;
use fhec_plan::verify::{check_head, derive, verify};
use fhec_plan::*;
use std::collections::BTreeMap;

const ALLOW: Insecure = Insecure::AllowForTests;

#[test]
fn facts_of_a_sound_plan() {
    let plan = sample();
    let facts = verify(&plan, ALLOW).unwrap();
    let of = |r: u32| facts.register(Reg(r)).unwrap();
    assert_eq!((of(0).level, of(0).period, of(0).written, of(0).last_read), (8, 16, 0, 1));
    // the linear map: one level, the stated scale, period 8
    assert_eq!((of(1).level, of(1).scale.clone(), of(1).period), (7, Scale::pow2(30), 8));
    assert_eq!((of(2).degree, of(2).scale.clone()), (2, Scale::pow2(60)));
    assert_eq!((of(3).degree, of(3).level), (1, 7));
    assert_eq!(of(4).scale, Scale::pow2(60).div(&Scale::prime(plan.parameters.q[7])));
    // a cubic needs two levels
    assert_eq!(of(15).level + 2, of(14).level);
    assert_eq!(of(2).last_read, 3);
    assert_eq!(facts.groups(17).len(), 1, "terms of one shape are one group");
    assert_eq!(facts.groups(17)[0].terms, vec![0, 1]);
    assert_eq!(facts.groups(3).len(), 0);
}

#[test]
fn keys_are_exactly_those_used() {
    let plan = sample();
    let keys = derive(&plan, ALLOW).unwrap().keys().clone();
    assert_eq!(keys.relin, Some(7));
    let mut want = BTreeMap::new();
    let mut add = |steps: i64, level: usize| {
        let highest = want.entry(galois_element(steps, common::LOG_N)).or_insert(0);
        *highest = level.max(*highest);
    };
    // 8 diagonals at level 8 in babies of four, then the fold from 16 to 8 one level below
    for step in [1, 2, 3, 4] {
        add(step, 8);
    }
    add(8, 7);
    add(-3, 6);
    for step in [1, 2] {
        add(step, 1);
    }
    add(4, 0);
    assert_eq!(keys.galois, want);
}

#[test]
fn rotations_without_keys_are_made_of_two_that_have_them() {
    let element = |steps: i64| galois_element(steps, common::LOG_N);
    // By 3, at level 8, as by 1 and 2.
    let composed = |factors: [i64; 2]| {
        let mut plan = sample();
        plan.keys.galois.remove(&element(3));
        plan.keys.composed.insert(element(3), factors.map(element));
        plan
    };
    let plan = composed([1, 2]);
    verify(&plan, ALLOW).expect("sound");
    assert_eq!(read(plan.to_bytes()).expect("reads back").keys, plan.keys);
    assert!(fhec_plan::print::listing(&plan, None).contains("as"));
    let refused = |plan: &Plan, words: &str| {
        let error = verify(plan, ALLOW).expect_err("not sound").to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&composed([1, 1]), "not made of");
    refused(&composed([3, 0]), "not made of");
    let mut low = composed([1, 2]);
    low.keys.galois.insert(element(2), 7);
    refused(&low, "used at level 8");
    let mut gone = composed([1, 2]);
    gone.keys.galois.remove(&element(2));
    refused(&gone, "not made of");
    let mut both = composed([1, 2]);
    both.keys.galois.insert(element(3), 8);
    refused(&both, "not made of");
    // Nor may a rotation be made of one that is made of two.
    let mut chain = composed([1, 2]);
    chain.keys.galois.remove(&element(4));
    chain.keys.composed.insert(element(4), [element(1), element(3)]);
    refused(&chain, "not made of");
}

#[test]
fn both_terms_of_a_group_find_their_diagonals() {
    let plan = sample();
    let facts = derive(&plan, ALLOW).unwrap();
    let group = &facts.groups(17)[0];
    assert_eq!(group.sources.len(), group.bsgs.terms().len());
    for (t, s) in group.bsgs.terms().iter().zip(&group.sources) {
        let key = facts.diagonals(MatrixId(1)).keys()[s.diagonal];
        assert_eq!(t.in_block, s.term);
        assert_eq!(i64::from(key.index), (t.giant + t.baby).rem_euclid(4));
    }
}

/// Breaks the sample and expects an error that contains all of `words`.
fn refused(words: &[&str], spoil: impl FnOnce(&mut Plan)) {
    let mut plan = sample();
    spoil(&mut plan);
    let error = verify(&plan, ALLOW).expect_err("the plan is broken").to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not contain {word:?}");
    }
}

fn op(plan: &mut Plan, number: usize) -> &mut Op {
    &mut plan.instructions[number].op
}

#[test]
fn parameters() {
    refused(&["parameters", "not a prime"], |p| p.parameters.q[3] += 2);
    refused(&["parameters", "twice"], |p| p.parameters.q[3] = p.parameters.q[2]);
    refused(&["parameters", "not a prime below 2^50"], |p| p.parameters.p[0] = (1 << 51) + 1);
    refused(&["digits", "sum to 9"], |p| p.parameters.digits.truncate(3));
    refused(&["digit 1", "not below"], |p| p.parameters.digits = vec![1, 8]);
    refused(&["ring degree"], |p| p.parameters.log_n = 3);
    let plan = sample();
    let check = |insecure| check_head(&plan.parameters, &plan.keys, &plan.inputs, &plan.outputs, insecure);
    assert_eq!(check(ALLOW), Ok(()));
    assert!(check(Insecure::Refuse).unwrap_err().to_string().contains("no security level"));
    // claims security that a ring of degree 64 cannot give
    refused(&["security", "exceeds"], |p| p.parameters.security = Some(fhec_math::SecurityLevel::Bits128));
}

/// What a client, who checks the head alone before it makes keys, says to a spoilt one.
fn head_refused(words: &[&str], spoil: impl FnOnce(&mut Plan)) {
    let mut plan = sample();
    spoil(&mut plan);
    let Plan { parameters, keys, inputs, outputs, .. } = &plan;
    let error = check_head(parameters, keys, inputs, outputs, ALLOW).expect_err("the head is broken").to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not contain {word:?}");
    }
}

#[test]
fn heads_ask_only_for_keys_that_exist() {
    for level in [9, usize::MAX] {
        head_refused(&["key manifest", "relinearisation", "ends at 8"], |p| p.keys.relin = Some(level));
        head_refused(&["key manifest", "Galois element 5", "ends at 8"], |p| {
            p.keys.galois.insert(5, level);
        });
    }
    // The ring has degree 64: elements are odd, above 1 and below 128.
    for element in [0, 1, 4, 128, 129, u64::MAX] {
        head_refused(&["key manifest", "not a Galois element below 128"], |p| {
            p.keys.galois.insert(element, 0);
        });
    }
}

#[test]
fn heads_describe_parameters_inputs_and_outputs_that_exist() {
    head_refused(&["parameters", "not a prime"], |p| p.parameters.q[3] += 2);
    head_refused(&["parameters", "twice"], |p| p.parameters.p[0] = p.parameters.q[0]);
    head_refused(&["parameters", "chain primes"], |p| p.parameters.p.clear());
    head_refused(&["digits"], |p| p.parameters.digits.push(1));
    head_refused(&["digits"], |p| p.parameters.digits = vec![usize::MAX, 2]);
    head_refused(&["input 1", "twice"], |p| p.inputs.push(p.inputs[0].clone()));
    head_refused(&["output 1", "twice"], |p| p.outputs.push(p.outputs[0].clone()));
    head_refused(&["parameters", "images of 64 slots"], |p| p.inputs[0].layout.slots *= 2);
    head_refused(&["output 0", "slots"], |p| p.outputs[0].layout.slots *= 2);
    head_refused(&["input 0", "above the chain"], |p| p.inputs[0].level = usize::MAX);
    head_refused(&["input 0", "does not fit"], |p| p.inputs[0].shape = vec![usize::MAX, usize::MAX]);
    head_refused(&["input 0", "share a slot"], |p| {
        p.inputs[0].layout.dims = vec![LayoutDim { extent: 10, offsets: stride(0) }];
    });
    head_refused(&["input 0", "preprocessing"], |p| p.inputs[0].preprocess.as_mut().unwrap().scale = f64::NAN);
    head_refused(&["input 0", "channels"], |p| p.inputs[0].preprocess.as_mut().unwrap().mean = vec![0.0; 7]);
    head_refused(&["output 0", "above the chain"], |p| p.outputs[0].level = 9);
    head_refused(&["output 0", "factor"], |p| p.outputs[0].factor = f64::INFINITY);
    head_refused(&["output 0", "range"], |p| p.outputs[0].range = (1.0, 0.0));
    head_refused(&["output 0", "predicted error"], |p| p.outputs[0].error_std = -1.0);
    head_refused(&["output 0", "axis 2"], |p| p.outputs[0].postprocess = vec![Postprocess::Softmax { axis: 2 }]);
}

#[test]
fn two_images_a_slot_want_images_that_share_ciphertexts() {
    let head = PlanHead { complex: true, ..sample().head() };
    let error = head.check(ALLOW).expect_err("an image has all slots").to_string();
    assert!(error.contains("two images a slot"), "{error}");
    refused(&["two images a slot", "slots"], |plan| plan.complex = true);
}

#[test]
fn security_is_checked_against_the_table() {
    let parameters = |extra: usize| {
        let q: Vec<u64> = fhec_math::ntt_primes_below(35, 13).take(3 + extra).collect();
        let p = fhec_math::ntt_primes_below(36, 13).take(2).collect();
        Parameters {
            log_n: 13,
            digits: vec![1; q.len()],
            q,
            p,
            security: Some(fhec_math::SecurityLevel::Bits128),
            bootstrap: None,
        }
    };
    let none = KeyManifest::default();
    assert_eq!(check_head(&parameters(1), &none, &[], &[], Insecure::Refuse), Ok(()));
    let error = check_head(&parameters(2), &none, &[], &[], Insecure::Refuse).unwrap_err().to_string();
    assert!(error.contains("214") && error.contains("128"), "{error}");
}

/// The sample with a chain for bootstraps, and one in it.
fn bootstrapped() -> Plan {
    let mut plan = sample();
    plan.parameters = common::parameters(13);
    plan.parameters.bootstrap = Some(BootstrapSpec {
        cosine_degree: 2,
        double_angles: 1,
        slots_to_coeffs: vec![vec![3], vec![2]],
        coeffs_to_slots: vec![3, 2],
        input_scale: Scale::pow2(30),
        ..BootstrapSpec::default()
    });
    *op(&mut plan, 16) = Op::Bootstrap { src: Reg(15), level: 1, out_scale: Scale::pow2(30) };
    plan.keys = derive(&plan, ALLOW).expect("sound").keys().clone();
    plan
}

#[test]
fn bootstraps_need_keys_up_to_the_top() {
    let plan = bootstrapped();
    verify(&plan, ALLOW).expect("sound");
    assert_eq!((plan.parameters.message_level(), plan.parameters.max_level()), (8, 13));
    assert_eq!(plan.keys.relin, Some(11));
    let conjugation = 2 * (1 << LOG_N) - 1;
    // Conjugates are added before the last rescale of coefficients-to-slots.
    assert_eq!(plan.keys.galois[&conjugation], 12);
    assert_eq!(plan.keys.galois.values().max(), Some(&12));
    assert_eq!(read(plan.to_bytes()).expect("reads back").parameters, plan.parameters);
    assert!(fhec_plan::print::listing(&plan, None).contains("bootstrap r15 to level 1"));

    let refused = |words: &[&str], change: &dyn Fn(&mut Plan)| {
        let mut plan = bootstrapped();
        change(&mut plan);
        let error = derive(&plan, ALLOW).err().or_else(|| verify(&plan, ALLOW).err()).expect("broken").to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    refused(&["instruction 16", "reach 8"], &|p| {
        *op(p, 16) = Op::Bootstrap { src: Reg(15), level: 9, out_scale: Scale::pow2(30) };
    });
    refused(&["instruction 17", "begins at 1"], &|p| {
        *op(p, 16) = Op::LevelDrop { src: Reg(15), level: 0 };
        *op(p, 17) = Op::Bootstrap { src: Reg(16), level: 1, out_scale: Scale::pow2(30) };
    });
    refused(&["instruction 16", "have no bootstraps"], &|p| p.parameters.bootstrap = None);
    refused(&["key"], &|p| {
        p.keys.galois.remove(&conjugation);
    });
    // The rotation by 1 is among those of bootstraps; half of it and half of it would be two.
    refused(&["used in bootstraps"], &|p| {
        let element = *p.keys.galois.keys().find(|&&e| e != conjugation).expect("bootstraps rotate");
        let level = p.keys.galois.remove(&element).expect("was there");
        // −1 · −element.
        let other = conjugation * element % (2 << LOG_N);
        p.keys.galois.insert(other, level.max(12));
        p.keys.galois.insert(conjugation, level.max(12));
        p.keys.composed.insert(element, [conjugation, other]);
    });
    let spec = |change: &'static dyn Fn(&mut BootstrapSpec)| {
        move |p: &mut Plan| change(p.parameters.bootstrap.as_mut().expect("has one"))
    };
    refused(&["bootstrap", "sum to 5"], &spec(&|s| s.coeffs_to_slots = vec![3, 3]));
    refused(&["bootstrap", "levels do not fit"], &spec(&|s| s.double_angles = 8));
    refused(&["bootstrap", "no prime of the chain"], &spec(&|s| s.input_scale = Scale::prime(1_000_003)));
}

#[test]
fn smaller_rings_have_keys_of_their_own() {
    let with = |least_ring: u32| {
        let mut plan = bootstrapped();
        plan.parameters.bootstrap.as_mut().expect("has one").least_ring = least_ring;
        plan.keys = derive(&plan, ALLOW).expect("sound").keys().clone();
        plan
    };
    assert!(with(LOG_N).keys.low.is_empty());
    let plan = with(4);
    verify(&plan, ALLOW).expect("sound");
    let (&log_n, keys) = plan.keys.low.first_key_value().expect("the value that is bootstrapped repeats");
    assert!(log_n < LOG_N && !keys.galois.is_empty());
    assert_eq!(read(plan.to_bytes()).expect("reads back").keys, plan.keys);
    assert!(fhec_plan::print::listing(&plan, None).contains(&format!("ring of degree 2^{log_n}")));

    let refused = |words: &[&str], change: &dyn Fn(&mut Plan)| {
        let mut plan = with(4);
        change(&mut plan);
        let error = verify(&plan, ALLOW).expect_err("broken").to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    let ring = format!("2^{log_n}");
    refused(&["the manifest lacks", &ring], &|p| p.keys.low.clear());
    refused(&["the manifest lacks", &ring], &|p| {
        p.keys.low.get_mut(&log_n).expect("is there").galois.pop_first();
    });
    refused(&["which bootstraps do not have", &ring], &|p| p.keys.low.get_mut(&log_n).expect("is there").level += 1);
    for element in [1, 4, 2 << log_n | 1] {
        refused(&[&element.to_string(), "not a Galois element"], &|p| {
            p.keys.low.get_mut(&log_n).expect("is there").galois.insert(element);
        });
    }
    refused(&["which bootstraps do not have", "2^3"], &|p| {
        p.keys.low.insert(3, p.keys.low[&log_n].clone());
    });
    refused(&["which bootstraps do not have", &ring], &|p| {
        p.parameters.bootstrap.as_mut().expect("has one").least_ring = LOG_N;
    });
    refused(&["bootstrap", "smallest ring"], &|p| {
        p.parameters.bootstrap.as_mut().expect("has one").least_ring = 0;
    });
}

#[test]
fn sparse_secrets_are_held_against_what_is_known() {
    let spec = BootstrapSpec::default();
    let primes = |bits: u32, count: usize| fhec_math::ntt_primes_below(bits, 16).take(count).collect::<Vec<u64>>();
    let q = primes(49, 20);
    let parameters = |weight: u32, range: u32| Parameters {
        log_n: 16,
        digits: vec![1; q.len()],
        q: q.clone(),
        p: primes(50, 1),
        security: Some(fhec_math::SecurityLevel::Bits128),
        bootstrap: Some(BootstrapSpec { sparse_weight: weight, range, ..spec.clone() }),
    };
    let check = |p: &Parameters| check_head(p, &KeyManifest::default(), &[], &[], Insecure::Refuse);
    assert_eq!(check(&parameters(32, 16)), Ok(()));
    let error = check(&parameters(31, 16)).unwrap_err().to_string();
    assert!(error.contains("weight 31") && error.contains("128 bits of security"), "{error}");
    let error = check(&parameters(32, 15)).unwrap_err().to_string();
    assert!(error.contains("fails with probability"), "{error}");
    // Two primes and two special ones, of which there is one: 148 bits where 2^12 holds 106 and 2^13 holds 214.
    let mut small = parameters(32, 16);
    assert!((small.security_bits() - 128.0).abs() < 1e-9);
    small.bootstrap.as_mut().expect("has one").least_ring = 12;
    let error = check(&small).unwrap_err().to_string();
    assert!(error.contains("degree 2^12") && error.contains("128 bits of security"), "{error}");
    assert!(small.security_bits() < 128.0);
}

#[test]
fn ports() {
    refused(&["input 0", "range"], |p| p.inputs[0].range = (f64::NAN, 1.0));
    refused(&["input 0", "factor"], |p| p.inputs[0].factor = 0.0);
    refused(&["input 0", "bits"], |p| p.inputs[0].range = (-1e80, 1.0));
    refused(&["input 0", "above the chain"], |p| p.inputs[0].level = 9);
    refused(&["input 0", "share a slot"], |p| {
        p.inputs[0].layout.dims = vec![LayoutDim { extent: 10, offsets: stride(0) }];
    });
    refused(&["input 0", "outside"], |p| p.inputs[0].layout.dims[0].offsets = stride(2));
    refused(&["input 0", "does not fit"], |p| p.inputs[0].shape = vec![1, 9]);
    refused(&["input 0", "no prime of the chain"], |p| p.inputs[0].scale = Scale::prime(1_000_003));
    refused(&["input 0", "deviation"], |p| p.inputs[0].preprocess.as_mut().unwrap().std = vec![0.0]);
    refused(&["output 0", "axis 2"], |p| p.outputs[0].postprocess = vec![Postprocess::Softmax { axis: 2 }]);
    refused(&["output 0", "no instruction"], |p| {
        p.instructions.pop();
    });
}

#[test]
fn tables() {
    refused(&["weight tensor 0", "not a number"], |p| {
        p.weights = Weights::from_tensors([[f64::NAN; 80].as_slice(), &[0.0; 8]]);
    });
    refused(&["matrix 0", "leaves the matrix"], |p| p.matrices[0].nests[0].row = 1);
    refused(&["matrix 0", "leaves the matrix"], |p| p.matrices[0].nests[0].col = -1);
    refused(&["matrix 0", "80 weights"], |p| p.matrices[0].nests[0].weight = 1);
    refused(&["matrix 1", "no weight tensor 7"], |p| p.matrices[1].nests[0].tensor = Some(TensorId(7)));
    refused(&["matrix 0", "factor"], |p| p.matrices[0].nests[0].factor = f64::INFINITY);
    refused(&["matrix 0", "points"], |p| p.matrices[0].nests[0].dims[0].extent = 1 << 30);
    refused(&["matrix 0", "period 24"], |p| p.matrices[0].in_period = 24);
    refused(&["matrix 0", "slots"], |p| p.matrices[0].slots = 64);
    refused(&["matrix 0", "guard"], |p| {
        p.matrices[0].nests[0].guards.push(Guard { coefficients: vec![1], constant: 0, extent: 3 });
    });
    refused(&["matrix 0", "too far"], |p| p.matrices[0].nests[0].dims[0].row = stride(i64::MAX));
    refused(&["matrix 0", "table of 3"], |p| p.matrices[0].nests[0].dims[0].row = Offsets::Table(vec![0, 1, 2]));
    refused(&["vector 0", "slot 8"], |p| p.vectors[0].nests[0].row = 1);
    refused(&["polynomial 0"], |p| p.polynomials[0].chebyshev[1] = f64::NAN);
    refused(&["polynomial 0"], |p| p.polynomials[0].chebyshev = vec![1.0]);
}

#[test]
fn instructions_name_number_and_layer() {
    refused(&["instruction 2", "mul", "square", "before it is written"], |p| *op(p, 2) = Op::Mul(Reg(1), Reg(9)));
    refused(&["instruction 4", "written twice"], |p| p.instructions[4].dst = Reg(3));
    refused(&["instruction 0", "no layer 9"], |p| p.instructions[0].layer = LayerId(9));
    refused(&["instruction 7", "levels differ, 6 and 7"], |p| *op(p, 7) = Op::Add(Reg(5), Reg(1)));
    refused(&["instruction 7", "scales differ"], |p| {
        p.instructions[6].op = Op::LevelDrop { src: Reg(1), level: 6 };
    });
    refused(&["instruction 3", "not a product"], |p| *op(p, 3) = Op::Relinearise(Reg(1)));
    refused(&["instruction 5", "not relinearised"], |p| {
        p.instructions[3].op = Op::Negate(Reg(2));
    });
    refused(&["instruction 15", "needs 2 levels"], |p| {
        p.instructions[14].op = Op::LevelDrop { src: Reg(13), level: 1 }
    });
    refused(&["instruction 16", "drop"], |p| *op(p, 16) = Op::LevelDrop { src: Reg(15), level: 7 });
    refused(&["instruction 1", "expects 1 of period 8"], |p| {
        let Op::LinearMap { terms, .. } = op(p, 1) else { panic!() };
        terms[0].matrix = MatrixId(1);
    });
    refused(&["instruction 1", "baby"], |p| {
        let Op::LinearMap { terms, .. } = op(p, 1) else { panic!() };
        terms[0].baby = 0;
    });
    refused(&["instruction 1", "scale"], |p| {
        let Op::LinearMap { out_scale, .. } = op(p, 1) else { panic!() };
        *out_scale = Scale::pow2(-20);
    });
    refused(&["instruction 12", "no vector 3"], |p| {
        let Op::MulVector { vector, .. } = op(p, 12) else { panic!() };
        *vector = VectorId(3);
    });
    refused(&["instruction 10", "constant"], |p| {
        let Op::MulScalar { value, .. } = op(p, 10) else { panic!() };
        *value = f64::NAN;
    });
    refused(&["instruction 18", "the output says"], |p| p.outputs[0].scale = Scale::pow2(29));
    refused(&["instruction 18", "level 0"], |p| p.outputs[0].level = 1);
    refused(&["instruction 18", "no output 4"], |p| *op(p, 18) = Op::Output { src: Reg(17), output: 4 });
}

#[test]
fn keys() {
    refused(&["key manifest", "relinearisation at level 7", "Some(6)"], |p| p.keys.relin = Some(6));
    let element = galois_element(-3, common::LOG_N);
    refused(&["key manifest", &format!("element {element}"), "level 6"], |p| {
        p.keys.galois.remove(&element);
    });
    refused(&["key manifest", "Some(5)"], |p| {
        p.keys.galois.insert(element, 5);
    });
    refused(&["key manifest", "not a Galois element"], |p| {
        p.keys.galois.insert(4, 1);
    });
    refused(&["key manifest", "ends at 8"], |p| {
        p.keys.galois.insert(element, 11);
    });
}

#[test]
fn a_hostile_nest_cannot_ask_for_much_memory() {
    // Both are a few bytes of plan; the first has more points than entries justify, the second more runs
    // than the weights of the plan justify.
    refused(&["matrix 0", "points"], |p| p.matrices[0].nests[0].dims.push(common::dim(1 << 10, 0, 0, 0)));
    refused(&["matrix 0", "runs"], |p| {
        let nest = &mut p.matrices[0].nests[0];
        nest.dims[0].extent = 7;
        let last_moves = Offsets::Table((0..100).map(|i| i / 99).collect());
        nest.dims.push(NestDim { extent: 100, row: last_moves, col: stride(0), weight: stride(0) });
        p.matrices[0].nests = vec![p.matrices[0].nests[0].clone(); 1000];
    });
    let mut plan = sample();
    plan.matrices[0].nests = vec![plan.matrices[0].nests[0].clone(); 3];
    assert!(verify(&plan, ALLOW).is_ok());
}

/// All of these are small plans; each must be refused without doing what it asks for.
#[test]
fn work_and_memory_are_bounded_over_the_whole_plan() {
    // tries that leave no run: 2^24 of them without a single point
    refused(&["matrix 0", "runs to try"], |p| {
        let never = Guard { coefficients: vec![0], constant: -1, extent: 1 };
        let nest = Nest { dims: vec![common::dim(12_000, 0, 1, 0)], guards: vec![never], ..one_point() };
        p.matrices[0].nests = vec![nest; 1500];
    });
    refused(&["nests"], |p| p.matrices[0].nests = vec![one_point(); structure::MAX_NESTS]);
    refused(&["matrix 0", "points on one diagonal"], |p| {
        p.matrices[0].nests = vec![Nest { dims: vec![common::dim(2000, 0, 0, 0)], ..one_point() }];
    });
    refused(&["matrix 0", "no nest"], |p| p.matrices[0].nests.clear());
    refused(&["vector 0", "points in all vectors"], |p| {
        p.vectors[0].nests = vec![Nest { dims: vec![common::dim(4000, 0, 0, 0)], ..one_point() }; 17_000];
    });
    refused(&["polynomials"], |p| p.polynomials = vec![p.polynomials[0].clone(); structure::MAX_POLYNOMIALS + 1]);
    refused(&["coefficients"], |p| {
        p.polynomials[0].chebyshev = vec![0.1; 256];
        p.polynomials = vec![p.polynomials[0].clone(); structure::MAX_COEFFICIENTS / 256 + 1];
    });
}

fn one_point() -> Nest {
    Nest { dims: vec![], row: 0, col: 0, weight: 0, tensor: None, factor: 1.0, guards: vec![] }
}

/// Makes the input of the sample `ciphertexts` full ciphertexts.
fn widen(plan: &mut Plan, ciphertexts: usize) {
    let slots = common::SLOTS;
    plan.inputs[0].shape = vec![1, ciphertexts * slots];
    let dims = vec![LayoutDim { extent: ciphertexts * slots, offsets: stride(1) }];
    plan.inputs[0].layout = Layout { slots, ciphertexts, period: slots, clean: true, dims };
}

#[test]
fn a_matrix_used_a_thousand_times_is_refused_before_its_diagonals_are_listed() {
    refused(&["instruction 1", "diagonals together"], |p| {
        widen(p, 16);
        let size = 16 * common::SLOTS;
        let nest = Nest { dims: vec![common::dim(size, 1, 0, 0), common::dim(size, 0, 1, 0)], ..one_point() };
        let (slots, period) = (common::SLOTS, common::SLOTS);
        p.matrices[0] = Matrix {
            slots,
            in_ciphertexts: 16,
            in_period: period,
            out_ciphertexts: 16,
            out_period: period,
            nests: vec![nest],
        };
        let Op::LinearMap { terms, .. } = op(p, 1) else { panic!() };
        *terms = vec![terms[0].clone(); 1000];
    });
}

#[test]
fn registers_are_counted_while_they_live() {
    let plan = sample();
    let bytes = |parts: u64, level: u64| parts * (level + 1) * (8 << common::LOG_N);
    let peak = verify(&plan, ALLOW).unwrap().peak_register_bytes();
    // A sum, its negation and their difference outweigh a product of three parts and its one factor above.
    assert_eq!(peak, 3 * bytes(2, 6));
    assert!(peak > bytes(2, 7) + bytes(3, 7));
    let forest = |live: u32| {
        move |p: &mut Plan| {
            widen(p, 1 << 16);
            p.outputs.clear();
            let layer = LayerId(0);
            let mut ops = vec![Op::Input(0)];
            ops.extend((0..live).map(|_| Op::Negate(Reg(0))));
            ops.extend((1..=live).map(|r| Op::Negate(Reg(r))));
            let all = (0..).zip(ops);
            p.instructions = all.map(|(dst, op)| Instruction { dst: Reg(dst), layer, op }).collect();
        }
    };
    refused(&["bytes at once"], forest(120));
    let mut plan = sample();
    forest(20)(&mut plan);
    let facts = verify(&plan, ALLOW).unwrap();
    // twenty and their source
    assert_eq!(facts.peak_register_bytes(), (21 * bytes(2, 8)) << 16);
}

#[test]
fn inputs_are_read_once_and_names_are_unique() {
    refused(&["instruction 1", "input 0 is read twice"], |p| *op(p, 1) = Op::Input(0));
    refused(&["input 1", "\"x\" is there twice"], |p| p.inputs.push(p.inputs[0].clone()));
    refused(&["output 1", "\"y\" is there twice"], |p| p.outputs.push(p.outputs[0].clone()));
    refused(&["inputs and outputs", "elements together"], |p| {
        widen(p, 1 << 16);
        let input = p.inputs[0].clone();
        p.inputs = (0..9).map(|i| Input { name: format!("x{i}"), ..input.clone() }).collect();
    });
}

#[test]
fn a_listing_shows_levels_and_layers() {
    let plan = sample();
    let facts = verify(&plan, ALLOW).unwrap();
    let text = print::listing(&plan, Some(&facts));
    let line = text.lines().find(|l| l.contains("r3 = relin")).unwrap();
    assert!(line.contains("r2") && line.contains("level 7") && line.contains("[square: test]"), "{line}");
    assert!(text.contains("m0 (8 diagonals, n1 = 4)·r0 + v0"), "{text}");
    assert_eq!(text.lines().count(), 8 + plan.keys.galois.len() + plan.instructions.len());
}
