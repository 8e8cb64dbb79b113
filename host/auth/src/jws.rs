//! A signed token in compact form (RFC 7515 §7.1): its three parts, and whether a key signed them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use serde_json::Value;

use super::{AuthError, keys::VerificationKey, object};

/// Maximum length of a token, in bytes: it must fit into the header of a request.
pub(super) const TOKEN_BYTES_MAX: usize = 16 << 10;

/// A token that is well-formed; nothing in it can be trusted yet.
#[derive(Debug)]
pub(super) struct UnverifiedToken<'t> {
    /// Header and claims in the form that was signed.
    signed: &'t str,
    claims: &'t str,
    signature: &'t str,
    algorithm: Option<Algorithm>,
    kid: Option<String>,
}

impl<'t> UnverifiedToken<'t> {
    /// Splits `token` into its parts and reads its header.
    pub(super) fn read(token: &'t str) -> Result<Self, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::InvalidToken("it is longer than 16 KiB"));
        }
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let [header, claims, signature] = parts.as_slice() else {
            return Err(AuthError::InvalidToken(
                "it is not a signed JSON Web Token, which has three parts",
            ));
        };
        let text = decode(header).ok_or(AuthError::InvalidToken(
            "it is not a signed JSON Web Token: its header cannot be decoded",
        ))?;
        let header =
            object::read(&text).map_err(|fault| AuthError::InvalidToken(fault.in_header()))?;
        // RFC 7515 §4.1.11: extensions that must be understood. None is supported.
        if header.contains_key("crit") {
            return Err(AuthError::InvalidToken(
                "it demands an extension (crit) that is not known",
            ));
        }
        let kid = match header.get("kid") {
            None => None,
            Some(kid) => Some(serde_json::from_str(kid.get()).map_err(|_| {
                AuthError::InvalidToken("the name of its key (kid) is not a string")
            })?),
        };
        let algorithm = algorithm(header.get("alg").map(|alg| alg.get()))?;
        Ok(Self {
            signed: &token[..token.len() - signature.len() - 1],
            claims,
            signature,
            algorithm,
            kid,
        })
    }

    /// The name of the key that it claims to be signed with.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Returns its claims as JSON text if one of `keys` signed them.
    pub(super) fn verified_by(&self, keys: &[VerificationKey]) -> Result<String, AuthError> {
        let mut refusal = "its algorithm is not that of the key";
        for key in keys {
            if self.algorithm != Some(key.algorithm) {
                continue;
            }
            let signed = self.signed.as_bytes();
            match crypto::verify(self.signature, signed, &key.key, key.algorithm) {
                Ok(true) => {
                    return decode(self.claims).ok_or(AuthError::InvalidToken(
                        "its claims are not UTF-8 text in base64url",
                    ));
                }
                _ => refusal = "its signature does not match",
            }
        }
        Err(AuthError::InvalidToken(refusal))
    }
}

/// The algorithm that a header names; `None` if the library does not know it, so that no key of ours can have it.
fn algorithm(alg: Option<&str>) -> Result<Option<Algorithm>, AuthError> {
    let name = match alg.map(serde_json::from_str) {
        Some(Ok(Value::String(name))) => name,
        _ => {
            return Err(AuthError::InvalidToken(
                "it is not a signed JSON Web Token: its header names no algorithm (alg)",
            ));
        }
    };
    if name.eq_ignore_ascii_case("none") {
        return Err(AuthError::InvalidToken(
            "it is not a signed JSON Web Token: its algorithm is \"none\"",
        ));
    }
    Ok(name.parse().ok())
}

fn decode(part: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
