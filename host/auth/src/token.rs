//! Creates tokens for trying things out: `signalbox token`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use signalbox_config::{JwtConfig, JwtKeySource, SECRET_BYTES_MIN};
use signalbox_protocol::{ROOM_NAME_BYTES_MAX, RoomName, USER_ID_BYTES_MAX};

use super::{claims::SECONDS_END, user};

/// Why no token can be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The configured key can only verify.
    #[error(
        "tokens can be made only with auth.jwt_secret, and the server is configured with a public key; ask the owner \
         of the private key for a token"
    )]
    NoSecret,
    /// A secret that the server would not accept.
    #[error(
        "the secret is shorter than {SECRET_BYTES_MIN} bytes; make one with: openssl rand -hex 32"
    )]
    ShortSecret,
    /// A user that the server would not accept.
    #[error("the user must be 1 to {USER_ID_BYTES_MAX} bytes long, and not blank")]
    User,
    /// A room that cannot exist.
    #[error("the room must be 1 to {ROOM_NAME_BYTES_MAX} bytes long")]
    Room,
    /// A lifetime shorter than a second, or one that ends after the last moment that can be written.
    #[error(
        "the lifetime must be 1 s or more, and end before the calendar does; use for example 1h"
    )]
    Lifetime,
    /// The library refused to sign.
    #[error("the token could not be signed: {0}")]
    Signing(String),
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Creates a token, signed with HS256, that names `user` and is valid from `now` on for `ttl` (in whole seconds).
///
/// # Errors
///
/// Returns [`TokenError`] if a server with this secret would not accept it.
pub fn issue(
    secret: &str,
    user: &str,
    ttl: Duration,
    now: SystemTime,
) -> Result<String, TokenError> {
    let claims = Claims {
        sub: user,
        room: None,
        iat: 0,
        exp: 0,
        iss: None,
        aud: None,
    };
    sign(secret, claims, ttl, now)
}

/// Creates a token that a server with this configuration accepts, with the issuer and the audience that it checks. With a
/// `room`, the token lets the user join this room, and opens no connection.
///
/// # Errors
///
/// Returns [`TokenError`], in particular [`TokenError::NoSecret`] if the server has only a public key.
pub fn issue_for(
    config: &JwtConfig,
    user: &str,
    room: Option<&str>,
    ttl: Duration,
    now: SystemTime,
) -> Result<String, TokenError> {
    let JwtKeySource::Secrets {
        current: secret, ..
    } = &config.keys
    else {
        return Err(TokenError::NoSecret);
    };
    let claims = Claims {
        sub: user,
        room,
        iat: 0,
        exp: 0,
        iss: config.issuer.as_deref(),
        aud: config.audience.as_deref(),
    };
    sign(secret, claims, ttl, now)
}

/// Signs `claims`, with the times set.
fn sign(
    secret: &str,
    claims: Claims<'_>,
    ttl: Duration,
    now: SystemTime,
) -> Result<String, TokenError> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(TokenError::ShortSecret);
    }
    user::check(claims.sub).map_err(|_| TokenError::User)?;
    if claims
        .room
        .is_some_and(|room| RoomName::parse(room).is_none())
    {
        return Err(TokenError::Room);
    }
    let iat = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| TokenError::Lifetime)?
        .as_secs();
    let exp = iat
        .checked_add(ttl.as_secs())
        .filter(|exp| *exp > iat && *exp < SECONDS_END)
        .ok_or(TokenError::Lifetime)?;
    let claims = Claims { iat, exp, ..claims };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| TokenError::Signing(error.to_string()))
}
