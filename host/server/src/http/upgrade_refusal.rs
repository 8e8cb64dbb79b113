//! Refused upgrades: the HTTP response, or a close code for browsers, which cannot read that response.

use std::borrow::Cow;

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use signalbox_auth::{AuthError, origin::OriginRefused, subprotocol};
use signalbox_protocol::CloseCode;
use signalbox_router::SlotRefused;
use signalbox_telemetry::metrics::UpgradeRefusalReason;

use super::json_error;

/// Maximum length of the reason in a close frame, in bytes (RFC 6455 §5.5).
const REASON_BYTES_MAX: usize = 123;

/// When to retry if there was no room, in seconds.
const ROOM_RETRY_SECONDS: u32 = 5;

/// Why an upgrade is refused, and how.
#[derive(Debug)]
pub(super) struct UpgradeRefusal {
    pub(super) refusal: UpgradeRefusalReason,
    /// The HTTP response.
    pub(super) response: Box<Response>,
    /// The equivalent close code for a WebSocket.
    pub(super) close: CloseCode,
    reason: Cow<'static, str>,
}

impl UpgradeRefusal {
    fn new(
        refusal: UpgradeRefusalReason,
        response: Response,
        close: CloseCode,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            refusal,
            response: Box::new(response),
            close,
            reason: reason.into(),
        }
    }

    /// The node is shutting down.
    pub(super) fn draining() -> Self {
        let reason = "this node is shutting down; connect to another";
        let response = json_error(StatusCode::SERVICE_UNAVAILABLE, "draining", reason);
        Self::new(
            UpgradeRefusalReason::Draining,
            response,
            CloseCode::DRAIN,
            reason,
        )
    }

    /// The request is not an upgrade to a WebSocket, so there is nothing to close.
    pub(super) fn handshake(response: Response) -> Self {
        let reason = "no WebSocket";
        Self::new(
            UpgradeRefusalReason::Handshake,
            response,
            CloseCode::PROTOCOL,
            reason,
        )
    }

    /// The node admits no more connections this second.
    pub(super) fn rate() -> Self {
        let reason = "this node accepts no more connections this second";
        Self::for_now(UpgradeRefusalReason::Rate, 1, "too_many_upgrades", reason)
    }

    /// The address has reached its limit of connections.
    pub(super) fn address() -> Self {
        let reason = "this address has as many connections as it may have";
        let code = "too_many_connections";
        Self::for_now(
            UpgradeRefusalReason::AddressLimit,
            ROOM_RETRY_SECONDS,
            code,
            reason,
        )
    }

    /// A backend blocks the user.
    pub(super) fn blocked() -> Self {
        let reason = "the user is blocked for some time";
        let response = json_error(StatusCode::FORBIDDEN, "blocked", reason);
        Self::new(
            UpgradeRefusalReason::Blocked,
            response,
            CloseCode::FORBIDDEN,
            reason,
        )
    }

    /// The parameter `since` names no place in a history.
    pub(super) fn since() -> Self {
        let reason = "`since` is <epoch>:<offset>, once, as `welcome.payload.user` has them";
        let response = json_error(StatusCode::BAD_REQUEST, "invalid_since", reason);
        Self::new(
            UpgradeRefusalReason::Since,
            response,
            CloseCode::UNAUTHORIZED,
            reason,
        )
    }

    fn for_now(
        refusal: UpgradeRefusalReason,
        seconds: u32,
        code: &str,
        reason: &'static str,
    ) -> Self {
        let response = json_error(StatusCode::TOO_MANY_REQUESTS, code, reason);
        let response = retry_after(response, seconds);
        Self::new(refusal, response, CloseCode::TOO_MANY, reason)
    }

    /// The reason, truncated to fit in a close frame.
    pub(super) fn reason(&self) -> &str {
        &self.reason[..self.reason.floor_char_boundary(REASON_BYTES_MAX)]
    }
}

