//! The machine that something was measured on.

use crate::memory;
use fhec_math::cpu::{Kernels, kernels};
use fhec_passes::cost_file::Machine;

/// This machine.
pub(crate) fn this() -> Machine {
    let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Machine {
        processor: processor(&cpu_info).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory: memory::total().unwrap_or(0),
        kernels: match kernels() {
            Kernels::Portable => "portable".into(),
            Kernels::Avx512Ifma => "AVX-512-IFMA".into(),
        },
        fhec: env!("CARGO_PKG_VERSION").into(),
    }
}

/// One line that describes a machine.
pub(crate) fn describe(machine: &Machine) -> String {
    let memory =
        if machine.memory == 0 { String::new() } else { format!(", {}", crate::format::bytes(machine.memory)) };
    let cores = crate::format::count(machine.cores, "core");
    format!("{}, {cores}{memory}, {} kernels, fhec {}", machine.processor, machine.kernels, machine.fhec)
}

fn processor(cpu_info: &str) -> Option<String> {
    let line = cpu_info.lines().find(|l| l.starts_with("model name"))?;
    let name = line.split_once(':')?.1.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_a_name() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: x\n"), Some("AMD EPYC".into()));
        for nothing in ["", "model name", "model name :  \n", "flags: model name"] {
            assert_eq!(processor(nothing), None);
        }
        let here = this();
        assert!(here.cores > 0 && !here.processor.is_empty() && describe(&here).contains(&here.processor));
    }
}
