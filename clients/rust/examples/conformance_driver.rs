//! The driver of `clients/conformance/README.md` for this client.

mod commands;

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use signalbox_client::{
    Client, Error, Event, Events, JoinOptions, Message, Offline, Options, Outgoing, Presence,
    State, StateChange, TokenError, Transport,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    n: u64,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Command {
    Open(Box<Open>),
    Connect,
    Close,
    Join {
        room: String,
        #[serde(default)]
        last: u32,
        #[serde(default)]
        presence: bool,
        token: Option<String>,
        tokens: Option<VecDeque<Option<String>>>,
    },
    Leave {
        room: String,
    },
    Send {
        r#type: String,
        #[serde(default)]
        payload: Value,
        room: Option<String>,
        to: Option<String>,
        #[serde(default)]
        once: bool,
    },
    Request {
        r#type: String,
        #[serde(default)]
        payload: Value,
    },
    History {
        room: String,
        before: Option<u64>,
        limit: Option<u32>,
    },
    Presence {
        room: String,
    },
    State,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    url: String,
    user_id: Option<String>,
    token: Option<String>,
    tokens: Option<VecDeque<Option<String>>>,
    #[serde(default)]
    options: Numbers,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    connect_timeout_ms: Option<u64>,
    backoff_min_ms: Option<u64>,
    backoff_max_ms: Option<u64>,
    stable_after_ms: Option<u64>,
    answer_timeout_ms: Option<u64>,
    heartbeat_ms: Option<u64>,
    heartbeat_timeout_ms: Option<u64>,
    offline: Option<String>,
    queue_max: Option<usize>,
    queue_bytes_max: Option<usize>,
    #[serde(default)]
    fallback: bool,
    web_socket_again_ms: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut lines = commands::lines::<Line>();
    let mut client = None;
    let mut reporter = None;
    while let Some(Line { n, command }) = lines.recv().await {
        match (command, &client) {
            (Command::Open(command), _) => match open(*command).await {
                Ok((opened, events)) => {
                    client = Some(opened);
                    reporter = Some(tokio::spawn(report(events)));
                    answer(n, Ok(Value::Null));
                }
                Err(error) => answer(n, Err(error)),
            },
            (command, Some(client)) => {
                // Tasks of this runtime begin in the order in which they were spawned.
                let client = Client::clone(client);
                tokio::spawn(async move { answer(n, carry_out(&client, command).await) });
            }
            (_, None) => eprintln!("the client was not opened"),
        }
    }
    if let Some(client) = client {
        client.close().await;
        // The events end with the last handle.
        drop(client);
    }
    if let Some(reporter) = reporter {
        // Its last event is on the way.
        let _ = reporter.await;
    }
}

async fn open(command: Open) -> Result<(Client, Events), Error> {
    let url = command.url;
    let mut options = match (command.user_id, command.token, command.tokens) {
        (Some(user), ..) => Options::user(url, user),
        (_, Some(token), _) => Options::token(url, token),
        (.., tokens) => {
            let next = callback(tokens.unwrap_or_default());
            Options::token_callback(url, move || next(None))
        }
    };
    let numbers = command.options;
    let set = |field: &mut Duration, value: Option<u64>| {
        if let Some(value) = value {
            *field = Duration::from_millis(value);
        }
    };
    set(&mut options.connect_timeout, numbers.connect_timeout_ms);
    set(&mut options.backoff_min, numbers.backoff_min_ms);
    set(&mut options.backoff_max, numbers.backoff_max_ms);
    set(&mut options.stable_after, numbers.stable_after_ms);
    set(&mut options.answer_timeout, numbers.answer_timeout_ms);
    set(&mut options.heartbeat_timeout, numbers.heartbeat_timeout_ms);
    set(
        &mut options.web_socket_again_after,
        numbers.web_socket_again_ms,
    );
    options.fallback = numbers.fallback;
    options.heartbeat_interval = numbers.heartbeat_ms.map(Duration::from_millis);
    options.queue_max = numbers.queue_max.unwrap_or(options.queue_max);
    options.queue_bytes_max = numbers.queue_bytes_max.unwrap_or(options.queue_bytes_max);
    if numbers.offline.as_deref() == Some("error") {
        options.offline = Offline::Fail;
    }
    let (client, events) = Client::new(options)?;
    client.connect().await;
    Ok((client, events))
}

/// A token callback that gives the tokens one after another, and then the last one. It gets the room if they are those of one.
fn callback(
    tokens: VecDeque<Option<String>>,
) -> impl Fn(Option<String>) -> Ready<Result<String, TokenError>> + Send + Sync {
    let tokens = Mutex::new(tokens);
    move |room| {
        let mut event = json!({"event": "token"});
        put(&mut event, "room", room);
        write(&event);
        let mut tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = match tokens.len() {
            0 | 1 => tokens.front().cloned(),
            _ => tokens.pop_front(),
        };
        ready(match token.flatten() {
            None => Err(TokenError::Later("no token now".to_owned())),
            Some(token) if token == "final" => Err(TokenError::Final("no token ever".to_owned())),
            Some(token) => Ok(token),
        })
    }
}

async fn carry_out(client: &Client, command: Command) -> Result<Value, Error> {
    Ok(match command {
        Command::Open(_) => Value::Null,
        Command::Connect => {
            client.connect().await;
            Value::Null
        }
        Command::Close => {
            client.close().await;
            Value::Null
        }
        Command::Join {
            room,
            last,
            presence,
            token,
            tokens,
        } => {
            let mut options = JoinOptions::default().last(last);
            if presence {
                options = options.presence();
            }
            if let Some(token) = token {
                options = options.token(token);
            }
            if let Some(tokens) = tokens {
                let next = callback(tokens);
                options = options.token_callback(move |room| next(Some(room)));
            }
            json!({"recovered": client.room(&room).join(options).await?})
        }
        Command::Leave { room } => {
            client.room(&room).leave().await?;
            Value::Null
        }
        Command::Send {
            r#type,
            payload,
            room,
            to,
            once,
        } => {
            let mut message = Outgoing::new(r#type).payload(payload);
            if let Some(room) = room {
                message = message.room(room);
            }
            if let Some(user) = to {
                message = message.to(user);
            }
            if once {
                message = message.once();
            }
            let answer = client.send(message).await?;
            json!({"status": answer.status, "duplicate": answer.duplicate, "data": answer.data})
        }
        Command::Request { r#type, payload } => {
            json!(client.request(&r#type, payload).await?)
        }
        Command::History {
            room,
            before,
            limit,
        } => {
            let page = client.room(&room).history(before, limit).await?;
            let offsets: Vec<_> = page.messages.iter().map(|message| message.offset).collect();
            json!({"messages": offsets, "hasOlder": page.has_older})
        }
        Command::Presence { room } => users(&client.room(&room).presence().await),
        Command::State => json!({
            "state": name(client.state().await),
            "rooms": client.joined_rooms().await,
            "queued": client.queued().await,
        }),
    })
}

fn answer(n: u64, result: Result<Value, Error>) {
    write(&match result {
        Ok(value) => json!({"n": n, "ok": value}),
        Err(error) => {
            let mut fields = json!({"code": error.code, "retryable": error.retryable});
            put(&mut fields, "plugin", error.plugin);
            json!({"n": n, "error": fields})
        }
    });
}

/// Reports events until the client is closed at the end of the input.
async fn report(mut events: Events) {
    while let Some(event) = events.recv().await {
        write(&line(event));
    }
}

fn line(event: Event) -> Value {
    match event {
        Event::State(change) => state(change),
        Event::Message(message) => self::message(&message),
        Event::Recovery {
            room,
            recovered,
            reason,
        } => {
            let mut line = json!({"event": "recovered", "recovered": recovered});
            put(&mut line, "room", room);
            put(&mut line, "reason", reason);
            line
        }
        Event::Presence { room, presence } => {
            let mut line = users(&presence);
            line["event"] = json!("presence");
            line["room"] = json!(room);
            line
        }
        Event::Left { room, error } => json!({"event": "left", "room": room, "code": error.code}),
        Event::Error(error) => json!({"event": "error", "code": error.code}),
        other => json!({"event": "error", "code": format!("{other:?}")}),
    }
}

fn state(change: StateChange) -> Value {
    let mut line = json!({"event": "state", "state": name(change.state)});
    put(&mut line, "code", change.code);
    put(&mut line, "status", change.status);
    let transport = change.session.map(|session| session.transport);
    if transport == Some(Transport::Sse) {
        line["transport"] = json!("sse");
    }
    let reason = Some(change.reason).filter(|reason| !reason.is_empty());
    put(&mut line, "reason", reason);
    put(
        &mut line,
        "retryInMs",
        change.retry_in.map(|wait| wait.as_millis() as u64),
    );
    line
}

fn message(message: &Message) -> Value {
    let mut line = json!({
        "event": "message",
        "type": message.event_type,
        "payload": message.payload,
        "sender": message.sender,
    });
    put(&mut line, "room", message.room.clone());
    put(&mut line, "offset", message.offset);
    line
}

fn users(presence: &Presence) -> Value {
    let members = presence.members.as_ref();
    let names = members.map(|members| members.keys().collect::<Vec<_>>());
    json!({"total": presence.total, "members": names})
}

fn name(state: State) -> &'static str {
    match state {
        State::Disconnected => "disconnected",
        State::Connecting => "connecting",
        State::Connected => "connected",
        State::Closed => "closed",
    }
}

fn put(line: &mut Value, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        line[field] = value.into();
    }
}

fn write(line: &Value) {
    println!("{line}");
}
