//! `Sec-WebSocket-Protocol`: the client's offer, and the server's answer.

use axum::http::{HeaderMap, header};

/// The protocol of signalbox with `welcome`.
pub const V1: &str = "signalbox.v1";

/// The entry before a token, for browsers: they can set no other header.
pub const BEARER: &str = "bearer";

/// A client's offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubprotocolOffer<'h> {
    /// The answer: one of the offered names, because browsers fail the connection otherwise, and never the token.
    /// `None` if the header is left out.
    pub answer: Option<&'static str>,
    /// Whether `signalbox.v1` was offered.
    pub v1: bool,
    /// The token after `bearer`, if any.
    pub token: Option<&'h str>,
}

/// Reads the offer, from one header line or several, in any order.
pub fn negotiate(headers: &HeaderMap) -> SubprotocolOffer<'_> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut entries = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .peekable();
    let (mut v1, mut bearer, mut token) = (false, false, None);
    while let Some(entry) = entries.next() {
        match entry {
            V1 => v1 = true,
            BEARER if !bearer => {
                bearer = true;
                // `bearer` without a token: the next entry is another protocol.
                token = entries.next_if(|entry| *entry != V1);
            }
            _ => {}
        }
    }
    let answer = match (v1, bearer) {
        (true, _) => Some(V1),
        (false, true) => Some(BEARER),
        (false, false) => None,
    };
    SubprotocolOffer { answer, v1, token }
}

// Keeps the token out of logs, which use `Debug`.
impl std::fmt::Debug for SubprotocolOffer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("answer", &self.answer)
            .field("v1", &self.v1)
            .field("token", &self.token.map(|_| "****"))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn offer(lines: &[&'static str]) -> (Option<&'static str>, bool, Option<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(line),
            );
        }
        let offer = negotiate(&headers);
        (offer.answer, offer.v1, offer.token.map(str::to_owned))
    }

    #[test]
    fn one_of_the_offered_names_is_answered_and_never_the_token() {
        let token = || Some("a.b.c".to_owned());
        assert_eq!(offer(&[]), (None, false, None));
        assert_eq!(offer(&["chat, soap"]), (None, false, None));
        assert_eq!(offer(&["signalbox.v1"]), (Some(V1), true, None));
        assert_eq!(offer(&["chat,signalbox.v1"]), (Some(V1), true, None));
        assert_eq!(offer(&["bearer, a.b.c"]), (Some(BEARER), false, token()));
        assert_eq!(
            offer(&["bearer, a.b.c, signalbox.v1"]),
            (Some(V1), true, token())
        );
        assert_eq!(
            offer(&["signalbox.v1, bearer, a.b.c"]),
            (Some(V1), true, token())
        );
        assert_eq!(
            offer(&["bearer", "a.b.c", "signalbox.v1"]),
            (Some(V1), true, token())
        );
        assert_eq!(offer(&["bearer, signalbox.v1"]), (Some(V1), true, None));
        assert_eq!(offer(&["bearer"]), (Some(BEARER), false, None));
        assert_eq!(
            offer(&["bearer, bearer"]),
            (Some(BEARER), false, Some("bearer".to_owned()))
        );
    }

    #[test]
    fn the_token_does_not_show_in_debug_output() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("bearer, a.b.c"),
        );
        assert!(!format!("{:?}", negotiate(&headers)).contains("a.b.c"));
    }
}
