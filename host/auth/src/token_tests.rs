//! Valid and invalid claims and headers of tokens, each with the reason for its refusal.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use proptest::prelude::*;
use serde_json::{Value, json};
use signalbox_config::{AuthConfig, JwtConfig};

use super::{
    AuthError, Authenticator, Identity,
    jws::TOKEN_BYTES_MAX,
    tests::{
        SECRET, assert_refused, claims_with, good_claims, hs256, made, seconds_from_now, secrets,
        verify, with_secret,
    },
};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A correctly signed token with any content.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("signed");
    format!("{message}.{signature}")
}

fn with_header(header: &str) -> Result<Identity, AuthError> {
    let claims = good_claims().to_string();
    verify(
        &with_secret(),
        &signed(header.as_bytes(), claims.as_bytes()),
    )
}

fn with_claims(claims: &[u8]) -> Result<Identity, AuthError> {
    verify(&with_secret(), &signed(HEADER.as_bytes(), claims))
}

/// Valid claims, followed by `rest` unchanged.
fn claims_and(rest: &str) -> String {
    let exp = seconds_from_now(60);
    format!(r#"{{"sub":"anna","exp":{exp}{rest}}}"#)
}

fn claim(name: &str, value: Value) -> Result<Identity, AuthError> {
    verify(&with_secret(), &hs256(&claims_with(name, value)))
}

#[test]
fn the_claims_of_a_token_are_json_that_every_language_reads_alike() {
    assert!(with_claims(claims_and("").as_bytes()).is_ok());
    let deep = format!(",\"a\":{}1{}", "[".repeat(3000), "]".repeat(3000));
    for (claims, reason) in [
        (claims_and(&deep), "nested more than 100 levels deep"),
        (claims_and(r#","a":"\ud83d""#), "half of a surrogate pair"),
        (claims_and(r#","\udc00":1"#), "half of a surrogate pair"),
        (
            claims_and(&format!(",\"a\":{}", "1".repeat(401))),
            "more than 400 characters",
        ),
        (claims_and(r#","sub":"eve""#), "two claims of the same name"),
        (
            claims_and(r#","s\u0075b":"eve""#),
            "two claims of the same name",
        ),
        (claims_and(r#","a":1,"a":1"#), "two claims of the same name"),
        (claims_and(",\"a\":01"), "are not valid JSON"),
        (claims_and(","), "are not valid JSON"),
        (format!("\u{feff}{}", claims_and("")), "byte order mark"),
        (format!("[{}]", claims_and("")), "are not a JSON object"),
        ("\"anna\"".to_owned(), "are not a JSON object"),
        ("null".to_owned(), "are not a JSON object"),
        (String::new(), "are not valid JSON"),
    ] {
        assert_refused(with_claims(claims.as_bytes()), reason);
    }
    assert_refused(with_claims(b"{\"sub\":\"\xff\"}"), "are not UTF-8");
}

#[test]
fn claims_of_the_deepest_nesting_that_is_allowed_reach_plugins() {
    let deep = format!(",\"a\":{}1{}", "[".repeat(99), "]".repeat(99));
    let claims = claims_and(&deep);
    let identity = with_claims(claims.as_bytes()).expect("a good token");
    assert_eq!(identity.claims_json(), claims);
}

#[test]
fn the_header_of_a_token_is_read_as_strictly_and_each_fault_has_its_reason() {
    assert!(with_header(HEADER).is_ok());
    // Members that demand nothing are ignored.
    assert!(
        with_header(r#"{"alg":"HS256","kid":"a","jku":"https://evil.example","x":[1]}"#).is_ok()
    );
    for (header, reason) in [
        (r#"{"alg":"HS256","kid":7}"#, "(kid) is not a string"),
        (r#"{"alg":"HS256","kid":["a"]}"#, "(kid) is not a string"),
        (r#"{"alg":"HS256","kid":null}"#, "(kid) is not a string"),
        (r#"{"alg":"HS256","crit":[]}"#, "crit"),
        (r#"{"alg":"HS256","crit":"b64"}"#, "crit"),
        (r#"{"alg":"HS256","crit":null}"#, "crit"),
        (
            r#"{"alg":"HS256","alg":"none"}"#,
            "two members of the same name",
        ),
        (r#"{"alg":7}"#, "names no algorithm"),
        (r#"{"alg":null}"#, "names no algorithm"),
        (r#"{"typ":"JWT"}"#, "names no algorithm"),
        (r#"{"alg":"NONE"}"#, "its algorithm is \"none\""),
        (r#"{"alg":"HS999"}"#, "algorithm is not that of the key"),
        (r#"{"alg":"hs256"}"#, "algorithm is not that of the key"),
        ("[\"HS256\"]", "header is not a JSON object"),
        ("HS256", "header is not a JSON object"),
        ("\u{feff}{\"alg\":\"HS256\"}", "byte order mark"),
    ] {
        assert_refused(with_header(header), reason);
    }
}

#[test]
fn an_encrypted_token_and_one_with_more_parts_are_no_signed_token() {
    let token = hs256(&good_claims());
    for text in [
        format!("{token}.a"),
        format!("{token}.a.b"),
        format!(".{token}"),
    ] {
        assert_refused(verify(&with_secret(), &text), "not a signed JSON Web Token");
    }
}

#[test]
fn a_token_that_was_written_with_padding_or_spaces_is_refused() {
    let token = hs256(&good_claims());
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    for text in [
        format!("{message}.{signature}="),
        format!("{message}%20.{signature}"),
        format!("{token}%0A"),
    ] {
        assert!(
            matches!(
                verify(&with_secret(), &text),
                Err(AuthError::InvalidToken(_))
            ),
            "{text}"
        );
    }
}

#[test]
fn a_token_that_is_no_text_is_not_called_missing() {
    assert_refused(verify(&with_secret(), "%ff"), "it is not text");
    assert_eq!(verify(&with_secret(), ""), Err(AuthError::MissingToken));
}

#[test]
fn a_token_longer_than_16_kib_is_refused_unread() {
    let token = |padding: usize| hs256(&claims_with("a", json!("x".repeat(padding))));
    let length = token(0).len();
    // Base64 encodes three bytes as four characters.
    let fits = (TOKEN_BYTES_MAX - length) / 4 * 3 - 3;
    assert!(verify(&with_secret(), &token(fits)).is_ok());
    assert_refused(
        verify(&with_secret(), &token(fits + 9)),
        "longer than 16 KiB",
    );
}

#[test]
fn an_expiry_in_milliseconds_is_refused_with_that_reason() {
    let now = seconds_from_now(60);
    for exp in [json!(now * 1_000), json!(now * 1_000_000), json!(1e11)] {
        assert_refused(claim("exp", exp), "in seconds, not in milliseconds");
    }
    assert!(claim("exp", json!(99_999_999_999_u64)).is_ok());
    assert_refused(claim("nbf", json!(now * 1_000)), "nbf is too far");
    assert_refused(claim("iat", json!(now * 1_000)), "iat is too far");
}

#[test]
fn an_expiry_may_have_a_fraction_and_must_be_a_moment() {
    assert!(claim("exp", json!(seconds_from_now(60) as f64 + 0.5)).is_ok());
    for exp in ["1e400", "1e300", "18446744073709551616", "1e18"] {
        let claims = format!(r#"{{"sub":"anna","exp":{exp}}}"#);
        assert_refused(with_claims(claims.as_bytes()), "exp is not a valid time");
    }
    for exp in ["-1", "-1e400", "true", "\"1\"", "[1]", "{}", "null"] {
        let claims = format!(r#"{{"sub":"anna","exp":{exp}}}"#);
        assert_refused(with_claims(claims.as_bytes()), "no exp that is a number");
    }
    for exp in ["0", "-0", "-0.0", "1e-400", "0.5"] {
        let claims = format!(r#"{{"sub":"anna","exp":{exp}}}"#);
        let expired = with_claims(claims.as_bytes());
        assert_eq!(expired, Err(AuthError::ExpiredToken), "{exp}");
    }
}

#[test]
fn a_token_from_the_future_is_refused_beyond_the_leeway_for_clocks() {
    for name in ["nbf", "iat"] {
        assert!(claim(name, json!(seconds_from_now(-3600))).is_ok());
        assert!(claim(name, json!(seconds_from_now(3))).is_ok());
        assert!(claim(name, json!(null)).is_ok());
        assert_refused(claim(name, json!(seconds_from_now(60))), name);
        for wrong in [json!("1"), json!([1]), json!(true)] {
            assert_refused(claim(name, wrong), &format!("{name} is not a number"));
        }
    }
}

#[test]
fn a_subject_must_be_one_text_that_can_name_a_user() {
    for sub in [
        json!(["anna"]),
        json!({"a": 1}),
        json!(null),
        json!(7),
        json!(true),
    ] {
        assert_refused(claim("sub", sub), "no sub that is a string");
    }
    for sub in [" ", "\t", "\u{a0}\u{2003}"] {
        assert_refused(claim("sub", json!(sub)), "blank");
    }
    for sub in ["anna b", "ännä", "auth0|7", "a:b", "😀", "a\n", "\u{0}"] {
        assert_eq!(claim("sub", json!(sub)).expect(sub).user, sub);
    }
    // Bytes count, not characters.
    assert_refused(claim("sub", json!("ä".repeat(128))), "1 to 255 bytes");
}

/// An authenticator that demands an issuer and an audience.
fn strict() -> Authenticator {
    let config = JwtConfig {
        keys: secrets(SECRET, None),
        issuer: Some("i".to_owned()),
        audience: Some("a".to_owned()),
    };
    made(&AuthConfig::Jwt(config)).expect("a good key")
}

#[test]
fn issuer_and_audience_are_of_their_kind_whether_they_are_demanded_or_not() {
    for wrong in [json!(["i"]), json!(7), json!({})] {
        assert_refused(claim("iss", wrong.clone()), "(iss) is not a string");
        let mut claims = claims_with("aud", json!("a"));
        claims["iss"] = wrong;
        assert_refused(verify(&strict(), &hs256(&claims)), "(iss) is not a string");
    }
    for wrong in [json!(7), json!({"a": 1}), json!([["a"]]), json!(["a", 7])] {
        assert_refused(claim("aud", wrong.clone()), "(aud) is neither");
        let mut claims = claims_with("iss", json!("i"));
        claims["aud"] = wrong;
        assert_refused(verify(&strict(), &hs256(&claims)), "(aud) is neither");
    }
    for good in [json!("x"), json!(["x", "y"]), json!([]), json!(null)] {
        assert!(claim("aud", good).is_ok());
    }
}

#[test]
fn either_of_two_secrets_opens_while_secrets_are_rotated() {
    const OTHER: &str = "fedcba9876543210fedcba9876543210";
    let token = |secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &good_claims(), &key)
            .expect("signed")
    };
    let config = |current, previous| {
        AuthConfig::Jwt(JwtConfig {
            keys: secrets(current, previous),
            issuer: None,
            audience: None,
        })
    };
    let both = made(&config(OTHER, Some(SECRET))).expect("good secrets");
    assert!(verify(&both, &token(SECRET)).is_ok());
    assert!(verify(&both, &token(OTHER)).is_ok());
    assert_refused(verify(&both, &token(&"x".repeat(32))), "signature");
    // And the old secret can be removed while the server runs.
    both.apply(&config(OTHER, None)).expect("good secrets");
    assert_refused(verify(&both, &token(SECRET)), "signature");
    assert!(verify(&both, &token(OTHER)).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_a_token_or_refused(text: String) {
        let _ = super::jws::UnverifiedToken::read(&text);
    }

    #[test]
    fn any_claims_are_good_or_refused(claims: Vec<u8>) {
        let _ = with_claims(&claims);
    }
}
