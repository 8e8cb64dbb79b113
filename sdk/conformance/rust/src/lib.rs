//! The conformance plugin for cases.json, in Rust.

use std::cell::Cell;

use signalbox_plugin::{
    Action, Client, Connections, Destination, Disconnection, Draft, Events, Handover, Membership, Message,
    Outcome, Plugin, Rejection, Reply, Requests, Rooms, Snapshot, Transformation, Validation, context,
    export, log, metrics, payload,
    room_state::{self, RoomError},
    store,
};

struct Conformance {
    config: Box<Raw>,
    /// Counts messages in memory.
    hits: Cell<u32>,
}

type Raw = serde_json::value::RawValue;
type Value = serde_json::Value;

impl Plugin for Conformance {
    fn init(config: &str) -> Result<Self, String> {
        let config = Raw::from_string(config.to_owned()).map_err(|error| error.to_string())?;
        let hits = Cell::default();
        Ok(Self { config, hits })
    }
}

#[derive(serde::Deserialize)]
struct Typed {
    text: String,
    #[serde(rename = "n")]
    _n: i32,
}

fn typed(message: &Message) -> Result<(), Rejection> {
    match payload::parse::<Typed>(message)?.text.as_str() {
        "bad" => Err(Rejection::new("bad", "bad")),
        _ => Ok(()),
    }
}

impl Validation for Conformance {
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        match message.event_type.as_str() {
            "c.parse" => return payload::parse::<Value>(message).map(|_| ()),
            "c.typed" => return typed(message),
            "c.reject" => {}
            _ => return Ok(()),
        }
        let refusal: Value = payload::parse(message)?;
        let text = |name: &str| refusal[name].as_str().unwrap_or_default().to_owned();
        Err(Rejection::new(text("code"), text("reason")))
    }
}

impl Transformation for Conformance {
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection> {
        let raw = |payload: &str| Draft {
            event_type: message.event_type.clone(),
            destination: message.destination.clone(),
            payload: payload.to_owned(),
        };
        Ok(match message.event_type.as_str() {
            "c.echo" => {
                let value: Value = payload::parse(message)?;
                Outcome::Changed(message.with_payload(&value)?)
            }
            "c.text" => {
                let text: String = payload::parse(message)?;
                Outcome::Changed(message.with_payload(&(text + "!"))?)
            }
            "c.raw" => Outcome::Changed(raw(&message.payload)),
            "c.drop" => Outcome::Dropped,
            "c.move" => {
                let place: String = payload::parse(message)?;
                let to = match place.as_str() {
                    "sender" => Some(Destination::Sender),
                    "user" => Some(Destination::user("zoë")),
                    "room" => Some(Destination::room("café")),
                    "everyone" => Some(Destination::Everyone),
                    _ => None,
                };
                Outcome::Changed(Draft::new("c.moved", to, &1)?)
            }
            "c.bad-json" => Outcome::Changed(raw("{")),
            _ => Outcome::Unchanged,
        })
    }
}

fn stored() -> Result<Vec<Value>, Rejection> {
    let text = |value: Option<Vec<u8>>| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut found = Vec::new();
    store::set("k", "value ü".as_bytes(), None)?;
    found.push(text(store::get("k")?).into());
    found.push(store::increment("n", 5, None)?.into());
    found.push(store::increment("n", -2, Some(60))?.into());
    found.push(store::compare_and_swap("k", Some("value ü".as_bytes()), b"x", None)?.into());
    found.push(store::compare_and_swap("k", Some("value ü".as_bytes()), b"y", None)?.into());
    store::remove("k")?;
    found.push(text(store::get("k")?).into());
    store::set("t", b"abc", None)?;
    if store::increment("t", 1, None) == Err(store::StoreError::NotANumber) {
        found.push("not-a-number".into());
    }
    Ok(found)
}

fn big() -> Result<String, Rejection> {
    store::set("big", b"9007199254740993", None)?;
    Ok(store::increment("big", 0, None)?.to_string())
}

fn about() -> Result<Value, Rejection> {
    let Some(client) = context::current_client() else {
        return Ok(Value::Null);
    };
    let claims: Value = serde_json::from_str(&client.claims)
        .map_err(|error| Rejection::new("claims", error.to_string()))?;
    Ok(vec![client.user.into(), claims].into())
}

impl Events for Conformance {
    fn event_types(&self) -> Vec<String> {
        [
            "actions", "none", "many", "config", "context", "store", "big", "clock", "observe", "fail", "loop", "hits",
        ]
        .map(|name| format!("c.{name}"))
        .to_vec()
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        Ok(match message.event_type.as_str() {
            "c.actions" => vec![
                Action::Deliver,
                Action::Send(Draft::new("c.sent", Destination::user("bob"), &1)?),
                Action::Announce(Draft::new("c.said", Destination::Everyone, &[1.5])?),
                Action::Join("café".to_owned()),
                Action::Leave("café".to_owned()),
                Action::Disconnect(Disconnection::new(4501, "go away")),
            ],
            "c.many" => vec![Action::Join("a".to_owned()); 300],
            "c.config" => vec![Action::reply("c.config", &self.config)?],
            "c.context" => vec![Action::reply("c.context", &about()?)?],
            "c.store" => vec![Action::reply("c.store", &stored()?)?],
            "c.big" => vec![Action::reply("c.big", &big()?)?],
            "c.clock" => {
                let runs = context::now() > 1_700_000_000_000 && !context::node().is_empty();
                vec![Action::reply("c.clock", &runs)?]
            }
            "c.observe" => {
                metrics::count("seen", 2);
                metrics::observe("size", 1.5);
                log::write(log::Level::Info, "seen ü");
                Vec::new()
            }
            "c.hits" => {
                self.hits.set(self.hits.get() + 1);
                vec![Action::reply("c.hits", &self.hits.get())?]
            }
            "c.fail" => panic!("on purpose"),
            "c.loop" => loop {
                std::hint::spin_loop();
            },
            _ => Vec::new(),
        })
    }
}

