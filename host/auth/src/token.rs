//! Creates tokens for trying things out: `signalbox token`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use signalbox_config::{JwtConfig, JwtKeySource, SECRET_BYTES_MIN};
use signalbox_protocol::USER_ID_BYTES_MAX;

use super::{claims::SECONDS_END, user};

/// Why no token can be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The configured key can only verify.
    #[error(
        "tokens can be made only with auth.jwt_secret, and the server is configured with a public key; ask whoever \
         holds the private key for a token"
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
    sign(secret, user, None, None, ttl, now)
}

/// Creates a token that a server with this configuration accepts, with the issuer and the audience that it checks.
///
/// # Errors
///
/// Returns [`TokenError`], in particular [`TokenError::NoSecret`] if the server has only a public key.
pub fn issue_for(
    config: &JwtConfig,
    user: &str,
    ttl: Duration,
    now: SystemTime,
) -> Result<String, TokenError> {
    let JwtKeySource::Secrets {
        current: secret, ..
    } = &config.keys
    else {
        return Err(TokenError::NoSecret);
    };
    sign(
        secret,
        user,
        config.issuer.as_deref(),
        config.audience.as_deref(),
        ttl,
        now,
    )
}

fn sign(
    secret: &str,
    user_id: &str,
    iss: Option<&str>,
    aud: Option<&str>,
    ttl: Duration,
    now: SystemTime,
) -> Result<String, TokenError> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(TokenError::ShortSecret);
    }
    user::check(user_id).map_err(|_| TokenError::User)?;
    let iat = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| TokenError::Lifetime)?
        .as_secs();
    let exp = iat
        .checked_add(ttl.as_secs())
        .filter(|exp| *exp > iat && *exp < SECONDS_END)
        .ok_or(TokenError::Lifetime)?;
    let claims = Claims {
        sub: user_id,
        iat,
        exp,
        iss,
        aud,
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| TokenError::Signing(error.to_string()))
}
