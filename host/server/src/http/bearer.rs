//! Keys of the HTTP APIs: `Authorization: Bearer <key>`.

use std::{net::IpAddr, time::Instant};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use axum::http::{HeaderMap, StatusCode, header};

use super::{error::ApiError, throttle::Throttle};

/// Returns the index in `keys` of the key that a request from `address` presents. A correct key always works; an
/// address that sends too many wrong keys gets 429.
///
/// # Errors
/// Returns 401 if the request presents none of the keys, and 429 if that happened too often.
pub(super) fn admit(
    headers: &HeaderMap,
    keys: &[String],
    address: IpAddr,
    throttle: &Throttle,
) -> Result<usize, ApiError> {
    authorize(headers, keys).map_err(
        |refused| match throttle.wrong_key(address, Instant::now()) {
            Ok(()) => refused,
            Err(wait) => {
                let message = "too many calls without the right key; wait a moment";
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)
                    .retry_after(wait)
            }
        },
    )
}

/// Returns the index in `keys` of the key that the request presents.
///
/// # Errors
/// Returns 401 if it presents none of them. Neither the response nor its timing reveals how close a guess was.
fn authorize(headers: &HeaderMap, keys: &[String]) -> Result<usize, ApiError> {
    let refused = |message: &str| {
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            message,
        ))
    };
    if keys.iter().all(String::is_empty) {
        return refused("this API needs a key, and none is configured");
    }
    let Some(key) = bearer(headers) else {
        return refused("this API needs a key: `Authorization: Bearer <key>`");
    };
    match matching(key, keys) {
        Some(index) => Ok(index),
        None => refused("the key is wrong"),
    }
}

/// Compares digests, because the comparison returns at once if the lengths differ. Compares all of them, so that the
/// timing does not reveal the position of the right key either.
fn matching(key: &[u8], keys: &[String]) -> Option<usize> {
    let given = digest(&SHA256, key);
    let mut found = None;
    for (index, key) in keys.iter().enumerate() {
        let right = digest(&SHA256, key.as_bytes());
        let is_same = verify_slices_are_equal(given.as_ref(), right.as_ref()).is_ok();
        if is_same && !key.is_empty() {
            found = Some(index);
        }
    }
    found
}

/// The key; `None` if there are two, because it is unclear which of them is meant.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                header::HeaderValue::from_static(value),
            );
        }
        headers
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn any_of_the_keys_opens() {
        let keys = keys(&["one", "two"]);
        assert_eq!(authorize(&headers(&["Bearer one"]), &keys).ok(), Some(0));
        assert_eq!(authorize(&headers(&["bearer two "]), &keys).ok(), Some(1));
    }

    #[test]
    fn other_credentials_are_refused() {
        for given in [
            &["Bearer on"][..],
            &["Bearer onee"],
            &["Bearer ONE"],
            &["Bearer "],
            &["Bearer"],
            &["Basic one"],
            &["one"],
            &[""],
            &[],
            &["Bearer one", "Bearer one"],
        ] {
            let refused = authorize(&headers(given), &keys(&["one", ""]));
            assert!(refused.is_err(), "{given:?}");
        }
        assert!(authorize(&headers(&["Bearer one"]), &[]).is_err());
        assert!(authorize(&headers(&["Bearer "]), &keys(&[""])).is_err());
    }
}
