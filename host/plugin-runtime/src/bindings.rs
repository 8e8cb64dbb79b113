//! Rust types and calls for the WIT package in `wit/`.
//!
//! One `bindgen!` of the world that exports everything generates the imports, the types, and for each exported
//! interface a `GuestIndices`, whose `new` fails on a component that does not have the interface. So optional exports
//! need no separate world.

// The WIT files document the generated code.
#![allow(missing_docs, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "full",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "signalbox:plugin/store": async,
        "signalbox:plugin/room-state": async,
        default: trappable,
    },
    exports: { default: async },
});

pub(super) use self::{exports::signalbox::plugin as exported, signalbox::plugin as imported};

/// A made-up next version of the package, which this host serves only in its tests: see [`super::wit_versions`].
#[cfg(test)]
pub(super) mod next {
    wasmtime::component::bindgen!({
        path: "tests/wit-1.1.0",
        world: "next",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
        exports: { default: async },
    });
}
