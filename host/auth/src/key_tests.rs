//! Keys from files: which are chosen, which are refused, and how they are renewed.

use std::path::Path;

use serde_json::{Value, json};
use signalbox_config::{AuthConfig, JwtKeySource};

use super::{
    KeyChange,
    tests::{
        assert_refused, es256, jwk, jwks, jwt_config, made, rs256, testdata, verify, with_jwks,
        with_pem,
    },
};

#[test]
fn jwt_accepts_rs256_and_es256_by_the_key_itself() {
    assert!(verify(&with_pem("rsa_public.pem"), &rs256(None)).is_ok());
    assert!(verify(&with_pem("rsa_public.pem"), &rs256(Some("any"))).is_ok());
    assert!(verify(&with_pem("rsa_public_pkcs1.pem"), &rs256(None)).is_ok());
    assert!(verify(&with_pem("ec_public.pem"), &es256(None)).is_ok());
}

#[test]
fn jwt_chooses_the_key_of_a_set_by_kid() {
    let set = with_jwks();
    assert!(verify(&set, &rs256(Some("rsa-1"))).is_ok());
    assert!(verify(&set, &es256(Some("ec-1"))).is_ok());
    assert_refused(verify(&set, &rs256(Some("rsa-2"))), "kid");
    assert_refused(verify(&set, &rs256(Some("ed-1"))), "kid");
    assert_refused(verify(&set, &rs256(None)), "there are several");
    assert_refused(verify(&set, &rs256(Some("ec-1"))), "algorithm");
}

#[test]
fn a_set_of_one_key_needs_no_kid() {
    let one = jwks(json!([jwk(0)])).expect("a good set");
    assert!(verify(&one, &rs256(None)).is_ok());
    assert!(verify(&one, &rs256(Some("rsa-1"))).is_ok());
    assert_refused(verify(&one, &rs256(Some("rsa-2"))), "kid");
    let mut nameless = jwk(0);
    nameless.as_object_mut().expect("an object").remove("kid");
    let nameless = jwks(json!([nameless])).expect("a good set");
    assert!(verify(&nameless, &rs256(Some("any"))).is_ok());
}

#[test]
fn the_alg_and_use_of_a_key_in_a_set_are_honoured() {
    for (name, value) in [("alg", "RS512"), ("use", "enc"), ("alg", "HS256")] {
        let mut key = jwk(0);
        key[name] = json!(value);
        let error = jwks(json!([key])).expect_err("no key is left").to_string();
        assert!(error.contains("holds no key for RS256"), "{error}");
    }
}

#[test]
fn keys_that_would_be_unsafe_or_useless_are_refused_at_the_start() {
    for (file, reason) in [
        ("test_only_rsa_private.pem", "holds a private key"),
        ("test_only_ec_private.pem", "holds a private key"),
        ("certificate.pem", "holds a certificate"),
        ("rsa_1024_public.pem", "RSA key of 1024 bits"),
        ("ec_p384_public.pem", "another curve"),
        ("ec_secp256k1_public.pem", "another curve"),
        ("ed25519_public.pem", "holds no public key in PEM"),
        ("jwks.json", "holds no public key in PEM"),
        ("missing.pem", "cannot be read"),
    ] {
        let keys = JwtKeySource::PemFile(testdata(file));
        let result = made(&AuthConfig::Jwt(jwt_config(keys)));
        let error = result.expect_err(file).to_string();
        assert!(
            error.starts_with("auth.jwt_key_file: ") && error.contains(file),
            "{error}"
        );
        assert!(error.contains(reason), "{file}: {error}");
    }
}

