//! Authenticates clients, at the upgrade, and verifies tokens with which they replace theirs later.
//!
//! [`Authenticator`] returns an [`Identity`] or an [`AuthError`], which is the HTTP response. A token goes through
//! [`jws`] (form and signature, with a key of [`keys`] or [`remote`]) and [`claims`]. [`origin`] decides which web
//! pages may connect, [`subprotocol`] negotiates `Sec-WebSocket-Protocol`, and [`token`] creates tokens for trying
//! things out.
//!
//! Invariants: the verification key decides the algorithm of a token, never the token itself; and no error and no
//! response contains a token or a secret.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, header};
use signalbox_config::{AuthConfig, JwtKeySource};
use signalbox_telemetry::metrics::Metrics;

#[cfg(test)]
mod attack_tests;
mod claims;
mod error;
mod fetch;
mod jws;
mod jwt;
#[cfg(test)]
mod key_tests;
mod keys;
mod object;
pub mod origin;
mod query;
mod remote;
pub mod subprotocol;
#[cfg(test)]
mod tests;
pub mod token;
#[cfg(test)]
mod token_tests;
mod user;

pub use claims::VerifiedToken;
pub use error::{AuthError, AuthSetupError};

/// How far ahead of our clock `nbf` and `iat` may be. `exp` has no leeway.
pub const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(5);

/// The identity of a client, and the parts of the response to its upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The ID of the user, 1 to 255 bytes.
    pub user: String,
    /// The token that names the user; `None` in mode `none`.
    pub token: Option<VerifiedToken>,
    /// The `Sec-WebSocket-Protocol` of the response, if any.
    pub subprotocol: Option<&'static str>,
    /// Whether the client speaks `signalbox.v1` and gets a `welcome`.
    pub v1: bool,
}

/// Authenticates clients by the configured method. Cheap to share; reads files only in [`Authenticator::new`] and
/// [`Authenticator::apply`].
#[derive(Debug)]
pub struct Authenticator {
    mode: ArcSwap<Mode>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum Mode {
    /// The client chooses its own user ID.
    Open,
    Jwt(jwt::Verifier),
}

/// The effect of [`Authenticator::apply`] on the token keys.
#[derive(Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The keys match the configuration and its files.
    All,
    /// The key file could not be read again: the last good keys stay in use.
    OldKeys(AuthSetupError),
}

impl Authenticator {
    /// Reads the key files. Keys of `auth.jwks_url` are fetched from now on, which requires a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns [`AuthSetupError`] if a key file cannot be read, or holds no key that is safe to use.
    pub fn new(config: &AuthConfig, metrics: Arc<Metrics>) -> Result<Self, AuthSetupError> {
        let mode = match config {
            AuthConfig::None { .. } => Mode::Open,
            AuthConfig::Jwt(config) => Mode::Jwt(jwt::Verifier::new(config, &metrics)?),
        };
        Ok(Self {
            mode: ArcSwap::from_pointee(mode),
            metrics,
        })
    }

    /// Whether clients can be authenticated at all; with `auth.jwks_url`, only once keys have been fetched.
    pub fn is_ready(&self) -> bool {
        match &**self.mode.load() {
            Mode::Open => true,
            Mode::Jwt(verifier) => verifier.has_keys(),
        }
    }

    /// Applies a changed configuration, and reads the key files again. `auth.mode` does not change.
    ///
    /// # Errors
    ///
    /// Returns [`AuthSetupError`] if another key file is named that cannot be used; nothing has changed then.
    pub fn apply(&self, config: &AuthConfig) -> Result<KeyChange, AuthSetupError> {
        let mode = self.mode.load_full();
        let (Mode::Jwt(verifier), AuthConfig::Jwt(config)) = (&*mode, config) else {
            return Ok(KeyChange::All);
        };
        let (renewed, applied) = match verifier.renewed(config, &self.metrics) {
            Ok(renewed) => (renewed, KeyChange::All),
            Err(error) if verifier.has_source(config) => {
                (verifier.with_old_keys(config), KeyChange::OldKeys(error))
            }
            Err(error) => return Err(error),
        };
        self.mode.store(Arc::new(Mode::Jwt(renewed)));
        Ok(applied)
    }

