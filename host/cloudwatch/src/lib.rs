//! Pushes metrics to CloudWatch, once per interval.
//!
//! [`collector`] compares the [`readings`](signalbox_telemetry::metrics::readings) with the previous ones: an [`interval`] holds the
//! difference. Intervals wait in the [`backlog`] until CloudWatch has taken them, at most an hour. [`encoder`] turns
//! them into requests within CloudWatch's limits, and [`client`] sends those with the AWS SDK. [`pusher`] is the task
//! that does all this, and [`outage`] logs its state.
//!
//! Nothing here is on the path of a message, and only the shutdown waits for it, within the drain time.

mod backlog;
mod client;
mod collector;
mod encoder;
mod interval;
mod outage;
mod pusher;

pub use pusher::{Pusher, ReadMetrics};
