//! Tests authentication as a whole: the places for a token, the identity and the refusals.
//!
//! The keys in `testdata` are only for these tests.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use signalbox_config::{AuthConfig, JwtConfig, JwtKeySource};

use super::{AuthError, AuthSetupError, Authenticator, Identity, subprotocol, token};

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(super) const RSA_PRIVATE: &[u8] = include_bytes!("testdata/test_only_rsa_private.pem");
const EC_PRIVATE: &[u8] = include_bytes!("testdata/test_only_ec_private.pem");

pub(super) fn testdata(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/testdata")
        .join(file)
}

pub(super) fn jwt_config(keys: JwtKeySource) -> JwtConfig {
    JwtConfig {
        keys,
        issuer: None,
        audience: None,
    }
}

pub(super) fn secrets(current: &str, previous: Option<&str>) -> JwtKeySource {
    JwtKeySource::Secrets {
        current: current.to_owned(),
        previous: previous.map(str::to_owned),
    }
}

pub(super) fn made(config: &AuthConfig) -> Result<Authenticator, AuthSetupError> {
    Authenticator::new(config, Arc::default())
}

fn authenticator(keys: JwtKeySource) -> Authenticator {
    made(&AuthConfig::Jwt(jwt_config(keys))).expect("a good key")
}

/// The result of `authenticator` for an upgrade. Only keys of a URL could delay it, and there are none here.
fn identify(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Identity, AuthError> {
    let answer = authenticator.authenticate(headers, query).now_or_never();
    answer.expect("there is nothing to wait for")
}

pub(super) fn with_secret() -> Authenticator {
    authenticator(secrets(SECRET, None))
}

pub(super) fn with_pem(file: &str) -> Authenticator {
    authenticator(JwtKeySource::PemFile(testdata(file)))
}

pub(super) fn with_jwks() -> Authenticator {
    authenticator(JwtKeySource::JwksFile(testdata("jwks.json")))
}

/// An authenticator with a set that was written to a file.
pub(super) fn jwks(keys: Value) -> Result<Authenticator, AuthSetupError> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).expect("a written file");
    let keys = JwtKeySource::JwksFile(file.path().to_owned());
    made(&AuthConfig::Jwt(jwt_config(keys)))
}

/// The RSA (0) or EC (1) key of the set in `testdata`.
pub(super) fn jwk(index: usize) -> Value {
    let set: Value = serde_json::from_str(include_str!("testdata/jwks.json")).expect("JSON");
    set["keys"][index].clone()
}

pub(super) fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(now.as_secs()).expect("before the end of time") + seconds
}

pub(super) fn good_claims() -> Value {
    json!({"sub": "anna", "exp": seconds_from_now(60), "role": "admin"})
}

pub(super) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    claims[name] = value;
    claims
}

pub(super) fn hs256(claims: &Value) -> String {
    encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .expect("signed")
}

pub(super) fn rs256(kid: Option<&str>) -> String {
    signed(
        Algorithm::RS256,
        kid,
        &EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key"),
    )
}

pub(super) fn es256(kid: Option<&str>) -> String {
    signed(
        Algorithm::ES256,
        kid,
        &EncodingKey::from_ec_pem(EC_PRIVATE).expect("a key"),
    )
}

pub(super) fn signed(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, &good_claims(), key).expect("signed")
}

pub(super) fn verify(authenticator: &Authenticator, token: &str) -> Result<Identity, AuthError> {
    identify(
        authenticator,
        &HeaderMap::new(),
        Some(&format!("token={token}")),
    )
}

