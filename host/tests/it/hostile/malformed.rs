//! Components that no toolchain produces: their answers are malformed in ways that no language allows.

use crate::guests::wat;

/// The types, and the functions of the host that these components call.
const IMPORTS: &str = r#"
    (import "signalbox:plugin/types@1.0.0" (instance $types
        (type $to (variant (case "sender") (case "user" string) (case "room" string) (case "everyone")))
        (export "destination" (type $destination (eq $to)))
        (type $m (record (field "id" string) (field "event-type" string) (field "sender" string)
            (field "destination" (option $destination)) (field "payload" string) (field "timestamp" u64)))
        (export "message" (type (eq $m)))
        (type $d (record (field "event-type" string) (field "destination" (option $destination))
            (field "payload" string)))
        (export "draft" (type $draft (eq $d)))
        (type $r (record (field "code" string) (field "reason" string)))
        (export "rejection" (type (eq $r)))
        (type $x (record (field "code" u16) (field "reason" string)))
        (export "disconnection" (type $disconnection (eq $x)))
        (type $a (variant (case "deliver") (case "send" $draft) (case "announce" $draft) (case "join" string)
            (case "leave" string) (case "disconnect" $disconnection)))
        (export "action" (type (eq $a)))))
    (import "signalbox:plugin/log@1.0.0" (instance $log
        (type $l (enum "debug" "info" "warn" "error"))
        (export "level" (type $level (eq $l)))
        (export "write" (func (param "level" $level) (param "line" string)))))
    (import "signalbox:plugin/store@1.0.0" (instance $store
        (type $e (enum "too-large" "not-a-number" "too-many-calls" "unavailable"))
        (export "store-error" (type $error (eq $e)))
        (export "set" (func (param "key" string) (param "value" (list u8)) (param "ttl-seconds" (option u32))
            (result (result (error $error)))))))
    (alias export $types "message" (type $message))
    (alias export $types "rejection" (type $rejection))
    (alias export $types "action" (type $action))
"#;

/// Two pages of memory. A block of more than 32 KiB is allocated beyond their end.
const MEMORY: &str = r#"
    (core module $libc
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 4096))
        (func (export "reset") (global.set $next (i32.const 4096)))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (if (i32.gt_u (local.get 3) (i32.const 32768)) (then (return (i32.const -8))))
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.set $next (i32.add (local.get $at) (local.get 3)))
            (local.get $at)))
    (core instance $libc (instantiate $libc))
    (core func $write (canon lower (func $log "write") (memory (core memory $libc "memory"))))
    (core func $set (canon lower (func $store "set") (memory (core memory $libc "memory"))))
"#;

