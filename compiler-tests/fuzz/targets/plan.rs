//! A plan file whose hashes are right, as a hostile writer would send it: reading, verifying and printing end
//! with a plan or an error.
#![no_main]

use fhec_fuzz::repair_plan;
use fhec_plan::{Insecure, Plan, PlanHead, Verified, print};
use std::sync::Arc;

libfuzzer_sys::fuzz_target!(init: fhec_fuzz::seed("plan", fhec_fuzz::plans()), |file: &[u8]| {
    let _ = PlanHead::read(file);
    let file = repair_plan(file);
    let _ = PlanHead::read(&file);
    if let Ok(plan) = Plan::read(Arc::new(file))
        && let Ok(verified) = Verified::new(plan, Insecure::AllowForTests)
    {
        let _ = print::listing(verified.plan(), None);
    }
});
