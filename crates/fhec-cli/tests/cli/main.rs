//! The built command, from outside: what it prints, writes and returns.

mod accuracy;
mod aided;
mod cifar;
mod common;
mod compare;
mod failures;
mod hostile;
mod listings;
mod long;
mod measures;
mod memory;
mod road;
mod serving;
