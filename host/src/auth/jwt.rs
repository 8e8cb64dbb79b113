//! JSON Web Tokens (RFC 7519): verified with a key that was chosen beforehand.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    AuthError, AuthSetupError, USER_BYTES_MAX,
    keys::{KeySet, VerificationKey},
};
use crate::config::JwtConfig;

/// How far ahead of our clock `nbf` may be. `exp` has no leeway: the connection ends at that very moment.
pub const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(5);

/// What a good token says.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) user: String,
    pub(super) claims_json: String,
    pub(super) expires_at: SystemTime,
}

/// Verifies tokens against the keys and demands of the configuration.
#[derive(Debug)]
pub(super) struct Verifier {
    keys: KeySet,
    issuer: Option<String>,
    audience: Option<String>,
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
    exp: f64,
}

impl Verifier {
    pub(super) fn from_config(config: &JwtConfig) -> Result<Self, AuthSetupError> {
        Ok(Self {
            keys: KeySet::load(&config.keys)?,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
        })
    }

    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, AuthError> {
        let header = decode_header(token).map_err(|error| refusal(error.kind()))?;
        // RFC 7515 §4.1.11: extensions that must be understood, and none is.
        if header.crit.is_some() {
            return Err(AuthError::InvalidToken(
                "it demands an extension (crit) that is not known",
            ));
        }
        let key = self.keys.choose(header.kid.as_deref())?;
        let decoded = decode::<Box<RawValue>>(token, &key.key, &self.demands(key));
        let claims_json = decoded.map_err(|error| refusal(error.kind()))?.claims;
        let claims: Claims<'_> = serde_json::from_str(claims_json.get())
            .map_err(|_| AuthError::InvalidToken("its claims cannot be read"))?;
        let expires_at = expiry(claims.exp)?;
        if expires_at <= now {
            return Err(AuthError::ExpiredToken);
        }
        if !(1..=USER_BYTES_MAX).contains(&claims.sub.len()) {
            return Err(AuthError::InvalidToken(
                "its sub is not 1 to 255 bytes long",
            ));
        }
        Ok(Verified {
            user: claims.sub.into_owned(),
            claims_json: claims_json.get().to_owned(),
            expires_at,
        })
    }

    fn demands(&self, key: &VerificationKey) -> Validation {
        let mut demands = Validation::new(key.algorithm);
        let mut required = vec!["exp", "sub"];
        demands.leeway = NOT_BEFORE_LEEWAY.as_secs();
        demands.validate_nbf = true;
        if let Some(issuer) = &self.issuer {
            demands.set_issuer(&[issuer]);
            required.push("iss");
        }
        demands.validate_aud = self.audience.is_some();
        if let Some(audience) = &self.audience {
            demands.set_audience(&[audience]);
            required.push("aud");
        }
        demands.set_required_spec_claims(&required);
        demands
    }
}

/// `exp` as a moment: seconds since 1970, possibly with a fraction (RFC 7519 §2, NumericDate).
fn expiry(exp: f64) -> Result<SystemTime, AuthError> {
    Duration::try_from_secs_f64(exp)
        .ok()
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or(AuthError::InvalidToken("its exp is no moment"))
}

/// Says why a token is refused, in words that do not depend on what it holds.
fn refusal(kind: &ErrorKind) -> AuthError {
    let reason = match kind {
        ErrorKind::ExpiredSignature => return AuthError::ExpiredToken,
        ErrorKind::InvalidSignature => "its signature does not match",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => {
            "its algorithm is not that of the key"
        }
        ErrorKind::ImmatureSignature => "it is not valid yet (nbf)",
        ErrorKind::InvalidIssuer => "it is from another issuer (iss)",
        ErrorKind::InvalidAudience => "it is for another audience (aud)",
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            match claim.as_str() {
                "exp" => "it has no exp that is a number of seconds",
                "sub" => "it has no sub that is a string",
                "iss" => "it has no issuer (iss)",
                "aud" => "it has no audience (aud)",
                _ => "a claim is missing or malformed",
            }
        }
        _ => "it is not a signed JSON Web Token with a known algorithm",
    };
    AuthError::InvalidToken(reason)
}
