//! The server's half of the opening handshake (RFC 6455 §4.2).

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    response::Response,
};
use tungstenite::handshake::derive_accept_key;

use super::json_error;

/// The only version of the WebSocket protocol.
const VERSION: &str = "13";

/// Returns the `Sec-WebSocket-Accept` value for a request that is a valid upgrade to a WebSocket, or the error response
/// for any other request.
pub(super) fn accept_key(request: &Request) -> Result<HeaderValue, Box<Response>> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let (status, message) = (
            StatusCode::METHOD_NOT_ALLOWED,
            "a WebSocket is opened with GET",
        );
        let headers = [(header::ALLOW, "GET")];
        return Err(refusal(status, "not_an_upgrade", message, headers));
    }
    if has_body(headers) {
        return Err(Box::new(json_error(
            StatusCode::BAD_REQUEST,
            "not_an_upgrade",
            "an upgrade to a WebSocket has no body",
        )));
    }
    if request.version() != Version::HTTP_11
        || !lists(headers, header::CONNECTION, "upgrade")
        || !lists(headers, header::UPGRADE, "websocket")
    {
        return Err(upgrade_required(
            "not_an_upgrade",
            "this is a WebSocket: send an upgrade to websocket by HTTP/1.1; a proxy in between must pass on \
             Connection and Upgrade",
        ));
    }
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    let version = versions.next().map(HeaderValue::as_bytes);
    if version != Some(VERSION.as_bytes()) || versions.next().is_some() {
        return Err(upgrade_required(
            "websocket_version",
            "Sec-WebSocket-Version must be 13",
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

/// Returns the error response for a request for a stream of server-sent events that has a body.
pub(super) fn check_no_body(request: &Request) -> Result<(), Box<Response>> {
    if !has_body(request.headers()) {
        return Ok(());
    }
    let message = "a request for a stream of events has no body";
    let response = json_error(StatusCode::BAD_REQUEST, "unexpected_body", message);
    Err(Box::new(response))
}

/// Whether a header, which may span several lines, lists `wanted`.
fn lists(headers: &HeaderMap, name: header::HeaderName, wanted: &str) -> bool {
    let lines = headers.get_all(name).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|entry| entry.trim().eq_ignore_ascii_case(wanted))
}

/// Whether `key` looks like 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key.iter().take(22).all(digit)
}

/// Whether a body follows, which would be mistaken for the first frames.
fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// A 426 response that names the protocol to upgrade to, and its version (RFC 9110 §15.5.22, RFC 6455 §4.4).
fn upgrade_required(code: &str, message: &str) -> Box<Response> {
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, VERSION),
    ];
    refusal(StatusCode::UPGRADE_REQUIRED, code, message, headers)
}

fn refusal<const N: usize>(
    status: StatusCode,
    code: &str,
    message: &str,
    headers: [(header::HeaderName, &'static str); N],
) -> Box<Response> {
    let mut response = json_error(status, code, message);
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
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
    fn every_426_names_the_protocol_and_its_version() {
        for (header, value) in [(0, "close"), (1, "h2c"), (2, "8"), (2, "8, 13"), (2, "")] {
            let mut headers = GOOD;
            headers[header].1 = value;
            let refused = accept_key(&request(&headers)).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED, "{value}");
            for (name, value) in [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
            ] {
                assert_eq!(refused.headers()[name], value);
            }
        }
    }

    #[test]
    fn an_upgrade_header_may_list_several_tokens_and_the_request_has_no_body() {
        for (header, value) in [(0, "UPGRADE"), (0, "close ,upgrade"), (1, "h2c, websocket")] {
            let mut headers = GOOD;
            headers[header].1 = value;
            assert!(accept_key(&request(&headers)).is_ok(), "{value}");
        }
        for (body, is_one) in [
            (("content-length", "5"), true),
            (("transfer-encoding", "chunked"), true),
            (("content-length", "0"), false),
        ] {
            let mut headers = GOOD.to_vec();
            headers.push(body);
            let answer = accept_key(&request(&headers));
            assert_eq!(answer.is_err(), is_one, "{body:?}");
        }
    }
}
