//! The claims of a token whose signature is valid (RFC 7519 §4.1).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, value::RawValue};

use super::{
    AuthError, NOT_BEFORE_LEEWAY,
    object::{self, Members},
    user::{self, InvalidUserId},
};

/// The first second that `exp`, `nbf` and `iat` must not name, in the year 5138. Any time since 1973 in milliseconds
/// lies beyond it.
pub(super) const SECONDS_END: u64 = 100_000_000_000;

/// A number beyond it is not even a time in milliseconds or microseconds.
const NO_MOMENT: f64 = 1e17;

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// The ID of the user (`sub`), 1 to 255 bytes.
    pub user: String,
    /// All claims, as JSON text.
    pub claims_json: String,
    /// When it expires (`exp`).
    pub expires_at: SystemTime,
    /// Its ID (`jti`), if it has one that is a string.
    pub id: Option<String>,
    /// When it was issued (`iat`), if it says so.
    pub issued_at: Option<SystemTime>,
    /// The room that it lets its user join (`room`). Only a token without this claim opens a connection.
    pub room: Option<String>,
}

impl VerifiedToken {
    /// Returns the token if it may open a connection, or replace the token of one.
    pub(super) fn for_connection(self) -> Result<Self, AuthError> {
        match self.room {
            None => Ok(self),
            Some(_) => Err(AuthError::InvalidToken(
                "it is for one room (room); send it with the join of that room",
            )),
        }
    }

    /// Returns the token if it lets its user join `room`.
    pub(super) fn for_room(self, room: &str) -> Result<Self, AuthError> {
        match &self.room {
            Some(named) if named == room => Ok(self),
            Some(_) => Err(AuthError::InvalidToken("it is for another room (room)")),
            None => Err(AuthError::InvalidToken(
                "it names no room (room); a token that opens connections is not one for a room",
            )),
        }
    }
}

/// The claims that a token must carry in addition to `sub` and `exp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequiredClaims {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

impl RequiredClaims {
    /// Parses `claims_json` and checks it against `now` and these demands.
    pub(super) fn check(
        &self,
        claims_json: String,
        now: SystemTime,
    ) -> Result<VerifiedToken, AuthError> {
        let claims = object::read(&claims_json)
            .map_err(|fault| AuthError::InvalidToken(fault.in_claims()))?;
        let expires_at = expiry(&claims)?;
        if expires_at <= now {
            return Err(AuthError::ExpiredToken);
        }
        not_after(&claims, "nbf", now)?;
        not_after(&claims, "iat", now)?;
        self.check_issuer(&claims)?;
        self.check_audience(&claims)?;
        let user = subject(&claims)?;
        let id = match value(&claims, "jti") {
            Some(Value::String(id)) => Some(id),
            _ => None,
        };
        let issued_at = claims.get("iat").and_then(|iat| moment(seconds(iat)?));
        let room = match value(&claims, "room") {
            None => None,
            Some(Value::String(room)) => Some(room),
            Some(_) => return Err(AuthError::InvalidToken("its room is not a string")),
        };
        Ok(VerifiedToken {
            user,
            claims_json,
            expires_at,
            id,
            issued_at,
            room,
        })
    }

    fn check_issuer(&self, claims: &Members<'_>) -> Result<(), AuthError> {
        let issuer = match (value(claims, "iss"), &self.issuer) {
            (Some(Value::String(issuer)), _) => issuer,
            (Some(_), _) => {
                return Err(AuthError::InvalidToken("its issuer (iss) is not a string"));
            }
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(AuthError::InvalidToken("it has no issuer (iss)")),
        };
        match &self.issuer {
            Some(wanted) if *wanted != issuer => {
                Err(AuthError::InvalidToken("it is from another issuer (iss)"))
            }
            _ => Ok(()),
        }
    }

