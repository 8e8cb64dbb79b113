//! Verification keys: from secrets, a PEM file or a JWKS (RFC 7517). Each key has one algorithm.

use std::path::Path;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use signalbox_config::read_text;

use super::{AuthError, AuthSetupError};

/// Minimum length of an RSA key, in bits (RFC 7518 §3.3).
const RSA_BITS_MIN: u32 = 2048;

/// Maximum size of a key file or key set, in bytes.
pub(super) const KEYS_BYTES_MAX: usize = 1 << 20;

/// A key with the one algorithm that it verifies.
#[derive(Debug)]
pub(super) struct VerificationKey {
    kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys to choose from.
#[derive(Debug)]
pub(super) enum KeySet {
    /// Each may have signed any token, whatever `kid` the token names.
    Any(Vec<VerificationKey>),
    /// Keys of a JWKS, at least one.
    Named(Vec<VerificationKey>),
}

/// Why no key was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyNotFound {
    /// No key has the `kid` of the token.
    Unknown,
    /// The token names no key, and there are several.
    Unnamed,
}

impl From<KeyNotFound> for AuthError {
    fn from(reason: KeyNotFound) -> Self {
        Self::InvalidToken(match reason {
            KeyNotFound::Unknown => "it names a key (kid) that is not known",
            KeyNotFound::Unnamed => "it names no key (kid), and there are several",
        })
    }
}

impl KeySet {
    /// HS256 with any of `secrets`.
    pub(super) fn of_secrets<'s>(secrets: impl IntoIterator<Item = &'s String>) -> Self {
        let key = |secret: &String| VerificationKey {
            kid: None,
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret.as_bytes()),
        };
        Self::Any(secrets.into_iter().map(key).collect())
    }

    /// RS256 or ES256 with the key of a PEM file.
    pub(super) fn of_pem_file(path: &Path) -> Result<Self, AuthSetupError> {
        read(path, "auth.jwt_key_file", pem).map(|key| Self::Any(vec![key]))
    }

    /// RS256 or ES256 with the keys of a JWKS file.
    pub(super) fn of_jwks_file(path: &Path) -> Result<Self, AuthSetupError> {
        read(path, "auth.jwks_file", jwks).map(Self::Named)
    }

    /// RS256 or ES256 with the keys of the JWKS in `text`.
    ///
    /// # Errors
    /// Returns why it cannot be used, and what to do. The reason contains nothing of the text.
    pub(super) fn of_jwks(text: &str) -> Result<Self, String> {
        jwks(text).map(Self::Named)
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Any(keys) | Self::Named(keys) => keys.len(),
        }
    }

    /// Returns the keys that may have signed a token that names `kid`. A set of one key also serves tokens that name
    /// none.
    pub(super) fn choose(&self, kid: Option<&str>) -> Result<&[VerificationKey], KeyNotFound> {
        let keys = match self {
            Self::Any(keys) => return Ok(keys),
            Self::Named(keys) => keys.as_slice(),
        };
        match (keys, kid) {
            ([only], None) => Ok(std::slice::from_ref(only)),
            (_, None) => Err(KeyNotFound::Unnamed),
            ([only], Some(_)) if only.kid.is_none() => Ok(std::slice::from_ref(only)),
            (keys, Some(kid)) => keys
                .iter()
                .find(|key| key.kid.as_deref() == Some(kid))
                .map(std::slice::from_ref)
                .ok_or(KeyNotFound::Unknown),
        }
    }
}