/// The last letter of the event type selects the fault: `a` to `m` in `validate`, `n` to `y` in `handle`.
const CALLS: &str = r#"
    (core module $m
        (import "libc" "memory" (memory 2))
        (import "libc" "reset" (func $reset))
        (import "host" "write" (func $write (param i32 i32 i32)))
        (import "host" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))
        (table $table 1 funcref)
        (data (i32.const 64) "\ff\fe")
        (data (i32.const 80) "ok")
        (data (i32.const 96) "malformed.*")

        (func $is (param $fault i32) (param $letter i32) (result i32) (i32.eq (local.get $fault) (local.get $letter)))
        ;; The last letter of the event type.
        (func $fault (param $text i32) (param $len i32) (result i32)
            (i32.load8_u (i32.sub (i32.add (local.get $text) (local.get $len)) (i32.const 1))))
        ;; An error whose code is this text.
        (func $error (param $text i32) (param $len i32) (result i32)
            (i32.store8 (i32.const 0) (i32.const 1))
            (i32.store (i32.const 4) (local.get $text))
            (i32.store (i32.const 8) (local.get $len))
            (i32.store (i32.const 12) (i32.const 80))
            (i32.store (i32.const 16) (i32.const 2))
            (i32.const 0))
        ;; A list of so many actions, from 8192 on.
        (func $actions (param $len i32) (result i32)
            (i32.store8 (i32.const 0) (i32.const 0))
            (i32.store (i32.const 4) (i32.const 8192))
            (i32.store (i32.const 8) (local.get $len))
            (i32.const 0))
        ;; Writes `send` to the place of an action: an event type and a payload, to the sender.
        (func $send (param $at i32) (param $type i32) (param $payload i32) (param $len i32)
            (i32.store8 (local.get $at) (i32.const 1))
            (i32.store (i32.add (local.get $at) (i32.const 4)) (local.get $type))
            (i32.store (i32.add (local.get $at) (i32.const 8)) (i32.const 2))
            (i32.store8 (i32.add (local.get $at) (i32.const 12)) (i32.const 1))
            (i32.store8 (i32.add (local.get $at) (i32.const 16)) (i32.const 0))
            (i32.store (i32.add (local.get $at) (i32.const 28)) (local.get $payload))
            (i32.store (i32.add (local.get $at) (i32.const 32)) (local.get $len)))

        (func (export "validate")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32)
            (local $fault i32)
            (call $reset)
            (local.set $fault (call $fault (local.get 2) (local.get 3)))
            ;; A text that is no UTF-8.
            (if (call $is (local.get $fault) (i32.const 0x61)) (then (return (call $error (i32.const 64) (i32.const 2)))))
            ;; A length of -1, and an address of -1.
            (if (call $is (local.get $fault) (i32.const 0x62)) (then (return (call $error (i32.const 80) (i32.const -1)))))
            (if (call $is (local.get $fault) (i32.const 0x63)) (then (return (call $error (i32.const -1) (i32.const 1)))))
            ;; An answer beyond the memory, and one at an odd address.
            (if (call $is (local.get $fault) (i32.const 0x64)) (then (return (i32.const -4))))
            (if (call $is (local.get $fault) (i32.const 0x65)) (then (return (i32.const 3))))
            ;; Neither a yes nor a no.
            (if (call $is (local.get $fault) (i32.const 0x66))
                (then (i32.store8 (i32.const 0) (i32.const 7)) (return (i32.const 0))))
            ;; A table of a million.
            (if (call $is (local.get $fault) (i32.const 0x67))
                (then (drop (table.grow $table (ref.null func) (i32.const 1000000)))))
            ;; All the memory that addresses can name, at once.
            (if (call $is (local.get $fault) (i32.const 0x68)) (then (drop (memory.grow (i32.const 65000)))))
            ;; To the host: a line of -1 bytes, one that is no UTF-8, a value of -1 bytes, a level that there is not.
            (if (call $is (local.get $fault) (i32.const 0x69))
                (then (call $write (i32.const 1) (i32.const 80) (i32.const -1))))
            (if (call $is (local.get $fault) (i32.const 0x6a))
                (then (call $write (i32.const 1) (i32.const 64) (i32.const 2))))
            (if (call $is (local.get $fault) (i32.const 0x6b))
                (then (call $set (i32.const 80) (i32.const 2) (i32.const 80) (i32.const -1)
                    (i32.const 0) (i32.const 0) (i32.const 1024))))
            (if (call $is (local.get $fault) (i32.const 0x6c))
                (then (call $write (i32.const 99) (i32.const 80) (i32.const 2))))
            ;; Where the host is to write its answer.
            (if (call $is (local.get $fault) (i32.const 0x6d))
                (then (call $set (i32.const 80) (i32.const 2) (i32.const 80) (i32.const 2)
                    (i32.const 0) (i32.const 0) (i32.const -4))))
            (i32.store8 (i32.const 0) (i32.const 0))
            (i32.const 0))

        (func (export "event-types") (result i32)
            (i32.store (i32.const 32) (i32.const 96))
            (i32.store (i32.const 36) (i32.const 11))
            (i32.store (i32.const 40) (i32.const 32))
            (i32.store (i32.const 44) (i32.const 1))
            (i32.const 40))

        (func (export "handle")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32)
            (local $fault i32) (local $number i32)
            (call $reset)
            (local.set $fault (call $fault (local.get 2) (local.get 3)))
            ;; -1 actions, and so many that their bytes wrap around to few.
            (if (call $is (local.get $fault) (i32.const 0x6e)) (then (return (call $actions (i32.const -1)))))
            (if (call $is (local.get $fault) (i32.const 0x6f)) (then (return (call $actions (i32.const 477218589)))))
            ;; 200 messages that all have the same 60,000 bytes.
            (if (call $is (local.get $fault) (i32.const 0x70)) (then
                (memory.fill (i32.const 65536) (i32.const 0x31) (i32.const 60000))
                (loop $more
                    (call $send
                        (i32.add (i32.const 8192) (i32.mul (local.get $number) (i32.const 36)))
                        (i32.const 80) (i32.const 65536) (i32.const 60000))
                    (local.set $number (i32.add (local.get $number) (i32.const 1)))
                    (br_if $more (i32.lt_u (local.get $number) (i32.const 200))))
                (return (call $actions (i32.const 200)))))
            ;; An action that there is not.
            (if (call $is (local.get $fault) (i32.const 0x71))
                (then (i32.store8 (i32.const 8192) (i32.const 9)) (return (call $actions (i32.const 1)))))
            ;; A payload that is no UTF-8, and one that begins in the memory and ends beyond it.
            (if (call $is (local.get $fault) (i32.const 0x72)) (then
                (call $send (i32.const 8192) (i32.const 80) (i32.const 64) (i32.const 2))
                (return (call $actions (i32.const 1)))))
            (if (call $is (local.get $fault) (i32.const 0x73)) (then
                (call $send (i32.const 8192) (i32.const 80) (i32.const 131064) (i32.const 16))
                (return (call $actions (i32.const 1)))))
            (call $send (i32.const 8192) (i32.const 80) (i32.const 112) (i32.const 1))
            (i32.store8 (i32.const 112) (i32.const 0x31))
            (call $actions (i32.const 1))))
    (core instance $c (instantiate $m
        (with "libc" (instance $libc))
        (with "host" (instance (export "write" (func $write)) (export "set" (func $set))))))
