//! A server and its clients over loopback: what the protocol promises, and what strangers can do.

#[path = "../../../fhec-runtime/tests/common/mod.rs"]
mod plans;

mod crowd;
mod hostile;
mod parties;
mod restart;
mod road;
mod rounds;
mod streamed;
