//! A plugin that counts messages in memory and hands the count over to the next version. Tests replace its stamp in the
//! component, as with the guest `stamp`; a stamp that names a fault makes a version with that fault.
//!
//! It answers `count` with the count, the stamp, and whether this instance validated the message. At `count.panic` it
//! panics, unless the payload names another stamp. It delivers other messages of `count.*`. If it is configured with
//! `migrate`, it migrates the values of an earlier version when it starts. A slow version waits until the store has the
//! key `open`.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    hint::black_box,
    thread::sleep,
    time::Duration,
};

use serde_json::json;
use signalbox_plugin::{
    Action, Destination, Draft, Events, Handover, Message, Plugin, Rejection, Snapshot, Validation,
    store::{self, StoreError},
};

/// Occurs once in the component, so that tests can find and replace it.
static STAMP: [u8; 16] = *b"STAMP-0000000000";

/// Reads the stamp at run time: the compiler must not fold the constant, because tests replace it.
fn stamp() -> &'static str {
    std::str::from_utf8(black_box(&STAMP)).unwrap_or("not text")
}

/// The format of the saved state.
const FORMAT: u32 = 1;

struct Counter {
    count: Cell<u64>,
    /// Messages that this instance has validated and not handled yet.
    under_way: RefCell<BTreeSet<String>>,
}

impl Plugin for Counter {
    fn init(config: &str) -> Result<Self, String> {
        if stamp() == "STAMP-0init-slow" {
            until_open()?;
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

/// Moves the values that earlier versions stored under `name` to `names`. Every instance runs this; after the first one
/// there is nothing left to move.
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
            // If the payload names a stamp, only that version panics.
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

/// Waits until the store has the key `open`.
fn until_open() -> Result<(), String> {
    while store::get("open")
        .map_err(|error| format!("the store does not answer: {error}"))?
        .is_none()
    {
        sleep(Duration::from_millis(2));
    }
    Ok(())
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
            "STAMP-0save-slow" => until_open()?,
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
            "STAMP-restore-sl" => until_open()?,
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
