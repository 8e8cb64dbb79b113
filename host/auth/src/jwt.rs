//! JSON Web Tokens (RFC 7519): verified with keys that were chosen beforehand.

use std::{sync::Arc, time::SystemTime};

use signalbox_config::{JwtConfig, JwtKeySource};
use signalbox_telemetry::metrics::Metrics;

use super::{
    AuthError, AuthSetupError,
    claims::{RequiredClaims, VerifiedToken},
    jws::UnverifiedToken,
    keys::KeySet,
    remote::RemoteKeys,
};

/// Verifies tokens against the keys and demands of the configuration.
#[derive(Debug)]
pub(super) struct Verifier {
    source: JwtKeySource,
    keys: Keys,
    demands: RequiredClaims,
}

#[derive(Clone, Debug)]
enum Keys {
    Local(Arc<KeySet>),
    Remote(Arc<RemoteKeys>),
}

impl Verifier {
    /// Reads the keys, or begins to fetch them.
    pub(super) fn new(config: &JwtConfig, metrics: &Arc<Metrics>) -> Result<Self, AuthSetupError> {
        let keys = Keys::from_source(&config.keys, metrics, None)?;
        Ok(Self::with(config, keys))
    }

    /// A verifier for `config` that replaces this one. Keys of the same URL are not fetched again; those of another URL replace
    /// the old ones once they have been fetched.
    pub(super) fn renewed(
        &self,
        config: &JwtConfig,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AuthSetupError> {
        let is_remote = matches!(self.keys, Keys::Remote(_));
        let keys = if is_remote && self.source == config.keys {
            self.keys.clone()
        } else {
            Keys::from_source(&config.keys, metrics, self.keys.now())?
        };
        Ok(Self::with(config, keys))
    }

    /// A verifier for `config`, with the keys of this one.
    pub(super) fn with_old_keys(&self, config: &JwtConfig) -> Self {
        Self::with(config, self.keys.clone())
    }

    /// Whether `config` takes its keys from the same place.
    pub(super) fn has_source(&self, config: &JwtConfig) -> bool {
        self.source == config.keys
    }

    fn with(config: &JwtConfig, keys: Keys) -> Self {
        Self {
            source: config.keys.clone(),
            keys,
            demands: RequiredClaims {
                issuer: config.issuer.clone(),
                audience: config.audience.clone(),
            },
        }
    }

    /// Whether there are any keys: those of a URL may not have been fetched yet.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.now().is_some()
    }

    /// Verifies `token` at `now`. Waits, for a bounded time, only for keys that are being fetched.
    pub(super) async fn verify(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<VerifiedToken, AuthError> {
        let token = UnverifiedToken::read(token)?;
        let claims = match &self.keys {
            Keys::Local(set) => token.verified_by(set.choose(token.kid())?)?,
            Keys::Remote(remote) => {
                let set = remote.set_for(token.kid()).await?;
                token.verified_by(set.choose(token.kid())?)?
            }
        };
        self.demands.check(claims, now)
    }
}

impl Keys {
    /// The keys of `source`. For a URL, they are `meanwhile` until the URL's keys have arrived.
    fn from_source(
        source: &JwtKeySource,
        metrics: &Arc<Metrics>,
        meanwhile: Option<Arc<KeySet>>,
    ) -> Result<Self, AuthSetupError> {
        let set = match source {
            JwtKeySource::Secrets { current, previous } => {
                KeySet::of_secrets([current].into_iter().chain(previous))
            }
            JwtKeySource::PemFile(path) => KeySet::of_pem_file(path)?,
            JwtKeySource::JwksFile(path) => KeySet::of_jwks_file(path)?,
            JwtKeySource::JwksUrl {
                url,
                refresh_interval,
            } => {
                let remote = RemoteKeys::start(url, *refresh_interval, metrics.clone(), meanwhile);
                return Ok(Self::Remote(Arc::new(remote)));
            }
        };
        Ok(Self::Local(Arc::new(set)))
    }

    /// The current keys, if there are any.
    fn now(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Local(set) => Some(set.clone()),
            Self::Remote(remote) => remote.now(),
        }
    }
}
