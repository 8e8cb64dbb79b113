//! Checks of text values. An error states the reason without the text, which may be a secret.

use signalbox_protocol::{ROOM_NAME_BYTES_MAX, event_type};

use super::{WebhookEvent, nearest::nearest};

/// A check of one text.
pub(super) type Check = fn(&str) -> Result<(), String>;

/// Accepts everything.
pub(super) fn any(_: &str) -> Result<(), String> {
    Ok(())
}

/// A secret without quotes or white space around it, which would become part of it by mistake.
pub(super) fn secret(text: &str) -> Result<(), String> {
    if text.trim() != text || text.starts_with('\u{feff}') {
        return Err(
            "begins or ends with white space, such as a line break, which would be part of it; remove that".to_owned(),
        );
    }
    let is_quoted = ['"', '\'', '`']
        .iter()
        .any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote));
    if is_quoted {
        return Err("is in quotes, which would be part of it; remove them".to_owned());
    }
    Ok(())
}

/// The name of a node; if it is empty, the host name is used.
pub(super) fn node_id(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.len() <= 64 && text.chars().all(legal) {
        return Ok(());
    }
    Err("is not a node name: write 1 to 64 of A-Z a-z 0-9 _ . -".to_owned())
}

/// The name of a plugin.
pub(super) fn plugin_name(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(legal) {
        return Ok(());
    }
    Err("is not a plugin name: write 1 to 64 of a-z 0-9 _ -".to_owned())
}

/// A path, which must not be empty.
pub(super) fn path(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('\0') {
        return Err("is not a path: write the path of a file".to_owned());
    }
    Ok(())
}

/// A path that may be empty.
pub(super) fn optional_path(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("is not a path: it holds a NUL".to_owned());
    }
    Ok(())
}

/// The prefix of Redis keys. With empty braces, a cluster would hash the whole key to find its slot, and keys that
/// belong together would be in different slots.
pub(super) fn key_prefix(text: &str) -> Result<(), String> {
    if text.contains("{}") {
        return Err(
            "contains {}, which would scatter over a cluster what belongs together".to_owned(),
        );
    }
    Ok(())
}

/// A CloudWatch namespace.
pub(super) fn cloudwatch_namespace(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-/#:".contains(c);
    let is_own = !text.starts_with(':') && !text.starts_with("AWS/");
    if (1..=255).contains(&text.len()) && text.chars().all(legal) && is_own {
        return Ok(());
    }
    Err(
        "is not a namespace of one's own: write 1 to 255 of A-Z a-z 0-9 . _ - / # :, not beginning with : or AWS/"
            .to_owned(),
    )
}

/// An AWS region, or nothing. It becomes part of a host name.
pub(super) fn region(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.len() <= 64 && text.chars().all(legal) {
        return Ok(());
    }
    Err("is not a region: write it as eu-central-1".to_owned())
}

/// Minimum length of an API key. A correct key is never throttled, so only its length protects against guessing.
const KEY_BYTES_MIN: usize = 16;

/// A key that travels in an `Authorization` header (RFC 6750 §2.1), or nothing.
pub(super) fn bearer_key(text: &str) -> Result<(), String> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(
            "cannot be sent in a header: write visible ASCII characters without spaces".to_owned(),
        );
    }
    if (1..KEY_BYTES_MIN).contains(&text.len()) {
        return Err(format!(
            "is {} characters long, which can be guessed: write {KEY_BYTES_MIN} or more; make one with: openssl rand -hex 32",
            text.len()
        ));
    }
    Ok(())
}

/// A pattern for the types that a plugin sees: an event type, a prefix with a final `*`, or `*`.
pub(super) fn event_pattern(text: &str) -> Result<(), String> {
    if event_type::is_built_in(text) {
        return Err(
            "is built into the server and cannot be given to a plugin; leave it out".into(),
        );
    }
    spelled_as_pattern(text)
}

/// A pattern for the types that clients may send: an event type, a prefix with a final `*`, or `*`.
pub(super) fn client_events(text: &str) -> Result<(), String> {
    if event_type::is_built_in(text) {
        return Err(
            "is built into the server, which decides itself whether clients may send it; leave it out"
                .into(),
        );
    }
    spelled_as_pattern(text)
}

/// A pattern for rooms: a name, a prefix with a final `*`, or `*`.
pub(super) fn room_pattern(text: &str) -> Result<(), String> {
    if has_pattern_length(text, ROOM_NAME_BYTES_MAX) && !without_star(text).contains('*') {
        return Ok(());
    }
    Err(format!(
        "is not a pattern for rooms: write 1 to {ROOM_NAME_BYTES_MAX} bytes, with one * at most, at the end"
    ))
}

/// The name of an event for webhooks.
pub(super) fn webhook_event(text: &str) -> Result<(), String> {
    if WebhookEvent::named(text).is_some() {
        return Ok(());
    }
    let known = WebhookEvent::ALL.map(WebhookEvent::as_str);
    Err(match nearest(text, known) {
        Some(near) => format!("is not an event; did you mean {near}"),
        None => format!("is not an event; the known ones are {}", known.join(", ")),
    })
}

