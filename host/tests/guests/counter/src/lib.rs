//! A plugin that counts messages in its memory, and hands the count over to the next version. Its stamp is replaced in the
//! component, as with the guest `stamp`; stamps that name a fault make a version with that fault.
//!
//! `count` is answered with the count, the stamp, and whether the message was validated by this instance; `count.panic`
//! panics, unless its payload names another stamp. Other messages of `count.*` are delivered. Configured with `migrate` it changes at the start what an earlier version
//! stored.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    hint::black_box,
    time::{Duration, Instant},
};

use serde_json::json;
use signalbox_plugin::{
    Action, Destination, Draft, Events, Handover, Message, Plugin, Rejection, Snapshot, Validation,
    store::{self, StoreError},
};

/// Stands in the component once. Tests look for it.
static STAMP: [u8; 16] = *b"STAMP-0000000000";

/// As it is in the component that runs, whatever the compiler knows about it.
fn stamp() -> &'static str {
    std::str::from_utf8(black_box(&STAMP)).unwrap_or("not text")
}

/// The format of what is saved.
const FORMAT: u32 = 1;

struct Counter {
    count: Cell<u64>,
    /// Messages that were validated here and not handled yet.
    under_way: RefCell<BTreeSet<String>>,
}

impl Plugin for Counter {
    fn init(config: &str) -> Result<Self, String> {
        if stamp() == "STAMP-0init-slow" {
            spin_for(Duration::from_secs(1));
        }
        if config.contains("migrate") {
            migrate().map_err(|error| format!("the store could not be migrated: {error}"))?;
        }
        Ok(Self {
            count: Cell::new(0),
            under_way: RefCell::default(),
        })
    }
}

/// Keeps under `names` what earlier versions kept under `name`. Runs in each instance, so the second time it finds nothing.
fn migrate() -> Result<(), StoreError> {
    if let Some(name) = store::get("name")? {
        store::compare_and_swap("names", None, &[&b"["[..], &name, b"]"].concat(), None)?;
        store::remove("name")?;
    }
    Ok(())
}

impl Validation for Counter {
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        if message.event_type == "count" {
            self.under_way.borrow_mut().insert(message.id.clone());
        }
        Ok(())
    }
}

impl Events for Counter {
    fn event_types(&self) -> Vec<String> {
        vec!["count".to_owned(), "count.panic".to_owned()]
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        if message.event_type != "count" {
            // Named, a version panics alone.
            let named = message.payload.contains("STAMP-");
            assert!(named && !message.payload.contains(stamp()), "told to panic");
            return Ok(Vec::new());
        }
        self.count.set(self.count.get() + 1);
        let known = self.under_way.borrow_mut().remove(&message.id);
        let counted = json!({"count": self.count.get(), "stamp": stamp(), "known": known});
        let draft = Draft::new("counted", Destination::Sender, &counted)?;
        Ok(vec![Action::Send(draft)])
    }
}

fn spin() {
    black_box(());
}

fn spin_for(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        spin();
    }
}

impl Handover for Counter {
    fn save(&self) -> Result<Snapshot, String> {
        let mut data = self.count.get().to_le_bytes().to_vec();
        match stamp() {
            "STAMP-save-panic" => panic!("this version panics when it saves"),
            "STAMP-save-refus" => return Err("this version saves nothing".to_owned()),
            "STAMP-0save-huge" => data.resize(8 << 20, 0),
            "STAMP-0save-loop" => loop {
                spin();
            },
            "STAMP-0save-slow" => spin_for(Duration::from_secs(2)),
            _ => {}
        }
        if !self.under_way.borrow().is_empty() {
            return Err("a message is under way".to_owned());
        }
        Ok(Snapshot {
            format: FORMAT,
            data,
        })
    }

    fn restore(&self, snapshot: Snapshot) -> Result<(), String> {
        match stamp() {
            "STAMP-restore-no" => return Err("this version cannot read that".to_owned()),
            "STAMP-restore-pa" => panic!("this version panics when it restores"),
            "STAMP-restore-lo" => loop {
                spin();
            },
            "STAMP-restore-sl" => spin_for(Duration::from_secs(2)),
            _ => {}
        }
        match (snapshot.format, snapshot.data.try_into()) {
            (FORMAT, Ok(bytes)) => self.count.set(u64::from_le_bytes(bytes)),
            (format, _) => return Err(format!("cannot read format {format}")),
        }
        Ok(())
    }
}

signalbox_plugin::export!(Counter: validation, events, handover);