fn answered<T: Into<Value>>(answer: Result<T, RoomError>) -> Value {
    match answer {
        Ok(value) => value.into(),
        Err(RoomError::SwitchedOff) => "switched-off".into(),
        Err(RoomError::Invalid) => "invalid".into(),
        Err(RoomError::TooManyCalls) => "too-many-calls".into(),
        Err(RoomError::Unavailable) => "unavailable".into(),
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| error.to_string().into())
}

fn members(room: &str) -> Value {
    let members = room_state::members(room);
    let list = |members: Vec<room_state::Member>| -> Vec<Value> {
        let members = members.into_iter().map(|of| {
            let info = of.info.as_deref().map_or(Value::Null, parsed);
            vec![of.user.into(), of.connections.into(), info].into()
        });
        members.collect()
    };
    answered(members.map(list))
}

fn history(room: &str, before: Option<u64>, limit: u32) -> Value {
    let kept = room_state::history(room, before, limit);
    let list = |kept: Vec<room_state::KeptMessage>| -> Vec<Value> {
        let kept = kept.into_iter().map(|of| {
            let payload = parsed(&of.payload);
            vec![of.offset.into(), of.event_type.into(), of.sender.into(), payload, of.timestamp.into()].into()
        });
        kept.collect()
    };
    answered(kept.map(list))
}

fn calls() -> Value {
    let mut number = 0;
    loop {
        match room_state::count("café") {
            Ok(_) => number += 1,
            error => return vec![Value::from(number), answered(error)].into(),
        }
    }
}

#[derive(serde::Deserialize)]
struct Page {
    room: String,
    before: Option<u64>,
    limit: u32,
}

impl Requests for Conformance {
    fn request_types(&self) -> Vec<String> {
        [
            "ask", "ask-acts", "ask-bad", "ask-deep", "ask-refused", "room", "who", "history", "calls", "calls-uncaught",
        ]
        .map(|name| format!("c.{name}"))
        .to_vec()
    }

    fn respond(&self, message: &Message) -> Result<Reply, Rejection> {
        let raw = |data: String| Reply { data, actions: Vec::new() };
        Ok(match message.event_type.as_str() {
            "c.ask-acts" => {
                let asked: Value = payload::parse(message)?;
                let actions = vec![
                    Action::Deliver,
                    Action::reply("c.asked", &asked)?,
                    Action::Join("café".to_owned()),
                ];
                Reply::new(&serde_json::json!({"done": true}))?.with(actions)
            }
            "c.ask-bad" => raw("{".to_owned()),
            "c.ask-deep" => raw("[".repeat(101) + &"]".repeat(101)),
            "c.ask-refused" => return Err(Rejection::new("no_answer", "nö, \"so\" nicht 🙂")),
            "c.room" => {
                let room: String = payload::parse(message)?;
                let count = answered(room_state::count(&room));
                Reply::new(&[count, members(&room), history(&room, None, 100)])?
            }
            "c.who" => {
                let room: String = payload::parse(message)?;
                let members = room_state::members(&room)?;
                let users: Vec<_> = members.into_iter().map(|member| member.user).collect();
                Reply::new(&users)?
            }
            "c.history" => {
                let page: Page = payload::parse(message)?;
                Reply::new(&history(&page.room, page.before, page.limit))?
            }
            "c.calls" => Reply::new(&calls())?,
            "c.calls-uncaught" => loop {
                room_state::count("café")?;
            },
            _ => Reply::new(&payload::parse::<Value>(message)?)?,
        })
    }
}

fn changed(event_type: &str, client: &Client, room: &str, connections: u32) -> Vec<Action> {
    if client.user == "quiet" {
        return Vec::new();
    }
    let change = Draft::new(event_type, Destination::room(room), &(&client.user, room, connections));
    change.map(Action::Announce).into_iter().collect()
}

impl Membership for Conformance {
    fn joined(&self, client: &Client, room: &str, connections: u32) -> Vec<Action> {
        changed("c.joined", client, room, connections)
    }

    fn left(&self, client: &Client, room: &str, connections: u32) -> Vec<Action> {
        changed("c.left", client, room, connections)
    }
}

impl Connections for Conformance {
    fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection> {
        match client.user.as_str() {
            "banned" => Err(Rejection::new("banned", "go away")),
            user => Ok(vec![Action::Join(format!("home:{user}"))]),
        }
    }

    fn disconnected(&self, _client: &Client, _how: &Disconnection) -> Vec<Action> {
        Vec::new()
    }
}

impl Rooms for Conformance {
    fn authorize_join(&self, _client: &Client, room: &str) -> Result<(), Rejection> {
        match room {
            "secret" => Err(Rejection::new("secret", "not for you")),
            _ => Ok(()),
        }
    }
}

impl Handover for Conformance {
    fn save(&self) -> Result<Snapshot, String> {
        let data = self.hits.get().to_string().into_bytes();
        Ok(Snapshot { format: 1, data })
    }

    fn restore(&self, snapshot: Snapshot) -> Result<(), String> {
        let hits = String::from_utf8(snapshot.data).map_err(|error| error.to_string())?;
        self.hits.set(hits.parse().map_err(|_| "it is no number".to_owned())?);
        Ok(())
    }
}

export!(Conformance: validation, transformation, events, requests, connections, rooms, membership, handover);