    /// Verifies a token that replaces the one of a connection. Waits as [`authenticate`](Self::authenticate) does. `None` if
    /// tokens are not used (mode `none`).
    ///
    /// # Errors
    ///
    /// Returns [`AuthError`] if it is not accepted, or cannot be checked now.
    pub async fn verify(&self, token: &str) -> Option<Result<VerifiedToken, AuthError>> {
        let verified = self.verify_any(token).await?;
        Some(verified.and_then(VerifiedToken::for_connection))
    }

    /// Verifies a token that lets its user join `room`. Waits as [`authenticate`](Self::authenticate) does. `None` if tokens
    /// are not used (mode `none`).
    ///
    /// # Errors
    ///
    /// Returns [`AuthError`] if it is not accepted, or cannot be checked now.
    pub async fn verify_for_room(
        &self,
        token: &str,
        room: &str,
    ) -> Option<Result<VerifiedToken, AuthError>> {
        let verified = self.verify_any(token).await?;
        Some(verified.and_then(|token| token.for_room(room)))
    }

    async fn verify_any(&self, token: &str) -> Option<Result<VerifiedToken, AuthError>> {
        let mode = self.mode.load_full();
        let Mode::Jwt(verifier) = &*mode else {
            return None;
        };
        Some(verifier.verify(token, SystemTime::now()).await)
    }

    /// Whether clients are identified by tokens.
    pub fn uses_tokens(&self) -> bool {
        matches!(&**self.mode.load(), Mode::Jwt(_))
    }

    /// Identifies the client of this upgrade. Without tokens, this is `userId` in the query; with tokens, it is the
    /// token of `Authorization: Bearer`, of `Sec-WebSocket-Protocol: bearer, <token>` or of `?token=`, whichever is
    /// found first. Waits, for a few seconds at most, only for keys of `auth.jwks_url` that are being fetched.
    ///
    /// # Errors
    ///
    /// Returns [`AuthError`], which is the response to the upgrade.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Identity, AuthError> {
        let offer = subprotocol::negotiate(headers);
        let (subprotocol, v1) = (offer.answer, offer.v1);
        let query = query.unwrap_or_default();
        let mode = self.mode.load_full();
        let Mode::Jwt(verifier) = &*mode else {
            return Ok(Identity {
                user: user_of(query)?,
                token: None,
                subprotocol,
                v1,
            });
        };
        let token = match bearer(headers)?.or(offer.token).map(str::to_owned) {
            Some(token) => token,
            None => match query::parameter(query, "token") {
                Some(Ok(token)) if !token.is_empty() => token,
                Some(Err(_)) => return Err(AuthError::InvalidToken("it is not text")),
                _ => return Err(AuthError::MissingToken),
            },
        };
        let verified = verifier.verify(&token, SystemTime::now()).await?;
        let verified = verified.for_connection()?;
        Ok(Identity {
            user: verified.user.clone(),
            token: Some(verified),
            subprotocol,
            v1,
        })
    }
}

impl Identity {
    /// The claims of the token as JSON text; `{}` without a token.
    pub fn claims_json(&self) -> &str {
        self.token.as_ref().map_or("{}", |token| &token.claims_json)
    }

    /// When the token expires; `None` without a token.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.token.as_ref().map(|token| token.expires_at)
    }
}

fn user_of(query: &str) -> Result<String, AuthError> {
    let user = query::parameter(query, "userId").ok_or(AuthError::MissingUserId)?;
    let user = user.map_err(|_| AuthError::InvalidUserId)?;
    if user.is_empty() {
        return Err(AuthError::MissingUserId);
    }
    match user::check(&user) {
        Ok(()) => Ok(user),
        Err(_) => Err(AuthError::InvalidUserId),
    }
}

/// The token of `Authorization: Bearer`. Other schemes, such as a proxy's own `Basic`, are ignored; with two bearer
/// tokens, it is unclear which one is meant.
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

/// Fetches the keys of `auth.jwks_url` once, and returns how many there are; `None` if no URL is configured.
///
/// # Errors
///
/// Returns why they cannot be fetched, for the log.
pub async fn try_url(config: &AuthConfig) -> Option<Result<usize, String>> {
    let AuthConfig::Jwt(config) = config else {
        return None;
    };
    let JwtKeySource::JwksUrl { url, .. } = &config.keys else {
        return None;
    };
    let fetched = fetch::text(url, keys::KEYS_BYTES_MAX).await;
    Some(
        fetched
            .and_then(|text| keys::KeySet::of_jwks(&text))
            .map(|set| set.len()),
    )
}
