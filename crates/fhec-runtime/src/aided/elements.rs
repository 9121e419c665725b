//! The elements of a client's tensors, in memory or on disk. An element is what all images of a batch have at one place of a tensor.

use crate::error::{OpError, Result, RuntimeError};
use crate::stream::{Spill, Spilling};
use fhec_plan::stream::Transfers;

/// Where an element is.
#[derive(Debug)]
enum Element {
    Absent,
    Memory(Box<[f64]>),
    /// The place.
    Disk(u64),
}

/// All elements that are stored. An element goes to memory if there is room when it comes, or else to disk, and stays there: tensors are read
/// in about the order in which they were written, so that no other choice would save transfers.
#[derive(Debug)]
pub(super) struct Elements {
    /// By step.
    tensors: Vec<Vec<Element>>,
    /// Images in each element.
    images: usize,
    /// Bytes that elements in memory may take.
    room: u64,
    used: u64,
    peak: u64,
    on_disk: u64,
    transfers: Transfers,
    spill: Spill,
}

impl Elements {
    pub(super) fn new(steps: usize, images: usize, room: u64, to: &Spilling) -> Self {
        let tensors = std::iter::repeat_with(Vec::new).take(steps).collect();
        let (used, peak, on_disk, transfers) = (0, 0, 0, Transfers::default());
        Elements { tensors, images, room, used, peak, on_disk, transfers, spill: Spill::new(to) }
    }

    /// Most bytes in memory at once.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// What went to disk and back.
    pub(super) fn transfers(&self) -> Transfers {
        self.transfers
    }

    fn bytes(&self) -> u64 {
        8 * self.images as u64
    }

    /// Makes a tensor of elements that are not there yet; one that was there is gone.
    pub(super) fn begin(&mut self, step: usize, count: usize) {
        self.end(step);
        self.tensors[step].resize_with(count, || Element::Absent);
    }

    /// Whether a tensor was begun.
    pub(super) fn has(&self, step: usize) -> bool {
        !self.tensors[step].is_empty()
    }

    /// Drops a tensor.
    pub(super) fn end(&mut self, step: usize) {
        let bytes = self.bytes();
        for element in std::mem::take(&mut self.tensors[step]) {
            match element {
                Element::Absent => {}
                Element::Memory(_) => self.used -= bytes,
                Element::Disk(place) => {
                    self.on_disk -= bytes;
                    self.spill.free((place, bytes));
                }
            }
        }
    }

    /// Sets the values of the images from number `first` on. An element must be complete before it is read.
    pub(super) fn put(&mut self, step: usize, element: usize, first: usize, values: &[f64]) -> Result<()> {
        let (bytes, images) = (self.bytes(), self.images);
        let gone = || RuntimeError::Resume(format!("element {element} of client step {step}, which has none such"));
        if first + values.len() > images {
            return Err(RuntimeError::Batch { found: first + values.len(), most: images });
        }
        let place = self.tensors.get_mut(step).and_then(|t| t.get_mut(element)).ok_or_else(gone)?;
        if let Element::Absent = place {
            if self.used + bytes <= self.room {
                *place = Element::Memory(vec![0.0; images].into());
                self.used += bytes;
                self.peak = self.peak.max(self.used);
            } else {
                *place = Element::Disk(self.spill.place(bytes));
                self.on_disk += bytes;
                self.transfers.disk = self.transfers.disk.max(self.on_disk);
            }
        }
        match place {
            Element::Memory(all) => all[first..first + values.len()].copy_from_slice(values),
            Element::Disk(place) => {
                let at = *place + 8 * first as u64;
                self.transfers.written += 8 * values.len() as u64;
                self.spill.write_at(at, &[bytemuck::cast_slice(values)]).map_err(RuntimeError::Spill)?;
            }
            Element::Absent => {}
        }
        Ok(())
    }

    /// An element.
    pub(super) fn get(&mut self, step: usize, element: usize) -> Result<Vec<f64>> {
        match self.tensors.get(step).and_then(|t| t.get(element)) {
            Some(Element::Memory(values)) => Ok(values.to_vec()),
            Some(&Element::Disk(place)) => {
                let mut values = vec![0.0; self.images];
                self.transfers.read += self.bytes();
                let read = self.spill.read(place, &mut [bytemuck::cast_slice_mut(&mut values)]);
                read.map_err(|e: OpError| RuntimeError::Spill(e))?;
                Ok(values)
            }
            Some(Element::Absent) | None => {
                Err(RuntimeError::Resume(format!("client step {step}, for which nothing was received")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Storage;
    use std::io::Cursor;

    #[test]
    fn elements_come_back_from_memory_and_disk_and_places_are_used_again() {
        let memory = || Ok(Box::new(Cursor::new(Vec::new())) as Box<dyn Storage>);
        let mut all = Elements::new(2, 3, 48, &Spilling::new("".into(), memory));
        all.begin(0, 3);
        // Two fit; each comes in two parts, as images do.
        for e in 0..3 {
            all.put(0, e, 1, &[e as f64, -0.5]).expect("room");
            all.put(0, e, 0, &[7.0]).expect("room");
        }
        assert_eq!((all.peak(), all.transfers().written, all.transfers().disk), (48, 24, 24));
        for e in [2, 0, 1] {
            assert_eq!(all.get(0, e).expect("there"), [7.0, e as f64, -0.5]);
        }
        assert_eq!(all.transfers().read, 24);
        all.begin(1, 2);
        all.end(0);
        assert!(!all.has(0) && all.has(1) && all.get(0, 0).is_err() && all.get(1, 0).is_err());
        for e in 0..2 {
            all.put(1, e, 0, &[f64::MIN_POSITIVE; 3]).expect("room");
        }
        assert_eq!((all.peak(), all.transfers().written), (48, 24), "memory is free again");
        assert!(all.put(1, 2, 0, &[0.0]).is_err() && all.put(1, 0, 2, &[0.0; 2]).is_err());
    }
}
