//! A connection with server-sent events: the server's frames come in one long answer, and each frame of the client is a
//! request.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::http::request;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use tokio::time::{Sleep, sleep, timeout};

use crate::channel::Arrival;
use crate::core::{Dial, Ending, retry_after};
use crate::error::{Error, codes};
use crate::event_stream::{EventStream, ServerEvent};
use crate::http::{Failure, Http, Target};
use crate::socket::refused;

/// The most frames that wait for their turn.
const WAITING_MAX: usize = 1_000;
/// The least wait after 429.
const RATE_WAIT_MIN: Duration = Duration::from_secs(1);
/// The most bytes of the body of a refusal that are read.
const BODY_BYTES_MAX: usize = 4096;

/// An open connection, and the frames that wait for their turn.
pub(crate) struct Stream {
    http: Http,
    body: Incoming,
    events: EventStream,
    /// What has arrived, and was not returned yet.
    arrived: VecDeque<Arrival>,
    /// The frames of the client that were not accepted, and were not reported yet.
    unaccepted: VecDeque<Arrival>,
    sender: Sender,
}

/// Sends the frames one after another.
struct Sender {
    target: Arc<Target>,
    /// The path and the key of the requests, which `welcome` names.
    place: Option<Place>,
    /// The first one is under way.
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    answer_timeout: Duration,
    step: Step,
    /// An idle connection for the next request.
    idle: Option<Http>,
}

#[derive(Clone)]
struct Place {
    path: String,
    authorization: String,
}

enum Step {
    Idle,
    Sending(Pin<Box<dyn Future<Output = Result<Answer, String>> + Send>>),
    Pausing(Pin<Box<Sleep>>),
}

/// The answer to a frame.
struct Answer {
    status: StatusCode,
    retry_after: Duration,
    /// The connection, if it can be used again.
    http: Option<Http>,
}

impl Stream {
    /// Opens the stream. It is open when the head of the answer has arrived.
    pub(crate) async fn open(dial: Dial) -> Result<Self, Ending> {
        let target = Target::new(&dial.url).map_err(Ending::because)?;
        let request = stream_request(&target, dial.token.as_deref()).map_err(Ending::because)?;
        let mut http = Http::connect(&target).await.map_err(Ending::because)?;
        let answer = http.send(request).await.map_err(|failure| {
            Ending::because(match failure {
                Failure::Unsent(_) => "the connection was lost".to_owned(),
                Failure::Failed(reason) => reason,
            })
        })?;
        let (head, mut body) = answer.into_parts();
        if head.status != StatusCode::OK {
            let (bytes, _) = http.read(&mut body, BODY_BYTES_MAX).await;
            return Err(refused(head.status, &head.headers, &bytes));
        }
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|value| value.starts_with("text/event-stream")) {
            return Err(Ending {
                status: Some(head.status.as_u16()),
                ..Ending::because("the answer is no stream of events")
            });
        }
        Ok(Self {
            http,
            body,
            events: EventStream::new(dial.receive_bytes_max),
            arrived: VecDeque::new(),
            unaccepted: VecDeque::new(),
            sender: Sender {
                target: Arc::new(target),
                place: None,
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                answer_timeout: dial.answer_timeout,
                step: Step::Idle,
                idle: None,
            },
        })
    }

    /// Puts a frame into the queue to the server.
    pub(crate) fn write(&mut self, text: String) {
        if self.sender.waiting.len() >= WAITING_MAX {
            let message = "too many frames wait for their turn";
            let error = Error::new(codes::QUEUE_FULL, message);
            self.unaccepted.extend(not_accepted(&text, error));
        } else {
            self.sender.push(text);
        }
    }

    /// The bytes that wait.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.sender.waiting_bytes
    }

    /// Writes the bytes that wait, and returns the next event. Reads nothing from the server if `reads` is false.
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self, reads: bool) -> Arrival {
        poll_fn(|context| {
            loop {
                if let Some(arrival) = self.unaccepted.pop_front() {
                    return Poll::Ready(arrival);
                }
                if let Poll::Ready(arrival) = self.sender.poll(context) {
                    return Poll::Ready(arrival);
                }
                if !reads {
                    return Poll::Pending;
                }
                if let Some(arrival) = self.arrived.pop_front() {
                    return Poll::Ready(arrival);
                }
                std::task::ready!(self.poll_read(context));
            }
        })
        .await
    }

    /// Reads the next part of the stream.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let data = std::task::ready!(self.http.poll_data(&mut self.body, context));
        let ending = match data {
            None => Ending::because("the stream has ended"),
            Some(Err(error)) => Ending::because(format!("the stream was lost: {error}")),
            Some(Ok(bytes)) => {
                let Self {
                    events,
                    arrived,
                    sender,
                    ..
                } = self;
                // Every byte is a sign of life.
                arrived.push_back(Arrival::Sign);
                let fed = events.feed(&bytes, |event| arrived.extend(arrival(event, sender)));
                let Err(size) = fed else {
                    return Poll::Ready(());
                };
                Ending::because(format!(
                    "an event of {size} bytes is over receive_bytes_max"
                ))
            }
        };
        self.arrived.push_back(Arrival::Ended(ending));
        Poll::Ready(())
    }
}

