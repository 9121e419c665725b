//! The head section: conversions between plain types and messages.

use super::message as m;
use crate::structure::{self, check_count, check_layout};
use crate::{Aided, Input, KeyManifest, Layout, LayoutDim, Offsets, Output, Parameters, Postprocess, Preprocess};
use fhec_math::bootstrap::{BootstrapSpec, LowKeys};
use fhec_math::scale::Scale;
use fhec_math::security::SecurityLevel;

/// Contents of a section are refused with a message; the caller adds the section.
pub(super) type Convert<T> = Result<T, String>;

pub(super) fn size(value: u64, what: &str) -> Convert<usize> {
    usize::try_from(value).map_err(|_| format!("{what} {value} is too large"))
}

pub(super) fn sizes(values: &[u64], what: &str) -> Convert<Vec<usize>> {
    values.iter().map(|&v| size(v, what)).collect()
}

pub(super) fn present<T>(value: Option<T>, what: &str) -> Convert<T> {
    value.ok_or_else(|| format!("{what} is missing"))
}

pub(super) fn longs(values: &[usize]) -> Vec<u64> {
    values.iter().map(|&v| v as u64).collect()
}

pub(super) fn scale_out(scale: &Scale) -> m::Scale {
    let (pow2, parts) = scale.to_parts();
    let (primes, exponents) = parts.into_iter().unzip();
    m::Scale { pow2, primes, exponents }
}

pub(super) fn scale_in(scale: Option<m::Scale>) -> Convert<Scale> {
    let scale = present(scale, "a scale")?;
    if scale.primes.len() != scale.exponents.len() {
        return Err("a scale with unequal numbers of primes and exponents".into());
    }
    let parts: Vec<(u64, i64)> = scale.primes.into_iter().zip(scale.exponents).collect();
    Scale::from_parts(scale.pow2, &parts).map_err(|e| e.to_string())
}

pub(super) fn offsets_out(offsets: &Offsets) -> m::Offsets {
    match offsets {
        Offsets::Stride(s) => m::Offsets { stride: Some(*s), table: vec![] },
        Offsets::Table(t) => m::Offsets { stride: None, table: t.clone() },
    }
}

pub(super) fn offsets_in(offsets: Option<m::Offsets>) -> Convert<Offsets> {
    let offsets = present(offsets, "a list of offsets")?;
    match offsets.stride {
        Some(s) if offsets.table.is_empty() => Ok(Offsets::Stride(s)),
        Some(_) => Err("offsets are both a stride and a table".into()),
        None => Ok(Offsets::Table(offsets.table)),
    }
}

pub(super) fn layout_out(layout: &Layout) -> m::Layout {
    let dim = |d: &LayoutDim| m::LayoutDim { extent: d.extent as u64, offsets: Some(offsets_out(&d.offsets)) };
    m::Layout {
        slots: layout.slots as u64,
        ciphertexts: layout.ciphertexts as u64,
        period: layout.period as u64,
        clean: layout.clean,
        dims: layout.dims.iter().map(dim).collect(),
    }
}

/// The layout of a tensor of the given shape.
fn layout_of(layout: Option<m::Layout>, shape: &[usize]) -> Convert<Layout> {
    let layout = layout_in(layout)?;
    let elements = shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
    if elements != layout.elements() {
        return Err(format!("shape {shape:?} has {elements} elements, its layout {}", layout.elements()));
    }
    Ok(layout)
}

pub(super) fn layout_in(layout: Option<m::Layout>) -> Convert<Layout> {
    let layout = present(layout, "a layout")?;
    let dim = |d: m::LayoutDim| -> Convert<LayoutDim> {
        Ok(LayoutDim { extent: size(d.extent, "extent")?, offsets: offsets_in(d.offsets)? })
    };
    let layout = Layout {
        slots: size(layout.slots, "slot count")?,
        ciphertexts: size(layout.ciphertexts, "ciphertext count")?,
        period: size(layout.period, "period")?,
        clean: layout.clean,
        dims: layout.dims.into_iter().map(dim).collect::<Convert<_>>()?,
    };
    check_layout(&layout)?;
    Ok(layout)
}

fn parameters_out(p: &Parameters) -> m::Parameters {
    m::Parameters {
        log_n: p.log_n,
        q: p.q.clone(),
        p: p.p.clone(),
        digits: longs(&p.digits),
        security: p.security.map_or(0, SecurityLevel::bits),
        bootstrap: p.bootstrap.as_ref().map(bootstrap_out),
    }
}