    fn check_audience(&self, claims: &Members<'_>) -> Result<(), AuthError> {
        const WRONG_KIND: AuthError =
            AuthError::InvalidToken("its audience (aud) is neither a string nor a list of strings");
        let audiences = match (value(claims, "aud"), &self.audience) {
            (Some(Value::String(audience)), _) => vec![audience],
            (Some(Value::Array(audiences)), _) => audiences
                .into_iter()
                .map(|audience| match audience {
                    Value::String(audience) => Ok(audience),
                    _ => Err(WRONG_KIND),
                })
                .collect::<Result<_, _>>()?,
            (Some(_), _) => return Err(WRONG_KIND),
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(AuthError::InvalidToken("it has no audience (aud)")),
        };
        match &self.audience {
            Some(wanted) if !audiences.contains(wanted) => {
                Err(AuthError::InvalidToken("it is for another audience (aud)"))
            }
            _ => Ok(()),
        }
    }
}

/// A claim; `None` if it is missing or `null`, which has no meaning.
fn value(claims: &Members<'_>, name: &str) -> Option<Value> {
    // It has already been parsed as JSON.
    let value: Value = serde_json::from_str(claims.get(name)?.get()).ok()?;
    Some(value).filter(|value| !value.is_null())
}

fn subject(claims: &Members<'_>) -> Result<String, AuthError> {
    let Some(Value::String(sub)) = value(claims, "sub") else {
        return Err(AuthError::InvalidToken("it has no sub that is a string"));
    };
    match user::check(&sub) {
        Ok(()) => Ok(sub),
        Err(InvalidUserId::Length) => Err(AuthError::InvalidToken(
            "its sub is not 1 to 255 bytes long",
        )),
        Err(InvalidUserId::Blank) => Err(AuthError::InvalidToken("its sub is blank")),
    }
}

/// `exp` as a time: seconds since 1970, possibly with a fraction (RFC 7519 §2, NumericDate).
fn expiry(claims: &Members<'_>) -> Result<SystemTime, AuthError> {
    const MISSING: AuthError = AuthError::InvalidToken("it has no exp that is a number of seconds");
    let exp = claims
        .get("exp")
        .and_then(|exp| seconds(exp))
        .filter(|exp| *exp >= 0.0)
        .ok_or(MISSING)?;
    if exp > NO_MOMENT {
        return Err(AuthError::InvalidToken("its exp is not a valid time"));
    }
    if exp >= SECONDS_END as f64 {
        return Err(AuthError::InvalidToken(
            "its exp is too far in the future; write it in seconds, not in milliseconds",
        ));
    }
    moment(exp).ok_or(AuthError::InvalidToken("its exp is not a valid time"))
}

/// The moment that is so many seconds after 1970; `None` if it is before, or too late for the system.
fn moment(seconds: f64) -> Option<SystemTime> {
    let since_1970 = Duration::try_from_secs_f64(seconds).ok()?;
    UNIX_EPOCH.checked_add(since_1970)
}

/// Refuses a token that becomes valid, or was issued, only after `now`.
fn not_after(claims: &Members<'_>, name: &str, now: SystemTime) -> Result<(), AuthError> {
    let Some(raw) = claims.get(name).filter(|raw| raw.get() != "null") else {
        return Ok(());
    };
    let is_nbf = name == "nbf";
    let Some(seconds) = seconds(raw) else {
        return Err(AuthError::InvalidToken(if is_nbf {
            "its nbf is not a number of seconds"
        } else {
            "its iat is not a number of seconds"
        }));
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if seconds <= (now + NOT_BEFORE_LEEWAY).as_secs_f64() {
        return Ok(());
    }
    Err(AuthError::InvalidToken(
        match (is_nbf, seconds >= SECONDS_END as f64) {
            (true, true) => {
                "its nbf is too far in the future; write it in seconds, not in milliseconds"
            }
            (true, false) => "it is not valid yet (nbf)",
            (false, true) => {
                "its iat is too far in the future; write it in seconds, not in milliseconds"
            }
            (false, false) => "it was issued in the future (iat); are both clocks right?",
        },
    ))
}

/// A number; infinite if it is too large for an `f64`.
fn seconds(raw: &RawValue) -> Option<f64> {
    let text = raw.get();
    text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        .then(|| text.parse().ok())?
}