#[track_caller]
pub(super) fn assert_refused(result: Result<Identity, AuthError>, reason: &str) {
    match result {
        Err(error @ AuthError::InvalidToken(_)) => {
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_tokens_the_query_names_the_user() {
    let open = made(&AuthConfig::None {
        allow_insecure: false,
    })
    .expect("no key needed");
    let user = |query: Option<&str>| identify(&open, &HeaderMap::new(), query);
    let identity = user(Some("x=1&userId=an%C3%A4%2B1")).expect("a user");
    assert_eq!(identity.user, "anä+1");
    assert_eq!(
        (identity.claims_json(), identity.expires_at()),
        ("{}", None)
    );
    assert_eq!((identity.subprotocol, identity.v1), (None, false));
    for missing in [
        None,
        Some(""),
        Some("userId="),
        Some("userid=anna"),
        Some("token=a"),
    ] {
        assert_eq!(user(missing), Err(AuthError::MissingUserId), "{missing:?}");
    }
    let longest = format!("userId={}", "a".repeat(255));
    assert!(user(Some(&longest)).is_ok());
    assert_eq!(
        user(Some(&format!("{longest}a"))),
        Err(AuthError::InvalidUserId)
    );
    assert_eq!(user(Some("userId=%ff")), Err(AuthError::InvalidUserId));
}

#[test]
fn a_missing_user_is_answered_as_websocket_app_does() {
    let response = AuthError::MissingUserId.into_response();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(AuthError::MissingUserId.body(), "missing userId");
}

#[test]
fn a_refusal_is_a_json_body_with_a_stable_code() {
    let error = AuthError::MissingToken;
    let body: Value = serde_json::from_str(&error.body()).expect("JSON");
    assert_eq!(body["error"]["code"], "missing_token");
    assert_eq!(body["error"]["message"], error.to_string());
    let response = error.into_response();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
}

#[test]
fn jwt_takes_the_token_from_header_subprotocol_and_query() {
    let authenticator = with_secret();
    let token = hs256(&good_claims());
    let mut headers = HeaderMap::new();
    assert_eq!(
        identify(&authenticator, &headers, Some("userId=anna")),
        Err(AuthError::MissingToken)
    );
    assert_eq!(
        identify(&authenticator, &headers, Some("token=")),
        Err(AuthError::MissingToken)
    );

    let identity = verify(&authenticator, &token).expect("from the query");
    assert_eq!(
        (identity.user.as_str(), identity.subprotocol),
        ("anna", None)
    );

    let offer = format!("bearer, {token}, signalbox.v1");
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_str(&offer).expect("a header"),
    );
    let identity =
        identify(&authenticator, &headers, Some("token=bad")).expect("from the subprotocol");
    assert_eq!(
        (identity.subprotocol, identity.v1),
        (Some(subprotocol::V1), true)
    );

    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static("bearer, bad"),
    );
    let bearer = HeaderValue::from_str(&format!("bearer {token}")).expect("a header");
    headers.insert(
        header::AUTHORIZATION,
        HeaderValue::from_static("Basic eDp5"),
    );
    headers.append(header::AUTHORIZATION, bearer.clone());
    let identity = identify(&authenticator, &headers, Some("token=bad")).expect("from the header");
    assert_eq!(
        (identity.subprotocol, identity.v1),
        (Some(subprotocol::BEARER), false)
    );

    headers.append(header::AUTHORIZATION, bearer);
    assert_refused(
        identify(&authenticator, &headers, None),
        "two Authorization headers",
    );
}

#[test]
fn jwt_hands_on_claims_and_expiry() {
    let claims = good_claims();
    let identity = verify(&with_secret(), &hs256(&claims)).expect("a good token");
    assert_eq!(
        serde_json::from_str::<Value>(identity.claims_json()).expect("JSON"),
        claims
    );
    let exp = u64::try_from(claims["exp"].as_i64().expect("a number")).expect("after 1970");
    assert_eq!(
        identity.expires_at(),
        Some(UNIX_EPOCH + Duration::from_secs(exp))
    );
}

#[test]
fn jwt_hands_on_the_id_and_the_time_of_issue_if_the_token_has_them() {
    let claims = |jti: Value, iat: Value| {
        let mut claims = good_claims();
        (claims["jti"], claims["iat"]) = (jti, iat);
        let identity = verify(&with_secret(), &hs256(&claims)).expect("a good token");
        let token = identity.token.expect("it was a token");
        (token.id, token.issued_at)
    };
    let issued_at = UNIX_EPOCH + Duration::from_millis(1_500);
    assert_eq!(
        claims(json!("a"), json!(1.5)),
        (Some("a".to_owned()), Some(issued_at))
    );
    assert_eq!(claims(json!(null), json!(null)), (None, None));
    assert_eq!(claims(json!(7), json!(-1)), (None, None));
}

#[test]
fn issued_tokens_are_accepted() {
    let now = SystemTime::now();
    let token = token::issue(SECRET, "anna", Duration::from_secs(60), now).expect("issued");
    let identity = verify(&with_secret(), &token).expect("accepted");
    assert_eq!(identity.user, "anna");
    let left = identity
        .expires_at()
        .expect("an end")
        .duration_since(now)
        .expect("in the future");
    assert!(
        left <= Duration::from_secs(60) && left >= Duration::from_secs(59),
        "{left:?}"
    );

    let config = JwtConfig {
        issuer: Some("me".to_owned()),
        audience: Some("chat".to_owned()),
        ..jwt_config(secrets(SECRET, None))
    };
    let token =
        token::issue_for(&config, "anna", None, Duration::from_secs(60), now).expect("issued");
    let strict = made(&AuthConfig::Jwt(config.clone())).expect("a good key");
    assert!(verify(&strict, &token).is_ok());

    let minute = Duration::from_secs(60);
    let token = token::issue_for(&config, "anna", Some("chat:7"), minute, now).expect("issued");
    assert!(verify(&strict, &token).is_err(), "it is for a room");
}

#[test]
fn tokens_that_no_server_would_accept_are_not_issued() {
    use token::TokenError;
    let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
    assert_eq!(
        token::issue("short", "anna", minute, now),
        Err(TokenError::ShortSecret)
    );
    assert_eq!(token::issue(SECRET, "", minute, now), Err(TokenError::User));
    assert_eq!(
        token::issue(SECRET, &"a".repeat(256), minute, now),
        Err(TokenError::User)
    );
    for lifetime in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert_eq!(
            token::issue(SECRET, "anna", lifetime, now),
            Err(TokenError::Lifetime)
        );
    }
    let public = jwt_config(JwtKeySource::PemFile(testdata("rsa_public.pem")));
    assert_eq!(
        token::issue_for(&public, "anna", None, minute, now),
        Err(TokenError::NoSecret)
    );
    let private = jwt_config(secrets(SECRET, None));
    for room in ["", &"a".repeat(256)] {
        assert_eq!(
            token::issue_for(&private, "anna", Some(room), minute, now),
            Err(TokenError::Room)
        );
    }
}

#[test]
fn keys_that_cannot_be_fetched_are_503_and_say_when_to_try_again() {
    let response = AuthError::KeysUnavailable.into_response();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(AuthError::KeysUnavailable.code(), "keys_unavailable");
}

#[test]
fn the_id_of_a_user_is_not_blank() {
    let open = made(&AuthConfig::None {
        allow_insecure: false,
    })
    .expect("no key needed");
    for query in ["userId=%0A", "userId=%20", "userId=+"] {
        let refused = identify(&open, &HeaderMap::new(), Some(query));
        assert_eq!(refused, Err(AuthError::InvalidUserId), "{query}");
    }
}

#[test]
fn secrets_stay_out_of_debug_output_and_errors() {
    assert!(!format!("{:?}", with_secret()).contains("0123456789abcdef"));
    let token = hs256(&claims_with("sub", json!(7)));
    let error = verify(&with_secret(), &token).expect_err("no user");
    assert!(!format!("{error:?} {error} {}", error.body()).contains(&token[..10]));
}
