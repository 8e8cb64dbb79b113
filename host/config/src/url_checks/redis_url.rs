//! The check of an address of Redis, beyond its scheme.

use crate::checks::secret;

/// Checks everything that connecting to it depends on.
pub(super) fn check(url: &str) -> Result<(), String> {
    let parsed = redis::parse_redis_url(url).ok_or("cannot be read as a URL")?;
    if parsed.fragment().is_some() || parsed.query().is_some() {
        return Err("continues after # or ?, which has no meaning here".to_owned());
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    let database = parsed.path().trim_matches('/');
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err("has a path that is not a database number".to_owned());
    }
    let info = redis::IntoConnectionInfo::into_connection_info(parsed)
        .map_err(|_| "names no address to connect to")?;
    let login = info.redis_settings();
    for (what, text) in [("user", login.username()), ("password", login.password())] {
        secret(text.unwrap_or_default()).map_err(|reason| format!("has a {what} that {reason}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::url_checks::redis_urls;

    #[test]
    fn addresses_of_redis_are_refused_without_being_shown() {
        for good in [
            "redis://127.0.0.1",
            "redis://user:p%40ss@[::1]:6380/2",
            "rediss://a.example.com:6380, rediss://b.example.com:6380",
        ] {
            assert_eq!(redis_urls(good), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("", "number 1 does not begin with redis://"),
            ("hush@127.0.0.1:6379", "does not begin with redis://"),
            ("redis://a,b:6379", "number 2 does not begin with"),
            ("redis://", "names no host"),
            ("redis://:hush@:6379", "cannot be read"),
            ("redis://a:hush", "cannot be read"),
            ("redis://a/hush", "not a database number"),
            ("rediss://a/#hush", "continues after #"),
            ("redis://a?hush=1", "continues after #"),
            ("redis://u:%ff@a", "names no address"),
            ("redis://0.0.0.0", "names no address"),
            (
                "redis://:hush%0A@a",
                "a password that begins or ends with white space",
            ),
            (
                "redis://:%20hush@a",
                "a password that begins or ends with white space",
            ),
            ("redis://:\"hush\"@a", "a password that is in quotes"),
            ("redis://'hush':x@a", "a user that is in quotes"),
        ] {
            let error = redis_urls(bad).expect_err(bad);
            assert!(
                error.contains(reason) && !error.contains("hush"),
                "{bad}: {error}"
            );
        }
    }
}
