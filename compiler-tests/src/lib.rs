//! Shared helpers of the compiler's tests.
