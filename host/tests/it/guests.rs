//! Components for tests: built guests, variants of them, and some that no toolchain produces.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::harness::guest;

/// The placeholder for the stamp in the guests `stamp`, `counter` and `concierge`.
const STAMP: &[u8] = b"STAMP-0000000000";

/// Limits that no call of a test reaches on a loaded machine, for tests that are not about time.
pub(crate) const PATIENT: &str = "call_cpu_max = \"10s\"\ncall_time_max = \"25s\"\n";

/// A guest of `host/tests/guests`.
pub(crate) fn component(name: &str) -> Vec<u8> {
    std::fs::read(guest(name)).expect("`cargo xtask plugins --guests` makes it")
}

/// A version of the `stamp` guest: `stamp`, at most 10 bytes, replaces `0000000000`.
pub(crate) fn stamped(stamp: &str) -> Vec<u8> {
    stamped_guest("stamp", stamp)
}

/// A version of the `counter` guest, made like those of [`stamped`].
pub(crate) fn counter(stamp: &str) -> Vec<u8> {
    stamped_guest("counter", stamp)
}

/// A version of the `concierge` guest, made like those of [`stamped`].
pub(crate) fn concierge_version(stamp: &str) -> Vec<u8> {
    stamped_guest("concierge", stamp)
}

/// The stamp as the guest reports it.
pub(crate) fn stamp_of(stamp: &str) -> String {
    format!("STAMP-{stamp:0>10}")
}

fn stamped_guest(name: &str, stamp: &str) -> Vec<u8> {
    let Stampable { mut bytes, place } = stampable(name);
    let text = stamp_of(stamp);
    assert_eq!(text.len(), STAMP.len(), "{stamp} is too long");
    bytes[place..][..STAMP.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// A guest, and the place of the stamp in it.
#[derive(Clone)]
struct Stampable {
    bytes: Vec<u8>,
    place: usize,
}

/// Reads and searches each guest once, because the search takes long.
fn stampable(name: &str) -> Stampable {
    static FOUND: Mutex<BTreeMap<String, Stampable>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let find = || {
        let bytes = component(name);
        let places: Vec<_> = (0..=bytes.len() - STAMP.len())
            .filter(|at| bytes[*at..].starts_with(STAMP))
            .collect();
        assert_eq!(places.len(), 1, "the stamp stands in the component once");
        let place = places[0];
        Stampable { bytes, place }
    };
    found.entry(name.to_owned()).or_insert_with(find).clone()
}

/// The version number in a stamp of the `stamp` guest.
pub(crate) fn stamp_number(stamp: &str) -> u64 {
    stamp
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{stamp} has no number"))
}

/// A component from its text format.
pub(crate) fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// An interface without any function.
pub(crate) fn without_function(name: &str) -> Vec<u8> {
    wat(&format!(
        r#"(component (instance $i) (export "{name}" (instance $i)))"#
    ))
}

/// `validation` whose `validate` takes a string and returns a bool.
pub(crate) fn wrong_type() -> Vec<u8> {
    of_a_text("validation", "validate")
}

/// `screening` without the interfaces that it combines.
pub(crate) fn screening_alone() -> Vec<u8> {
    of_a_text("screening", "screen")
}

/// An interface with a function that takes a string and returns a bool.
fn of_a_text(interface: &str, function: &str) -> Vec<u8> {
    wat(&format!(
        r#"(component
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
            (func (export "f") (param i32 i32) (result i32) i32.const 1))
        (core instance $c (instantiate $m))
        (func $f (param "text" string) (result bool)
            (canon lift (core func $c "f") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (instance $i (export "{function}" (func $f)))
        (export "signalbox:plugin/{interface}@1.0.0" (instance $i)))"#
    ))
}

/// `validation` alone, which refuses nothing.
pub(crate) fn accepting() -> Vec<u8> {
    wat(r#"(component
        (import "signalbox:plugin/types@1.0.0" (instance $types
            (type $to (variant (case "sender") (case "user" string) (case "room" string) (case "everyone")))
            (export "destination" (type $destination (eq $to)))
            (type $m (record (field "id" string) (field "event-type" string) (field "sender" string)
                (field "destination" (option $destination)) (field "payload" string) (field "timestamp" u64)))
            (export "message" (type (eq $m)))
            (type $r (record (field "code" string) (field "reason" string)))
            (export "rejection" (type (eq $r)))))
        (alias export $types "message" (type $message))
        (alias export $types "rejection" (type $rejection))
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "validate")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) i32.const 0))
        (core instance $c (instantiate $m))
        (func $validate (param "message" $message) (result (result (error $rejection)))
            (canon lift (core func $c "validate") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (instance $i (export "validate" (func $validate)))
        (export "signalbox:plugin/validation@1.0.0" (instance $i)))"#)
}

/// `lifecycle` that accepts everything, with `more` before it and `memory_pages` of memory.
pub(crate) fn agreeable(more: &str, memory_pages: u32) -> Vec<u8> {
    agreeable_of("1.0.0", more, memory_pages)
}

/// As [`agreeable`], for another version of the WIT package.
pub(crate) fn agreeable_of(version: &str, more: &str, memory_pages: u32) -> Vec<u8> {
    wat(&format!(
        r#"(component
        {more}
        (core module $m
            (memory (export "memory") {memory_pages})
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "init") (param i32 i32) (result i32) i32.const 0)
            (func (export "self-test") (result i32) i32.const 0))
        (core instance $c (instantiate $m))
        (type $said (result (error string)))
        (func $init (param "config" string) (result $said)
            (canon lift (core func $c "init") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (func $self-test (result $said)
            (canon lift (core func $c "self-test") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (instance $i (export "init" (func $init)) (export "self-test" (func $self-test)))
        (export "signalbox:plugin/lifecycle@{version}" (instance $i)))"#
    ))
}

/// An import of the interface `name` with one function that the host does not have.
pub(crate) fn import(name: &str) -> String {
    format!(
        r#"(import "{name}" (instance (export "list-keys" (func (param "prefix" string) (result (list string))))))"#
    )
}
