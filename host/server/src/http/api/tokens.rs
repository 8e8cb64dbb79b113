//! `POST /api/tokens/revoke`, and the revocation that blocks a user.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use signalbox_auth::NOT_BEFORE_LEEWAY;
use signalbox_broker::{Revocation, RevokeError, Revoked};
use signalbox_config::units;
use signalbox_protocol::{ErrorCode, UserId};
use tracing::info;

use super::{
    BodyLimit, KeyNumber,
    object::{self, BodyError, Object},
    read,
};
use crate::http::{
    AppState,
    error::{ApiError, json},
};

/// The longest ID of a token that can be revoked, in bytes.
const TOKEN_ID_BYTES_MAX: usize = 255;

/// The names of the fields, for error messages.
const FIELDS: &str = "`jti`, `user`, `issuedBefore` and `until`";

#[derive(Debug, Serialize)]
struct Answer {
    /// The end of the revocation, in seconds since 1970.
    until: u64,
}

/// The fields of a request. Times are in seconds since 1970.
#[derive(Debug, Default)]
struct Wanted {
    jti: Option<String>,
    user: Option<String>,
    issued_before: Option<u64>,
    until: Option<u64>,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Self, BodyError> {
        let mut object = Object::parse(body)?;
        let wanted = Self {
            jti: object.text(&["jti"])?,
            user: object.text(&["user"])?,
            issued_before: object.number("issuedBefore")?,
            until: object.number("until")?,
        };
        object.finish(FIELDS)?;
        Ok(wanted)
    }

    /// The revocation at `now`, which lasts for `time_max` at most, and by default.
    fn revocation(self, now: Duration, time_max: Duration) -> Result<Revocation, ApiError> {
        let latest = (now + time_max).as_secs();
        let until = self.until.unwrap_or(latest);
        if until <= now.as_secs() {
            return Err(wrong("invalid_until", "`until` is in the past"));
        }
        if until > latest {
            return Err(wrong(
                "invalid_until",
                "`until` is later than `auth.revocation_time_max` allows; write it in seconds since 1970",
            ));
        }
        let of = match (self.jti, self.user, self.issued_before) {
            (Some(id), None, None) => Revoked::Token(token_id(id)?),
            (None, Some(user), issued_before) => Revoked::TokensOf {
                user: user_id(user)?,
                issued_before_ms: issued_before_ms(issued_before, now)?,
            },
            _ => {
                return Err(wrong(
                    "invalid_body",
                    "name either `jti`, or `user` and if you like `issuedBefore`",
                ));
            }
        };
        Ok(Revocation {
            of,
            until_ms: until * 1_000,
        })
    }
}

/// `POST /api/tokens/revoke`.
pub(super) async fn revoke(
    State(state): State<AppState>,
    Extension(KeyNumber(key)): Extension<KeyNumber>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = read(&state, body, BodyLimit::Plain).await?;
    object::check_content(&headers)?;
    if !state.services.authenticator.uses_tokens() {
        return Err(wrong(
            "no_tokens",
            "the server uses no tokens (auth.mode = \"none\")",
        ));
    }
    let wanted = Wanted::read(&body).map_err(|(_, message)| wrong("invalid_body", message))?;
    let time_max = state.services.live.load().token_times.revocation_max;
    let revocation = wanted.revocation(since_1970(), time_max)?;
    make(&state, &revocation).await?;
    let until = revocation.until_ms / 1_000;
    match &revocation.of {
        Revoked::Token(jti) => info!(jti, until, key, "a token is revoked by the API"),
        Revoked::TokensOf { user, .. } | Revoked::User(user) => {
            info!(user, until, key, "tokens of a user are revoked by the API");
        }
    }
    Ok(json(StatusCode::OK, &Answer { until }))
}

/// Blocks `user` for `time`, and returns the end in seconds since 1970.
pub(super) async fn block(
    state: &AppState,
    user: &UserId<'_>,
    time: Duration,
) -> Result<u64, ApiError> {
    let until = since_1970() + time;
    let revocation = Revocation {
        of: Revoked::User(user.to_string()),
        until_ms: u64::try_from(until.as_millis()).unwrap_or(u64::MAX),
    };
    make(state, &revocation).await?;
    Ok(until.as_secs())
}

/// Reads the time of a block.
pub(super) fn block_time(text: &str) -> Result<Duration, ApiError> {
    const BOUNDS: (Duration, Duration) =
        (Duration::from_secs(1), Duration::from_secs(24 * 60 * 60));
    let time = units::parse_duration(text).ok();
    time.filter(|time| (BOUNDS.0..=BOUNDS.1).contains(time))
        .ok_or_else(|| {
            let message = "`block` must be a duration from 1s to 24h, such as \"10m\"";
            wrong("invalid_block", message)
        })
}

