//! Faults that use resources without end, and the actions that report the result.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use signalbox_plugin::{Action, Destination, Draft, context};

pub fn answer(payload: &str) -> Action {
    draft("answer", payload)
}

pub fn draft(event_type: &str, payload: &str) -> Action {
    Action::Send(Draft {
        event_type: event_type.to_owned(),
        destination: Some(Destination::Sender),
        payload: payload.to_owned(),
    })
}

pub fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Spins for this many milliseconds of wall-clock time.
pub fn spin_for(ms: u64) {
    let until = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < until {
        black_box(());
    }
}

pub fn sleep(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

pub fn allocate() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}

pub fn allocate_at_once() {
    let _kept = black_box(Vec::<u8>::with_capacity(1 << 30));
}

#[allow(unconditional_recursion)]
pub fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1)) + 1)
}

/// Asks the host for the time in an endless loop.
pub fn call_the_host() -> ! {
    loop {
        black_box(context::now());
    }
}
