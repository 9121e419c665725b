//! Choice of kernels at run time.

use std::sync::OnceLock;

/// A family of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Plain Rust and `tfhe-ntt`; runs everywhere.
    Portable,
    /// AVX-512 with the 52-bit multiply-add instructions.
    Avx512Ifma,
}

/// The kernels in use, decided once a process: the fastest that the processor has, or the portable
/// ones when the environment variable `FHEC_KERNELS` is `portable`.
pub fn kernels() -> Kernels {
    static CHOICE: OnceLock<Kernels> = OnceLock::new();
    *CHOICE.get_or_init(|| {
        if std::env::var_os("FHEC_KERNELS").is_some_and(|v| v == "portable") { Kernels::Portable } else { detect() }
    })
}

/// The fastest kernels that this processor has, whatever the environment says.
pub fn detect() -> Kernels {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512dq")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512ifma")
        && std::is_x86_feature_detected!("avx512vbmi")
    {
        return Kernels::Avx512Ifma;
    }
    Kernels::Portable
}

/// Calls `simd::PATH` or, where the processor lacks the instructions or `FHEC_KERNELS` forbids them,
/// `portable::NAME` next to the caller.
macro_rules! dispatch {
    ($module:ident :: $name:ident $(:: <$flag:literal>)? ( $($argument:expr),* $(,)? )) => {{
        #[cfg(target_arch = "x86_64")]
        if $crate::cpu::kernels() == $crate::cpu::Kernels::Avx512Ifma {
            // SAFETY: `kernels` checked the instructions that the function needs; it needs nothing else.
            return unsafe { $crate::simd::$module::$name $(::<$flag>)? ($($argument),*) };
        }
        portable::$name $(::<$flag>)? ($($argument),*)
    }};
}
pub(crate) use dispatch;
