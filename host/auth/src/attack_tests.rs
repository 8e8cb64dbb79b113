//! Every known attack on tokens, by name.

use axum::http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use signalbox_config::{AuthConfig, JwtConfig};

use super::{
    AuthError,
    tests::{
        RSA_PRIVATE, SECRET, assert_refused, claims_with, es256, good_claims, hs256, jwk,
        jwt_config, made, rs256, seconds_from_now, secrets, signed, verify, with_jwks, with_pem,
        with_secret,
    },
};

const RSA_PUBLIC: &[u8] = include_bytes!("testdata/rsa_public.pem");

#[test]
fn jwt_refuses_algorithm_none() {
    // {"alg":"none"}, {"alg":"None"} and {"alg":"nOnE"} in base64url, with and without a signature.
    let token = hs256(&good_claims());
    let parts: Vec<&str> = token.split('.').collect();
    for header in [
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJOb25lIn0",
        "eyJhbGciOiJuT25FIn0",
    ] {
        for signature in ["", parts[2]] {
            let forged = format!("{header}.{}.{signature}", parts[1]);
            for authenticator in [with_secret(), with_pem("rsa_public.pem"), with_jwks()] {
                assert_refused(
                    verify(&authenticator, &forged),
                    "not a signed JSON Web Token",
                );
            }
        }
    }
}

#[test]
fn jwt_refuses_hs256_signed_with_the_public_key() {
    let forged = |kid| signed(Algorithm::HS256, kid, &EncodingKey::from_secret(RSA_PUBLIC));
    assert_refused(
        verify(&with_pem("rsa_public.pem"), &forged(None)),
        "algorithm",
    );
    assert_refused(verify(&with_jwks(), &forged(Some("rsa-1"))), "algorithm");
}

#[test]
fn jwt_refuses_an_algorithm_other_than_the_keys() {
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key");
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        assert_refused(
            verify(&with_pem("rsa_public.pem"), &signed(algorithm, None, &rsa)),
            "algorithm",
        );
    }
    assert_refused(
        verify(&with_pem("rsa_public.pem"), &es256(None)),
        "algorithm",
    );
    assert_refused(
        verify(&with_pem("ec_public.pem"), &rs256(None)),
        "algorithm",
    );
    assert_refused(verify(&with_secret(), &rs256(None)), "algorithm");
    let hs512 = signed(
        Algorithm::HS512,
        None,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    );
    assert_refused(verify(&with_secret(), &hs512), "algorithm");
}

#[test]
fn jwt_refuses_another_key_and_changed_claims() {
    let other = signed(Algorithm::HS256, None, &EncodingKey::from_secret(&[7; 32]));
    assert_refused(verify(&with_secret(), &other), "signature");
    let (mine, admin) = (
        hs256(&good_claims()),
        hs256(&claims_with("sub", json!("root"))),
    );
    let (mine, admin): (Vec<&str>, Vec<&str>) =
        (mine.split('.').collect(), admin.split('.').collect());
    assert_refused(
        verify(
            &with_secret(),
            &format!("{}.{}.{}", mine[0], admin[1], mine[2]),
        ),
        "signature",
    );
    assert_refused(
        verify(&with_secret(), &format!("{}.{}.", mine[0], mine[1])),
        "signature",
    );
}

#[test]
fn jwt_refuses_malformed_tokens() {
    for text in ["a", "a.b.c", "..", "a.b", "a.b.c.d", "%00.%00.%00"] {
        assert_refused(verify(&with_secret(), text), "not a signed JSON Web Token");
    }
}

#[test]
fn jwt_refuses_a_key_that_the_token_brings_along() {
    let mut header = Header::new(Algorithm::RS256);
    header.jwk = serde_json::from_value(jwk(0)).ok();
    assert!(header.jwk.is_some());
    let key = EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key");
    let token = encode(&header, &good_claims(), &key).expect("signed");
    assert_refused(verify(&with_pem("ec_public.pem"), &token), "algorithm");
    assert_refused(verify(&with_secret(), &token), "algorithm");
}

