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

/// What the files below hold samples of, but for the last.
const SHAPE: [usize; 4] = [1, 1, 4, 4];
/// What CIFAR-10 holds samples of.
const CIFAR: [usize; 4] = [1, 3, 32, 32];

/// Name of a kind, a file of it, and the shape of its samples.
type Kind = (&'static str, Vec<u8>, [usize; 4]);

/// A small file of every kind, with two samples where it is no picture. The archives are as `numpy.savez` and `numpy.savez_compressed` write them.
static FILES: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let picture = |format| {
        let grey = GrayImage::from_fn(4, 4, |x, y| image::Luma([(60 * x + y) as u8]));
        let mut out = Cursor::new(Vec::new());
        DynamicImage::ImageLuma8(grey).write_to(&mut out, format).expect("encodes");
        out.into_inner()
    };
    let idx = include_bytes!("files/x.idx").to_vec();
    let mut cifar: Vec<u8> = (0..2 * 3073u32).map(|i| (i * i % 251) as u8).collect();
    // The first record begins like an idx file of rank 2.
    cifar[..4].copy_from_slice(&[0, 0, 8, 2]);
    cifar[3073] = 9;
    vec![
        ("npy", include_bytes!("files/x.npy").to_vec(), SHAPE),
        ("npz", include_bytes!("files/x.npz").to_vec(), SHAPE),
        ("compressed npz", include_bytes!("files/x_compressed.npz").to_vec(), SHAPE),
        ("idx", idx.clone(), SHAPE),
        ("gzipped idx", gzipped(&idx), SHAPE),
        ("png", picture(ImageFormat::Png), SHAPE),
        ("jpeg", picture(ImageFormat::Jpeg), SHAPE),
        ("CIFAR-10", cifar.clone(), CIFAR),
        ("gzipped CIFAR-10", gzipped(&cifar), CIFAR),
    ]
});

fn gzipped(file: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(file).expect("packs");
    gzip.finish().expect("packs")
}

#[test]
fn the_files_themselves_read() {
    for (kind, file, shape) in &*FILES {
        let samples = read_samples(file.clone(), shape).unwrap_or_else(|e| panic!("{kind}: {e:#}"));
        assert_eq!(samples.len(), if matches!(*kind, "png" | "jpeg") { 1 } else { 2 }, "{kind}");
        assert!(samples.iter().all(|s| s.len() == shape.iter().product::<usize>()), "{kind}");
        if kind.contains("CIFAR") {
            assert_eq!(read_labels(file.clone()).expect("reads"), [0, 9]);
            assert_eq!(
                samples[1][..3],
                [f64::from(3074 * 3074 % 251), f64::from(3075 * 3075 % 251), f64::from(3076 * 3076 % 251)]
            );
        }
    }
    assert_eq!(read_labels(b"3\n1\n".to_vec()).expect("reads"), [3, 1]);
}

/// Reads a file as samples and as labels; nothing but finite samples of the right size may come of it.
fn survive(file: &[u8], shape: &[usize]) -> Result<(), TestCaseError> {
    if let Ok(samples) = read_samples(file.to_vec(), shape) {
        let len: usize = shape.iter().product();
        prop_assert!(samples.iter().all(|s| s.len() == len && s.iter().all(|v| v.is_finite())));
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
        let (_, file, shape) = &FILES[which.index(FILES.len())];
        let mut file = file.clone();
        // Headers are where damage is interesting.
        let end = if early { file.len().min(32) } else { file.len() };
        for (at, value) in edits {
            file[at.index(end)] = value;
        }
        survive(&file, shape)?;
    }

    #[test]
    fn mutated_lengths_never_panic(
        which in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (_, file, shape) = &FILES[which.index(FILES.len())];
        survive(&file[..cut.index(file.len())], shape)?;
        survive(&[file, &more[..]].concat(), shape)?;
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
        let (_, file, shape) = &FILES[which.index(FILES.len())];
        let mut file = file.clone();
        let at = at.index(file.len() - 4);
        let bytes = if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let len = if wide { 4 } else { 2 };
        file[at..at + len].copy_from_slice(&bytes[..len]);
        survive(&file, shape)?;
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
