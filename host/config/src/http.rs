//! The settings of the HTTP front: limits, trusted proxies, and the allowed hosts and origins.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::checks::normal_origin;

/// The part of `[limits]` that bounds the cost of a connection before the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Sockets of one listener before their upgrade to WebSocket.
    pub sockets_pending_max: usize,
    /// Request line and headers of one request, in bytes.
    pub header_bytes_max: usize,
    /// Time from the first byte of a request to the end of its headers.
    pub header_time_max: Duration,
    /// Time from the end of a response to the first byte of the next request.
    pub idle_timeout: Duration,
    /// How long a client may leave a response unread.
    pub write_timeout: Duration,
    /// Requests on one connection; the last of them is answered with `Connection: close`.
    pub requests_per_connection_max: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            sockets_pending_max: 1024,
            header_bytes_max: 16 << 10,
            header_time_max: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(10),
            requests_per_connection_max: 1_000,
        }
    }
}

/// An IP address with a port, or nothing.
pub(super) fn optional_address(text: &str) -> Result<(), String> {
    if text.is_empty() || text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "is not an IP address with a port{}; write it as \"127.0.0.1:9090\"",
        address_hint(text)
    ))
}

/// The path of the WebSocket.
pub(super) fn websocket_path(text: &str) -> Result<(), String> {
    const TAKEN: [&str; 7] = ["health", "ready", "metrics", "api", "admin", "demo", "sse"];
    let legal = |c: char| c.is_ascii_alphanumeric() || "/._~-".contains(c);
    let path = text.strip_prefix('/').unwrap_or_default();
    if !text.starts_with('/') || !path.chars().all(legal) || text.contains("//") {
        return Err(
            "is not a path: write it as \"/ws\", of A-Z a-z 0-9 . _ ~ - and single slashes".into(),
        );
    }
    if text.len() > 1 && text.ends_with('/') {
        return Err("ends with a slash; leave it out, the path is served with it too".to_owned());
    }
    match path.split('/').next() {
        Some(first) if TAKEN.contains(&first) => {
            Err(format!("is below /{first}, which the server itself serves"))
        }
        _ => Ok(()),
    }
}

/// A host that requests may name: a name without a port, or a domain such as `*.example.com`.
pub(super) fn host(text: &str) -> Result<(), String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= 253 && name.chars().all(legal) {
        return Ok(());
    }
    Err(
        "is not the name of a host: write it without scheme and port, such as \"chat.local\" or \"*.example.com\""
            .to_owned(),
    )
}

/// An address, or a network such as `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Result<(), String> {
    parse_network(text).map(drop).ok_or_else(|| {
        "is neither an IP address nor a network: write it as \"10.1.2.3\", \"10.0.0.0/8\" or \"fd00::/8\""
            .to_owned()
    })
}

pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let net: IpNet = match text.parse() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<std::net::IpAddr>().ok()?),
    };
    Some(net.trunc())
}

/// An entry of `allowed_origins`: an origin, `null`, a domain such as `https://*.example.com`, or `*`.
pub(super) fn origin(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    allowed_origin(text).map(drop)
}

/// An entry of `allowed_origins`, in the form that origins are compared with.
///
/// # Errors
/// The reason why it is not a valid entry.
pub(crate) fn allowed_origin(text: &str) -> Result<String, String> {
    if ["null", "file://"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(text.to_ascii_lowercase());
    }
    let Some((scheme, domain)) = text.split_once("://*.") else {
        return normal_origin(text);
    };
    let domain = normal_origin(&format!("{scheme}://{domain}"))?;
    if domain.contains('[') || domain.contains("://.") {
        return Err(
            "is not a domain: write it as \"https://*.example.com\", which stands for every host below it"
                .to_owned(),
        );
    }
    Ok(domain.replacen("://", "://*.", 1))
}

