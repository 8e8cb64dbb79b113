//! Server-sent events: the same sessions over plain HTTP.

mod client;
mod haproxy;
mod nodes;
mod posts;
mod refusals;
mod stream;

/// Histories of users.
const HISTORY: &str = "[users]\nhistory = { size = 1000, time = \"5m\" }\n";