#[test]
fn jwt_refuses_an_unknown_critical_extension() {
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&header, &good_claims(), &key).expect("signed");
    assert_refused(verify(&with_secret(), &token), "crit");
}

#[test]
fn jwt_refuses_an_expired_token_without_leeway() {
    for ago in [-3600, -1, 0] {
        let token = hs256(&claims_with("exp", json!(seconds_from_now(ago))));
        let error = verify(&with_secret(), &token).expect_err("it has expired");
        assert_eq!(error, AuthError::ExpiredToken, "{ago}");
        assert_eq!(
            (error.status(), error.code()),
            (StatusCode::UNAUTHORIZED, "token_expired")
        );
    }
}

#[test]
fn jwt_refuses_a_token_without_a_proper_expiry() {
    let mut claims = good_claims();
    claims.as_object_mut().expect("an object").remove("exp");
    assert_refused(verify(&with_secret(), &hs256(&claims)), "no exp");
    for exp in [json!("9999999999"), json!(null), json!(-1), json!([])] {
        assert_refused(
            verify(&with_secret(), &hs256(&claims_with("exp", exp))),
            "no exp",
        );
    }
    assert_refused(
        verify(&with_secret(), &hs256(&claims_with("exp", json!(1.8e19)))),
        "exp is not a valid time",
    );
}

#[test]
fn jwt_refuses_a_token_that_is_not_valid_yet() {
    let later = hs256(&claims_with("nbf", json!(seconds_from_now(30))));
    assert_refused(verify(&with_secret(), &later), "nbf");
    let past = hs256(&claims_with("nbf", json!(seconds_from_now(-1))));
    assert!(verify(&with_secret(), &past).is_ok());
}

#[test]
fn jwt_refuses_a_subject_that_is_no_user() {
    let mut claims = good_claims();
    claims.as_object_mut().expect("an object").remove("sub");
    assert_refused(verify(&with_secret(), &hs256(&claims)), "no sub");
    assert_refused(
        verify(&with_secret(), &hs256(&claims_with("sub", json!(7)))),
        "no sub",
    );
    for sub in [String::new(), "a".repeat(256)] {
        assert_refused(
            verify(&with_secret(), &hs256(&claims_with("sub", json!(sub)))),
            "1 to 255 bytes",
        );
    }
    let longest = "a".repeat(255);
    let identity =
        verify(&with_secret(), &hs256(&claims_with("sub", json!(longest)))).expect("a good token");
    assert_eq!(identity.user, longest);
}

#[test]
fn jwt_checks_issuer_and_audience_if_configured() {
    let config = JwtConfig {
        issuer: Some("https://login.example.com".to_owned()),
        audience: Some("chat".to_owned()),
        ..jwt_config(secrets(SECRET, None))
    };
    let strict = made(&AuthConfig::Jwt(config)).expect("a good key");
    let token = |iss: Value, aud: Value| {
        let mut claims = good_claims();
        claims["iss"] = iss;
        claims["aud"] = aud;
        hs256(&claims)
    };
    let issuer = || json!("https://login.example.com");
    assert!(verify(&strict, &token(issuer(), json!("chat"))).is_ok());
    assert!(verify(&strict, &token(issuer(), json!(["mail", "chat"]))).is_ok());
    assert_refused(
        verify(&strict, &token(json!("https://evil.com"), json!("chat"))),
        "iss",
    );
    assert_refused(verify(&strict, &token(issuer(), json!("mail"))), "aud");
    assert_refused(verify(&strict, &token(issuer(), json!([]))), "aud");
    assert_refused(verify(&strict, &token(issuer(), json!(null))), "aud");
    assert_refused(verify(&strict, &token(json!(null), json!("chat"))), "iss");
    assert!(verify(&with_secret(), &token(json!("anyone"), json!("anything"))).is_ok());
}
