//! A plugin that misbehaves. The last part of the event type selects the fault: `hostile.X` in `handle`,
//! `hostile.validate.X` in `validate`, `hostile.transform.X` in `transform`. For connections it is the user `bad-X`,
//! for rooms the name of the room, and for the start the configuration.

mod faults;
mod outside;

use faults::{allocate, allocate_at_once, answer, draft, recurse, spin};
use signalbox_plugin::{
    Action, Client, Connections, Destination, Disconnection, Draft, Events, Message, Outcome,
    Plugin, Rejection, Rooms, Transformation, Validation, log, metrics, store,
};

struct Hostile {
    event_types: Vec<String>,
    self_test: String,
    /// Whether it passes the self-test and then fails every call.
    lies: bool,
}

/// The value of `key` in a configuration with string values only.
fn configured<'c>(config: &'c str, key: &str) -> &'c str {
    let value = config.split(&format!("\"{key}\":\"")).nth(1);
    value.and_then(|rest| rest.split('"').next()).unwrap_or("")
}

impl Plugin for Hostile {
    fn init(config: &str) -> Result<Self, String> {
        match configured(config, "init") {
            "panic" => panic!("init panics"),
            "refuse" => return Err("size: must be small".to_owned()),
            "loop" => spin(),
            "alloc" => allocate(),
            "recurse" => return Err(recurse(0).to_string()),
            "sleep" => faults::sleep(600_000),
            _ => {}
        }
        let event_types = match configured(config, "event_types") {
            "" => vec!["hostile.*".to_owned()],
            "many" => (0..257).map(|number| format!("t{number}")).collect(),
            "forged" => vec!["x\nERROR y".to_owned()],
            other => vec![other.to_owned()],
        };
        let self_test = configured(config, "self_test").to_owned();
        Ok(Self {
            event_types,
            lies: self_test == "lie",
            self_test,
        })
    }

    fn self_test(&self) -> Result<(), String> {
        match self.self_test.as_str() {
            "fail" => Err("two and two were five".to_owned()),
            "panic" => panic!("self-test panics"),
            "loop" => spin(),
            "talk" => Err("x".repeat(500_000)),
            _ => Ok(()),
        }
    }
}

/// Faults that work in any interface.
fn fail(how: &str) -> Result<(), Rejection> {
    match how {
        "panic" => panic!("a call panics"),
        "loop" => spin(),
        "code" => return Err(Rejection::new("Not A Code", "")),
        _ => {}
    }
    Ok(())
}

impl Validation for Hostile {
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        message
            .event_type
            .strip_prefix("hostile.validate.")
            .map_or(Ok(()), fail)
    }
}

impl Transformation for Hostile {
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection> {
        let changed = |event_type: &str, destination: Option<Destination>, payload: &str| {
            Ok(Outcome::Changed(Draft {
                event_type: event_type.to_owned(),
                destination,
                payload: payload.to_owned(),
            }))
        };
        match message.event_type.strip_prefix("hostile.transform.") {
            Some("json") => changed("answer", None, "{not json"),
            Some("reserved") => changed("ack", None, "1"),
            Some("user") => changed("answer", Some(Destination::User(String::new())), "1"),
            Some(how) => fail(how).map(|()| Outcome::Unchanged),
            None => Ok(Outcome::Unchanged),
        }
    }
}

impl Connections for Hostile {
    fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection> {
        fail(client.user.strip_prefix("bad-").unwrap_or_default())?;
        Ok(Vec::new())
    }

    fn disconnected(&self, client: &Client, _: &Disconnection) -> Vec<Action> {
        match client.user.as_str() {
            "leaves-panic" => panic!("disconnected panics"),
            "leaves-actions" => vec![Action::Deliver; 100_000],
            _ => Vec::new(),
        }
    }
}

impl Rooms for Hostile {
    fn authorize_join(&self, _: &Client, room: &str) -> Result<(), Rejection> {
        fail(room)
    }
}

impl Events for Hostile {
    fn event_types(&self) -> Vec<String> {
        self.event_types.clone()
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        let fault = message.event_type.trim_start_matches("hostile.");
        assert!(!self.lies, "the self-test said otherwise");
        match fault {
            "alloc" => allocate(),
            "alloc-at-once" => allocate_at_once(),
            "recurse" => return Ok(vec![answer(&recurse(message.timestamp).to_string())]),
            "sleep" => faults::sleep(600_000),
            "spin-and-sleep" => (0..5).for_each(|_| {
                faults::spin_for(3);
                faults::sleep(5);
            }),
            "spin-and-wait" => {
                faults::spin_for(50);
                // Signals that it is about to sleep.
                let _ = store::set("asleep", b"1", None);
                faults::sleep(20_000);
            }
            "spin-a-little" => faults::spin_for(5),
            "exit" => std::process::exit(0),
            "actions" => return Ok(vec![Action::Deliver; 100_000]),
            "many" => return Ok(vec![Action::Deliver; 257]),
            "output" => return Ok(vec![answer(&format!("\"{}\"", "x".repeat(4 << 20)))]),
            "json" => return Ok(vec![answer("{not json")]),
            "deep" => {
                return Ok(vec![answer(&format!(
                    "{}{}",
                    "[".repeat(101),
                    "]".repeat(101)
                ))]);
            }
            "reserved" => return Ok(vec![draft("welcome", "1")]),
            "type" => return Ok(vec![draft(&"x".repeat(65), "1")]),
            "room" => return Ok(vec![Action::Join(String::new())]),
            "close" => {
                return Ok(vec![
                    answer("\"half of it\""),
                    Action::Disconnect(Disconnection {
                        code: 1000,
                        reason: String::new(),
                    }),
                ]);
            }
            "logs" => (0..1_000).for_each(|_| log::write(log::Level::Info, &"x".repeat(4096))),
            "prints" => (0..1_000).for_each(|line| println!("{line}")),
            "metrics" => {
                (0..1_000).for_each(|index| metrics::count(&format!("flood_{index}"), 1));
                metrics::observe("No Name", f64::NAN);
            }
            "store" => {
                let refused = (0..100)
                    .filter(|_| store::get("k") == Err(store::StoreError::TooManyCalls))
                    .count();
                return Ok(vec![answer(&refused.to_string())]);
            }
            "count" => {
                let sum = match store::increment("n", 1, None) {
                    Ok(sum) => sum.to_string(),
                    Err(store::StoreError::Unavailable) => "\"unavailable\"".to_owned(),
                    Err(error) => panic!("{error}"),
                };
                return Ok(vec![answer(&sum)]);
            }
            "fill" => {
                let refused = (0..32).filter(|number| {
                    let set = store::set(&format!("fill-{number}"), &[b'x'; 60 << 10], None);
                    set == Err(store::StoreError::TooLarge)
                });
                return Ok(vec![answer(&refused.count().to_string())]);
            }
            "host-calls" => faults::call_the_host(),
            "random" => outside::random_bytes(1 << 40),
            "timers" => outside::hold_timers(),
            "outside" => return Ok(vec![answer(&outside::seen())]),
            how => fail(how)?,
        }
        Ok(vec![answer("\"done\"")])
    }
}

signalbox_plugin::export!(Hostile: validation, transformation, connections, rooms, events);