fn bootstrap_out(spec: &BootstrapSpec) -> m::Bootstrap {
    m::Bootstrap {
        log_message_ratio: spec.log_message_ratio,
        range: spec.range,
        sparse_weight: spec.sparse_weight,
        cosine_degree: spec.cosine_degree,
        double_angles: spec.double_angles,
        arcsine: spec.arcsine,
        slots_to_coeffs: spec.slots_to_coeffs.concat(),
        matrices_by_level: spec.slots_to_coeffs.iter().map(|level| level.len() as u32).collect(),
        coeffs_to_slots: spec.coeffs_to_slots.clone(),
        least_ring: spec.least_ring,
        input_scale: Some(scale_out(&spec.input_scale)),
    }
}

fn bootstrap_in(b: m::Bootstrap) -> Convert<BootstrapSpec> {
    let mut rest = &b.slots_to_coeffs[..];
    let mut slots_to_coeffs = Vec::new();
    for &count in &b.matrices_by_level {
        let (level, after) = rest.split_at_checked(count as usize).ok_or("a bootstrap with too few matrices")?;
        slots_to_coeffs.push(level.to_vec());
        rest = after;
    }
    if !rest.is_empty() {
        return Err("a bootstrap with matrices at no level".into());
    }
    Ok(BootstrapSpec {
        log_message_ratio: b.log_message_ratio,
        range: b.range,
        sparse_weight: b.sparse_weight,
        cosine_degree: b.cosine_degree,
        double_angles: b.double_angles,
        arcsine: b.arcsine,
        slots_to_coeffs,
        coeffs_to_slots: b.coeffs_to_slots,
        least_ring: b.least_ring,
        input_scale: scale_in(b.input_scale)?,
    })
}

fn parameters_in(p: m::Parameters) -> Convert<Parameters> {
    let security = match p.security {
        0 => None,
        bits => Some(
            SecurityLevel::ALL
                .into_iter()
                .find(|l| l.bits() == bits)
                .ok_or_else(|| format!("unknown security level {bits}"))?,
        ),
    };
    if !structure::LOG_N.contains(&p.log_n) {
        return Err(format!("ring degree 2^{}", p.log_n));
    }
    if p.q.is_empty() || p.q.len() > structure::MAX_CHAIN || p.p.len() > structure::MAX_SPECIAL {
        return Err(format!("{} chain primes and {} special primes", p.q.len(), p.p.len()));
    }
    let bootstrap = p.bootstrap.map(bootstrap_in).transpose()?;
    Ok(Parameters { log_n: p.log_n, q: p.q, p: p.p, digits: sizes(&p.digits, "digit")?, security, bootstrap })
}

fn keys_out(keys: &KeyManifest) -> m::Keys {
    m::Keys {
        relin: keys.relin.map(|l| l as u64),
        elements: keys.galois.keys().copied().collect(),
        levels: keys.galois.values().map(|&l| l as u64).collect(),
        composed: keys.composed.keys().copied().collect(),
        factors: keys.composed.values().flatten().copied().collect(),
        raised: keys.raised.iter().copied().collect(),
        low: keys.low.iter().map(low_out).collect(),
    }
}

fn keys_in(keys: m::Keys) -> Convert<KeyManifest> {
    if keys.elements.len() != keys.levels.len() {
        return Err("a key manifest with unequal numbers of elements and levels".into());
    }
    if ![&keys.elements, &keys.composed, &keys.raised].iter().all(|list| list.is_sorted_by(|a, b| a < b)) {
        return Err("Galois elements of the key manifest are not ascending".into());
    }
    let (factors, []) = keys.factors.as_chunks::<2>() else {
        return Err("a key manifest with half a composition".into());
    };
    if factors.len() != keys.composed.len() {
        return Err("a key manifest with unequal numbers of compositions and elements".into());
    }
    let relin = keys.relin.map(|l| size(l, "level")).transpose()?;
    let levels = sizes(&keys.levels, "level")?;
    let composed = keys.composed.iter().copied().zip(factors.iter().copied()).collect();
    let galois = keys.elements.into_iter().zip(levels).collect();
    if !keys.low.is_sorted_by(|a, b| a.log_n < b.log_n) {
        return Err("smaller rings of the key manifest are not ascending".into());
    }
    let low = keys.low.into_iter().map(low_in).collect::<Convert<_>>()?;
    Ok(KeyManifest { relin, galois, composed, raised: keys.raised.into_iter().collect(), low })
}

fn low_out((&log_n, keys): (&u32, &LowKeys)) -> m::LowKeys {
    m::LowKeys { log_n, level: keys.level as u64, elements: keys.galois.iter().copied().collect() }
}