async fn make(state: &AppState, revocation: &Revocation) -> Result<(), ApiError> {
    let broker = state.services.router.broker();
    broker.revoke(revocation).await.map_err(|error| {
        let message = error.to_string();
        match error {
            RevokeError::Full => ApiError::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "too_many_revocations",
                message,
            ),
            RevokeError::Broker(_) => ApiError::of(
                ErrorCode::Unavailable,
                format!("{message}; repeat the call, which is harmless"),
            ),
        }
    })
}

fn token_id(id: String) -> Result<String, ApiError> {
    if (1..=TOKEN_ID_BYTES_MAX).contains(&id.len()) {
        Ok(id)
    } else {
        Err(wrong("invalid_jti", "`jti` must be 1 to 255 bytes long"))
    }
}

fn user_id(user: String) -> Result<String, ApiError> {
    let user = UserId::parse(user).ok_or_else(ApiError::invalid_user)?;
    Ok(user.to_string())
}

/// The moment in milliseconds. By default, it is the end of the current second, because tokens have whole seconds.
fn issued_before_ms(seconds: Option<u64>, now: Duration) -> Result<u64, ApiError> {
    let seconds = seconds.unwrap_or(now.as_secs() + 1);
    if seconds > (now + NOT_BEFORE_LEEWAY).as_secs() {
        return Err(wrong(
            "invalid_issued_before",
            "`issuedBefore` is in the future; write it in seconds since 1970",
        ));
    }
    Ok(seconds * 1_000)
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn wrong(code: &str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_millis(1_000_500);
    const TIME_MAX: Duration = Duration::from_secs(3_600);

    fn revocation(body: &str) -> Result<Revocation, String> {
        let wanted = Wanted::read(body.as_bytes());
        let wanted = wanted.map_err(|(_, message)| message)?;
        wanted
            .revocation(NOW, TIME_MAX)
            .map_err(|error| error.code().to_owned())
    }

    fn tokens_of(user: &str, issued_before_ms: u64) -> Revoked {
        Revoked::TokensOf {
            user: user.to_owned(),
            issued_before_ms,
        }
    }

    #[test]
    fn a_token_or_the_tokens_of_a_user_are_revoked_for_a_bounded_time() {
        for (body, of, until_ms) in [
            (r#"{"jti":"a"}"#, Revoked::Token("a".to_owned()), 4_600_000),
            (
                r#"{"jti":"a","until":1001}"#,
                Revoked::Token("a".to_owned()),
                1_001_000,
            ),
            (r#"{"user":"ann"}"#, tokens_of("ann", 1_001_000), 4_600_000),
            (
                r#"{"user":"ann","issuedBefore":900,"until":4600}"#,
                tokens_of("ann", 900_000),
                4_600_000,
            ),
        ] {
            assert_eq!(revocation(body), Ok(Revocation { of, until_ms }), "{body}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_meant_is_refused() {
        let long = "x".repeat(256);
        for (body, code) in [
            ("{}", "invalid_body"),
            (r#"{"jti":"a","user":"ann"}"#, "invalid_body"),
            (r#"{"jti":"a","issuedBefore":900}"#, "invalid_body"),
            (r#"{"jti":""}"#, "invalid_jti"),
            (&format!(r#"{{"jti":"{long}"}}"#), "invalid_jti"),
            (r#"{"user":""}"#, "invalid_user"),
            (&format!(r#"{{"user":"{long}"}}"#), "invalid_user"),
            (r#"{"user":"ann","until":1000}"#, "invalid_until"),
            (r#"{"user":"ann","until":4601}"#, "invalid_until"),
            (r#"{"user":"ann","until":4600000}"#, "invalid_until"),
            (
                r#"{"user":"ann","issuedBefore":1006}"#,
                "invalid_issued_before",
            ),
        ] {
            assert_eq!(revocation(body), Err(code.to_owned()), "{body}");
        }
        for body in [
            "",
            "[]",
            r#"{"jti":7}"#,
            r#"{"jit":"a"}"#,
            r#"{"jti":"a","until":-1}"#,
        ] {
            assert!(revocation(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_block_lasts_from_a_second_to_a_day() {
        for (text, seconds) in [("1s", 1), ("10m", 600), ("24h", 86_400), ("1day", 86_400)] {
            let time = block_time(text).ok();
            assert_eq!(time, Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "10", "0s", "999ms", "25h", "-1s", "forever"] {
            assert!(block_time(text).is_err(), "{text}");
        }
    }
}
