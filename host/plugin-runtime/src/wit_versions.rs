//! The versions of the WIT package that this host serves, side by side.
//!
//! WIT is structural: if a record gains a field, plugins that were built before no longer match. So published versions
//! stay, and changes come as another version of the package alongside them. A component names the version of each
//! interface in its exports, and the host calls it by that version for as long as the component lives. The rest of the
//! host knows one set of types, those of [`bindings::imported`](super::bindings::imported).
//!
//! To serve another version, add its bindings to [`super::bindings`], its imports to [`link`], and a line to
//! [`SERVED`]. Replace each interface whose types changed by a module that calls it in the version that a component
//! names, and translates. The tests make this host serve a made-up 1.1.0 in that way; [`validation`] is the interface
//! that changed. An interface that did not change needs nothing: names with the same major version are interchangeable.

use wasmtime::{
    Engine,
    component::{HasSelf, Linker},
};

#[cfg(not(test))]
pub(super) use super::bindings::exported::validation;
use super::{bindings::Full, host::HostState};

/// The name of the package.
pub(super) const PACKAGE: &str = "signalbox:plugin";

/// The versions that this host serves, the newest last.
pub(super) const SERVED: &[&str] = if cfg!(test) {
    &["1.0.0", "1.1.0"]
} else {
    &["1.0.0"]
};

/// Links everything that a component may import.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    link(&mut linker)?;
    Ok(linker)
}

/// Links the imports of every version.
fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    #[cfg(test)]
    super::bindings::next::Next::add_to_linker::<_, HasSelf<HostState>>(linker, |state| state)?;
    Full::add_to_linker::<_, HasSelf<HostState>>(linker, |state| state)
}

/// The interface and the version, if `name` belongs to the package. The version is empty if `name` has none.
pub(super) fn of_package(name: &str) -> Option<(&str, &str)> {
    let interface = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(interface.split_once('@').unwrap_or((interface, "")))
}

/// Whether this host serves a version that is interchangeable with `version`: one with the same major version.
pub(super) fn serves(version: &str) -> bool {
    SERVED.iter().any(|served| major(served) == major(version))
}

/// The package name with the newest version that is served.
pub(super) fn newest() -> String {
    format!("{PACKAGE}@{}", SERVED[SERVED.len() - 1])
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}

