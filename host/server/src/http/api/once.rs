//! `Idempotency-Key`: a call that is repeated acts once, and gets the answer of the first one.

use std::future::Future;

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use signalbox_broker::OnceKey;
use signalbox_plugin_runtime::hex;

use crate::{
    http::{
        AppState,
        error::{ApiError, json_text},
    },
    session::once::{self, OnceIdentity, OnceStart},
};

/// The header with the key of a call.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header of an answer that is a repetition.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Maximum length of a key.
const KEY_BYTES_MAX: usize = 255;

/// Hex digits that stand for an API key in the name of a call.
const CALLER_DIGITS: usize = 16;

/// Identifies the API key of a caller, so that callers with different keys do not share answers.
#[derive(Clone, Debug)]
pub(super) struct OnceCaller(String);

/// A successful answer: JSON text, and whether the call may have had an effect, so that it must not be repeated.
pub(super) struct OnceAnswer {
    pub(super) body: String,
    pub(super) has_acted: bool,
}

impl OnceCaller {
    /// The caller with this API key.
    pub(super) fn new(api_key: &str) -> Self {
        let hash = digest(&SHA256, api_key.as_bytes());
        Self(hex(&hash.as_ref()[..CALLER_DIGITS / 2]))
    }
}

/// Completes the call that is `answered`, in a task: a client that leaves cancels its request, and will repeat it.
///
/// # Errors
/// Returns those of the call, or that it panicked.
pub(super) async fn to_the_end(
    answered: impl Future<Output = Result<Response, ApiError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let answered = tokio::spawn(answered).await;
    answered.unwrap_or_else(|_| Err(ApiError::panicked()))
}

/// The identity of the call of `path` with `body` that `headers` belong to; `None` if it has no key.
///
/// # Errors
/// Returns 400 if the key is malformed.
pub(super) fn identity(
    headers: &HeaderMap,
    caller: Option<&OnceCaller>,
    (path, body): (&str, &[u8]),
) -> Result<Option<OnceIdentity>, ApiError> {
    let key = key(headers, caller)?;
    Ok(key.map(|key| OnceIdentity::new(key, &[path.as_bytes(), body])))
}

fn key(headers: &HeaderMap, caller: Option<&OnceCaller>) -> Result<Option<OnceKey>, ApiError> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(key), Some(caller)) = (given.next(), caller) else {
        return Ok(None);
    };
    let is_legal = |key: &&str| {
        let is_printable = key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        (1..=KEY_BYTES_MAX).contains(&key.len()) && is_printable
    };
    let key = key.to_str().ok().filter(is_legal);
    match (key, given.next()) {
        (Some(key), None) => Ok(Some(OnceKey::of_backend(&caller.0, key))),
        _ => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_idempotency_key",
            "`Idempotency-Key` is one header of 1 to 255 printable ASCII characters",
        )),
    }
}

/// Answers the call that `identity` names with the result of `work`, or of the first such call.
pub(super) async fn answer(
    state: &AppState,
    identity: Option<OnceIdentity>,
    work: impl Future<Output = Result<OnceAnswer, ApiError>>,
) -> Result<Response, ApiError> {
    let Some(identity) = identity else {
        let answer = work.await?;
        return Ok(json_text(StatusCode::OK, answer.body));
    };
    let claim = match once::begin(&state.services, identity).await? {
        OnceStart::First(claim) => claim,
        OnceStart::Repetition(kept) => return Ok(repeat(&kept)),
    };
    match claim.hold(work).await {
        Ok(answer) => {
            let kept = kept(StatusCode::OK, &answer.body);
            claim.settle(answer.has_acted.then_some(&kept)).await;
            Ok(json_text(StatusCode::OK, answer.body))
        }
        Err(error) => {
            let kept = kept(error.status(), &error.body());
            let is_final = !error.is_retryable();
            claim.settle(is_final.then_some(&kept)).await;
            Err(error)
        }
    }
}

/// The text that is kept of an answer.
fn kept(status: StatusCode, body: &str) -> String {
    format!("{} {body}", status.as_str())
}

/// The answer that was kept, marked as a repetition.
fn repeat(kept: &str) -> Response {
    let (status, body) = kept.split_once(' ').unwrap_or_default();
    let status = StatusCode::from_bytes(status.as_bytes());
    let fields = body.strip_suffix('}').unwrap_or(body);
    let marked = format!(r#"{fields},"duplicate":true}}"#);
    let mut response = json_text(status.unwrap_or(StatusCode::OK), marked).into_response();
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(REPLAYED, replayed);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(keys: &[&str]) -> HeaderMap {
        let values = keys
            .iter()
            .map(|key| HeaderValue::from_bytes(key.as_bytes()));
        let values = values.map(|value| (IDEMPOTENCY_KEY, value.expect("a header")));
        values.collect()
    }

    #[test]
    fn a_key_is_one_header_with_1_to_255_printable_characters() {
        let caller = OnceCaller::new("0123456789abcdef");
        let longest = "x".repeat(255);
        for good in [
            "a",
            "8e03978e-40d5-43e8-bc93-6894a57f9324",
            "\"q u\"",
            &longest,
        ] {
            let found = key(&headers(&[good]), Some(&caller)).expect("a key");
            assert_eq!(found, Some(OnceKey::of_backend(&caller.0, good)));
        }
        assert!(key(&headers(&[]), Some(&caller)).expect("none").is_none());
        let longer = "x".repeat(256);
        for bad in [&[""][..], &[&longer], &["ä"], &["a\tb"], &["a", "a"]] {
            assert!(key(&headers(bad), Some(&caller)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn callers_are_identified_and_their_keys_are_not_shown() {
        let (one, other) = (OnceCaller::new("first-key"), OnceCaller::new("second-key"));
        assert_ne!(one.0, other.0);
        assert!(one.0.len() == CALLER_DIGITS && !one.0.contains("first"));
    }
}
