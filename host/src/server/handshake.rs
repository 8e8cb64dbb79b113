//! The server's half of the opening handshake (RFC 6455 §4.2).

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    response::Response,
};
use tungstenite::handshake::derive_accept_key;

use super::json_error;

/// The one version of the protocol.
const VERSION: &str = "13";

/// What `Sec-WebSocket-Accept` is answered to a request that is an upgrade to a WebSocket, or the answer to one that is
/// none.
pub(super) fn accept_key(request: &Request) -> Result<HeaderValue, Box<Response>> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "not_an_upgrade",
            "a WebSocket is opened with GET",
            (header::ALLOW, "GET"),
        ));
    }
    if request.version() != Version::HTTP_11
        || !lists(headers, header::CONNECTION, "upgrade")
        || !lists(headers, header::UPGRADE, "websocket")
    {
        return Err(refusal(
            StatusCode::UPGRADE_REQUIRED,
            "not_an_upgrade",
            "this is a WebSocket: send an upgrade to websocket by HTTP/1.1; a proxy in between must hand on Connection \
             and Upgrade",
            (header::UPGRADE, "websocket"),
        ));
    }
    if !lists(headers, header::SEC_WEBSOCKET_VERSION, VERSION) {
        return Err(refusal(
            StatusCode::UPGRADE_REQUIRED,
            "websocket_version",
            "Sec-WebSocket-Version must be 13",
            (header::SEC_WEBSOCKET_VERSION, VERSION),
        ));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|key| is_key(key.as_bytes()));
    let (Some(key), None) = (key, keys.next()) else {
        return Err(Box::new(json_error(
            StatusCode::BAD_REQUEST,
            "websocket_key",
            "Sec-WebSocket-Key must be 16 bytes in base64",
        )));
    };
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| {
        Box::new(json_error(
            StatusCode::BAD_REQUEST,
            "websocket_key",
            "Sec-WebSocket-Key cannot be answered",
        ))
    })
}

/// Whether a header, which may stand in several lines, lists `wanted`.
fn lists(headers: &HeaderMap, name: header::HeaderName, wanted: &str) -> bool {
    let lines = headers.get_all(name).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|entry| entry.trim().eq_ignore_ascii_case(wanted))
}

/// Whether this is what 16 bytes look like in base64.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key.iter().take(22).all(digit)
}

fn refusal(
    status: StatusCode,
    code: &str,
    message: &str,
    (name, value): (header::HeaderName, &'static str),
) -> Box<Response> {
    let mut response = json_error(status, code, message);
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    Box::new(response)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri("/ws");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn status(request: &Request) -> u16 {
        accept_key(request).unwrap_err().status().as_u16()
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let key = accept_key(&request(&GOOD)).unwrap();
        assert_eq!(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn every_part_must_be_there() {
        for (missing, status_expected) in [(0, 426), (1, 426), (2, 426), (3, 400)] {
            let mut headers = GOOD.to_vec();
            headers.remove(missing);
            assert_eq!(status(&request(&headers)), status_expected, "{missing}");
        }
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBsZSBub2 jZQ==",
        ] {
            let mut headers = GOOD;
            headers[3].1 = key;
            assert_eq!(status(&request(&headers)), 400, "{key}");
        }
        let mut two_keys = GOOD.to_vec();
        two_keys.push(GOOD[3]);
        assert_eq!(status(&request(&two_keys)), 400);
        let mut post = request(&GOOD);
        *post.method_mut() = Method::POST;
        assert_eq!(status(&post), 405);
        let mut old = request(&GOOD);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(status(&old), 426);
    }

    #[test]
    fn another_version_is_told_which_one_is_spoken() {
        let mut headers = GOOD;
        headers[2].1 = "8";
        let refused = accept_key(&request(&headers)).unwrap_err();
        assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(refused.headers()["sec-websocket-version"], "13");
    }
}