#[test]
fn sets_that_would_be_unsafe_or_useless_are_refused_at_the_start() {
    let changed = |index, name: &str, value: Value| {
        let mut key = jwk(index);
        key[name] = value;
        key
    };
    for (keys, reason) in [
        (json!([]), "holds no key"),
        (
            json!([{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]),
            "keys[0] is a secret",
        ),
        (
            json!([jwk(0), {"kty": "oct", "k": "c2VjcmV0"}]),
            "keys[1] is a secret",
        ),
        (
            json!([jwk(0), jwk(0)]),
            "keys[1] has the kid of another key",
        ),
        (
            json!([changed(0, "d", json!("AQAB"))]),
            "holds a private key",
        ),
        (
            json!([changed(0, "n", json!("AQAB"))]),
            "RSA key of 17 bits",
        ),
        (
            json!([changed(0, "n", json!("!"))]),
            "is not an RSA public key",
        ),
        (json!([changed(1, "x", json!("AQAB"))]), "another curve"),
        (
            json!([changed(1, "y", json!(null))]),
            "is not an EC public key",
        ),
        (json!([changed(1, "crv", json!("P-384"))]), "holds no key"),
        (json!([7]), "is not a JSON Web Key Set"),
    ] {
        let error = jwks(keys.clone()).expect_err("a bad set").to_string();
        assert!(error.contains(reason), "{keys}: {error}");
    }
}

#[test]
fn keys_of_a_file_are_renewed_and_a_broken_file_leaves_the_last_good_ones() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("a written file");
    let set = |key: Value| json!({ "keys": [key] }).to_string();
    write(&set(jwk(0)));
    let mut config = jwt_config(JwtKeySource::JwksFile(file.path().to_owned()));
    let authenticator = made(&AuthConfig::Jwt(config.clone())).expect("a good set");
    assert!(verify(&authenticator, &rs256(Some("rsa-1"))).is_ok());

    write(&set(jwk(1)));
    let applied = authenticator.apply(&AuthConfig::Jwt(config.clone()));
    assert_eq!(applied, Ok(KeyChange::All));
    assert_refused(verify(&authenticator, &rs256(Some("rsa-1"))), "kid");
    assert!(verify(&authenticator, &es256(Some("ec-1"))).is_ok());

    for broken in ["", "{", "\"hush\"", "{\"keys\":[]}"] {
        write(broken);
        match authenticator.apply(&AuthConfig::Jwt(config.clone())) {
            Ok(KeyChange::OldKeys(error)) => {
                assert!(!error.to_string().contains("hush"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(verify(&authenticator, &es256(Some("ec-1"))).is_ok());
    }
    // The rest of the configuration applies nevertheless.
    config.issuer = Some("i".to_owned());
    let applied = authenticator.apply(&AuthConfig::Jwt(config.clone()));
    assert!(matches!(applied, Ok(KeyChange::OldKeys(_))), "{applied:?}");
    assert_refused(verify(&authenticator, &es256(Some("ec-1"))), "no issuer");
    // Another file that cannot be used changes nothing at all.
    let other = jwt_config(JwtKeySource::PemFile(testdata("missing.pem")));
    assert!(authenticator.apply(&AuthConfig::Jwt(other)).is_err());
    assert_refused(verify(&authenticator, &es256(Some("ec-1"))), "no issuer");
    // A file that can be used takes over, whatever its kind.
    let other = jwt_config(JwtKeySource::PemFile(testdata("rsa_public.pem")));
    let applied = authenticator.apply(&AuthConfig::Jwt(other));
    assert_eq!(applied, Ok(KeyChange::All));
    assert!(verify(&authenticator, &rs256(None)).is_ok());
}

#[test]
fn a_key_file_is_refused_that_is_too_large_or_no_file() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), " ".repeat((1 << 20) + 1)).expect("a written file");
    for (path, reason) in [
        (file.path(), "is larger than 1024 KiB"),
        (Path::new("/dev/zero"), "is not a file"),
        (Path::new("/"), "is not a file"),
    ] {
        let keys = JwtKeySource::JwksFile(path.to_owned());
        let error = made(&AuthConfig::Jwt(jwt_config(keys))).expect_err("no key");
        assert!(error.to_string().contains(reason), "{error}");
    }
}
