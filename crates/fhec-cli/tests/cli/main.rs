//! The built command, from outside: what it prints, writes and returns.

mod common;
mod failures;
mod hostile;
mod listings;
mod road;
