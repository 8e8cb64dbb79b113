//! `POST /api/messages`.

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use futures_util::future::join_all;
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;
use signalbox_protocol::Destination;
use signalbox_telemetry::{metrics::events::MessageRejected, trace::Parent};

use super::{
    BodyLimit,
    message::{PostMessage, Receivers},
    object,
    once::{self, OnceAnswer, OnceCaller},
    read, too_large,
};
use crate::{
    http::{
        AppState,
        error::{ApiError, json_of},
    },
    session::{
        backend::{self, Conclusion, Posted},
        once::{OnceIdentity, OnceMessage},
    },
};

/// The number of messages of one list that are sent at the same time.
const AT_A_TIME: usize = 16;

/// The result of a message.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum MessageResult {
    One(SendResult),
    /// For each receiver of a list, in its order.
    Each {
        results: Vec<ReceiverResult>,
    },
}

/// The result of a message to one receiver.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum SendResult {
    #[serde(rename_all = "camelCase")]
    Sent {
        message_id: String,
        status: &'static str,
        /// A plugin's answer to a request.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<ReplyData>,
    },
    Failed {
        error: ApiError,
    },
}

/// JSON text that a plugin answers, which was checked.
#[derive(Debug)]
pub(super) struct ReplyData(Box<str>);

impl Serialize for ReplyData {
    /// Writes the text as it is. Works only with `serde_json`, which reads it over once more.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// A receiver of a list, and the result of its message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReceiverResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(flatten)]
    result: SendResult,
}

pub(super) async fn post(
    State(state): State<AppState>,
    caller: Option<Extension<OnceCaller>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = read(&state, body, BodyLimit::WithList).await?;
    object::check_content(&headers)?;
    let call = ("/api/messages", &body[..]);
    let Some(identity) = once::identity(&headers, caller.as_deref(), call)? else {
        return answer(&state, None, &headers, &body).await;
    };
    once::to_the_end(async move { answer(&state, Some(identity), &headers, &body).await }).await
}

async fn answer(
    state: &AppState,
    identity: Option<OnceIdentity>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, ApiError> {
    let message = parse(state, body)?;
    let parent = parent(headers);
    let work = async {
        let once = identity.as_ref().map(|identity| (identity, 0));
        match send(state, parent.as_ref(), &message, once).await {
            MessageResult::One(SendResult::Failed { error }) => Err(error),
            result => Ok(OnceAnswer {
                body: json_of(&result),
                has_acted: result.has_acted(),
            }),
        }
    };
    once::answer(state, identity.clone(), work).await
}

/// Parses a message, and counts one that is malformed.
///
/// # Errors
/// Returns the reason if it is no message that backends may send, or too large apart from its list of receivers.
pub(super) fn parse<'a>(state: &AppState, body: &'a [u8]) -> Result<PostMessage<'a>, ApiError> {
    let message = PostMessage::parse(body).map_err(|(code, message)| {
        let metrics = &state.services.metrics;
        MessageRejected { metrics, code }.emit();
        ApiError::of(code, message)
    })?;
    let frame_bytes_max = state.services.live.load().limits.frame_bytes_max;
    let bytes_max = BodyLimit::Plain.bytes(frame_bytes_max);
    if body.len() - message.list_bytes() > bytes_max {
        return Err(too_large(BodyLimit::Plain, bytes_max));
    }
    Ok(message)
}

/// The trace that the backend began, if it sends one that is sampled.
pub(super) fn parent(headers: &HeaderMap) -> Option<Parent> {
    Parent::parse(headers.get("traceparent")?.to_str().ok()?)
}

/// Sends `message` to each of its receivers, as a part of the trace of `parent`. `once`: the identity of its call, if that
/// may be repeated, and the number of the message in the call.
pub(super) async fn send(
    state: &AppState,
    parent: Option<&Parent>,
    message: &PostMessage<'_>,
    once: Option<(&OnceIdentity, usize)>,
) -> MessageResult {
    let once_for = |receiver| once.map(|(identity, message)| identity.message(message, receiver));
    let list = match &message.to {
        Receivers::One(to) => {
            let sent = send_to(state, parent, message, to.clone(), once_for(0)).await;
            return MessageResult::One(sent);
        }
        Receivers::Each(list) => list,
    };
    let mut results = Vec::with_capacity(list.len());
    for (chunk, some) in list.chunks(AT_A_TIME).enumerate() {
        let numbers = chunk * AT_A_TIME..;
        let sends: Vec<_> = some
            .iter()
            .zip(numbers)
            .map(|(to, number)| send_to(state, parent, message, Some(to.clone()), once_for(number)))
            .collect();
        let sent = some.iter().zip(join_all(sends).await);
        results.extend(sent.map(|(to, result)| ReceiverResult::new(to, result)));
    }
    MessageResult::Each { results }
}

async fn send_to(
    state: &AppState,
    parent: Option<&Parent>,
    message: &PostMessage<'_>,
    to: Option<Destination<'static>>,
    once: Option<OnceMessage>,
) -> SendResult {
    let services = &state.services;
    let message_id = services.ids.next();
    let span = services.tracer.begin_for(parent.cloned(), "post");
    if let Some(span) = &span {
        span.set("signalbox.type", message.event_type.to_string());
        span.set("messaging.message.id", message_id.to_string());
    }
    let posted = Posted {
        trace: span.as_ref(),
        once: once.as_ref(),
        ..message.posted(to)
    };
    match backend::post(services, &message_id, posted).await {
        Ok(Conclusion { status, data }) => SendResult::Sent {
            message_id: once
                .as_ref()
                .and_then(OnceMessage::first_id)
                .unwrap_or(&message_id)
                .to_owned(),
            status: status.as_str(),
            data: data.map(ReplyData),
        },
        Err(error) => SendResult::Failed {
            error: error.into(),
        },
    }
}

impl MessageResult {
    /// Whether it may have had an effect, so that it must not be repeated.
    pub(super) fn has_acted(&self) -> bool {
        match self {
            Self::One(result) => result.has_acted(),
            Self::Each { results } => results.iter().any(|each| each.result.has_acted()),
        }
    }

    /// The result of a message that was not sent to anybody.
    pub(super) fn failed(error: ApiError) -> Self {
        Self::One(SendResult::Failed { error })
    }
}

impl SendResult {
    fn has_acted(&self) -> bool {
        match self {
            Self::Sent { .. } => true,
            Self::Failed { error } => !error.is_retryable(),
        }
    }
}

impl ReceiverResult {
    fn new(to: &Destination<'_>, result: SendResult) -> Self {
        let receiver = match to {
            Destination::User(user) => Some(user.to_string()),
            _ => None,
        };
        Self {
            receiver_id: receiver,
            room: to.room().map(str::to_owned),
            result,
        }
    }
}
