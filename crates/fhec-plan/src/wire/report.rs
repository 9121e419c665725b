//! The report section: conversions between plain types and messages.

use super::head::{Convert, layout_in, layout_out};
use super::message as m;
use crate::structure::{self, check_count};
use crate::{BootstrapReport, LayerReport, LayerValue, Reg, Report};

/// The message of the report section.
pub(super) fn encode(report: &Report) -> m::Report {
    let layer = |l: &LayerReport| m::LayerReport {
        layout: l.layout.clone(),
        level_in: l.level_in,
        level_out: l.level_out,
        degree: l.degree,
        rotations: l.rotations,
        key_switches: l.key_switches,
        plaintext_products: l.plaintext_products,
        seconds: l.seconds,
        error_std: l.error_std,
        approximation_rms: l.approximation_rms,
        value: l.value.as_ref().map(|v| m::LayerValue { register: v.reg.0, layout: Some(layout_out(&v.layout)) }),
    };
    let bootstrap = |b: &BootstrapReport| m::BootstrapReport {
        register: b.reg.0,
        level_in: b.level_in,
        level_out: b.level_out,
        seconds: b.seconds,
        without: b.without,
        instead: b.instead.iter().map(|reg| reg.0).collect(),
    };
    m::Report {
        security_bits: report.security_bits,
        seconds: report.seconds,
        sequential: report.sequential,
        peak_memory: report.peak_memory,
        keeps_keys: report.keeps_keys,
        freed_bytes: report.freed_bytes,
        key_bytes_disk: report.key_bytes_disk,
        key_bytes_memory: report.key_bytes_memory,
        input_bytes: report.input_bytes,
        output_bytes: report.output_bytes,
        plaintext_budget: report.plaintext_budget,
        output_bits: report.output_bits,
        output_bits_public: report.output_bits_public,
        layers: report.layers.iter().map(layer).collect(),
        notes: report.notes.clone(),
        bootstraps: report.bootstraps.iter().map(bootstrap).collect(),
    }
}

/// The plain type of the report section.
pub(super) fn decode(report: m::Report) -> Convert<Report> {
    check_count("layers", report.layers.len(), structure::MAX_LAYERS)?;
    let value = |v: m::LayerValue| -> Convert<LayerValue> {
        Ok(LayerValue { reg: Reg(v.register), layout: layout_in(v.layout)? })
    };
    let layer = |l: m::LayerReport| -> Convert<LayerReport> {
        Ok(LayerReport {
            layout: l.layout,
            level_in: l.level_in,
            level_out: l.level_out,
            degree: l.degree,
            rotations: l.rotations,
            key_switches: l.key_switches,
            plaintext_products: l.plaintext_products,
            seconds: l.seconds,
            error_std: l.error_std,
            approximation_rms: l.approximation_rms,
            value: l.value.map(value).transpose()?,
        })
    };
    check_count("bootstraps", report.bootstraps.len(), structure::MAX_INSTRUCTIONS)?;
    let bootstrap = |b: m::BootstrapReport| BootstrapReport {
        reg: Reg(b.register),
        level_in: b.level_in,
        level_out: b.level_out,
        seconds: b.seconds,
        without: b.without,
        instead: b.instead.into_iter().map(Reg).collect(),
    };
    Ok(Report {
        security_bits: report.security_bits,
        seconds: report.seconds,
        sequential: report.sequential,
        peak_memory: report.peak_memory,
        keeps_keys: report.keeps_keys,
        freed_bytes: report.freed_bytes,
        key_bytes_disk: report.key_bytes_disk,
        key_bytes_memory: report.key_bytes_memory,
        input_bytes: report.input_bytes,
        output_bytes: report.output_bytes,
        plaintext_budget: report.plaintext_budget,
        output_bits: report.output_bits,
        output_bits_public: report.output_bits_public,
        layers: report.layers.into_iter().map(layer).collect::<Convert<_>>()?,
        notes: report.notes,
        bootstraps: report.bootstraps.into_iter().map(bootstrap).collect(),
    })
}
