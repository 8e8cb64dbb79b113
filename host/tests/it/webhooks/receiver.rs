//! A receiver of events, which answers as it is asked to.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode, header::LOCATION},
    routing::post,
};
use futures_util::stream;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use crate::redis::until;

/// A secret for tests.
pub(crate) const SECRET: &str = "hush-hush-hush-hush-hush-hush-hush";

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(u16),
    /// Never.
    Silence,
    /// With 200 and a body that never ends.
    EndlessBody,
    /// With a redirect to the receiver itself.
    Redirect,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) reply: Reply,
}

/// Listens until it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<ReceiverState>,
    _server: JoinSet<()>,
}

struct ReceiverState {
    requests: Mutex<Vec<Request>>,
    /// The replies to the next requests.
    next: Mutex<VecDeque<Reply>>,
    /// The reply to others.
    usual: Mutex<Reply>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let state = Arc::new(ReceiverState {
            requests: Mutex::default(),
            next: Mutex::default(),
            usual: Mutex::new(Reply::Status(200)),
        });
        let routes = Router::new()
            .route("/{*path}", post(answer))
            .with_state(state.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self {
            address,
            state,
            _server: server,
        }
    }

    /// A webhook at `path` for `events`, with further lines.
    pub(crate) fn webhook_at(&self, path: &str, events: &[&str], more: &str) -> String {
        format!(
            "[[webhooks]]\nurl = \"http://{}/{path}\"\nsecret = \"{SECRET}\"\nevents = {events:?}\n\
             timeout = \"60s\"\nbatch_time = \"10ms\"\n{more}\n",
            self.address
        )
    }

    /// A webhook for `events`, with further lines.
    pub(crate) fn webhook(&self, events: &[&str], more: &str) -> String {
        self.webhook_at("hook", events, more)
    }

    /// Answers the next requests with these, one after another.
    pub(crate) fn reply_next(&self, replies: &[Reply]) {
        self.state.next.lock().unwrap().extend(replies);
    }

    /// Answers all other requests with this from now on.
    pub(crate) fn reply(&self, reply: Reply) {
        *self.state.usual.lock().unwrap() = reply;
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Waits for `count` requests, and returns all that have arrived.
    pub(crate) async fn until_requests(&self, count: usize) -> Vec<Request> {
        until("requests arrive", async || {
            let requests = self.requests();
            (requests.len() >= count).then_some(requests)
        })
        .await
    }

    /// The events of all requests that were accepted, in the order of their arrival.
    pub(crate) fn events(&self) -> Vec<Value> {
        let accepted = self.requests().into_iter();
        let accepted = accepted.filter(Request::is_accepted);
        accepted.flat_map(|request| request.events()).collect()
    }

    /// Waits for `count` events, and returns all that have arrived.
    pub(crate) async fn until_events(&self, count: usize) -> Vec<Value> {
        until("events arrive", async || {
            let events = self.events();
            (events.len() >= count).then_some(events)
        })
        .await
    }

    /// Waits for an event that `is_meant`.
    pub(crate) async fn until_event(&self, is_meant: impl Fn(&Value) -> bool) -> Value {
        until("an event arrives", async || {
            self.events().into_iter().find(&is_meant)
        })
        .await
    }
}

impl Request {
    fn is_accepted(&self) -> bool {
        matches!(self.reply, Reply::Status(200..=299) | Reply::EndlessBody)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }

    /// The ID of the batch, which header and body agree on.
    pub(crate) fn id(&self) -> String {
        let json = self.json();
        let id = json["id"].as_str().expect("an ID");
        assert_eq!(self.header("signalbox-webhook-id"), id);
        id.to_owned()
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().expect("events").clone()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).expect(name);
        value.to_str().expect("text")
    }

    /// Whether `secret` made one of its signatures.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signed = format!("{}.{}", self.header("signalbox-timestamp"), self.body);
        let tag = hmac::sign(&key, signed.as_bytes());
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut signatures = self.header("signalbox-signature").split(',');
        signatures.any(|signature| signature == format!("v1={hex}"))
    }
}

async fn answer(
    State(state): State<Arc<ReceiverState>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let next = state.next.lock().unwrap().pop_front();
    let reply = next.unwrap_or_else(|| *state.usual.lock().unwrap());
    let body = String::from_utf8(body.into()).expect("the body is text");
    state.requests.lock().unwrap().push(Request {
        headers,
        body,
        reply,
    });
    let answer = Response::builder();
    let answer = match reply {
        Reply::Status(status) => answer.status(status).body(Body::from("an answer")),
        Reply::Silence => std::future::pending().await,
        Reply::EndlessBody => {
            let chunks = stream::unfold((), async |()| {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
            });
            answer.body(Body::from_stream(chunks))
        }
        Reply::Redirect => answer
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(LOCATION, "/elsewhere")
            .body(Body::empty()),
    };
    answer.expect("a valid answer")
}
