//! The requests of clients.

/// A request as far as the proxy must know it.
pub(super) struct Request {
    pub(super) head: String,
    pub(super) kind: Kind,
}

/// The kinds of requests, which a case can treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To a WebSocket, and everything that is not one of the others.
    Upgrade,
    /// For server-sent events.
    Stream,
    /// A frame of a client with server-sent events.
    Post,
}

impl Request {
    pub(super) fn new(head: String) -> Self {
        let mut request = Self {
            kind: Kind::Upgrade,
            head,
        };
        if request.header("upgrade").is_none() {
            let path = request.target().split('?').next().unwrap_or_default();
            match request.head.split(' ').next() {
                Some("GET") if path.ends_with("/sse") => request.kind = Kind::Stream,
                Some("POST") if path.contains("/sse/") => request.kind = Kind::Post,
                _ => {}
            }
        }
        request
    }

    /// The path and query.
    pub(super) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header, whose name is in small letters.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The head of a request that the server answers once, with a body that ends with the connection.
    pub(super) fn once(&self) -> String {
        let head = without(&self.head, &["connection"]);
        head.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1)
    }
}

/// The value of a header in a head, whose name is in small letters.
pub(super) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A head without these headers, whose names are in small letters.
pub(super) fn without(head: &str, names: &[&str]) -> String {
    let is_kept = |line: &&str| {
        let field = line.split(':').next().unwrap_or_default();
        !names.iter().any(|name| field.eq_ignore_ascii_case(name))
    };
    head.split_inclusive("\r\n").filter(is_kept).collect()
}

/// The head of an answer whose body ends with the connection, as a client of HTTP/1.1 gets it.
pub(super) fn last_answer(head: &str) -> String {
    let head = without(head, &["connection", "transfer-encoding"]);
    head.replacen("HTTP/1.0 ", "HTTP/1.1 ", 1)
        .replacen("\r\n", "\r\nConnection: close\r\n", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_upgrade_a_stream_or_a_post() {
        let kind = |head: &str| Request::new(format!("{head}\r\n\r\n")).kind;
        assert_eq!(
            kind("GET /ws HTTP/1.1\r\nUpgrade: websocket"),
            Kind::Upgrade
        );
        assert_eq!(kind("GET /sse?userId=ann HTTP/1.1"), Kind::Stream);
        assert_eq!(kind("POST /sse/c-1 HTTP/1.1"), Kind::Post);
    }

    #[test]
    fn the_head_of_a_stream_says_that_its_end_is_that_of_the_connection() {
        let request = Request::new(
            "GET /sse HTTP/1.1\r\nConnection: keep-alive\r\nHost: a\r\n\r\n".to_owned(),
        );
        assert_eq!(request.once(), "GET /sse HTTP/1.0\r\nHost: a\r\n\r\n");
        let answer = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n";
        assert_eq!(
            last_answer(answer),
            "HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\n\r\n"
        );
    }
}