impl From<AuthError> for UpgradeRefusal {
    fn from(error: AuthError) -> Self {
        let close = match (error.code(), error.status()) {
            ("token_expired", _) => CloseCode::TOKEN_EXPIRED,
            (_, StatusCode::SERVICE_UNAVAILABLE) => CloseCode::UNAVAILABLE,
            _ => CloseCode::UNAUTHORIZED,
        };
        let reason = error.to_string();
        let refusal = match error {
            AuthError::RevokedToken => UpgradeRefusalReason::Revoked,
            _ => UpgradeRefusalReason::Auth,
        };
        Self::new(refusal, error.into_response(), close, reason)
    }
}

impl From<OriginRefused> for UpgradeRefusal {
    fn from(error: OriginRefused) -> Self {
        let reason = error.to_string();
        let response = json_error(StatusCode::FORBIDDEN, "origin_not_allowed", &reason);
        Self::new(
            UpgradeRefusalReason::Origin,
            response,
            CloseCode::FORBIDDEN,
            reason,
        )
    }
}

impl From<SlotRefused> for UpgradeRefusal {
    fn from(error: SlotRefused) -> Self {
        let (refusal, status, code, close) = match error {
            SlotRefused::User => (
                UpgradeRefusalReason::UserLimit,
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_connections",
                CloseCode::TOO_MANY,
            ),
            SlotRefused::Node => (
                UpgradeRefusalReason::NodeLimit,
                StatusCode::SERVICE_UNAVAILABLE,
                "node_full",
                CloseCode::UNAVAILABLE,
            ),
        };
        let reason = error.to_string();
        let response = retry_after(json_error(status, code, &reason), ROOM_RETRY_SECONDS);
        Self::new(refusal, response, close, reason)
    }
}

/// Whether the client asks to be accepted and then closed, rather than refused.
pub(super) fn wants_close(request: &Request) -> bool {
    let mut parameters = request.uri().query().unwrap_or_default().split('&');
    parameters.any(|parameter| parameter == "refuse=close")
        && subprotocol::negotiate(request.headers()).v1
}

/// Encodes the server's close frame.
pub(super) fn close_frame(refused: &UpgradeRefusal) -> Vec<u8> {
    let payload = [
        refused.close.number().to_be_bytes().as_slice(),
        refused.reason().as_bytes(),
    ]
    .concat();
    // At most 125 bytes, so the length fits in one byte.
    let length = payload.len() as u8;
    [&[0x88, length], payload.as_slice()].concat()
}

fn retry_after(mut response: Response, seconds: u32) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_whether_to_come_back() {
        for (refused, code, reconnects) in [
            (UpgradeRefusal::draining(), 4000, true),
            (UpgradeRefusal::rate(), 4008, true),
            (UpgradeRefusal::address(), 4008, true),
            (SlotRefused::User.into(), 4008, true),
            (SlotRefused::Node.into(), 4009, true),
            (AuthError::ExpiredToken.into(), 4500, false),
            (AuthError::RevokedToken.into(), 4504, false),
            (UpgradeRefusal::blocked(), 4505, false),
            (UpgradeRefusal::since(), 4504, false),
            (AuthError::RevocationsUnavailable.into(), 4009, true),
            (AuthError::MissingToken.into(), 4504, false),
            (AuthError::MissingUserId.into(), 4504, false),
        ] {
            assert_eq!(refused.close.number(), code, "{refused:?}");
            assert_eq!(refused.close.reconnect(), reconnects, "{refused:?}");
        }
    }

    #[test]
    fn a_long_reason_fits_into_a_control_frame() {
        let refused = UpgradeRefusal::from(OriginRefused {
            origin: "ä".repeat(200),
            host: None,
        });
        let frame = close_frame(&refused);
        assert!(frame.len() <= 127 && frame.starts_with(&[0x88]));
        assert_eq!(usize::from(frame[1]), frame.len() - 2);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
