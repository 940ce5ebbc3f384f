//! Scripts of calls.
