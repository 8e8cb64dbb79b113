//! `POST /api/batch`: many messages with one call.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;

use super::{
    BodyLimit, invalid_body,
    message::PostMessage,
    messages::{self, MessageResult},
    object::{self, BodyError, Object},
    once::{self, OnceAnswer, OnceCaller},
    read,
};
use crate::{
    http::{
        AppState,
        error::{ApiError, json_of},
    },
    session::once::OnceIdentity,
};

/// The most messages of one call.
const MESSAGES_MAX: usize = 1_000;

/// The most receivers of all messages of one call.
const RECEIVERS_MAX: usize = 10_000;

#[derive(Serialize)]
struct BatchResult {
    results: Vec<MessageResult>,
}

pub(super) async fn post(
    State(state): State<AppState>,
    caller: Option<Extension<OnceCaller>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = read(&state, body, BodyLimit::Batch).await?;
    object::check_content(&headers)?;
    let call = ("/api/batch", &body[..]);
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
    let messages: Vec<Result<PostMessage<'_>, ApiError>> = texts(body)
        .map_err(invalid_body)?
        .into_iter()
        .map(|text| messages::parse(state, text.as_bytes()))
        .collect();
    let receivers: usize = messages.iter().flatten().map(PostMessage::count).sum();
    if receivers > RECEIVERS_MAX {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_body",
            format!(
                "the messages have {receivers} receivers; send at most {RECEIVERS_MAX} in one call"
            ),
        ));
    }
    let parent = messages::parent(headers);
    let work = async {
        let mut results = Vec::with_capacity(messages.len());
        for (number, message) in messages.into_iter().enumerate() {
            let once = identity.as_ref().map(|identity| (identity, number));
            results.push(match message {
                Ok(message) => messages::send(state, parent.as_ref(), &message, once).await,
                Err(error) => MessageResult::failed(error),
            });
        }
        Ok(OnceAnswer {
            has_acted: results.iter().any(MessageResult::has_acted),
            body: json_of(&BatchResult { results }),
        })
    };
    once::answer(state, identity.clone(), work).await
}

/// The messages of a batch, as JSON.
fn texts(body: &[u8]) -> Result<Vec<&str>, BodyError> {
    // A message that breaks the rules for JSON must not stop the others.
    let mut object = Object::parse_unchecked(body)?;
    let texts = object.list("messages", MESSAGES_MAX)?;
    object.finish("`messages`")?;
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_list_of_any_kind_of_message() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let body = format!(r#"{{"messages":[{{"type":"a"}}, 5 ,"\ud83d",{deep}]}}"#);
        let expected = [r#"{"type":"a"}"#, "5", r#""\ud83d""#, &deep];
        assert_eq!(texts(body.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_batch_has_1_to_1000_messages_and_no_other_field() {
        let batch = |count: usize| format!(r#"{{"messages":[{}]}}"#, vec!["{}"; count].join(","));
        assert_eq!(texts(batch(1_000).as_bytes()).map(|it| it.len()), Ok(1_000));
        for body in [
            "{}",
            &batch(0),
            &batch(1_001),
            "[]",
            "",
            r#"{"messages":{}}"#,
            r#"{"messages":null}"#,
            r#"{"messages":[{}],"more":1}"#,
            r#"{"messages":[{}],"messages":[{}]}"#,
            r#"{"messages":[{]}"#,
        ] {
            assert!(texts(body.as_bytes()).is_err(), "{body}");
        }
    }
}