fn spelled_as_pattern(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if has_pattern_length(text, 64) && without_star(text).chars().all(legal) {
        return Ok(());
    }
    Err(
        "is not an event pattern: write 1 to 64 of A-Z a-z 0-9 _ . : -, with one * at most, at the end"
            .to_owned(),
    )
}

/// Whether a pattern is a name of 1 to `name_bytes_max` bytes, or a `*` after at most as many.
fn has_pattern_length(text: &str, name_bytes_max: usize) -> bool {
    !text.is_empty() && without_star(text).len() <= name_bytes_max
}

/// A pattern without its final `*`.
fn without_star(text: &str) -> &str {
    text.strip_suffix('*').unwrap_or(text)
}

/// An origin as a browser sends it (RFC 6454 §6.2): lower case, without the default port of its scheme.
///
/// # Errors
///
/// The reason why it is not an origin.
pub fn normal_origin(text: &str) -> Result<String, String> {
    const HINT: &str = "write it as the browser sends it, such as \"https://app.example.com\"";
    let lower = text.to_ascii_lowercase();
    let Some((scheme, host)) = lower.split_once("://") else {
        return Err(format!("is not an origin: {HINT}"));
    };
    let scheme_is_legal = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if !scheme_is_legal || host.is_empty() || !host.chars().all(legal) {
        return Err(format!(
            "is not an origin: it is a scheme and a host without path, user or wildcard; {HINT}"
        ));
    }
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    Ok(format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_patterns() {
        let longest = "a".repeat(64);
        for good in [
            "chat_message",
            "game.*",
            "*",
            "a:b-c.D_9",
            &longest,
            "join*",
        ] {
            assert_eq!(event_pattern(good), Ok(()), "{good}");
            assert_eq!(client_events(good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(65);
        let reserved = [
            "join",
            "ack",
            "token_expiring",
            "signalbox.x",
            "signalbox.*",
        ];
        for bad in ["", "**", "a*b", "a b", "ä", &too_long]
            .into_iter()
            .chain(reserved)
        {
            assert!(event_pattern(bad).is_err(), "{bad}");
            assert!(client_events(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn room_patterns() {
        let longest = "ä".repeat(127) + "x";
        let beginning = longest.clone() + "*";
        for good in ["lobby", "chat:*", "*", " ", "Ä/b c\n", &longest, &beginning] {
            assert_eq!(room_pattern(good), Ok(()), "{good:?}");
        }
        let too_long = "x".repeat(256);
        let too_long_beginning = too_long.clone() + "*";
        for bad in ["", "**", "a*b", "*a", "a**", &too_long, &too_long_beginning] {
            let error = room_pattern(bad).expect_err(bad);
            assert!(error.contains("1 to 255 bytes"), "{bad}: {error}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        assert_eq!(
            normal_origin("HTTPS://App.Example.com:443").as_deref(),
            Ok("https://app.example.com")
        );
        assert_eq!(
            normal_origin("http://localhost:3000").as_deref(),
            Ok("http://localhost:3000")
        );
        for bad in [
            "app.example.com",
            "https://",
            "https://a/",
            "https://*.a.com",
            "null",
            "://a",
        ] {
            assert!(normal_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_keys() {
        assert!(node_id("Node_1.a-b").is_ok());
        assert!(node_id("a b").is_err());
        assert!(node_id(&"a".repeat(65)).is_err());
        assert!(plugin_name("chat-2_x").is_ok());
        assert!(plugin_name("Chat").is_err());
        assert!(plugin_name("").is_err());
        assert!(key_prefix("{chat}:").is_ok());
        assert!(key_prefix("{}chat:").is_err());
        assert!(bearer_key("abc+/=0123456789").is_ok());
        assert!(bearer_key("").is_ok(), "no key");
        let short = bearer_key("fifteen-letters").expect_err("too short");
        assert!(!short.contains("fifteen") && short.contains("15 characters"));
        assert!(bearer_key("two words").is_err());
    }

    #[test]
    fn a_secret_with_surrounding_spaces_or_quotes_is_refused() {
        for good in ["", "a", "\"", "'a", "a b", "it's", "p\"w\"d", "ä"] {
            assert_eq!(secret(good), Ok(()), "{good:?}");
        }
        for bad in ["a\n", "a\r\n", " a", "a\t", "\u{a0}a", "\u{feff}a", " "] {
            let error = secret(bad).expect_err(bad);
            assert!(error.contains("white space"), "{bad:?}: {error}");
        }
        for bad in ["\"a\"", "'a'", "`a`", "\"\""] {
            let error = secret(bad).expect_err(bad);
            assert!(error.contains("quotes"), "{bad:?}: {error}");
        }
    }
}
