//! What shares a ciphertext: the elements of one image, or one element of many images.

/// How tensors are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One image over the slots of as few ciphertexts as possible: the least time for one image.
    #[default]
    Latency,
    /// A ciphertext per tensor element and an image per slot (nGraph-HE2 §3): the least time per image of a batch.
    Throughput {
        /// Images that will be evaluated together; a ring has at most as many as it has slots, so that more take several
        /// runs, and slots without an image are of no use. Without it, as many as there are slots.
        batch: Option<usize>,
    },
}

impl Mode {
    /// Slots that an image has in a ciphertext of degree 2^log_n.
    pub fn image_slots(self, log_n: u32) -> usize {
        match self {
            Mode::Latency => 1 << (log_n - 1),
            Mode::Throughput { .. } => 1,
        }
    }

    /// The share of a run's time that one image of the batch costs in ring degree 2^log_n.
    pub fn share(self, log_n: u32) -> f64 {
        let slots = 1usize << (log_n - 1);
        match self {
            Mode::Latency => 1.0,
            Mode::Throughput { batch: None } => 1.0 / slots as f64,
            Mode::Throughput { batch: Some(batch) } => {
                let batch = batch.max(1);
                batch.div_ceil(slots) as f64 / batch as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_slots_cost_as_much_as_full_ones() {
        let share = |batch, log_n| Mode::Throughput { batch }.share(log_n);
        assert_eq!(Mode::Latency.share(13), 1.0);
        assert_eq!(share(None, 13), 1.0 / 4096.0);
        assert_eq!(share(Some(4096), 13), 1.0 / 4096.0);
        assert_eq!(share(Some(1000), 13), share(Some(1000), 14));
        assert_eq!(share(Some(4097), 13), 2.0 / 4097.0);
    }
}
