//! `[auth]` after assembly.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// `[auth]`: how clients are authenticated.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthConfig {
    /// The client chooses its user ID with `?userId=`.
    None {
        /// Whether the server may listen on an address that is not a loopback in this mode.
        allow_insecure: bool,
    },
    /// A JSON Web Token names the user.
    Jwt(JwtConfig),
}

/// The times that apply to tokens that were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// How long a connection outlives its token, at most 1 h.
    pub grace: Duration,
    /// How long a revocation lasts at most, and by default, 1 s – 1 year.
    pub revocation_max: Duration,
}

/// How tokens are verified.
#[derive(Clone, PartialEq)]
pub struct JwtConfig {
    /// The source of the verification keys.
    pub keys: JwtKeySource,
    /// The `iss` that a token must carry, if any.
    pub issuer: Option<String>,
    /// The `aud` that a token must carry, if any.
    pub audience: Option<String>,
}

/// The source of verification keys. Its kind decides the accepted algorithms, never the token.
#[derive(Clone, PartialEq, Eq)]
pub enum JwtKeySource {
    /// HS256 with one of these secrets.
    Secrets {
        /// The secret that tokens are signed with.
        current: String,
        /// The previous secret, while it is still accepted.
        previous: Option<String>,
    },
    /// RS256 or ES256 with the public key in this PEM file.
    PemFile(PathBuf),
    /// RS256 or ES256 with the keys in this JWKS file, chosen by `kid`.
    JwksFile(PathBuf),
    /// Like `JwksFile`, fetched from a URL.
    JwksUrl {
        /// `http://` or `https://`.
        url: String,
        /// Time between two fetches, 1 s – 24 h.
        refresh_interval: Duration,
    },
}

impl AuthConfig {
    /// The file with the token keys, if there is one.
    pub fn key_file(&self) -> Option<&Path> {
        match self {
            Self::Jwt(JwtConfig {
                keys: JwtKeySource::PemFile(file) | JwtKeySource::JwksFile(file),
                ..
            }) => Some(file),
            _ => None,
        }
    }
}

// Keeps secrets out of logs, which use `Debug`.
impl std::fmt::Debug for JwtConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtConfig")
            .field("keys", &self.keys)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish()
    }
}

impl std::fmt::Debug for JwtKeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secrets { previous, .. } => f.write_str(if previous.is_some() {
                "Secrets(2)"
            } else {
                "Secrets(1)"
            }),
            Self::PemFile(path) => f.debug_tuple("PemFile").field(path).finish(),
            Self::JwksFile(path) => f.debug_tuple("JwksFile").field(path).finish(),
            Self::JwksUrl { url, .. } => f.debug_tuple("JwksUrl").field(url).finish(),
        }
    }
}