fn low_in(keys: m::LowKeys) -> Convert<(u32, LowKeys)> {
    if !keys.elements.is_sorted_by(|a, b| a < b) {
        return Err(format!("Galois elements of the ring of degree 2^{} are not ascending", keys.log_n));
    }
    Ok((keys.log_n, LowKeys { level: size(keys.level, "level")?, galois: keys.elements.into_iter().collect() }))
}

fn input_out(input: &Input) -> m::Input {
    m::Input {
        name: input.name.clone(),
        shape: longs(&input.shape),
        layout: Some(layout_out(&input.layout)),
        level: input.level as u64,
        scale: Some(scale_out(&input.scale)),
        factor: input.factor,
        range_lo: input.range.0,
        range_hi: input.range.1,
        preprocess: input.preprocess.as_ref().map(|p| m::Preprocess {
            scale: p.scale,
            mean: p.mean.clone(),
            std: p.std.clone(),
        }),
    }
}

fn input_in(input: m::Input) -> Convert<Input> {
    let shape = sizes(&input.shape, "dimension")?;
    let layout = layout_of(input.layout, &shape).map_err(|e| format!("input {:?}: {e}", input.name))?;
    Ok(Input {
        shape,
        layout,
        level: size(input.level, "level")?,
        scale: scale_in(input.scale)?,
        factor: input.factor,
        range: (input.range_lo, input.range_hi),
        preprocess: input.preprocess.map(|p| Preprocess { scale: p.scale, mean: p.mean, std: p.std }),
        name: input.name,
    })
}

pub(super) fn postprocess_out(step: &Postprocess) -> m::Postprocess {
    match step {
        Postprocess::Softmax { axis } => m::Postprocess { softmax_axis: Some(*axis as u64) },
    }
}

pub(super) fn postprocess_in(step: m::Postprocess) -> Convert<Postprocess> {
    let axis = present(step.softmax_axis, "a known postprocessing step")?;
    Ok(Postprocess::Softmax { axis: size(axis, "axis")? })
}

fn output_out(output: &Output) -> m::Output {
    m::Output {
        name: output.name.clone(),
        shape: longs(&output.shape),
        layout: Some(layout_out(&output.layout)),
        level: output.level as u64,
        scale: Some(scale_out(&output.scale)),
        factor: output.factor,
        range_lo: output.range.0,
        range_hi: output.range.1,
        error_std: output.error_std,
        postprocess: output.postprocess.iter().map(postprocess_out).collect(),
    }
}

fn output_in(output: m::Output) -> Convert<Output> {
    let shape = sizes(&output.shape, "dimension")?;
    let layout = layout_of(output.layout, &shape).map_err(|e| format!("output {:?}: {e}", output.name))?;
    Ok(Output {
        shape,
        layout,
        level: size(output.level, "level")?,
        scale: scale_in(output.scale)?,
        factor: output.factor,
        range: (output.range_lo, output.range_hi),
        error_std: output.error_std,
        postprocess: output.postprocess.into_iter().map(postprocess_in).collect::<Convert<_>>()?,
        name: output.name,
    })
}

/// What the head section holds, without the hash of the plan.
pub(super) struct HeadParts {
    pub(super) compiler: String,
    pub(super) model: String,
    pub(super) parameters: Parameters,
    pub(super) keys: KeyManifest,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<Output>,
    pub(super) complex: bool,
    pub(super) aided: Option<Aided>,
}

/// The message of the head section.
pub(super) fn encode(
    (compiler, model): (&str, &str),
    parameters: &Parameters,
    keys: &KeyManifest,
    (inputs, outputs, complex, aided): (&[Input], &[Output], bool, Option<&Aided>),
) -> m::Head {
    m::Head {
        compiler: compiler.into(),
        model: model.into(),
        parameters: Some(parameters_out(parameters)),
        keys: Some(keys_out(keys)),
        inputs: inputs.iter().map(input_out).collect(),
        outputs: outputs.iter().map(output_out).collect(),
        aided: aided.map(super::aided::encode),
        complex,
    }
}

/// The plain types of the head section.
pub(super) fn decode(head: m::Head) -> Convert<HeadParts> {
    check_count("inputs", head.inputs.len(), structure::MAX_PORTS)?;
    check_count("outputs", head.outputs.len(), structure::MAX_PORTS)?;
    Ok(HeadParts {
        compiler: head.compiler,
        model: head.model,
        parameters: parameters_in(present(head.parameters, "the parameters")?)?,
        keys: keys_in(present(head.keys, "the key manifest")?)?,
        inputs: head.inputs.into_iter().map(input_in).collect::<Convert<_>>()?,
        outputs: head.outputs.into_iter().map(output_in).collect::<Convert<_>>()?,
        complex: head.complex,
        aided: head.aided.map(super::aided::decode).transpose()?,
    })
}
