//! The macro that exports a plugin's type from a component.

/// Exports a plugin: `export!(Type: validation, transformation, events, requests, connections, rooms, membership, handover)`,
/// with the interfaces that it implements. `lifecycle` is always exported, because it starts the instance. If both `validation`
/// and `transformation` are named, `screening` is exported too, so that the server can call both at once.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($interface:ident),+ $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, missing_docs, reason = "required by the component model's calling convention")]
        const _: () = {
            struct Component;

            ::std::thread_local! {
                static PLUGIN: ::std::cell::OnceCell<$plugin> = const { ::std::cell::OnceCell::new() };
            }

            fn plugin<R>(call: impl FnOnce(&$plugin) -> R) -> R {
                PLUGIN.with(|plugin| call(plugin.get().expect("the host calls init first")))
            }

            impl $crate::bindings::lifecycle::exports::signalbox::plugin::lifecycle::Guest for Component {
                fn init(config: String) -> Result<(), String> {
                    let plugin = <$plugin as $crate::Plugin>::init(&config)?;
                    PLUGIN.with(|place| place.set(plugin)).map_err(|_| "init was called twice".to_owned())
                }

                fn self_test() -> Result<(), String> {
                    plugin(<$plugin as $crate::Plugin>::self_test)
                }
            }
            $crate::bindings::lifecycle::export_lifecycle!(Component with_types_in $crate::bindings::lifecycle);

            $($crate::export_interface!($interface, $plugin);)+
            $crate::export_screening!($plugin, [] [] $($interface)+);
        };
    };
}

/// One interface of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_interface {
    (validation, $plugin:ty) => {
        impl $crate::bindings::validation::exports::signalbox::plugin::validation::Guest for Component {
            fn validate(message: $crate::Message) -> Result<(), $crate::Rejection> {
                plugin(|plugin| $crate::Validation::validate(plugin, &message))
            }
        }
        $crate::bindings::validation::export_validation!(Component with_types_in $crate::bindings::validation);
    };
    (transformation, $plugin:ty) => {
        impl $crate::bindings::transformation::exports::signalbox::plugin::transformation::Guest for Component {
            fn transform(message: $crate::Message) -> Result<$crate::Outcome, $crate::Rejection> {
                plugin(|plugin| $crate::Transformation::transform(plugin, &message))
            }
        }
        $crate::bindings::transformation::export_transformation!(Component with_types_in $crate::bindings::transformation);
    };
    (events, $plugin:ty) => {
        impl $crate::bindings::events::exports::signalbox::plugin::events::Guest for Component {
            fn event_types() -> Vec<String> {
                plugin(<$plugin as $crate::Events>::event_types)
            }

            fn handle(message: $crate::Message) -> Result<Vec<$crate::Action>, $crate::Rejection> {
                plugin(|plugin| $crate::Events::handle(plugin, &message))
            }
        }
        $crate::bindings::events::export_events!(Component with_types_in $crate::bindings::events);
    };
    (requests, $plugin:ty) => {
        impl $crate::bindings::requests::exports::signalbox::plugin::requests::Guest for Component {
            fn request_types() -> Vec<String> {
                plugin(<$plugin as $crate::Requests>::request_types)
            }

            fn respond(message: $crate::Message) -> Result<$crate::Reply, $crate::Rejection> {
                plugin(|plugin| $crate::Requests::respond(plugin, &message))
            }
        }
        $crate::bindings::requests::export_requests!(Component with_types_in $crate::bindings::requests);
    };
    (connections, $plugin:ty) => {
        impl $crate::bindings::connections::exports::signalbox::plugin::connections::Guest for Component {
            fn connected(client: $crate::Client) -> Result<Vec<$crate::Action>, $crate::Rejection> {
                plugin(|plugin| $crate::Connections::connected(plugin, &client))
            }

            fn disconnected(client: $crate::Client, how: $crate::Disconnection) -> Vec<$crate::Action> {
                plugin(|plugin| $crate::Connections::disconnected(plugin, &client, &how))
            }
        }
        $crate::bindings::connections::export_connections!(Component with_types_in $crate::bindings::connections);
    };
    (rooms, $plugin:ty) => {
        impl $crate::bindings::rooms::exports::signalbox::plugin::rooms::Guest for Component {
            fn authorize_join(client: $crate::Client, room: String) -> Result<(), $crate::Rejection> {
                plugin(|plugin| $crate::Rooms::authorize_join(plugin, &client, &room))
            }
        }
        $crate::bindings::rooms::export_rooms!(Component with_types_in $crate::bindings::rooms);
    };
    (membership, $plugin:ty) => {
        impl $crate::bindings::membership::exports::signalbox::plugin::membership::Guest for Component {
            fn joined(client: $crate::Client, room: String, connections: u32) -> Vec<$crate::Action> {
                plugin(|plugin| $crate::Membership::joined(plugin, &client, &room, connections))
            }

            fn left(client: $crate::Client, room: String, connections: u32) -> Vec<$crate::Action> {
                plugin(|plugin| $crate::Membership::left(plugin, &client, &room, connections))
            }
        }
        $crate::bindings::membership::export_membership!(Component with_types_in $crate::bindings::membership);
    };
    (handover, $plugin:ty) => {
        impl $crate::bindings::handover::exports::signalbox::plugin::handover::Guest for Component {
            fn save() -> Result<$crate::Snapshot, String> {
                plugin(<$plugin as $crate::Handover>::save)
            }

            fn restore(snapshot: $crate::Snapshot) -> Result<(), String> {
                plugin(|plugin| $crate::Handover::restore(plugin, snapshot))
            }
        }
        $crate::bindings::handover::export_handover!(Component with_types_in $crate::bindings::handover);
    };
}

/// Exports `screening` for a plugin of [`export!`] that both validates and transforms. Walks the list of interfaces and
/// records whether it contains each of the two.
#[doc(hidden)]
#[macro_export]
macro_rules! export_screening {
    ($plugin:ty, [validation] [transformation] $($rest:ident)*) => {
        impl $crate::bindings::screening::exports::signalbox::plugin::screening::Guest for Component {
            fn screen(message: $crate::Message) -> Result<$crate::Outcome, $crate::Rejection> {
                plugin(|plugin| $crate::Transformation::screen(plugin, &message))
            }
        }
        $crate::bindings::screening::export_screening!(Component with_types_in $crate::bindings::screening);
    };
    ($plugin:ty, [$($validation:ident)?] [$($transformation:ident)?] validation $($rest:ident)*) => {
        $crate::export_screening!($plugin, [validation] [$($transformation)?] $($rest)*);
    };
    ($plugin:ty, [$($validation:ident)?] [$($transformation:ident)?] transformation $($rest:ident)*) => {
        $crate::export_screening!($plugin, [$($validation)?] [transformation] $($rest)*);
    };
    ($plugin:ty, [$($validation:ident)?] [$($transformation:ident)?] $other:ident $($rest:ident)*) => {
        $crate::export_screening!($plugin, [$($validation)?] [$($transformation)?] $($rest)*);
    };
    ($plugin:ty, [$($validation:ident)?] [$($transformation:ident)?]) => {};
}