/// Describes the error in a text that should be an IP address with a port, and how to fix it.
pub(super) fn address_hint(text: &str) -> String {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let is_v6 = |host: &str| host.parse::<std::net::Ipv6Addr>().is_ok();
    match text.rsplit_once(':') {
        _ if text.contains("://") => ", which is a URL; leave the scheme out".to_owned(),
        _ if is_port(text) => {
            format!(", which has no address; write 127.0.0.1:{text}, or 0.0.0.0:{text} for every address of the machine")
        }
        Some(("" | "*", port)) if is_port(port) => {
            ", which has no address; write 0.0.0.0 in front for every address of the machine".to_owned()
        }
        Some((host, port)) if is_v6(host) && is_port(port) => {
            format!(", in which an IPv6 address needs brackets; write [{host}]:{port}")
        }
        _ if is_v6(text) => format!(", which has no port; write [{text}]:8080"),
        _ if text.parse::<std::net::IpAddr>().is_ok() => {
            format!(", which has no port; write {text}:8080")
        }
        _ if text.starts_with('[') && text.ends_with(']') => {
            format!(", which has no port; write {text}:8080")
        }
        Some(("localhost", _)) => ", which is a name; write 127.0.0.1 for localhost".to_owned(),
        _ if text == "localhost" => ", which is a name; write 127.0.0.1:8080 for localhost".to_owned(),
        Some((host, port)) if host.parse::<std::net::Ipv4Addr>().is_ok() => {
            format!(", whose port {port:?} is not a number from 0 to 65535")
        }
        Some((host, _)) if host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':') => {
            ", which is a name; write the IP address that it stands for, or 0.0.0.0 for every address of the machine"
                .to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_for_an_address_shows_how_to_write_the_one_that_was_meant() {
        for (text, hint) in [
            ("::1:8080", "write [::1]:8080"),
            (":::8080", "write [::]:8080"),
            ("fe80::2:443", "write [fe80::2]:443"),
            ("::1", "write [::1]:8080"),
            ("[::1]", "write [::1]:8080"),
            (":8080", "write 0.0.0.0 in front"),
            ("*:8080", "write 0.0.0.0 in front"),
            ("8080", "write 127.0.0.1:8080"),
            ("127.0.0.1", "write 127.0.0.1:8080"),
            ("127.0.0.1:99999", "\"99999\" is not a number"),
            ("localhost:80", "write 127.0.0.1 for localhost"),
            ("localhost", "write 127.0.0.1:8080 for localhost"),
            ("http://127.0.0.1:80", "leave the scheme out"),
            ("chat.example.com:80", "which is a name"),
        ] {
            let found = address_hint(text);
            assert!(found.contains(hint), "{text}: {found}");
        }
        assert_eq!(address_hint("what"), "");
    }

    #[test]
    fn origins_of_files_and_of_every_host_below_a_domain_can_be_listed() {
        for (text, normal) in [
            ("null", "null"),
            ("file://", "file://"),
            ("https://*.Example.com", "https://*.example.com"),
            ("https://*.example.com:443", "https://*.example.com"),
            ("http://*.localhost:3000", "http://*.localhost:3000"),
            ("https://app.example.com", "https://app.example.com"),
        ] {
            assert_eq!(allowed_origin(text).as_deref(), Ok(normal));
        }
        for bad in [
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://*.*.com",
            "*.example.com",
            "https://*.example.com/",
            "https://*.[::1]",
            "file://x/y",
            "https://*..com",
        ] {
            assert!(allowed_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_hosts_and_paths() {
        for good in ["10.0.0.0/8", "10.1.2.3", "::1", "fd00::/8", "10.1.2.3/8"] {
            assert_eq!(network(good), Ok(()), "{good}");
        }
        for bad in ["", "10.0.0.0/33", "example.com", "10.0.0.1:80", "*"] {
            assert!(network(bad).is_err(), "{bad}");
        }
        for good in ["chat.local", "*.example.com", "a_b", "HOST"] {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        for bad in ["", "*", "a:80", "http://a", "*.", "a/b"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        for good in ["/ws", "/", "/a/b", "/connect.v1"] {
            assert_eq!(websocket_path(good), Ok(()), "{good}");
        }
        for bad in [
            "", "ws", "/ws/", "//", "/a?b", "/{a}", "/admin", "/api/x", "/health", "/sse",
        ] {
            assert!(websocket_path(bad).is_err(), "{bad}");
        }
        assert_eq!(optional_address(""), Ok(()));
        assert!(optional_address("::1:80").unwrap_err().contains("[::1]:80"));
    }
}