"#;

const EXPORTS: &str = r#"
    (func $validate (param "message" $message) (result (result (error $rejection)))
        (canon lift (core func $c "validate")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
    (func $event-types (result (list string))
        (canon lift (core func $c "event-types")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
    (func $handle (param "message" $message) (result (result (list $action) (error $rejection)))
        (canon lift (core func $c "handle")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
    (instance $v (export "validate" (func $validate)))
    (export "signalbox:plugin/validation@1.0.0" (instance $v))
    (instance $e (export "event-types" (func $event-types)) (export "handle" (func $handle)))
    (export "signalbox:plugin/events@1.0.0" (instance $e))
"#;

/// A plugin whose calls give malformed answers.
pub(super) fn in_calls() -> Vec<u8> {
    wat(&format!("(component {IMPORTS}{MEMORY}{CALLS}{EXPORTS})"))
}

/// `lifecycle` whose module has `members`, which may be a start function; `init` and `self-test` succeed.
pub(super) fn starting_with(members: &str) -> Vec<u8> {
    lifecycle(members, "(i32.const 0)")
}

/// `lifecycle` whose `init` refuses with a text that is not valid UTF-8.
pub(super) fn refusing_in_no_text() -> Vec<u8> {
    let refuse = "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const 64)) \
                  (i32.store (i32.const 8) (i32.const 2)) (i32.const 0)";
    lifecycle(r#"(data (i32.const 64) "\ff\fe")"#, refuse)
}

fn lifecycle(members: &str, init: &str) -> Vec<u8> {
    wat(&format!(
        r#"(component
        (core module $m
            (memory (export "memory") 1)
            {members}
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "init") (param i32 i32) (result i32) {init})
            (func (export "self-test") (result i32) i32.const 0))
        (core instance $c (instantiate $m))
        (type $said (result (error string)))
        (func $init (param "config" string) (result $said)
            (canon lift (core func $c "init") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (func $self-test (result $said)
            (canon lift (core func $c "self-test") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (instance $i (export "init" (func $init)) (export "self-test" (func $self-test)))
        (export "signalbox:plugin/lifecycle@1.0.0" (instance $i)))"#
    ))
}

pub(super) fn many(count: usize, members: &str) -> String {
    let instances = "(core instance (instantiate $one))".repeat(count);
    format!("(core module $one {members}) {instances}")
}

/// Nested components, `depth` deep, as bytes: the text format does not allow such depth.
pub(super) fn nested(depth: usize) -> Vec<u8> {
    const HEADER: [u8; 8] = *b"\0asm\x0d\0\x01\0";
    /// The ID of a section that holds a component.
    const COMPONENT: u8 = 4;
    let mut bytes = HEADER.to_vec();
    for _ in 0..depth {
        let mut outer = HEADER.to_vec();
        outer.push(COMPONENT);
        let mut length = bytes.len();
        while length > 0x7f {
            outer.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut bytes);
        bytes = outer;
    }
    bytes
}

/// `validation` whose `validate` takes a record with this many fields with long names.
pub(super) fn long_winded(fields: usize) -> Vec<u8> {
    let fields: String = (0..fields)
        .map(|number| format!(r#"(field "{}-x{number}" u8)"#, "a".repeat(80)))
        .collect();
    wat(&format!(
        r#"(component
        (type $r (record {fields}))
        (export $record "record" (type $r))
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "f") (param i32) (result i32) i32.const 0))
        (core instance $c (instantiate $m))
        (func $f (param "message" $record) (result bool)
            (canon lift (core func $c "f") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
        (instance $i (export "validate" (func $f)) (export "record" (type $record)))
        (export "signalbox:plugin/validation@1.0.0" (instance $i)))"#
    ))
}
