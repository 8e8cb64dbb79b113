//! The host that a request is for (RFC 9112 §3.2), and whether this server answers for it.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, Uri, Version, header, uri::Scheme};

/// The host and port that a request names, in the URI or else in `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct RequestTarget {
    authority: String,
    /// The length of the host within `authority`.
    host_bytes: usize,
}

impl RequestTarget {
    /// Returns the host that a request is for, or `None` for an HTTP/1.0 client that did not name one.
    ///
    /// # Errors
    /// Returns the fault, for the client, if the request names no valid host, several hosts, or a URI that is not HTTP.
    pub(super) fn of(
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, &'static str> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => return Err("there is more than one Host header"),
            (None, _) if version == Version::HTTP_10 => None,
            (None, _) => return Err("there is no Host header"),
            (Some(host), None) => {
                let host = host.to_str().ok().and_then(Self::parse);
                Some(host.ok_or("the Host header names no host")?)
            }
        };
        // The URI takes precedence over the header (RFC 9112 §3.2.2).
        match (uri.scheme(), uri.authority()) {
            (None, None) => Ok(host),
            (Some(scheme), Some(authority)) if is_http(scheme) => {
                let target = Self::parse(authority.as_str());
                target.map(Some).ok_or("the URI names no host")
            }
            _ => Err("this server is not a proxy: send the path, or an http or https URI"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((address, port))) => {
                address.parse::<Ipv6Addr>().ok()?;
                (address.len() + 2, port)
            }
            Some(None) => return None,
            None => {
                let host = text.split(':').next().unwrap_or_default();
                let legal = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
                if host.is_empty() || host.len() > 255 || !host.chars().all(legal) {
                    return None;
                }
                (host.len(), &text[host.len()..])
            }
        };
        let is_port = match port.strip_prefix(':') {
            // A colon without a port is legal and has no meaning (RFC 3986 §3.2.3).
            Some(port) => port.is_empty() || is_digits(port) && port.parse::<u16>().is_ok(),
            None => port.is_empty(),
        };
        is_port.then(|| Self {
            authority: text.trim_end_matches(':').to_ascii_lowercase(),
            host_bytes: host,
        })
    }

    /// Host and port in lower case, as in the `Host` header.
    pub(in crate::http) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the host is this machine, an IP address, or one of `allowed`, so that no attacker can make a browser
    /// treat it as the attacker's own (DNS rebinding).
    pub(super) fn is_own(&self, allowed: &[String]) -> bool {
        let host = self.authority[..self.host_bytes].trim_end_matches('.');
        host == "localhost"
            || host.ends_with(".localhost")
            || host.starts_with('[')
            || host.parse::<Ipv4Addr>().is_ok()
            || allowed.iter().any(|allowed| matches(host, allowed))
    }
}

/// Whether a host equals `allowed`, or is below the domain that follows its `*.`.
fn matches(host: &str, allowed: &str) -> bool {
    match allowed.strip_prefix('*') {
        Some(domain) => host.len() > domain.len() && host.ends_with(domain),
        None => host == allowed.trim_end_matches('.'),
    }
}

fn is_http(scheme: &Scheme) -> bool {
    ["http", "https", "ws", "wss"].contains(&scheme.as_str())
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn target(uri: &'static str, hosts: &[&'static str]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        let target = RequestTarget::of(Version::HTTP_11, &Uri::from_static(uri), &headers)?;
        Ok(target.map(|target| target.authority))
    }

    #[test]
    fn a_request_names_one_host_that_can_be_one() {
        for (host, authority) in [
            ("a", "a"),
            ("Chat.Example.com:8080", "chat.example.com:8080"),
            ("a_b.example", "a_b.example"),
            ("a:", "a"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]", "[::1]"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(target("/ws", &[host]), Ok(Some(authority.to_owned())));
        }
        for bad in [
            "", ":80", "a b", "a:b", "a:80:80", "a:99999", "a:+80", "::1", "[::1", "[::1]80",
            "[a]", "user@a", "a/b", "a,b", "http://a", "[]", "a?", "[::1]:x",
        ] {
            assert!(target("/ws", &[bad]).is_err(), "{bad}");
        }
        assert!(target("/ws", &[]).is_err());
        assert!(target("/ws", &["a", "a"]).is_err());
    }

    #[test]
    fn an_old_client_need_not_name_a_host_and_may_not_name_two() {
        let uri = Uri::from_static("/health");
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap| RequestTarget::of(Version::HTTP_10, &uri, headers);
        assert_eq!(of(&headers), Ok(None));
        headers.append(header::HOST, HeaderValue::from_static("a"));
        assert!(of(&headers).is_ok_and(|target| target.is_some()));
        headers.append(header::HOST, HeaderValue::from_static("a"));
        assert!(of(&headers).is_err());
    }

    #[test]
    fn a_whole_uri_wins_over_the_header() {
        let named = |uri, host| target(uri, &[host]);
        assert_eq!(named("http://b:81/ws", "a"), Ok(Some("b:81".to_owned())));
        assert_eq!(named("https://B/", "a"), Ok(Some("b".to_owned())));
        assert!(named("http://b/ws", "a b").is_err(), "the header too");
        assert!(named("ftp://b/ws", "a").is_err());
        assert!(named("http://user@b/ws", "a").is_err());
        assert!(named("b:443", "a").is_err(), "CONNECT");
        assert!(target("http://b/ws", &[]).is_err());
    }

    #[test]
    fn only_addresses_and_allowed_names_are_own() {
        let allowed = ["chat.local".to_owned(), "*.example.test".to_owned()];
        let is_own = |host: &str| RequestTarget::parse(host).expect("a host").is_own(&allowed);
        for own in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost:3000",
            "127.0.0.1:8080",
            "192.168.1.7",
            "[::1]:8080",
            "chat.local:80",
            "Chat.Local.",
            "a.b.example.test",
        ] {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "evil.example",
            "evillocalhost",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "example.test",
            "notexample.test",
            "chat.local.evil",
            "x.chat.local",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }
}
