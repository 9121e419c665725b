//! Pictures: PNG and JPEG files to channel planes.

use anyhow::{Context, Result, ensure};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Largest width and height, pixels.
const MAX_SIDE: u32 = 1 << 14;
/// Most memory that a decoder may use, bytes.
const MAX_MEMORY: u64 = 1 << 30;

/// Whether a file begins like a PNG or a JPEG.
pub(crate) fn is_picture(file: &[u8]) -> bool {
    file.starts_with(b"\x89PNG\r\n\x1a\n") || file.starts_with(&[0xff, 0xd8, 0xff])
}

/// How the pixels of an input are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// 1 (grey) or 3 (red, green, blue).
    pub(crate) channels: usize,
    /// Pixels.
    pub(crate) height: usize,
    /// Pixels.
    pub(crate) width: usize,
    /// The channels of a pixel are neighbours, instead of a plane per channel.
    pub(crate) interleaved: bool,
}

impl Grid {
    /// The picture that fits a tensor shape: `[…1, c, h, w]`, `[…1, h, w, c]` or `[…1, h, w]` with
    /// c = 1 or 3.
    pub(crate) fn of(shape: &[usize]) -> Option<Self> {
        // Without the batch, but not without a channel axis of one.
        let core = &shape[shape.len().saturating_sub(3)..];
        if shape[..shape.len() - core.len()].iter().any(|&d| d != 1) {
            return None;
        }
        match *core {
            [channels @ (1 | 3), height, width] => Some(Grid { channels, height, width, interleaved: false }),
            [height, width, channels @ (1 | 3)] => Some(Grid { channels, height, width, interleaved: true }),
            [height, width] if height > 1 => Some(Grid { channels: 1, height, width, interleaved: false }),
            _ => None,
        }
    }

    /// Channel of the element with row-major number `index`.
    pub(crate) fn channel(&self, index: usize) -> usize {
        if self.interleaved { index % self.channels } else { index / (self.height * self.width) }
    }
}

/// Decodes a picture to raw pixel values 0…255, turned to grey or to colour as the grid wants.
pub(crate) fn read(file: &[u8], grid: &Grid) -> Result<Vec<u8>> {
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let decoder = reader.into_decoder().context("the picture cannot be decoded")?;
    // Before the pixels are decoded: a short file may claim many.
    let (width, height) = decoder.dimensions();
    ensure!(
        (width as usize, height as usize) == (grid.width, grid.height),
        "the picture is {width}×{height} pixels, the model takes {}×{}",
        grid.width,
        grid.height
    );
    let picture = DynamicImage::from_decoder(decoder).context("the picture cannot be decoded")?;
    if grid.channels == 1 {
        return Ok(picture.into_luma8().into_raw());
    }
    let pixels = picture.into_rgb8().into_raw();
    if grid.interleaved {
        return Ok(pixels);
    }
    Ok((0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).copied()).collect())
}

/// The pictures of a folder in the order of their names, other files left out.
pub(crate) fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) {
            found.push(path);
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "the folder holds no .png, .jpg or .jpeg file");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbImage};

    fn png() -> Vec<u8> {
        let picture = RgbImage::from_fn(2, 3, |x, y| image::Rgb([x as u8, y as u8, 9]));
        let mut out = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(picture).write_to(&mut out, ImageFormat::Png).expect("encodes");
        out.into_inner()
    }

    #[test]
    fn shapes_tell_grids() {
        let grid = |channels, height, width, interleaved| Some(Grid { channels, height, width, interleaved });
        assert_eq!(Grid::of(&[1, 1, 28, 28]), grid(1, 28, 28, false));
        assert_eq!(Grid::of(&[3, 32, 32]), grid(3, 32, 32, false));
        assert_eq!(Grid::of(&[1, 32, 30, 3]), grid(3, 32, 30, true));
        assert_eq!(Grid::of(&[28, 28]), grid(1, 28, 28, false));
        assert_eq!(Grid::of(&[2, 1, 28, 28]), None);
        assert_eq!(Grid::of(&[784]), None);
        assert_eq!(Grid::of(&[1, 784]), None);
    }

    #[test]
    fn planes_and_pixels() {
        let grid = Grid { channels: 3, height: 3, width: 2, interleaved: false };
        let planes = read(&png(), &grid).expect("decodes");
        assert_eq!(planes, [0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 2, 2, 9, 9, 9, 9, 9, 9]);
        let pixels = read(&png(), &Grid { interleaved: true, ..grid }).expect("decodes");
        assert_eq!(pixels[..6], [0, 0, 9, 1, 0, 9]);
        assert_eq!(read(&png(), &Grid { channels: 1, ..grid }).expect("decodes").len(), 6);
    }

    #[test]
    fn wrong_sizes_and_damage_are_refused() {
        let grid = Grid { channels: 1, height: 28, width: 28, interleaved: false };
        let refused = read(&png(), &grid).expect_err("too small").to_string();
        assert!(refused.contains("2×3") && refused.contains("28×28"), "{refused}");
        let file = png();
        let right = Grid { channels: 3, height: 3, width: 2, interleaved: false };
        for cut in 0..file.len() - 16 {
            assert!(read(&file[..cut], &right).is_err(), "cut at {cut}");
        }
    }
}
