//! What shares a ciphertext: the elements of one image, or one element of many images.

/// Whether a slot holds two images, one in its real and one in its imaginary part (nGraph-HE2 §3.3); only where images share
/// ciphertexts at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Complex {
    /// Where it takes less time per image.
    #[default]
    Auto,
    /// Always; networks with polynomials other than products are refused.
    On,
    /// Never.
    Off,
}

/// How tensors are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One image over the slots of as few ciphertexts as possible: the least time for one image.
    #[default]
    Latency,
    /// A ciphertext per tensor element and an image per slot (nGraph-HE2 §3): the least time per image of a batch.
    Throughput {
        /// Images that will be evaluated together; a ring has at most as many as it has slots, or twice as many ([`Complex`]), so
        /// that more take several runs, and slots without an image are of no use. Without it, as many as there is room for.
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

    /// The share of a run's time that one image of the batch costs in ring degree 2^log_n, with so many images a slot.
    pub fn share(self, log_n: u32, images: usize) -> f64 {
        let slots = images << (log_n - 1);
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
        let share = |batch, log_n| Mode::Throughput { batch }.share(log_n, 1);
        assert_eq!(Mode::Latency.share(13, 1), 1.0);
        assert_eq!(share(None, 13), 1.0 / 4096.0);
        assert_eq!(share(Some(4096), 13), 1.0 / 4096.0);
        assert_eq!(share(Some(1000), 13), share(Some(1000), 14));
        assert_eq!(share(Some(4097), 13), 2.0 / 4097.0);
        let packed = |batch, log_n| Mode::Throughput { batch }.share(log_n, 2);
        assert_eq!(packed(None, 13), 1.0 / 8192.0);
        assert_eq!(packed(Some(8192), 13), share(Some(8192), 14));
        assert_eq!(packed(Some(100), 13), share(Some(100), 13));
    }
}
