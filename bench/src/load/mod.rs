//! The load generator: connects, sends at a fixed window or a fixed rate, and checks what arrives.
//!
//! Flow: [`LoadArgs`] (command line) → [`Plan`] (checked) → [`run`] → [`Report`]. Closed loop means that each side of a pair
//! keeps a fixed number of messages in flight; open loop means that messages leave at fixed times whatever the server does,
//! with latency measured from the time at which a message was due, so that a server that stalls cannot hide it.
//!
//! Nothing is parsed that need not be: a received message is searched for its two numbers, the send time and the sequence
//! number. Every message is accounted for: what was lost, came twice or in the wrong order is in the report.

mod clock;
mod connect;
mod endpoint;
mod error;
mod limits;
mod message;
mod options;
mod order;
mod pace;
mod plan;
mod process;
mod report;
mod run;
mod tally;

pub use error::LoadError;
pub use limits::raise_open_files_limit;
pub use options::LoadArgs;
pub use plan::{Mode, Plan, Site, Target};
pub(crate) use process::resident_bytes;
pub use report::{Latency, Report};
pub use run::run;
