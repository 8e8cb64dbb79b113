//! A load generator for WebSocket message servers, and a minimal relay as the baseline to compare them with.
//!
//! Layers, from the bottom: `frame` reads and writes RFC 6455 frames, `handshake` opens a connection, `socket` moves bytes
//! between a TCP stream and the frame codec. [`load`] is built on these three. [`relay`] shares nothing with it, so that a
//! fault in one cannot mask a fault in the other. [`bursts`] measures a room to which everything happens at once. [`soak`]
//! injects failures into nodes under load and accounts for every message.
//!
//! Invariants: an idle connection owns no read buffer (each thread has one, shared by its connections). Every buffer that
//! a peer can fill has an upper bound.

mod client;
mod exchange;
mod frame;
mod handshake;
mod process;
mod socket;

pub mod bursts;
pub mod load;
pub mod relay;
pub mod soak;

pub use process::raise_open_files_limit;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose value stays valid even if a thread panicked while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
