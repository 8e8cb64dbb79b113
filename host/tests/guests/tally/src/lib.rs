//! A plugin that counts in memory what it validates, hands the count over, and says in the log what it saved and what it
//! restored. For measurements, in which its count shows what went through it.
//!
//! A component in which the stamp was replaced by `STAMP-trap-` and five digits is a version that is good at first, and
//! traps at every fifth message from [`GOOD_MS`] after its first one on. The digits tell such versions apart.

use std::{
    cell::{Cell, OnceCell},
    hint::black_box,
};

use signalbox_plugin::{
    Handover, Message, Plugin, Rejection, Snapshot, Validation, context,
    log::{self, Level},
    store,
};

/// Stands in the component once. Who wants a version that traps looks for it.
static STAMP: [u8; 16] = *b"STAMP-0000000000";

/// How long a version that traps is good, in milliseconds: time to look at what was live before it.
const GOOD_MS: u64 = 300;

/// Which messages such a version traps at.
const TRAP_EVERY: u64 = 5;

/// The format of what is saved.
const FORMAT: u32 = 1;

#[derive(Default)]
struct Tally {
    count: Cell<u64>,
    bad_from: OnceCell<u64>,
}

/// As it is in the component that runs, whatever the compiler knows about it.
fn stamp() -> &'static str {
    std::str::from_utf8(black_box(&STAMP)).unwrap_or("not text")
}

impl Tally {
    /// When this version, of which this is one instance of many, begins to trap.
    fn bad_from(&self) -> u64 {
        *self.bad_from.get_or_init(|| {
            let known = store::get(stamp()).ok().flatten();
            if let Some(Ok(bytes)) = known.map(<[u8; 8]>::try_from) {
                return u64::from_le_bytes(bytes);
            }
            let from = context::now() + GOOD_MS;
            // Two instances that come at the same time write nearly the same.
            let _ = store::set(stamp(), &from.to_le_bytes(), None);
            from
        })
    }
}

impl Plugin for Tally {
    fn init(_: &str) -> Result<Self, String> {
        Ok(Self::default())
    }
}

impl Validation for Tally {
    fn validate(&self, _: &Message) -> Result<(), Rejection> {
        let count = self.count.get() + 1;
        self.count.set(count);
        let may_trap = stamp().starts_with("STAMP-trap-") && count.is_multiple_of(TRAP_EVERY);
        assert!(!may_trap || context::now() < self.bad_from(), "told to trap");
        Ok(())
    }
}

impl Handover for Tally {
    fn save(&self) -> Result<Snapshot, String> {
        let count = self.count.get();
        log::write(Level::Info, &format!("saved {count}"));
        Ok(Snapshot {
            format: FORMAT,
            data: count.to_le_bytes().to_vec(),
        })
    }

    fn restore(&self, snapshot: Snapshot) -> Result<(), String> {
        match (snapshot.format, snapshot.data.try_into()) {
            (FORMAT, Ok(bytes)) => self.count.set(u64::from_le_bytes(bytes)),
            (format, _) => return Err(format!("cannot read format {format}")),
        }
        log::write(Level::Info, &format!("restored {}", self.count.get()));
        Ok(())
    }
}

signalbox_plugin::export!(Tally: validation, handover);
