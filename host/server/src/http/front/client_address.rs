//! Finds the client of a request behind proxies, from `X-Forwarded-For` and `Forwarded` (RFC 7239), as far as they can
//! be trusted.
//!
//! Each proxy appends the address from which it received the request. The list is therefore read from its end, and only
//! as long as the author of an entry is a trusted proxy: anything before that may be forged.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use tracing::debug;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An entry of a list: an address, or `None` for anything else.
type Hop = Option<SocketAddr>;

/// Whether `address` is one of the trusted proxies.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The client of a request that `peer` sent: the peer itself, or the address that trusted proxies report, with port 0
/// if they report no port. If the two headers name different clients, one of them is not from the proxy, and the client
/// is the peer.
pub(super) fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> SocketAddr {
    if !is_trusted(peer.ip(), trusted) {
        return peer;
    }
    let lines = |name: HeaderName| {
        let lines = headers.get_all(name).iter();
        lines.map(|line| line.to_str().unwrap_or("unreadable"))
    };
    let by = |hops: Vec<Hop>| (!hops.is_empty()).then(|| last_untrusted(peer, &hops, trusted));
    let x_forwarded_for = by(lines(X_FORWARDED_FOR).flat_map(addresses).collect());
    let forwarded = by(lines(header::FORWARDED).flat_map(elements).collect());
    match (x_forwarded_for, forwarded) {
        (Some(one), Some(other)) if one.ip() != other.ip() => {
            debug!(%peer, "X-Forwarded-For and Forwarded name different clients; let the proxy remove the one that it does not set");
            peer
        }
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

fn last_untrusted(peer: SocketAddr, hops: &[Hop], trusted: &[IpNet]) -> SocketAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        match hop {
            Some(address) if is_trusted(client.ip(), trusted) => client = *address,
            _ => break,
        }
    }
    client
}

/// The entries of a line of `X-Forwarded-For`.
fn addresses(line: &str) -> impl Iterator<Item = Hop> {
    let entries = line.split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty()).map(node)
}

/// The `for` parameters of the entries of a `Forwarded` line.
fn elements(line: &str) -> impl Iterator<Item = Hop> {
    let elements = split_unquoted(line, ',').into_iter().map(str::trim);
    elements
        .filter(|element| !element.is_empty())
        .map(|element| {
            let mut named = split_unquoted(element, ';').into_iter().filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim()
                    .eq_ignore_ascii_case("for")
                    .then(|| value.trim())
            });
            match (named.next(), named.next()) {
                (Some(value), None) => node(unquoted(value)?),
                _ => None,
            }
        })
}

/// The parts between `separator`s outside quotes.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(|c: char| {
        let separates = c == separator && !is_quoted;
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        separates
    })
    .collect()
}

/// A value without its quotes; `None` if they are unbalanced or contain an escape, which no address needs.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest
            .strip_suffix('"')
            .filter(|inner| !inner.contains(['"', '\\'])),
        None => Some(value),
    }
}

/// Parses an address as proxies write it: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`. `unknown` and obfuscated names yield `None`; an obfuscated port yields port 0.
fn node(text: &str) -> Hop {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(canonical(ip, 0));
    }
    let (ip, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            (ip.parse::<Ipv6Addr>().ok()?.into(), port)
        }
        None => {
            let (ip, _) = text.split_once(':')?;
            (IpAddr::V4(ip.parse().ok()?), &text[ip.len()..])
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 0,
        None => return None,
        Some(hidden) if hidden.starts_with('_') => 0,
        Some(port) => port.parse().ok()?,
    };
    Some(canonical(ip, port))
}

