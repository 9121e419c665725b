//! Mutated data files of every kind, as they are encrypted or calibrated with: readers end with samples or an error,
//! and take no memory that the size of the file does not explain.

use fhec_cli::{read_labels, read_samples};
use flate2::{Compression, write::GzEncoder};
use image::{DynamicImage, GrayImage, ImageFormat};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use std::io::{Cursor, Write};
use std::sync::LazyLock;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most memory of this process: test harness, decoders, and a few hundred bytes of file unpacked a thousandfold.
const MOST_MIB: f32 = 64.0;

/// What the files below hold samples of.
const SHAPE: [usize; 4] = [1, 1, 4, 4];

/// A small file of every kind. The archives are as `numpy.savez` and `numpy.savez_compressed` write them.
static FILES: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let picture = |format| {
        let grey = GrayImage::from_fn(4, 4, |x, y| image::Luma([(60 * x + y) as u8]));
        let mut out = Cursor::new(Vec::new());
        DynamicImage::ImageLuma8(grey).write_to(&mut out, format).expect("encodes");
        out.into_inner()
    };
    let idx = include_bytes!("files/x.idx").to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&idx).expect("packs");
    vec![
        ("npy", include_bytes!("files/x.npy").to_vec()),
        ("npz", include_bytes!("files/x.npz").to_vec()),
        ("compressed npz", include_bytes!("files/x_compressed.npz").to_vec()),
        ("idx", idx),
        ("gzipped idx", gzip.finish().expect("packs")),
        ("png", picture(ImageFormat::Png)),
        ("jpeg", picture(ImageFormat::Jpeg)),
    ]
});

#[test]
fn the_files_themselves_read() {
    for (kind, file) in &*FILES {
        let samples = read_samples(file.clone(), &SHAPE).unwrap_or_else(|e| panic!("{kind}: {e:#}"));
        assert_eq!(samples.len(), if matches!(*kind, "png" | "jpeg") { 1 } else { 2 }, "{kind}");
        assert!(samples.iter().all(|s| s.len() == 16), "{kind}");
    }
    assert_eq!(read_labels(b"3\n1\n".to_vec()).expect("reads"), [3, 1]);
}

/// Reads a file as samples and as labels; nothing but finite samples of the right size may come of it.
fn survive(file: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(samples) = read_samples(file.to_vec(), &SHAPE) {
        prop_assert!(samples.iter().all(|s| s.len() == 16 && s.iter().all(|v| v.is_finite())));
    }
    let _ = read_labels(file.to_vec());
    prop_assert!(MEMORY.peak_usage_as_mb() < MOST_MIB, "{} MiB", MEMORY.peak_usage_as_mb());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_never_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        early in any::<bool>(),
    ) {
        let mut file = FILES[which.index(FILES.len())].1.clone();
        // Headers are where damage is interesting.
        let end = if early { file.len().min(32) } else { file.len() };
        for (at, value) in edits {
            file[at.index(end)] = value;
        }
        survive(&file)?;
    }

    #[test]
    fn mutated_lengths_never_panic(
        which in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let file = &FILES[which.index(FILES.len())].1;
        survive(&file[..cut.index(file.len())])?;
        survive(&[file, &more[..]].concat())?;
    }

    /// Numbers of two and four bytes set to extremes: extents, lengths and offsets of every format.
    #[test]
    fn mutated_numbers_never_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        wide in any::<bool>(),
        value in prop_oneof![Just(0u32), Just(1), Just(u32::MAX), Just(0x7fff_ffff), Just(0x8000_0000), any::<u32>()],
        big in any::<bool>(),
    ) {
        let mut file = FILES[which.index(FILES.len())].1.clone();
        let at = at.index(file.len() - 4);
        let bytes = if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let len = if wide { 4 } else { 2 };
        file[at..at + len].copy_from_slice(&bytes[..len]);
        survive(&file)?;
    }
}

/// A few stored entries over the same bytes unpack to more than the file holds, but each is bounded.
#[test]
fn entries_that_overlap_are_read_one_by_one() {
    let file = include_bytes!("files/x.npz");
    let directory = file.windows(4).position(|w| w == b"PK\x01\x02").expect("a directory");
    let end = file.windows(4).position(|w| w == b"PK\x05\x06").expect("an end");
    let mut twice = file[..end].to_vec();
    twice.extend(&file[directory..end]);
    twice.extend(&file[end..]);
    let count = twice.len() - 22 + 10;
    twice[count..count + 2].copy_from_slice(&2u16.to_le_bytes());
    // Two arrays of one name: the first serves the input.
    assert_eq!(read_samples(twice, &SHAPE).expect("reads").len(), 2);
}
