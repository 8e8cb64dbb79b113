//! A plugin that counts validated messages in memory, hands the count over, and logs the counts that it saved and
//! restored. It is used for measurements, whose messages it counts.
//!
//! A component whose stamp was replaced by `STAMP-trap-` and five digits works at first, and from [`GOOD_MS`] after its
//! first message on traps at every fifth message. The digits tell such versions apart.

use std::{
    cell::{Cell, OnceCell},
    hint::black_box,
};

use signalbox_plugin::{
    Handover, Message, Plugin, Rejection, Snapshot, Validation, context,
    log::{self, Level},
    store,
};

/// Occurs once in the component, so that it can be found and replaced to make a version that traps.
static STAMP: [u8; 16] = *b"STAMP-0000000000";

/// How long a version that traps works first, in milliseconds: long enough to see which version was live before it.
const GOOD_MS: u64 = 300;

/// Such a version traps at every message with this interval.
const TRAP_EVERY: u64 = 5;

/// The format of the saved state.
const FORMAT: u32 = 1;

#[derive(Default)]
struct Tally {
    count: Cell<u64>,
    bad_from: OnceCell<u64>,
}

/// Reads the stamp at run time: the compiler must not fold the constant, because it is replaced in the component.
fn stamp() -> &'static str {
    std::str::from_utf8(black_box(&STAMP)).unwrap_or("not text")
}

impl Tally {
    /// When this version begins to trap. All its instances share that time.
    fn bad_from(&self) -> u64 {
        *self.bad_from.get_or_init(|| {
            let known = store::get(stamp()).ok().flatten();
            if let Some(Ok(bytes)) = known.map(<[u8; 8]>::try_from) {
                return u64::from_le_bytes(bytes);
            }
            let from = context::now() + GOOD_MS;
            // Two instances that race here write nearly the same time.
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