/// The contents of an event. `welcome` also tells the sender where frames go.
fn arrival(event: ServerEvent, sender: &mut Sender) -> Option<Arrival> {
    #[derive(Default, Deserialize)]
    struct Close {
        code: Option<u16>,
        #[serde(default)]
        reason: String,
    }
    match event.name.as_str() {
        "" | "message" => {
            if sender.place.is_none() {
                sender.place = place(&event.data, &sender.target);
            }
            Some(Arrival::Text(event.data.into()))
        }
        "close" => {
            // Without a code the connection is lost.
            let Close { code, reason } = serde_json::from_str(&event.data).unwrap_or_default();
            Some(Arrival::Ended(Ending {
                code,
                ..Ending::because(reason)
            }))
        }
        _ => None,
    }
}

/// The place of the client's frames, if this is `welcome`.
fn place(text: &str, target: &Target) -> Option<Place> {
    #[derive(Deserialize)]
    struct Frame {
        #[serde(rename = "type")]
        event_type: String,
        payload: Payload,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        connection_id: String,
        send_key: String,
    }
    let frame: Frame = serde_json::from_str(text).ok()?;
    (frame.event_type == "welcome").then(|| Place {
        path: format!("{}/{}", target.path, frame.payload.connection_id),
        authorization: format!("Bearer {}", frame.payload.send_key),
    })
}

impl Sender {
    fn push(&mut self, text: String) {
        self.waiting_bytes += text.len();
        self.waiting.push_back(text);
    }

    /// The first frame has its answer.
    fn shift(&mut self) -> String {
        let text = self.waiting.pop_front().unwrap_or_default();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(text.len());
        text
    }

