#![doc = include_str!("../README.md")]

mod channel;
mod client;
mod core;
mod error;
#[cfg(feature = "sse")]
mod event_stream;
mod events;
mod frames;
#[cfg(feature = "sse")]
mod http;
mod options;
mod outgoing;
mod room;
mod socket;
#[cfg(feature = "sse")]
mod stream;
mod task;

pub use client::Client;
pub use error::{Error, TokenError, codes};
pub use events::{
    Answer, Event, Events, Member, Message, Page, Presence, Session, State, StateChange, Transport,
};
pub use options::{JoinOptions, Offline, Options};
pub use outgoing::Outgoing;
pub use room::Room;
