#![doc = include_str!("../README.md")]

mod client;
mod core;
mod error;
mod events;
mod frames;
mod options;
mod outgoing;
mod room;
mod socket;
mod task;

pub use client::Client;
pub use error::{Error, TokenError, codes};
pub use events::{
    Answer, Event, Events, Member, Message, Page, Presence, Session, State, StateChange,
};
pub use options::{JoinOptions, Offline, Options};
pub use outgoing::Outgoing;
pub use room::Room;
