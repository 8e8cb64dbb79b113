//! Who a client is: asked once, at the upgrade.
//!
//! [`Authenticator`] answers with an [`Identity`] or an [`AuthError`] that is the HTTP answer. [`origin`] decides
//! which web pages may connect, [`subprotocol`] what `Sec-WebSocket-Protocol` is answered, [`token`] makes tokens
//! to try things out.
//!
//! Invariant: the verification key decides the algorithm of a token, never the token itself, and no error and no
//! answer holds a token or a secret.

use std::time::SystemTime;

use axum::http::{HeaderMap, header};

use crate::config::AuthConfig;

mod error;
mod jwt;
mod keys;
pub mod origin;
mod query;
pub mod subprotocol;
#[cfg(test)]
mod tests;
pub mod token;

pub use error::{AuthError, AuthSetupError};
pub use jwt::NOT_BEFORE_LEEWAY;

/// Longest ID of a user, in bytes.
pub const USER_BYTES_MAX: usize = 255;

/// Who a client is, and what its upgrade is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The ID of the user, 1–255 bytes.
    pub user: String,
    /// The claims of the token as JSON text; `{}` without a token.
    pub claims_json: String,
    /// When the connection has to end: the `exp` of the token.
    pub expires_at: Option<SystemTime>,
    /// What to answer in `Sec-WebSocket-Protocol`, if anything.
    pub subprotocol: Option<&'static str>,
    /// Whether the client speaks `signalbox.v1` and gets a `welcome`.
    pub v1: bool,
}

/// Tells who clients are, as the configuration wants it. Cheap to share, reads no file after it was made.
#[derive(Debug)]
pub struct Authenticator {
    /// None: the client says itself who it is.
    verifier: Option<jwt::Verifier>,
}

impl Authenticator {
    /// Reads the key files once.
    ///
    /// # Errors
    ///
    /// [`AuthSetupError`] where a key file cannot be read, or holds no key that is safe to use.
    pub fn from_config(config: &AuthConfig) -> Result<Self, AuthSetupError> {
        let verifier = match config {
            AuthConfig::None { .. } => None,
            AuthConfig::Jwt(config) => Some(jwt::Verifier::from_config(config)?),
        };
        Ok(Self { verifier })
    }

    /// Who sends this upgrade. Without tokens `userId` in the query says it; with them the token of
    /// `Authorization: Bearer`, of `Sec-WebSocket-Protocol: bearer, <token>` or of `?token=`, the first that is there.
    ///
    /// # Errors
    ///
    /// [`AuthError`], which is what the upgrade is answered.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Identity, AuthError> {
        let offer = subprotocol::negotiate(headers);
        let (subprotocol, v1) = (offer.answer, offer.v1);
        let query = query.unwrap_or_default();
        let Some(verifier) = &self.verifier else {
            return Ok(Identity {
                user: user_of(query)?,
                claims_json: "{}".to_owned(),
                expires_at: None,
                subprotocol,
                v1,
            });
        };
        let token = match bearer(headers)?.or(offer.token).map(str::to_owned) {
            Some(token) => token,
            None => query::parameter(query, "token")
                .and_then(Result::ok)
                .filter(|token| !token.is_empty())
                .ok_or(AuthError::MissingToken)?,
        };
        let verified = verifier.verify(&token, SystemTime::now())?;
        Ok(Identity {
            user: verified.user,
            claims_json: verified.claims_json,
            expires_at: Some(verified.expires_at),
            subprotocol,
            v1,
        })
    }
}

fn user_of(query: &str) -> Result<String, AuthError> {
    let user = query::parameter(query, "userId").ok_or(AuthError::MissingUserId)?;
    let user = user.map_err(|_| AuthError::InvalidUserId)?;
    match user.len() {
        0 => Err(AuthError::MissingUserId),
        1..=USER_BYTES_MAX => Ok(user),
        _ => Err(AuthError::InvalidUserId),
    }
}

/// The token of `Authorization: Bearer`. Another scheme, such as a proxy's own `Basic`, says nothing to us; two
/// bearer tokens leave open which is meant.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut tokens = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .filter_map(|value| {
            let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
    let token = tokens.next();
    if tokens.next().is_some() {
        return Err(AuthError::InvalidToken(
            "there are two Authorization headers with a token",
        ));
    }
    Ok(token)
}
