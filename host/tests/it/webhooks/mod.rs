//! Events for backends.

mod delivery;
mod events;
mod nodes;
pub(crate) mod receiver;
mod worker;
