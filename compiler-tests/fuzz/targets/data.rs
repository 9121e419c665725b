//! Sample and label files (npy, npz, idx, PNG, JPEG, text): readers end with finite samples of the input's size, or
//! with an error.
#![no_main]

use fhec_cli::{read_labels, read_samples};

libfuzzer_sys::fuzz_target!(init: fhec_fuzz::seed("data", fhec_fuzz::data()), |file: &[u8]| {
    for shape in [&[1, 1, 4, 4][..], &[1, 1, 28, 28], &[1, 3, 2, 2], &[5]] {
        let size = shape.iter().product::<usize>();
        for sample in read_samples(file.to_vec(), shape).unwrap_or_default() {
            assert!(sample.len() == size && sample.iter().all(|v| v.is_finite()));
        }
    }
    let _ = read_labels(file.to_vec());
});
