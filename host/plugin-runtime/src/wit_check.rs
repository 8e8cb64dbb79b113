//! Compares the exports and imports of a component with the WIT package, and explains differences.

use std::fmt::Write;

use wasmtime::{
    Engine,
    component::{
        Component, Type,
        types::{ComponentFunc, ComponentItem},
    },
};

use super::{
    instance::EXPORTED_INTERFACES,
    load_error::LoadError,
    wit_versions::{PACKAGE, newest, of_package, serves},
};

/// The interface that combines two others, and those two.
const SCREENING: &str = "screening";
const SCREENED: [&str; 2] = ["validation", "transformation"];

/// The functions of the interfaces that a plugin may export, as the WIT package declares them.
const EXPORTS: &[(&str, &[&str])] = &[
    (
        "validation",
        &["validate: func(message: message) -> result<_, rejection>"],
    ),
    (
        "transformation",
        &["transform: func(message: message) -> result<outcome, rejection>"],
    ),
    (
        SCREENING,
        &["screen: func(message: message) -> result<outcome, rejection>"],
    ),
    (
        "events",
        &[
            "event-types: func() -> list<string>",
            "handle: func(message: message) -> result<list<action>, rejection>",
        ],
    ),
    (
        "requests",
        &[
            "request-types: func() -> list<string>",
            "respond: func(message: message) -> result<reply, rejection>",
        ],
    ),
    (
        "connections",
        &[
            "connected: func(client: client) -> result<list<action>, rejection>",
            "disconnected: func(client: client, how: disconnection) -> list<action>",
        ],
    ),
    (
        "rooms",
        &["authorize-join: func(client: client, room: string) -> result<_, rejection>"],
    ),
    (
        "membership",
        &[
            "joined: func(client: client, room: string, connections: u32) -> list<action>",
            "left: func(client: client, room: string, connections: u32) -> list<action>",
        ],
    ),
    (
        "lifecycle",
        &[
            "init: func(config: string) -> result<_, string>",
            "self-test: func() -> result<_, string>",
        ],
    ),
    (
        "handover",
        &[
            "save: func() -> result<snapshot, string>",
            "restore: func(snapshot: snapshot) -> result<_, string>",
        ],
    ),
];

/// The functions of the interfaces that a plugin may import.
const IMPORTS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("log", &["write"]),
    ("context", &["current-client", "node", "now", "random"]),
    (
        "store",
        &["get", "set", "remove", "increment", "compare-and-swap"],
    ),
    ("room-state", &["count", "members", "history"]),
    ("metrics", &["count", "observe"]),
];

/// The WASI packages that are linked, with everything denied.
const WASI: &[&str] = &["cli", "clocks", "filesystem", "io", "random", "sockets"];
const WASI_VERSION: &str = "0.2";

/// The depth to which a type is written out.
const TYPE_DEPTH_MAX: usize = 4;

/// The interfaces of the package that `component` exports. Other exports are tolerated: toolchains add some.
///
/// # Errors
/// Returns [`LoadError::Mismatch`] if the component exports no interface of the package, one only in another version,
/// one that lacks a function, or `screening` without the two interfaces that it combines.
pub(super) fn exported_interfaces(
    engine: &Engine,
    component: &Component,
) -> Result<Vec<&'static str>, LoadError> {
    let component_type = component.component_type();
    let (mut interfaces, mut foreign, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (name, item) in component_type.exports(engine) {
        let Some((interface, version)) = of_package(name) else {
            others.push(format!("`{name}`"));
            continue;
        };
        if !serves(version) {
            foreign.push((interface, name));
            continue;
        }
        let Some((interface, functions)) = EXPORTS.iter().find(|(known, _)| *known == interface)
        else {
            others.push(format!("`{name}`"));
            continue;
        };
        let found = functions_of(engine, &item.ty);
        let lacking = functions.iter().find(|expected| {
            let expected = name_of(expected);
            !found.iter().any(|found| name_of(found) == expected)
        });
        if let Some(lacking) = lacking {
            return mismatch(format!(
                "exports `{name}` without the function `{lacking}`; it has {}",
                listed(&found)
            ));
        }
        interfaces.push(*interface);
    }
    // A component that also exports this host's version runs here, but only if it does so for all of its interfaces.
    if let Some((_, name)) = foreign.iter().find(|(name, _)| !interfaces.contains(name)) {
        return mismatch(format!(
            "exports `{name}`, this host serves {}: build the plugin against that, or upgrade the host",
            newest()
        ));
    }
    if interfaces.is_empty() {
        return mismatch(format!(
            "exports no interface of {}: export at least one of {}; it exports {}",
            newest(),
            on_their_own().join(", "),
            if others.is_empty() {
                "nothing".to_owned()
            } else {
                others.join(", ")
            }
        ));
    }
    let lacking = SCREENED.iter().find(|name| !interfaces.contains(name));
    if let Some(lacking) = lacking.filter(|_| interfaces.contains(&SCREENING)) {
        return mismatch(format!(
            "exports `{SCREENING}` without `{lacking}`: the host calls `screen` in place of `validate` and \
             `transform` if nothing comes between them, and otherwise those two; export all three, or no \
             `{SCREENING}`"
        ));
    }
    Ok(interfaces)
}

