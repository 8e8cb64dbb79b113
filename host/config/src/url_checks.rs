//! Checks of URLs: of key sets, Redis, collectors and other services. An error states the reason without the text.

#[cfg(any(test, not(feature = "redis")))]
mod any_redis_url;
#[cfg(feature = "redis")]
mod redis_url;

#[cfg(not(feature = "redis"))]
use self::any_redis_url as redis_url;

/// The URL of a JWKS, or nothing.
pub(super) fn jwks_url(text: &str) -> Result<(), String> {
    const HINT: &str = "write it such as https://login.example.com/.well-known/jwks.json";
    if text.is_empty() {
        return Ok(());
    }
    let (_, has_login) = http_address(text, HINT)?;
    if has_login {
        return Err(format!(
            "holds a user or password, and a key set is public: {HINT}"
        ));
    }
    without_fragment(text, HINT)
}

fn without_fragment(text: &str, hint: &str) -> Result<(), String> {
    if text.contains('#') {
        return Err(format!(
            "continues after #, which has no meaning here: {hint}"
        ));
    }
    Ok(())
}

/// The URL of a webhook. Its query may hold a secret, but not its login, because many clients and proxies show that.
pub(super) fn webhook_url(text: &str) -> Result<(), String> {
    const HINT: &str = "write it such as https://example.com/signalbox";
    let (uri, has_login) = http_address(text, HINT)?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(format!("names no host: {HINT}"));
    }
    if has_login {
        return Err(format!(
            "holds a user or password, and requests are signed instead: {HINT}"
        ));
    }
    without_fragment(text, HINT)
}

/// Whether `url` is fetched or sent over a network without TLS.
pub(super) fn is_unprotected(url: &str) -> bool {
    let Ok(uri) = url.parse::<hyper::Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_local = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    uri.scheme_str() == Some("http") && !is_local
}

/// An HTTP or HTTPS URL, and whether it contains a user or password. `hint` ends the error.
fn http_address(text: &str, hint: &str) -> Result<(hyper::Uri, bool), String> {
    let uri: hyper::Uri = text
        .parse()
        .map_err(|_| format!("is not an address: {hint}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("does not begin with http:// or https://: {hint}"));
    }
    let authority = uri.authority();
    let has_login = authority.is_some_and(|authority| authority.as_str().contains('@'));
    Ok((uri, has_login))
}

/// Redis addresses, separated by commas. The reason does not contain them, because they may hold passwords.
pub(super) fn redis_urls(text: &str) -> Result<(), String> {
    const HINT: &str = "write redis://host:port or rediss://user:password@host:port, comma separated, with special \
                        characters of a password as %xx";
    for (index, url) in split_redis_urls(text).enumerate() {
        redis_url(url).map_err(|reason| {
            format!(
                "is not a list of addresses: number {} {reason}; {HINT}",
                index + 1
            )
        })?;
    }
    Ok(())
}

fn redis_url(url: &str) -> Result<(), String> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("redis" | "rediss")) {
        return Err("does not begin with redis:// or rediss://".to_owned());
    }
    redis_url::check(url)
}

/// A Redis address without user and password.
pub(super) fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Whether a Redis address requires TLS.
pub(super) fn is_tls(url: &str) -> bool {
    url.starts_with("rediss://")
}

/// The addresses in such a list.
pub(super) fn split_redis_urls(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// The URL of an OTLP collector, or nothing. It may include a path, to which the path of the signal is added.
pub(super) fn otlp_endpoint(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    const HINT: &str =
        "write http://host:port or https://host:port of its OTLP over HTTP, mostly port 4318";
    let (uri, has_login) = http_address(text, HINT)?;
    if has_login {
        return Err(
            "holds a user or password, which belongs in OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
        );
    }
    if uri.query().is_some() {
        return Err(format!(
            "continues after ?, which has no meaning here: {HINT}"
        ));
    }
    Ok(())
}

/// The URL of a service, or nothing.
pub(super) fn endpoint(text: &str) -> Result<(), String> {
    const HINT: &str = "write http:// or https://, and a host";
    let host = match text.split_once("://") {
        Some(("http" | "https", host)) => host,
        _ if text.is_empty() => return Ok(()),
        _ => return Err(format!("is not an address: {HINT}")),
    };
    if host.is_empty() || host.starts_with('/') || text.contains(char::is_whitespace) {
        return Err(format!("names no host: {HINT}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_key_sets() {
        for good in [
            "",
            "https://login.example.com/.well-known/jwks.json",
            "http://127.0.0.1:8080/keys?v=1",
        ] {
            assert_eq!(jwks_url(good), Ok(()), "{good}");
        }
        for bad in [
            "login.example.com/keys",
            "ftp://a/keys",
            "file:///keys.json",
            "https://",
            "https://u:p@a/keys",
            "https://a/keys#1",
            "/keys",
        ] {
            assert!(jwks_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_redis_lose_their_login_and_nothing_else() {
        for (url, bare) in [
            ("redis://user:pw@a:6380/2", "redis://a:6380/2"),
            ("rediss://:pw@[::1]", "rediss://[::1]"),
            ("redis://a", "redis://a"),
        ] {
            assert_eq!(without_login(url), bare);
        }
    }

    #[test]
    fn addresses_of_collectors() {
        for good in ["", "http://127.0.0.1:4318", "https://otlp.example.com/v2/"] {
            assert_eq!(otlp_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "collector:4318",
            "grpc://a",
            "http://",
            "http://u:p@a",
            "http://a?b=1",
            "/v1/traces",
        ] {
            assert!(otlp_endpoint(bad).is_err(), "{bad}");
        }
    }
}
