//! Keys, ciphertexts and plaintexts whose checksum is right: readers end with an error, or with what, written again,
//! is the same file.
#![no_main]

use fhec_ckks::CkksError;
use fhec_ckks::container::{self as files, Header, Kind};
use fhec_fuzz::{PLAN, context, resign};

/// Reads a file and writes what was read.
fn again(kind: Kind, file: &[u8]) -> Result<Vec<u8>, CkksError> {
    let context = context();
    let mut out = Vec::new();
    match kind {
        Kind::SecretKey => files::write_secret_key(&files::read_secret_key(file, context, &PLAN)?, &PLAN, &mut out)?,
        Kind::PublicKey => files::write_public_key(&files::read_public_key(file, context, &PLAN)?, &PLAN, &mut out)?,
        Kind::EvaluationKeys => {
            files::write_evaluation_keys(&files::read_evaluation_keys(file, context, &PLAN)?, &PLAN, &mut out)?;
        }
        Kind::Ciphertexts => {
            files::write_ciphertexts(&files::read_ciphertexts(file, context, &PLAN)?, context, &PLAN, &mut out)?;
        }
        Kind::Plaintext => {
            files::write_plaintext(&files::read_plaintext(file, context, &PLAN)?, context, &PLAN, &mut out)?;
        }
    }
    Ok(out)
}

libfuzzer_sys::fuzz_target!(init: fhec_fuzz::seed("container", fhec_fuzz::containers()), |file: &[u8]| {
    let file = resign(file);
    let Ok(header) = Header::read(&file) else { return };
    if let Ok(written) = again(header.kind, &file) {
        assert!(written == file, "{:?}: read and written again it is another file", header.kind);
    }
});