/// The interfaces of which a plugin needs at least one.
fn on_their_own() -> Vec<&'static str> {
    let names = EXPORTED_INTERFACES.iter().copied();
    names.filter(|name| *name != SCREENING).collect()
}

/// The error for an exported interface that has all functions, but whose types differ from the host's.
pub(super) fn wrong_type(
    engine: &Engine,
    component: &Component,
    interface: &str,
    error: &wasmtime::Error,
) -> LoadError {
    let component_type = component.component_type();
    let found = component_type
        .exports(engine)
        .find(|(name, _)| of_package(name).is_some_and(|(found, _)| found == interface))
        .map(|(_, item)| functions_of(engine, &item.ty))
        .unwrap_or_default();
    let expected = EXPORTS
        .iter()
        .find(|(known, _)| *known == interface)
        .map_or(&[][..], |(_, functions)| functions);
    let expected: Vec<_> = expected.iter().map(|&text| text.to_owned()).collect();
    LoadError::Mismatch(format!(
        "exports `{PACKAGE}/{interface}` with another type than the WIT package has: expected {}, found {} ({})",
        listed(&expected),
        listed(&found),
        error.root_cause()
    ))
}

/// The imports of `component`, by name.
pub(super) fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    component
        .component_type()
        .imports(engine)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The error for a component whose imports cannot all be linked.
pub(super) fn unlinked(
    engine: &Engine,
    component: &Component,
    error: &wasmtime::Error,
) -> LoadError {
    let component_type = component.component_type();
    let first = component_type
        .imports(engine)
        .find_map(|(name, item)| not_offered(name, &functions_of(engine, &item.ty)));
    LoadError::Mismatch(first.unwrap_or_else(|| {
        format!("imports something with another type than this host offers: {error:#}")
    }))
}

/// The reason why the host does not offer this import; `None` if it does, judging by the name.
fn not_offered(name: &str, functions: &[String]) -> Option<String> {
    if let Some((interface, version)) = of_package(name) {
        let advice = "build the plugin against that, or upgrade the host";
        if !serves(version) {
            return Some(format!(
                "imports `{name}`, this host serves {}: {advice}",
                newest()
            ));
        }
        let Some((_, known)) = IMPORTS.iter().find(|(known, _)| *known == interface) else {
            let known: Vec<_> = IMPORTS.iter().map(|(name, _)| *name).collect();
            return Some(format!(
                "imports `{name}`, and {} has only {}: {advice}",
                newest(),
                known.join(", ")
            ));
        };
        let unknown = functions
            .iter()
            .find(|function| !known.contains(&name_of(function)))?;
        return Some(format!(
            "imports `{unknown}` of `{name}`, and in {} that has only {}: {advice}",
            newest(),
            known.join(", ")
        ));
    }
    let wasi = name
        .strip_prefix("wasi:")
        .and_then(|rest| rest.split_once('/'))
        .and_then(|(package, rest)| Some((package, rest.split_once('@')?.1)));
    match wasi {
        Some((package, version)) if WASI.contains(&package) => {
            let offered = version
                .strip_prefix(WASI_VERSION)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            (!offered).then(|| format!("imports `{name}`, this host offers WASI {WASI_VERSION}"))
        }
        Some(_) => Some(format!(
            "imports `{name}`, which this host does not offer; of WASI it has {}",
            WASI.join(", ")
        )),
        None => Some(format!(
            "imports `{name}`, which is neither of {PACKAGE} nor of WASI {WASI_VERSION}"
        )),
    }
}

/// The name in `name: func(...)`.
fn name_of(function: &str) -> &str {
    function.split(':').next().unwrap_or(function)
}

fn functions_of(engine: &Engine, item: &ComponentItem) -> Vec<String> {
    let ComponentItem::ComponentInstance(instance) = item else {
        return Vec::new();
    };
    let functions = instance
        .exports(engine)
        .filter_map(|(name, item)| match item.ty {
            ComponentItem::ComponentFunc(function) => {
                Some(format!("{name}: {}", signature(&function)))
            }
            _ => None,
        });
    functions.collect()
}

