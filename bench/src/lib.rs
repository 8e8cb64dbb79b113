//! A load generator for WebSocket message servers, and a minimal relay as the baseline to compare them with.
//!
//! Layers, from the bottom: [`frame`] reads and writes RFC 6455 frames, [`handshake`] opens a connection from either
//! side, [`socket`] moves bytes between a TCP stream and the frame codec. [`load`] is built on these three. [`relay`]
//! shares nothing with it, so that a fault in one cannot mask a fault in the other. [`bursts`] measures a room to which everything happens at
//! once. [`soak`] injects failures into two
//! nodes under load and accounts for every message.
//!
//! Invariants: an idle connection owns no read buffer (each thread has one, shared by its connections). Every buffer that
//! a peer can fill has an upper bound.

pub mod frame;
pub mod handshake;
pub mod socket;

pub mod relay;

pub mod bursts;
mod client;
pub mod load;
pub mod soak;
