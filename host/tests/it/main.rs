//! Real nodes, real sockets, the real chat plugin.

mod api;
mod broker;
mod deploy;
mod harness;
mod hostile;
mod limits;
mod redis;
mod redis_compat;
mod redis_delivery;
mod redis_fleet;
mod redis_outage;
mod redis_routes;
mod store_contract;
mod store_redis;
mod structure;
mod swap;
mod wire;
