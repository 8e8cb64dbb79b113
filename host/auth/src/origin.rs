//! Checks `Origin`, which decides which web pages may connect.
//!
//! A browser sends the cookies and credentials of a site regardless of the page that opens the connection; the origin
//! reveals a foreign page (RFC 6455 §10.2). Clients that send no `Origin` are not browsers, and could send any.

use std::fmt;

use axum::http::{HeaderMap, header};
use signalbox_config::{AllowedOrigins, normal_origin};

/// Maximum length of an origin in an error, in bytes.
const SHOWN_BYTES_MAX: usize = 128;

/// A web page that may not connect, with the page's origin and the host that the request was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRefused {
    /// The `Origin` header, as far as it is text, truncated.
    pub origin: String,
    /// The host and port that it requested; `None` if it named none.
    pub host: Option<String>,
}

impl std::error::Error for OriginRefused {}

impl fmt::Display for OriginRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("a host without a name");
        write!(
            f,
            "pages of origin {} may not connect to {host}; add it to server.allowed_origins if they should",
            self.origin
        )
    }
}

/// Accepts an upgrade without `Origin`, or with one that is allowed. `host` is the host and port that the request is
/// for.
///
/// # Errors
///
/// Returns [`OriginRefused`] for any other origin, for more than one, and for a malformed one.
pub fn check(
    headers: &HeaderMap,
    host: Option<&str>,
    allowed: &AllowedOrigins,
) -> Result<(), OriginRefused> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Ok(());
    };
    if *allowed == AllowedOrigins::Any {
        return Ok(());
    }
    let text = origin.to_str().unwrap_or("that is no text");
    let normal = match text {
        // Browsers send these for files and for pages without an origin.
        "null" | "file://" => Some(text.to_owned()),
        _ => normal_origin(text).ok(),
    };
    match (normal, origins.next(), allowed) {
        (Some(origin), None, AllowedOrigins::List(list))
            if list.iter().any(|entry| matches(&origin, entry)) =>
        {
            Ok(())
        }
        (Some(origin), None, AllowedOrigins::SameHost) if is_same_host(&origin, host) => Ok(()),
        (_, second, _) => Err(OriginRefused {
            origin: match second {
                None => text[..text.floor_char_boundary(SHOWN_BYTES_MAX)].to_owned(),
                Some(_) => "that is named twice".to_owned(),
            },
            host: host.map(str::to_owned),
        }),
    }
}

/// Whether an origin is that of the entry, or that of a host below its `*.`.
fn matches(origin: &str, entry: &str) -> bool {
    let Some((scheme, domain)) = entry.split_once("://*.") else {
        return origin == entry;
    };
    let host = origin
        .strip_prefix(scheme)
        .and_then(|rest| rest.strip_prefix("://"));
    let below = host
        .and_then(|host| host.strip_suffix(domain))
        .and_then(|below| below.strip_suffix('.'));
    below.is_some_and(|below| !below.is_empty())
}

/// Whether the upgrade was sent to the host and port that the page is from. The scheme is ignored: behind a proxy that
/// terminates TLS, the server does not know it.
fn is_same_host(origin: &str, host: Option<&str>) -> bool {
    let (Some((scheme, _)), Some(host)) = (origin.split_once("://"), host) else {
        return false;
    };
    normal_origin(&format!("{scheme}://{host}")).is_ok_and(|host| host == origin)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(
        origins: &[&'static str],
        host: Option<&str>,
        allowed: &AllowedOrigins,
    ) -> Result<(), OriginRefused> {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_static(origin));
        }
        super::check(&headers, host, allowed)
    }

    #[test]
    fn a_client_without_origin_is_let_in() {
        let list = AllowedOrigins::List(vec!["https://a.example.com".to_owned()]);
        for allowed in [AllowedOrigins::SameHost, AllowedOrigins::Any, list] {
            assert_eq!(check(&[], Some("a"), &allowed), Ok(()));
        }
    }

    #[test]
    fn same_host_compares_host_and_port_with_default_ports() {
        let same = |origin, host| check(&[origin], host, &AllowedOrigins::SameHost).is_ok();
        assert!(same("https://app.example.com", Some("app.example.com")));
        assert!(same("https://app.example.com", Some("App.Example.com:443")));
        assert!(same("http://app.example.com:80", Some("app.example.com")));
        assert!(same("http://localhost:8080", Some("localhost:8080")));
        assert!(same("http://[::1]:8080", Some("[::1]:8080")));
        assert!(!same("http://localhost:3000", Some("localhost:8080")));
        assert!(!same("https://app.example.com", Some("app.example.com:80")));
        assert!(!same(
            "https://app.example.com.evil.com",
            Some("app.example.com")
        ));
        assert!(!same("https://evil.com", Some("app.example.com")));
        assert!(!same("null", Some("app.example.com")));
        assert!(!same("https://app.example.com", None));
    }

    #[test]
    fn a_list_lets_in_exactly_its_origins() {
        let list = [
            "https://a.example.com",
            "https://*.b.example:8443",
            "null",
            "file://",
        ];
        let list = AllowedOrigins::List(list.map(str::to_owned).to_vec());
        let is_listed = |origin| check(&[origin], Some("c.example.com"), &list).is_ok();
        for listed in [
            "https://a.example.com",
            "https://A.example.com:443",
            "https://x.b.example:8443",
            "https://x.y.b.example:8443",
            "null",
            "file://",
        ] {
            assert!(is_listed(listed), "{listed}");
        }
        for other in [
            "http://a.example.com",
            "https://b.example.com",
            "https://a.example.com:8443",
            "https://b.example:8443",
            "https://.b.example:8443",
            "https://xb.example:8443",
            "https://x.b.example",
            "http://x.b.example:8443",
            "https://x.b.example:8443.evil.com",
            "https://evil.com/.b.example:8443",
            "NULL",
            "",
        ] {
            assert!(!is_listed(other), "{other}");
        }
    }

    #[test]
    fn a_refusal_names_the_origin_and_the_host() {
        let refused = |origins: &[&'static str], host| {
            let refused = check(origins, host, &AllowedOrigins::SameHost);
            refused.expect_err("another origin").to_string()
        };
        let text = refused(&["https://evil.com"], Some("app.example.com:80"));
        assert!(
            text.contains("https://evil.com") && text.contains("app.example.com:80"),
            "{text}"
        );
        assert!(refused(&["null"], Some("a")).contains("origin null"));
        let long: &'static str = Box::leak(format!("https://{}", "a".repeat(9_000)).into());
        assert!(refused(&[long], Some("a")).len() < 400);
        let two = refused(
            &["https://a.example.com", "https://evil.com"],
            Some("a.example.com"),
        );
        assert!(two.contains("named twice"), "{two}");
    }
}
