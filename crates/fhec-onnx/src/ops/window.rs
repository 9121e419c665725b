//! Sliding windows: strides, dilations and padding of convolutions and pools.

use crate::builder::Node;
use crate::error::{Problem, refuse};
use fhec_ir::nn::shape::windows;

/// A window over the spatial axes, padding resolved.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    /// In front, per axis.
    pub(super) before: Vec<usize>,
    /// Behind, per axis.
    pub(super) after: Vec<usize>,
    /// `auto_pad` was SAME or VALID.
    automatic: bool,
}

impl Window {
    /// Reads the attributes of a window of `kernel` over axes of these extents.
    pub(super) fn read(node: &Node<'_, '_>, kernel: Vec<usize>, extents: &[usize]) -> Result<Window, Problem> {
        let rank = extents.len();
        let strides = list(node, "strides", rank, 1)?;
        let dilations = list(node, "dilations", rank, 1)?;
        let pads = node.attributes.ints("pads")?;
        let mode = node.attributes.text("auto_pad")?.unwrap_or("NOTSET");
        let mut window = Window {
            kernel,
            strides,
            dilations,
            before: vec![0; rank],
            after: vec![0; rank],
            automatic: mode != "NOTSET" && !mode.is_empty(),
        };
        match mode {
            "NOTSET" | "" => {
                let pads = naturals("pads", pads.unwrap_or_else(|| vec![0; 2 * rank]), 2 * rank)?;
                window.before.copy_from_slice(&pads[..rank]);
                window.after.copy_from_slice(&pads[rank..]);
            }
            "VALID" => {}
            "SAME_UPPER" | "SAME_LOWER" => {
                for (d, &extent) in extents.iter().enumerate() {
                    let out = extent.div_ceil(window.strides[d]);
                    let reach = (out.saturating_sub(1)) * window.strides[d] + window.span(d);
                    let total = reach.saturating_sub(extent);
                    let (small, large) = (total / 2, total - total / 2);
                    let upper = mode == "SAME_UPPER";
                    window.before[d] = if upper { small } else { large };
                    window.after[d] = if upper { large } else { small };
                }
            }
            other => return Err(Problem::new(format!("unknown mode '{other}'")).of("auto_pad")),
        }
        Ok(window)
    }

    /// Elements from the first to the last tap.
    fn span(&self, d: usize) -> usize {
        (self.kernel[d] - 1) * self.dilations[d] + 1
    }

    /// Extends the padding behind so that a last, incomplete window is kept, unless it would start in
    /// that padding.
    pub(super) fn ceil(&mut self, extents: &[usize]) -> Result<(), Problem> {
        if self.automatic {
            return Ok(());
        }
        for (d, &extent) in extents.iter().enumerate() {
            let (stride, span) = (self.strides[d], self.span(d));
            let padded = extent + self.before[d] + self.after[d];
            let Some(room) = padded.checked_sub(span) else {
                refuse!("the window {:?} does not fit the padded operand", self.kernel);
            };
            let mut last = room.div_ceil(stride);
            if last * stride >= extent + self.before[d] {
                last -= 1;
            }
            self.after[d] += (last * stride + span).saturating_sub(padded);
        }
        Ok(())
    }

    /// Refuses windows that lie in the padding altogether: their maximum or mean has no meaning.
    pub(super) fn check_covered(&self, extents: &[usize]) -> Result<(), Problem> {
        for (d, &extent) in extents.iter().enumerate() {
            let pads = [self.before[d], self.after[d]];
            let Some(count) = windows(extent, self.kernel[d], self.strides[d], self.dilations[d], pads) else {
                refuse!("the window {:?} does not fit the padded operand", self.kernel);
            };
            for o in [0, count - 1] {
                let taps = (0..self.kernel[d]).map(|k| o * self.strides[d] + k * self.dilations[d]);
                if !taps.into_iter().any(|p| (pads[0]..pads[0] + extent).contains(&p)) {
                    return Err(Problem::new("a window covers nothing but padding").of("pads"));
                }
            }
        }
        Ok(())
    }
}

/// `kernel_shape`.
pub(super) fn kernel_shape(node: &Node<'_, '_>, rank: usize) -> Result<Option<Vec<usize>>, Problem> {
    match node.attributes.ints("kernel_shape")? {
        None => Ok(None),
        Some(list) => {
            let kernel = naturals("kernel_shape", list, rank)?;
            if kernel.contains(&0) {
                return Err(Problem::new(format!("{kernel:?}")).of("kernel_shape"));
            }
            Ok(Some(kernel))
        }
    }
}

/// A list attribute of one positive number per axis.
fn list(node: &Node<'_, '_>, name: &str, rank: usize, default: usize) -> Result<Vec<usize>, Problem> {
    let Some(list) = node.attributes.ints(name)? else { return Ok(vec![default; rank]) };
    let list = naturals(name, list, rank)?;
    if list.contains(&0) {
        return Err(Problem::new("contains 0").of(name));
    }
    Ok(list)
}

/// Checks length and range: numbers beyond 2^24 are no window, and smaller ones cannot overflow.
fn naturals(name: &str, list: Vec<i64>, length: usize) -> Result<Vec<usize>, Problem> {
    if list.len() != length {
        return Err(Problem::new(format!("{list:?} should have {length} numbers")).of(name));
    }
    match list.iter().find(|v| !(0..=1 << 24).contains(*v)) {
        Some(v) if *v < 0 && name == "pads" => {
            Err(Problem::new(format!("negative padding {v}")).of(name).help("crop with Slice before the operator"))
        }
        Some(v) => Err(Problem::new(format!("{v} is out of range")).of(name)),
        None => Ok(list.into_iter().map(|v| v as usize).collect()),
    }
}