#[cfg(test)]
pub(super) use tests::validation;

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use signalbox_config::{InstanceMode, OnFailure, PluginConfig, PluginLimits};
    use signalbox_telemetry::metrics::Metrics;

    use super::*;
    use crate::{
        CompilePriority, GuestMessage, LoadError, Loader, MemoryStore, PluginVersion, Rejection,
        Transformed, bindings::next,
    };

    /// `validation` in both versions, behind the types of the older one.
    pub(crate) mod validation {
        use wasmtime::{
            Result, Store,
            component::{Instance, InstancePre},
        };

        use super::{super::of_package, next, next::signalbox::plugin::types as newer};
        use crate::{
            bindings::{exported, imported::types as raw},
            host::HostState,
        };

        #[derive(Clone)]
        pub(crate) enum GuestIndices {
            Older(exported::validation::GuestIndices),
            Newer(next::exports::signalbox::plugin::validation::GuestIndices),
        }

        pub(crate) enum Guest {
            Older(exported::validation::Guest),
            Newer(next::exports::signalbox::plugin::validation::Guest),
        }

        impl GuestIndices {
            /// Selects by the version that the component names: a lookup by name alone finds any with the same major
            /// version.
            pub(crate) fn new(component: &InstancePre<HostState>) -> Result<Self> {
                let ty = component.component().component_type();
                let named = |version| {
                    let mut exports = ty.exports(component.engine());
                    exports.any(|(name, _)| of_package(name) == Some(("validation", version)))
                };
                if named("1.1.0") {
                    let newer = next::exports::signalbox::plugin::validation::GuestIndices::new;
                    return newer(component).map(Self::Newer);
                }
                exported::validation::GuestIndices::new(component).map(Self::Older)
            }

            pub(crate) fn load(
                &self,
                store: &mut Store<HostState>,
                instance: &Instance,
            ) -> Result<Guest> {
                match self {
                    Self::Older(indices) => indices.load(store, instance).map(Guest::Older),
                    Self::Newer(indices) => indices.load(store, instance).map(Guest::Newer),
                }
            }
        }

        impl Guest {
            pub(crate) async fn call_validate(
                &self,
                store: &mut Store<HostState>,
                message: raw::Message<'_>,
            ) -> Result<Result<(), raw::Rejection>> {
                match self {
                    Self::Older(guest) => guest.call_validate(store, message).await,
                    Self::Newer(guest) => {
                        let answer = guest.call_validate(store, newer_message(&message)).await?;
                        Ok(answer.map_err(|newer| raw::Rejection {
                            code: newer.code,
                            reason: newer.reason,
                        }))
                    }
                }
            }
        }

        fn newer_message<'m>(older: &raw::Message<'m>) -> newer::Message<'m> {
            newer::Message {
                id: older.id,
                event_type: older.event_type,
                sender: older.sender,
                destination: older.destination.as_ref().map(|to| match to {
                    raw::DestinationParam::Sender => newer::Destination::Sender,
                    raw::DestinationParam::User(user) => newer::Destination::User(user),
                    raw::DestinationParam::Room(room) => newer::Destination::Room(room),
                    raw::DestinationParam::Everyone => newer::Destination::Everyone,
                }),
                payload: older.payload,
                timestamp: older.timestamp,
                payload_bytes: u32::try_from(older.payload.len()).unwrap_or(u32::MAX),
            }
        }
    }

    impl next::signalbox::plugin::types::Host for HostState {}

    impl next::signalbox::plugin::context::Host for HostState {
        fn node(&mut self) -> wasmtime::Result<String> {
            Ok("node".to_owned())
        }

        fn now(&mut self) -> wasmtime::Result<u64> {
            Ok(0)
        }

        fn random(&mut self) -> wasmtime::Result<u32> {
            Ok(0)
        }

        fn age(&mut self) -> wasmtime::Result<u64> {
            Ok(7)
        }
    }

    /// A plugin built for 1.1.0. It traps unless it gets the new field and the new import works, and it rejects
    /// payloads of three bytes.
    const NEWER: &str = r#"(component
        (import "signalbox:plugin/types@1.1.0" (instance $types
            (type $to (variant (case "sender") (case "user" string) (case "room" string) (case "everyone")))
            (export "destination" (type $destination (eq $to)))
            (type $m (record (field "id" string) (field "event-type" string) (field "sender" string)
                (field "destination" (option $destination)) (field "payload" string) (field "timestamp" u64)
                (field "payload-bytes" u32)))
            (export "message" (type (eq $m)))
            (type $r (record (field "code" string) (field "reason" string) (field "retry-after" (option u32))))
            (export "rejection" (type (eq $r)))))
        (import "signalbox:plugin/context@1.1.0" (instance $context (export "age" (func (result u64)))))
        (alias export $types "message" (type $message))
        (alias export $types "rejection" (type $rejection))
        (core func $age (canon lower (func $context "age")))
        (core module $m
            (import "host" "age" (func $age (result i64)))
            (memory (export "memory") 1)
            (data (i32.const 64) "three")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "validate")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32) (result i32)
                (if (i64.ne (call $age) (i64.const 7)) (then unreachable))
                (if (i32.ne (local.get 11) (local.get 13)) (then unreachable))
                (i32.store8 (i32.const 0) (i32.eq (local.get 13) (i32.const 3)))
                (i32.store (i32.const 4) (i32.const 64)) (i32.store (i32.const 8) (i32.const 5))
                (i32.store (i32.const 12) (i32.const 64)) (i32.store (i32.const 16) (i32.const 5))
                (i32.store8 (i32.const 20) (i32.const 1)) (i32.store (i32.const 24) (i32.const 60))
                (i32.const 0)))
        (core instance $c (instantiate $m (with "host" (instance (export "age" (func $age))))))
        (func $validate (param "message" $message) (result (result (error $rejection)))
            (canon lift (core func $c "validate") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (instance $i (export "validate" (func $validate)))
        (export "signalbox:plugin/validation@1.1.0" (instance $i)))"#;

    async fn load(loader: &Loader, bytes: &[u8]) -> Result<Arc<PluginVersion>, LoadError> {
        let config = PluginConfig {
            name: "p".to_owned(),
            path: "p.wasm".into(),
            events: vec!["*".to_owned()],
            on_failure: OnFailure::Reject,
            instances: InstanceMode::Pool { max: 2, min: 1 },
            limits: PluginLimits {
                call_cpu_max: Duration::from_secs(10),
                call_time_max: Duration::from_secs(25),
                ..PluginLimits::default()
            },
            rollout: None,
            config_json: "{}".to_owned(),
        };
        loader
            .load(&Arc::new(config), bytes.into(), CompilePriority::Full)
            .await
    }

    fn loader() -> Loader {
        let (store, metrics) = (Arc::<MemoryStore>::default(), Arc::<Metrics>::default());
        Loader::new("n", None, store, metrics).expect("the engine starts")
    }

    fn message(payload: &str) -> GuestMessage<'_> {
        GuestMessage {
            id: "1",
            event_type: "chat_message",
            sender: "ann",
            destination: None,
            payload,
            timestamp: 0,
        }
    }

    fn refusal(code: &str, reason: &str) -> Rejection {
        Rejection {
            code: code.to_owned(),
            reason: reason.to_owned(),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_plugin_built_for_an_older_version_keeps_running_after_the_host_has_learned_a_newer_one()
     {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins/chat.wasm");
        let older = std::fs::read(path).expect("`cargo xtask plugins` makes it");
        assert_eq!(SERVED, ["1.0.0", "1.1.0"]);
        let loader = loader();
        let newer = wat::parse_str(NEWER).expect("it is right");
        let newer = load(&loader, &newer).await.expect("it is admitted");
        let older = load(&loader, &older).await.expect("it is still admitted");
        assert!(older.validates() && older.transforms() && older.screens());
        // Alternately in one host: each plugin is called through the version that it was built for.
        for _ in 0..3 {
            let verdict = older.validate(None, message(r#""hi""#)).await;
            assert_eq!(verdict.expect("it answers"), Ok(()));
            let verdict = older.screen(None, message(r#"" hi ""#)).await;
            match verdict.expect("it answers") {
                Ok(Transformed::Changed(draft)) => assert_eq!(draft.payload, r#""hi""#),
                other => panic!("{other:?}"),
            }
            let verdict = older.validate(None, message(r#""""#)).await;
            assert!(verdict.expect("it answers").is_err());
            let verdict = newer.validate(None, message("1234")).await;
            assert_eq!(verdict.expect("it answers"), Ok(()));
            let verdict = newer.validate(None, message("123")).await;
            let refused = refusal("three", "three");
            assert_eq!(verdict.expect("it answers"), Err(refused));
        }
    }

    #[tokio::test]
    async fn a_version_that_is_neither_of_those_served_is_refused_by_name() {
        let loader = loader();
        let later = NEWER.replace("@1.1.0", "@2.0.0");
        let later = wat::parse_str(&later).expect("it is right");
        let refused = load(&loader, &later).await.expect_err("it is refused");
        let (said, served) = (refused.to_string(), newest());
        assert!(
            said.contains("validation@2.0.0") && said.contains(&served),
            "{said}"
        );
    }
}
