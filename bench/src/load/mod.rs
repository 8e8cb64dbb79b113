//! The load generator: connects, sends with a fixed window or at a fixed rate, and checks what arrives.
//!
//! Flow: [`LoadArgs`] (command line) → [`Plan`] (checked) → [`run()`] → [`Report`]. Closed loop means that each side of a
//! pair keeps a fixed number of messages in flight. Open loop means that messages are sent at fixed times regardless of
//! the server. Its latency is measured from the time at which a message was due, so that a server cannot hide a stall.
//!
//! Each kind of server has a module in `protocol`. Messages are not fully parsed: a received message is only searched for
//! its two numbers, the send time and the sequence number. Every message is accounted for: the report counts messages that
//! were lost, duplicated or reordered.

mod clock;
mod connect;
mod endpoint;
mod message;
mod options;
mod order;
mod pace;
mod plan;
mod protocol;
mod report;
mod run;
mod tally;

pub use options::LoadArgs;
pub use plan::Plan;
pub use report::{Latency, Report};
pub use run::run;
