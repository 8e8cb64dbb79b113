//! The bindings that `wit-bindgen` generates from the WIT package: one set for the imports and the shared types, and
//! one for each interface that a plugin may export.
//!
//! Exports of a WIT world are not optional, but a plugin exports only the interfaces that it wants. So each interface
//! has its own world here. A plugin links the worlds that it names in [`export!`](macro@crate::export), and the linker merges
//! them into the world of the component. All of them share the types of [`imports`].

#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]

pub mod imports {
    wit_bindgen::generate!({
        path: "wit",
        world: "signalbox:plugin/imports",
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

/// Bindings of one exported interface, whose `export!` macro is called `$export`.
macro_rules! exported {
    ($module:ident, $export:literal, $world:literal, $inline:literal $(, $with:ident)?) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "wit",
                inline: $inline,
                world: $world,
                with: { $("signalbox:plugin/types@1.0.0": crate::bindings::imports::signalbox::plugin::$with)? },
                pub_export_macro: true,
                export_macro_name: $export,
            });
        }
    };
}

exported!(
    validation,
    "export_validation",
    "signalbox:sdk-validation/only-validation",
    "package signalbox:sdk-validation; world only-validation { export signalbox:plugin/validation@1.0.0; }",
    types
);
exported!(
    transformation,
    "export_transformation",
    "signalbox:sdk-transformation/only-transformation",
    "package signalbox:sdk-transformation; world only-transformation { export signalbox:plugin/transformation@1.0.0; }",
    types
);
exported!(
    screening,
    "export_screening",
    "signalbox:sdk-screening/only-screening",
    "package signalbox:sdk-screening; world only-screening { export signalbox:plugin/screening@1.0.0; }",
    types
);
exported!(
    events,
    "export_events",
    "signalbox:sdk-events/only-events",
    "package signalbox:sdk-events; world only-events { export signalbox:plugin/events@1.0.0; }",
    types
);
exported!(
    requests,
    "export_requests",
    "signalbox:sdk-requests/only-requests",
    "package signalbox:sdk-requests; world only-requests { export signalbox:plugin/requests@1.0.0; }",
    types
);
exported!(
    connections,
    "export_connections",
    "signalbox:sdk-connections/only-connections",
    "package signalbox:sdk-connections; world only-connections { export signalbox:plugin/connections@1.0.0; }",
    types
);
exported!(
    rooms,
    "export_rooms",
    "signalbox:sdk-rooms/only-rooms",
    "package signalbox:sdk-rooms; world only-rooms { export signalbox:plugin/rooms@1.0.0; }",
    types
);
exported!(
    membership,
    "export_membership",
    "signalbox:sdk-membership/only-membership",
    "package signalbox:sdk-membership; world only-membership { export signalbox:plugin/membership@1.0.0; }",
    types
);
exported!(
    lifecycle,
    "export_lifecycle",
    "signalbox:sdk-lifecycle/only-lifecycle",
    "package signalbox:sdk-lifecycle; world only-lifecycle { export signalbox:plugin/lifecycle@1.0.0; }"
);
exported!(
    handover,
    "export_handover",
    "signalbox:sdk-handover/only-handover",
    "package signalbox:sdk-handover; world only-handover { export signalbox:plugin/handover@1.0.0; }"
);
