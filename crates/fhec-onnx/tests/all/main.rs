//! Models written by hand, through import and the f64 interpreter.

mod common;
mod formats;
mod mutate;
mod operators;
mod opsets;
mod patterns;
mod refusals;
