//! The signature of a request.

use std::fmt::Write as _;

use aws_lc_rs::hmac;

/// The value of the header: for each of `secrets` the HMAC-SHA256 of the timestamp, a dot and the body, in hex.
pub(crate) fn header<'s>(
    secrets: impl Iterator<Item = &'s str>,
    timestamp: &str,
    body: &str,
) -> String {
    let mut value = String::new();
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(timestamp.as_bytes());
        context.update(b".");
        context.update(body.as_bytes());
        if !value.is_empty() {
            value.push(',');
        }
        value.push_str("v1=");
        for byte in context.sign().as_ref() {
            // Writing into a String cannot fail.
            let _ = write!(value, "{byte:02x}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_signs_timestamp_and_body() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac SECRET
        const ONE: &str = "v1=417adf36b901772f658597a76d329694e335e65fc0849d7715c3ca33406309b5";
        const TWO: &str = "v1=b6d99b0f2ec59d2c5f107611baf49ac83f395d160cc5f5aec75cb0cf473f082a";
        let sign = |secrets: &[&'static str]| header(secrets.iter().copied(), "1700000000", "{}");
        assert_eq!(sign(&["0123456789abcdef0123456789abcdef"]), ONE);
        let both = [
            "0123456789abcdef0123456789abcdef",
            "fedcba9876543210fedcba9876543210",
        ];
        assert_eq!(sign(&both), format!("{ONE},{TWO}"));
    }
}