fn read<T>(
    path: &Path,
    key: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, AuthSetupError> {
    read_text(path, KEYS_BYTES_MAX)
        .and_then(|text| parse(&text))
        .map_err(|reason| AuthSetupError {
            key,
            path: path.to_owned(),
            reason,
        })
}

/// A public key in PEM format. Its type decides between RS256 and ES256.
fn pem(text: &str) -> Result<VerificationKey, String> {
    if text.contains("PRIVATE KEY-----") {
        return Err(
            "holds a private key, which the server must not have; write the public one with: openssl pkey -in FILE \
             -pubout"
                .to_owned(),
        );
    }
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(
            "holds a certificate; write its public key with: openssl x509 -in FILE -pubkey -noout"
                .to_owned(),
        );
    }
    let single = |algorithm, key| VerificationKey {
        kid: None,
        algorithm,
        key,
    };
    if let Ok(key) = DecodingKey::from_rsa_pem(text.as_bytes()) {
        let bits = match key.kind() {
            DecodingKeyKind::SecretOrDer(der) => RsaParameters::public_modulus_len(der).ok(),
            DecodingKeyKind::RsaModulusExponent { .. } => None,
        };
        long_enough(
            bits.ok_or("is not an RSA public key; export it again with: openssl pkey -pubout")?,
        )?;
        return Ok(single(Algorithm::RS256, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(text.as_bytes()) {
        on_curve(&key)?;
        return Ok(single(Algorithm::ES256, key));
    }
    Err(
        "holds no public key in PEM of RSA or of EC on P-256; write one with: openssl pkey -pubout"
            .to_owned(),
    )
}

fn long_enough(bits: u32) -> Result<(), String> {
    if bits < RSA_BITS_MIN {
        return Err(format!(
            "is an RSA key of {bits} bits, and RS256 needs {RSA_BITS_MIN} or more (RFC 7518, section 3.3); make a \
             longer one"
        ));
    }
    if bits > RSA_PKCS1_2048_8192_SHA256.max_modulus_len() {
        return Err(format!(
            "is an RSA key of {bits} bits; make one of 2048 to 8192"
        ));
    }
    Ok(())
}

fn on_curve(key: &DecodingKey) -> Result<(), String> {
    let point = key.try_get_as_bytes().ok();
    match point.map(|point| ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)) {
        Some(Ok(_)) => Ok(()),
        _ => Err("is an EC key on another curve, and ES256 needs P-256; make one with: openssl genpkey -algorithm \
                  EC -pkeyopt ec_paramgen_curve:P-256"
            .to_owned()),
    }
}

#[derive(Deserialize)]
struct JsonWebKeySet {
    keys: Vec<JsonWebKey>,
}

#[derive(Deserialize)]
struct JsonWebKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part of RSA and EC keys.
    d: Option<serde::de::IgnoredAny>,
}

/// The keys of a JWKS that verify RS256 or ES256. Other keys are ignored, as RFC 7517 §5 requires.
fn jwks(text: &str) -> Result<Vec<VerificationKey>, String> {
    // The library's error may quote the text, which may be a misplaced secret.
    let set: JsonWebKeySet = serde_json::from_str(text).map_err(|error| {
        format!(
            "is not a JSON Web Key Set, {{\"keys\":[...]}} (line {}, column {}); download it again",
            error.line(),
            error.column()
        )
    })?;
    let mut keys: Vec<VerificationKey> = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let Some(key) =
            verification_key(jwk).map_err(|reason| format!("keys[{index}] {reason}"))?
        else {
            continue;
        };
        if keys.iter().any(|other| other.kid == key.kid) {
            return Err(format!(
                "keys[{index}] has the kid of another key, or both have none; give each its own"
            ));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("holds no key for RS256 (RSA) or ES256 (EC on P-256); add one".to_owned());
    }
    Ok(keys)
}

/// A key of a set; `None` if it is for another use.
fn verification_key(jwk: &JsonWebKey) -> Result<Option<VerificationKey>, String> {
    if jwk.kty == "oct" {
        return Err(
            "is a secret: anyone who can read the set could create tokens; remove it, or use auth.jwt_secret"
                .to_owned(),
        );
    }
    if jwk.d.is_some() {
        return Err(
            "holds a private key, which the server must not have; remove its private members"
                .to_owned(),
        );
    }
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    let is_for = |algorithm: &str| jwk.alg.as_deref().is_none_or(|alg| alg == algorithm);
    let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) if is_for("RS256") => (Algorithm::RS256, rsa(jwk)?),
        ("EC", Some("P-256")) if is_for("ES256") => (Algorithm::ES256, ec(jwk)?),
        _ => return Ok(None),
    };
    Ok(Some(VerificationKey {
        kid: jwk.kid.clone(),
        algorithm,
        key,
    }))
}

fn rsa(jwk: &JsonWebKey) -> Result<DecodingKey, String> {
    const MALFORMED: &str =
        "is not an RSA public key: n and e must be base64url numbers; download the set again";
    let (Some(n), Some(e)) = (&jwk.n, &jwk.e) else {
        return Err(MALFORMED.to_owned());
    };
    let key = DecodingKey::from_rsa_components(n, e).map_err(|_| MALFORMED)?;
    let DecodingKeyKind::RsaModulusExponent { n, e } = key.kind() else {
        return Err(MALFORMED.to_owned());
    };
    let leading = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = u32::try_from(n.len())
        .unwrap_or(u32::MAX)
        .saturating_mul(8)
        .saturating_sub(leading);
    long_enough(bits)?;
    let components = RsaPublicKeyComponents {
        n: n.as_slice(),
        e: e.as_slice(),
    };
    components
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map_err(|_| MALFORMED)?;
    Ok(key)
}

fn ec(jwk: &JsonWebKey) -> Result<DecodingKey, String> {
    const MALFORMED: &str =
        "is not an EC public key: x and y must be base64url numbers; download the set again";
    let (Some(x), Some(y)) = (&jwk.x, &jwk.y) else {
        return Err(MALFORMED.to_owned());
    };
    let key = DecodingKey::from_ec_components(x, y).map_err(|_| MALFORMED)?;
    on_curve(&key)?;
    Ok(key)
}