fn listed(functions: &[String]) -> String {
    if functions.is_empty() {
        return "no functions".to_owned();
    }
    functions
        .iter()
        .map(|function| format!("`{function}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn signature(function: &ComponentFunc) -> String {
    let parameters: Vec<_> = function
        .params()
        .map(|(name, ty)| format!("{name}: {}", type_text(&ty, TYPE_DEPTH_MAX)))
        .collect();
    let mut text = format!("func({})", parameters.join(", "));
    for result in function.results() {
        let _ = write!(text, " -> {}", type_text(&result, TYPE_DEPTH_MAX));
    }
    text
}

/// A type in WIT notation. Components do not keep the names of records and variants, so their fields and cases are
/// listed instead.
fn type_text(ty: &Type, depth: usize) -> String {
    if depth == 0 {
        return "...".to_owned();
    }
    let inner = |ty: &Type| type_text(ty, depth - 1);
    let side = |ty: Option<Type>| ty.map_or("_".to_owned(), |ty| type_text(&ty, depth - 1));
    let named = |kind: &str, names: Vec<&str>| format!("{kind} {{ {} }}", names.join(", "));
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::S8 => "s8".to_owned(),
        Type::U8 => "u8".to_owned(),
        Type::S16 => "s16".to_owned(),
        Type::U16 => "u16".to_owned(),
        Type::S32 => "s32".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::S64 => "s64".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::Float32 => "f32".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Char => "char".to_owned(),
        Type::String => "string".to_owned(),
        Type::List(list) => format!("list<{}>", inner(&list.ty())),
        Type::Option(option) => format!("option<{}>", inner(&option.ty())),
        Type::Result(result) => match (result.ok(), result.err()) {
            (None, None) => "result".to_owned(),
            (Some(ok), None) => format!("result<{}>", inner(&ok)),
            (ok, err) => format!("result<{}, {}>", side(ok), side(err)),
        },
        Type::Tuple(tuple) => {
            let types: Vec<_> = tuple.types().map(|ty| inner(&ty)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        Type::Record(record) => named("record", record.fields().map(|field| field.name).collect()),
        Type::Variant(variant) => named("variant", variant.cases().map(|case| case.name).collect()),
        Type::Enum(cases) => named("enum", cases.names().collect()),
        Type::Flags(flags) => named("flags", flags.names().collect()),
        Type::Own(_) | Type::Borrow(_) => "resource".to_owned(),
        _ => "something newer".to_owned(),
    }
}

fn mismatch<T>(what: String) -> Result<T, LoadError> {
    Err(LoadError::Mismatch(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every function in a WIT file, as `interface name: func(...)`.
    fn functions(wit: &str) -> Vec<(String, String)> {
        let mut interface = String::new();
        let mut functions = Vec::new();
        for line in wit.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("interface ") {
                interface = name.trim_end_matches('{').trim().to_owned();
            } else if line.contains(": func(") {
                functions.push((interface.clone(), line.trim_end_matches(';').to_owned()));
            }
        }
        functions
    }

    #[test]
    fn expected_types_in_errors_match_the_wit_package() {
        let package = functions(include_str!("../../../wit/exports.wit"));
        for (interface, function) in EXPORTS
            .iter()
            .flat_map(|(interface, functions)| functions.iter().map(move |f| (*interface, *f)))
        {
            let this = (interface.to_owned(), function.to_owned());
            assert!(package.contains(&this), "{interface} {function}");
        }
        let known: Vec<_> = EXPORTS.iter().map(|(interface, _)| *interface).collect();
        assert_eq!(known, EXPORTED_INTERFACES);
        let package = functions(include_str!("../../../wit/imports.wit"));
        for (interface, function) in &package {
            let known = IMPORTS.iter().find(|(known, _)| known == interface);
            assert!(
                known.is_some_and(|(_, functions)| functions.contains(&name_of(function))),
                "{interface} {function}"
            );
        }
    }

    #[test]
    fn unavailable_imports_are_distinguished() {
        let none: &[String] = &[];
        let serves = format!("serves {}", newest());
        for offered in ["signalbox:plugin/log@1.3.0", "wasi:io/poll@0.2.9"] {
            assert_eq!(not_offered(offered, none), None);
        }
        for (name, said) in [
            ("signalbox:plugin/log@2.0.0", serves.as_str()),
            ("signalbox:plugin/mail@1.1.0", "has only types, log"),
            ("wasi:http/types@0.2.0", "does not offer"),
            ("wasi:io/poll@0.3.0", "offers WASI 0.2"),
            ("acme:db/sql", "neither of"),
        ] {
            let reason = not_offered(name, none).unwrap_or_default();
            assert!(reason.contains(said) && reason.contains(name), "{reason}");
        }
        let keys = ["keys: func() -> list<string>".to_owned()];
        let reason = not_offered("signalbox:plugin/store@1.1.0", &keys).unwrap_or_default();
        assert!(reason.contains(&keys[0]), "{reason}");
    }
}