    /// Sends frames until something must be reported.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        loop {
            match &mut self.step {
                Step::Pausing(pause) => {
                    std::task::ready!(pause.as_mut().poll(context));
                    self.step = Step::Idle;
                }
                Step::Sending(exchange) => {
                    let answer = std::task::ready!(exchange.as_mut().poll(context));
                    self.step = Step::Idle;
                    if let Some(arrival) = self.on_answer(answer) {
                        return Poll::Ready(arrival);
                    }
                }
                Step::Idle => {
                    let Some(text) = self.waiting.front() else {
                        return Poll::Pending;
                    };
                    match self.request(text.clone()) {
                        Ok(request) => self.begin(request),
                        Err(reason) => return Poll::Ready(Arrival::Ended(Ending::because(reason))),
                    }
                }
            }
        }
    }

    fn begin(&mut self, request: Request<String>) {
        let (target, idle) = (Arc::clone(&self.target), self.idle.take());
        let limit = self.answer_timeout;
        self.step = Step::Sending(Box::pin(async move {
            let answer = timeout(limit, post(&target, idle, request)).await;
            answer.unwrap_or_else(|_| Err(format!("a frame got no answer within {limit:?}")))
        }));
    }

    fn on_answer(&mut self, answer: Result<Answer, String>) -> Option<Arrival> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(reason) => return Some(Arrival::Ended(Ending::because(reason))),
        };
        self.idle = answer.http;
        match answer.status {
            StatusCode::ACCEPTED => {
                self.shift();
                None
            }
            StatusCode::TOO_MANY_REQUESTS => {
                self.pause(answer.retry_after.max(RATE_WAIT_MIN));
                None
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                self.pause(answer.retry_after);
                let message = "the node did not answer: the message may have arrived";
                not_accepted(&self.shift(), Error::new(codes::CONNECTION_LOST, message))
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = "the frame is too large for the server";
                not_accepted(&self.shift(), Error::new(codes::TOO_LARGE, message))
            }
            status => Some(Arrival::Ended(Ending::because(format!(
                "a frame was answered with HTTP status {status}"
            )))),
        }
    }

    fn pause(&mut self, wait: Duration) {
        self.step = Step::Pausing(Box::pin(sleep(wait)));
    }

    fn request(&self, text: String) -> Result<Request<String>, String> {
        let place = self
            .place
            .as_ref()
            .ok_or("`welcome` has no key to send with")?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&place.path)
            .header(HOST, &self.target.authority)
            .header(AUTHORIZATION, &place.authorization)
            .header(CONTENT_TYPE, "application/json");
        finish(request, text)
    }
}

/// Sends a frame on the idle connection, or on a new one.
async fn post(
    target: &Target,
    idle: Option<Http>,
    mut request: Request<String>,
) -> Result<Answer, String> {
    if let Some(mut http) = idle {
        match http.send(request).await {
            Ok(answer) => return Ok(finish_answer(http, answer).await),
            // The server has closed the idle connection.
            Err(Failure::Unsent(again)) => request = *again,
            Err(Failure::Failed(reason)) => return Err(reason),
        }
    }
    let mut http = Http::connect(target).await?;
    match http.send(request).await {
        Ok(answer) => Ok(finish_answer(http, answer).await),
        Err(Failure::Unsent(_)) => Err("the connection was lost".to_owned()),
        Err(Failure::Failed(reason)) => Err(reason),
    }
}

async fn finish_answer(mut http: Http, answer: hyper::Response<Incoming>) -> Answer {
    let (head, mut body) = answer.into_parts();
    let (_, is_whole) = http.read(&mut body, BODY_BYTES_MAX).await;
    let wait = head.headers.get(RETRY_AFTER);
    let wait = wait.and_then(|value| value.to_str().ok()).map(retry_after);
    Answer {
        status: head.status,
        retry_after: wait.unwrap_or_default(),
        http: is_whole.then_some(http),
    }
}

fn stream_request(target: &Target, token: Option<&str>) -> Result<Request<String>, String> {
    let mut request = Request::get(format!("{}{}", target.path, target.query))
        .header(HOST, &target.authority)
        .header(ACCEPT, "text/event-stream");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    finish(request, String::new())
}

fn finish(request: request::Builder, body: String) -> Result<Request<String>, String> {
    let request = request.body(body);
    request.map_err(|error| format!("the request is invalid: {error}"))
}

/// Reports that the frame with this text was not accepted. A frame without an ID has nobody who waits.
fn not_accepted(text: &str, error: Error) -> Option<Arrival> {
    #[derive(Deserialize)]
    struct Frame {
        id: String,
    }
    let frame: Frame = serde_json::from_str(text).ok()?;
    Some(Arrival::NotAccepted {
        id: frame.id,
        error,
    })
}
