//! A plugin that does what no plugin should: what it does is the event type, and for the start the configuration.

use signalbox_plugin::{
    Action, Destination, Draft, Events, Message, Plugin, Rejection, log, store,
};

struct Hostile;

impl Plugin for Hostile {
    fn init(config: &str) -> Result<Self, String> {
        match config {
            r#"{"init":"panic"}"# => panic!("init panics"),
            r#"{"init":"refuse"}"# => Err("size: must be small".to_owned()),
            r#"{"init":"loop"}"# => spin(),
            _ => Ok(Self),
        }
    }
}

impl Events for Hostile {
    fn event_types(&self) -> Vec<String> {
        vec!["hostile.*".to_owned()]
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        match message.event_type.trim_start_matches("hostile.") {
            "loop" => spin(),
            "alloc" => allocate(),
            "panic" => panic!("handle panics"),
            "recurse" => return Ok(vec![answer(&recurse(message.timestamp).to_string())]),
            "sleep" => std::thread::sleep(std::time::Duration::from_secs(10)),
            "actions" => return Ok(vec![Action::Deliver; 100_000]),
            "output" => return Ok(vec![answer(&format!("\"{}\"", "x".repeat(4 << 20)))]),
            "json" => return Ok(vec![answer("{not json")]),
            "reserved" => return Ok(vec![draft("welcome", "1")]),
            "type" => return Ok(vec![draft(&"x".repeat(65), "1")]),
            "code" => return Err(Rejection::new("Not A Code", "")),
            "logs" => (0..1_000).for_each(|_| log::write(log::Level::Info, &"x".repeat(4096))),
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
            "outside" => return Ok(vec![answer(&outside())]),
            _ => {}
        }
        Ok(vec![answer("\"done\"")])
    }
}

/// What of the world outside can be seen: must be nothing.
fn outside() -> String {
    let file = std::fs::read("/etc/passwd").is_ok();
    let network = std::net::TcpStream::connect("127.0.0.1:1")
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    format!(
        "[{},{},{file},{network}]",
        std::env::vars().count(),
        std::env::args().count()
    )
}

fn answer(payload: &str) -> Action {
    draft("answer", payload)
}

fn draft(event_type: &str, payload: &str) -> Action {
    Action::Send(Draft {
        event_type: event_type.to_owned(),
        destination: Some(Destination::Sender),
        payload: payload.to_owned(),
    })
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn allocate() {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(depth + 1)) + 1)
}

signalbox_plugin::export!(Hostile: events);
