//! The table of faults in plugin calls, with the answer to each.

use serde_json::{Value, json};

/// A fault in a plugin call.
pub(super) struct Fault {
    /// A description of the attempt.
    pub(super) what: &'static str,
    /// The event type that triggers it: `hostile.X` for the guest of that name, `malformed.X` for a component that no
    /// toolchain produces.
    pub(super) event_type: &'static str,
    /// Size of the payload.
    pub(super) payload_bytes: usize,
    pub(super) answer: Answer,
}

/// The outcome of the call.
pub(super) enum Answer {
    /// It fails, and counts as a failure of this kind.
    Fails(&'static str),
    /// It answers this: the attempt has no effect, and the plugin continues.
    Says(fn() -> Value),
}

impl Fault {
    /// The message that triggers the fault.
    pub(super) fn message(&self) -> Value {
        let payload = "x".repeat(self.payload_bytes);
        json!({"type": self.event_type, "id": "1", "payload": payload, "receiverId": "ann"})
    }

    /// Whether it uses all of its time limit.
    pub(super) fn takes_all_time(&self) -> bool {
        matches!(self.answer, Answer::Fails("deadline"))
    }

    /// The plugin that has this fault.
    pub(super) fn plugin(&self) -> &'static str {
        let plugin = self.event_type.split('.').next();
        plugin.unwrap_or_default()
    }
}

const fn fails(what: &'static str, event_type: &'static str, kind: &'static str) -> Fault {
    Fault {
        what,
        event_type,
        payload_bytes: 1,
        answer: Answer::Fails(kind),
    }
}

const fn says(what: &'static str, event_type: &'static str, answer: fn() -> Value) -> Fault {
    Fault {
        what,
        event_type,
        payload_bytes: 1,
        answer: Answer::Says(answer),
    }
}

/// All faults, with the answers that `docs/plugins.md` promises.
#[rustfmt::skip]
pub(super) const FAULTS: [Fault; 49] = [
    fails("a loop", "hostile.loop", "deadline"),
    fails("a flood of calls to the host", "hostile.host-calls", "deadline"),
    fails("sleeping by a clock of WASI", "hostile.sleep", "deadline"),
    fails("recursion without end", "hostile.recurse", "trap"),
    fails("a panic", "hostile.panic", "trap"),
    fails("ending the process", "hostile.exit", "trap"),

    fails("memory, by growth", "hostile.alloc", "memory"),
    fails("memory, at once", "hostile.alloc-at-once", "memory"),
    fails("all memory that addresses can name", "malformed.h", "memory"),
    fails("a table of a million", "malformed.g", "memory"),
    fails("timers that the host holds", "hostile.timers", "trap"),
    fails("a terabyte of random bytes", "hostile.random", "trap"),

    fails("a huge text", "hostile.output", "output"),
    fails("a huge list", "hostile.actions", "output"),
    fails("one text of 60,000 bytes, 200 times", "malformed.p", "output"),
    fails("one action too many", "hostile.many", "output"),
    fails("JSON that is nested too deep", "hostile.deep", "output"),
    fails("JSON that is none", "hostile.json", "output"),
    fails("JSON that is none, of a transformation", "hostile.transform.json", "output"),
    fails("an event type of the server's own", "hostile.reserved", "output"),
    fails("an event type that is too long", "hostile.type", "output"),
    fails("a room without a name", "hostile.room", "output"),
    fails("a close code of the protocol", "hostile.close", "output"),
    fails("a code that is misspelled", "hostile.code", "output"),
    fails("a panic in validation", "hostile.validate.panic", "trap"),

    fails("a text that is no UTF-8", "malformed.a", "trap"),
    fails("a text of -1 bytes", "malformed.b", "trap"),
    fails("a text at -1", "malformed.c", "trap"),
    fails("an answer beyond the memory", "malformed.d", "trap"),
    fails("an answer at an odd address", "malformed.e", "trap"),
    fails("a result that is neither", "malformed.f", "trap"),
    fails("a log line of -1 bytes", "malformed.i", "trap"),
    fails("a log line that is no UTF-8", "malformed.j", "trap"),
    fails("a value of -1 bytes for the store", "malformed.k", "trap"),
    fails("a log level that there is not", "malformed.l", "trap"),
    fails("an address beyond the memory, for the host to write to", "malformed.m", "trap"),
    fails("a list of -1 actions", "malformed.n", "trap"),
    fails("a list whose size wraps around", "malformed.o", "trap"),
    fails("an action that there is not", "malformed.q", "trap"),
    fails("a payload that is no UTF-8", "malformed.r", "trap"),
    fails("a payload that ends beyond the memory", "malformed.s", "trap"),
    Fault {
        what: "room for the message beyond the memory",
        event_type: "malformed.z",
        payload_bytes: 40_000,
        answer: Answer::Fails("trap"),
    },

    says("a flood of log lines", "hostile.logs", || json!("done")),
    says("a flood of printed lines", "hostile.prints", || json!("done")),
    says("a flood of metrics", "hostile.metrics", || json!("done")),
    says("a flood of calls to the store, of which 32 are served", "hostile.store", || json!(68)),
    says("a flood of values, of which 16 have room", "hostile.fill", || json!(16)),
    says("reading the environment, files and the network", "hostile.outside", ||
        json!([0, 0, false, false, false, false, false, false, false])),
    says("computing and sleeping in turn", "hostile.spin-and-sleep", || json!("done")),
];
