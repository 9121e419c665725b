//! One file per subcommand.

mod ablation;
pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod decrypt;
pub(crate) mod demo;
mod digit;
pub(crate) mod encrypt;
pub(crate) mod explain;
pub(crate) mod infer;
pub(crate) mod keygen;
mod plot;
pub(crate) mod results;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod simulate;