/// An address in its canonical form: an IPv4-mapped IPv6 address becomes IPv4.
pub(super) fn canonical(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn seen(peer: &str, lines: &[(&'static str, &'static str)]) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let peer: SocketAddr = peer.parse().expect("an address");
        let peer = canonical(peer.ip(), peer.port());
        client(peer, &headers, &trusted).to_string()
    }

    #[test]
    fn the_last_hop_that_is_no_trusted_proxy_is_the_client() {
        for (value, client) in [
            ("203.0.113.7", "203.0.113.7:0"),
            ("203.0.113.7:4711", "203.0.113.7:4711"),
            ("6.6.6.6, 203.0.113.7", "203.0.113.7:0"),
            ("6.6.6.6,203.0.113.7 , 10.0.0.2", "203.0.113.7:0"),
            ("2001:db8::7", "[2001:db8::7]:0"),
            ("[2001:db8::7]:99, fd00::1", "[2001:db8::7]:99"),
            ("::ffff:203.0.113.7", "203.0.113.7:0"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3:0"),
            (",, 203.0.113.7 ,", "203.0.113.7:0"),
            // An unreadable entry hides the entries before it.
            ("6.6.6.6, unknown", "10.0.0.1:5000"),
            ("6.6.6.6, unknown, 10.0.0.2", "10.0.0.2:0"),
            ("6.6.6.6, 203.0.113.7:x", "10.0.0.1:5000"),
            ("1.2.3", "10.0.0.1:5000"),
            ("", "10.0.0.1:5000"),
        ] {
            let found = seen("10.0.0.1:5000", &[("x-forwarded-for", value)]);
            assert_eq!(found, client, "{value}");
        }
    }

    #[test]
    fn forwarded_says_the_same_with_quotes_names_and_ports() {
        for (value, client) in [
            ("for=203.0.113.7", "203.0.113.7:0"),
            (
                "For=\"203.0.113.7:4711\";proto=https;by=10.0.0.1",
                "203.0.113.7:4711",
            ),
            ("for=\"[2001:db8::7]:99\"", "[2001:db8::7]:99"),
            (
                "proto=https; for=\"[2001:db8::7]\", for=10.0.0.2",
                "[2001:db8::7]:0",
            ),
            (
                "for=6.6.6.6, for=203.0.113.7;host=\"a,b;for=1.1.1.1\"",
                "203.0.113.7:0",
            ),
            ("for=203.0.113.7:_hidden", "203.0.113.7:0"),
            ("for=6.6.6.6, for=_hidden", "10.0.0.1:5000"),
            ("for=6.6.6.6, for=unknown", "10.0.0.1:5000"),
            ("for=6.6.6.6, proto=http", "10.0.0.1:5000"),
            ("for=6.6.6.6, for=1.1.1.1;for=2.2.2.2", "10.0.0.1:5000"),
            ("for=6.6.6.6, for=\"1.1.1.1", "10.0.0.1:5000"),
        ] {
            let found = seen("10.0.0.1:5000", &[("forwarded", value)]);
            assert_eq!(found, client, "{value}");
        }
    }

    #[test]
    fn many_lines_are_one_list() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "203.0.113.7, 10.9.9.9"),
            ("x-forwarded-for", "10.0.0.2"),
        ];
        assert_eq!(seen("10.0.0.1:1", &lines), "203.0.113.7:0");
    }

    #[test]
    fn forwarding_headers_of_untrusted_peers_are_ignored() {
        for name in ["x-forwarded-for", "forwarded"] {
            let lines = [(name, "for=6.6.6.6"), (name, "6.6.6.6")];
            assert_eq!(seen("203.0.113.7:1", &lines), "203.0.113.7:1");
        }
        let lines = [("x-forwarded-for", "203.0.113.7")];
        assert_eq!(seen("[::ffff:10.0.0.1]:1", &lines), "203.0.113.7:0");
    }

    #[test]
    fn contradicting_proxy_headers_are_not_trusted() {
        let both = |forwarded| {
            let lines = [
                ("x-forwarded-for", "203.0.113.7:5"),
                ("forwarded", forwarded),
            ];
            seen("10.0.0.1:1", &lines)
        };
        assert_eq!(both("for=203.0.113.7"), "203.0.113.7:5");
        assert_eq!(both("for=6.6.6.6"), "10.0.0.1:1");
    }
}
