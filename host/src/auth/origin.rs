//! Which web pages may connect: the check of `Origin`.
//!
//! A browser sends cookies and credentials of a site along whichever page opens the connection; the origin is what
//! tells a foreign page (RFC 6455 §10.2). Clients that send none are no browsers, and could send any.

use axum::http::{HeaderMap, header};

use super::AuthError;
use crate::config::{AllowedOrigins, normal_origin};

/// Lets in an upgrade without `Origin`, or with one that is allowed.
///
/// # Errors
///
/// [`AuthError::OriginNotAllowed`] for any other, also for `null`, for two of them, and for one that is malformed.
pub fn check(headers: &HeaderMap, allowed: &AllowedOrigins) -> Result<(), AuthError> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Ok(());
    };
    if *allowed == AllowedOrigins::Any {
        return Ok(());
    }
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| normal_origin(origin).ok());
    match (origin, origins.next(), allowed) {
        (Some(origin), None, AllowedOrigins::List(list)) if list.contains(&origin) => Ok(()),
        (Some(origin), None, AllowedOrigins::SameHost) if is_same_host(&origin, headers) => Ok(()),
        _ => Err(AuthError::OriginNotAllowed),
    }
}

/// Whether the upgrade was sent to the host and port that the page is from. The scheme is left out: behind a proxy
/// that ends TLS the server does not know it.
fn is_same_host(origin: &str, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (
        hosts.next().and_then(|host| host.to_str().ok()),
        hosts.next(),
    ) else {
        return false;
    };
    let Some((scheme, _)) = origin.split_once("://") else {
        return false;
    };
    normal_origin(&format!("{scheme}://{}", host.trim())).is_ok_and(|host| host == origin)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(origins: &[&'static str], host: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_static(origin));
        }
        if let Some(host) = host {
            headers.insert(header::HOST, HeaderValue::from_static(host));
        }
        headers
    }

    #[test]
    fn a_client_without_origin_is_let_in() {
        let list = AllowedOrigins::List(vec!["https://a.example.com".to_owned()]);
        for allowed in [AllowedOrigins::SameHost, AllowedOrigins::Any, list] {
            assert_eq!(check(&headers(&[], Some("a")), &allowed), Ok(()));
        }
    }

    #[test]
    fn same_host_compares_host_and_port_with_default_ports() {
        let same =
            |origin, host| check(&headers(&[origin], host), &AllowedOrigins::SameHost).is_ok();
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
        let list = AllowedOrigins::List(vec!["https://a.example.com".to_owned()]);
        let listed = |origin| check(&headers(&[origin], Some("b.example.com")), &list);
        assert_eq!(listed("https://a.example.com"), Ok(()));
        assert_eq!(listed("https://A.example.com:443"), Ok(()));
        for other in [
            "http://a.example.com",
            "https://b.example.com",
            "https://a.example.com:8443",
            "null",
            "",
        ] {
            assert_eq!(listed(other), Err(AuthError::OriginNotAllowed), "{other}");
        }
    }

    #[test]
    fn two_origins_are_refused() {
        let list = AllowedOrigins::List(vec!["https://a.example.com".to_owned()]);
        let two = headers(
            &["https://a.example.com", "https://evil.com"],
            Some("a.example.com"),
        );
        assert_eq!(check(&two, &list), Err(AuthError::OriginNotAllowed));
        assert_eq!(
            check(&two, &AllowedOrigins::SameHost),
            Err(AuthError::OriginNotAllowed)
        );
    }
}
