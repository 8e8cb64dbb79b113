//! A load generator for WebSocket message servers, and the relay that marks the floor they are compared with.
//!
//! Layers, from the bottom: [`frame`] reads and writes RFC 6455 frames, [`handshake`] opens a connection from either side,
//! [`socket`] moves bytes between a TCP stream and the frame codec. [`relay`] and [`load`] stand beside each other on these
//! three and know nothing of one another, so that a fault in one cannot hide in the other. [`soak`] is a storm around two
//! nodes, and accounts for every message.
//!
//! Invariants: a connection at rest owns no read buffer (one for each thread serves them all); everything that one read
//! brought leaves with one write for each receiver; every buffer that a peer can fill has an upper bound.

pub mod frame;
pub mod handshake;
pub mod socket;

pub mod relay;
pub mod stock_relay;

pub mod load;
pub mod soak;
