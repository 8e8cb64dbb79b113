//! Pushes figures to CloudWatch, once in an interval.
//!
//! [`collector`] compares what [`readings`](crate::metrics::readings) gives with what it gave before: an [`interval`] holds
//! what was counted in between. Intervals wait in the [`backlog`] until CloudWatch has taken them, an hour at most.
//! [`encoder`] makes requests of them within CloudWatch's limits, and [`client`] sends those by the AWS SDK. [`pusher`] is the
//! task that does all this, and [`outage`] says in the log how it goes, once.
//!
//! Nothing here is on the way of a message, and nothing waits for it but the end of the process, within the drain time.

mod backlog;
mod client;
mod collector;
mod encoder;
mod interval;
mod outage;
mod pusher;

pub use pusher::{Pusher, Read};
