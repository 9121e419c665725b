use super::super::networks::{any, residual, same_outputs, values};
use super::*;
use fhec_ir::nn::Activation;

#[test]
fn factors_hide_values_and_leave_outputs() {
    let plain = residual(&Activation::Relu);
    let (masked, count) = mask(&plain);
    // The residual sum ties eight channels of two convolutions; the dense layer is the output.
    assert_eq!(count, 8 + 8 + 6);
    same_outputs(&plain, &masked);
    let (a, b) = (values(&plain), values(&masked));
    // The first convolution: one factor for each channel, in [1/2, 1), and not the same for all.
    let ratios: Vec<f64> = (0..8).map(|c| b[1].values()[c * 36 + 7] / a[1].values()[c * 36 + 7]).collect();
    assert!(ratios.iter().all(|r| (0.5..1.0).contains(r)), "{ratios:?}");
    assert!(ratios.windows(2).all(|w| w[0] != w[1]));
    assert_eq!(mask(&plain), (masked, count), "deterministic");
}

#[test]
fn functions_that_do_not_commute_keep_their_values() {
    let plain = residual(&Activation::Clip { min: 0.0, max: 6.0 });
    assert_eq!(mask(&plain), (plain, 0));
}

#[test]
fn any_network_is_the_same_with_factors() {
    let mut masked = 0;
    for seed in 0..300 {
        let plain = any(seed);
        let (graph, count) = mask(&plain);
        same_outputs(&plain, &graph);
        masked += usize::from(count > 0);
    }
    assert!(masked > 100, "{masked} networks have factors");
}
