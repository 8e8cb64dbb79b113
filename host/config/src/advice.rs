//! Settings that are valid but probably unintended.

use super::{
    settings::{Section, Settings},
    url_checks,
};

/// One sentence per finding, with the key and advice.
pub(super) fn of(settings: &Settings) -> Vec<String> {
    let section = |name| settings.sections.get(name);
    let (Some(server), Some(auth), Some(limits)) =
        (section("server"), section("auth"), section("limits"))
    else {
        return Vec::new();
    };
    let mut advice = Vec::new();
    if let Some(variable) = &settings.port_alone {
        advice.extend(port_alone(variable, server, auth));
    }
    if auth.text("mode") == "jwt" {
        advice.extend(unbound_tokens(auth));
        advice.extend(unprotected_keys(auth));
    }
    if let Some(users) = section("users") {
        advice.extend(more_than_is_replayed(users, limits));
    }
    for rule in &settings.rooms {
        advice.extend(more_than_is_replayed(rule, limits));
        advice.extend(claims_without_tokens(rule, auth));
    }
    advice.extend(settings.webhooks.iter().filter_map(unprotected_events));
    advice
}

/// A client recovers all messages that it missed or none.
fn more_than_is_replayed(rule: &Section, limits: &Section) -> Option<String> {
    if !rule.have_values(&["history.size"]) {
        return None;
    }
    let (size, max) = (
        rule.count("history.size"),
        limits.count("history_replay_max"),
    );
    (size > max).then(|| {
        format!(
            "{}.history.size is {size}, more than limits.history_replay_max, {max}: a client that missed more than \
             {max} messages recovers none of them; lower it, or raise the other",
            rule.path
        )
    })
}

fn claims_without_tokens(rule: &Section, auth: &Section) -> Option<String> {
    (rule.text("join") == "claim" && auth.text("mode") == "none").then(|| {
        format!(
            "{}.join is \"claim\", and with auth.mode = \"none\" no client has claims, so that none can join; set \
             auth.mode = \"jwt\" with a key, or another join",
            rule.path
        )
    })
}

/// A port alone does not change the address: other machines cannot connect.
fn port_alone(variable: &str, server: &Section, auth: &Section) -> Option<String> {
    let listen = server.address("listen");
    if !server.is_set_by("listen", variable) || !listen.ip().is_loopback() {
        return None;
    }
    let condition = if auth.text("mode") == "none" {
        "set auth.mode = \"jwt\" with a key (or auth.allow_insecure = true behind a gateway that authenticates \
         clients), and "
    } else {
        "set "
    };
    Some(format!(
        "server.listen is {listen}: {variable} sets only the port, and by default only this machine can reach the \
         address; for others {condition}SIGNALBOX_SERVER__LISTEN=0.0.0.0:{}",
        listen.port()
    ))
}

/// A JWKS belongs to an identity provider, which signs tokens for other applications too.
fn unbound_tokens(auth: &Section) -> Option<String> {
    let source = ["jwks_file", "jwks_url"]
        .into_iter()
        .find(|name| auth.optional(name).is_some())?;
    let missing: Vec<&str> = ["jwt_issuer", "jwt_audience"]
        .into_iter()
        .filter(|name| auth.optional(name).is_none())
        .collect();
    if missing.is_empty() {
        return None;
    }
    let names: Vec<String> = missing.iter().map(|name| format!("auth.{name}")).collect();
    Some(format!(
        "auth.{source} is used without {}: tokens that its keys signed for other applications are accepted too; set {}",
        names.join(" and "),
        if names.len() > 1 { "both" } else { "it" }
    ))
}

fn unprotected_keys(auth: &Section) -> Option<String> {
    let url = auth.optional("jwks_url")?;
    url_checks::is_unprotected(&url).then(|| {
        "auth.jwks_url is fetched without TLS: anyone who can change the network traffic can create tokens; write \
         https://"
            .to_owned()
    })
}

fn unprotected_events(webhook: &Section) -> Option<String> {
    url_checks::is_unprotected(&webhook.text("url")).then(|| {
        format!(
            "{}.url has no TLS: anyone on the network path can read the events; write https://",
            webhook.path
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Config, Environment};

    fn advice(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let environment: Environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let config = Config::parse(text, Path::new("/srv/platform.toml"), &environment);
        config.unwrap_or_else(|errors| panic!("{errors}")).advice
    }

    #[test]
    fn a_port_alone_leaves_other_machines_out_and_it_is_said_how_to_let_them_in() {
        let alone = [("WSS_PORT", "9000")];
        let lines = advice("", &alone);
        assert_eq!(lines.len(), 1);
        for part in [
            "127.0.0.1:9000",
            "WSS_PORT",
            "auth.mode",
            "SIGNALBOX_SERVER__LISTEN=0.0.0.0:9000",
        ] {
            assert!(lines[0].contains(part), "{part}: {lines:?}");
        }
        let jwt = "[auth]\nmode = \"jwt\"\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n";
        let lines = advice(jwt, &alone);
        assert!(!lines[0].contains("auth.mode"), "{lines:?}");
        // An explicit address is intended.
        let listen = "[server]\nlisten = \"127.0.0.1:1\"\n";
        assert_eq!(advice(listen, &alone), [""; 0]);
        let ours = [
            ("WSS_PORT", "9000"),
            ("SIGNALBOX_SERVER__LISTEN", "127.0.0.1:1"),
        ];
        assert_eq!(advice("", &ours), [""; 0]);
        assert_eq!(advice("", &[]), [""; 0]);
    }

    #[test]
    fn a_key_set_without_issuer_or_audience_is_warned_about() {
        let auth = |rest: &str| format!("[auth]\nmode = \"jwt\"\njwks_file = \"a\"\n{rest}");
        let (issuer, audience) = ("jwt_issuer = \"i\"\n", "jwt_audience = \"a\"\n");
        let lines = advice(&auth(""), &[]);
        assert!(
            lines[0].contains("without auth.jwt_issuer and auth.jwt_audience"),
            "{lines:?}"
        );
        let lines = advice(&auth(issuer), &[]);
        assert!(lines[0].contains("without auth.jwt_audience:"), "{lines:?}");
        let lines = advice(&auth(audience), &[]);
        assert!(lines[0].contains("without auth.jwt_issuer:"), "{lines:?}");
        assert_eq!(advice(&auth(&format!("{issuer}{audience}")), &[]), [""; 0]);
        // A private key signs tokens for this application only.
        let pem = "[auth]\nmode = \"jwt\"\njwt_key_file = \"a\"\n";
        assert_eq!(advice(pem, &[]), [""; 0]);
    }

    #[test]
    fn a_history_too_large_for_recovery_is_warned_about() {
        let rule = "[[rooms]]\nmatch = \"a\"\nhistory = { size = 301, time = \"1m\" }\n";
        let lines = advice(rule, &[]);
        assert_eq!(lines.len(), 1);
        for part in [
            "rooms[0].history.size is 301",
            "limits.history_replay_max, 300",
        ] {
            assert!(lines[0].contains(part), "{part}: {lines:?}");
        }
        let raised = [("SIGNALBOX_LIMITS__HISTORY_REPLAY_MAX", "301")];
        assert_eq!(advice(rule, &raised), [""; 0]);
        assert_eq!(advice(&rule.replace("301", "300"), &[]), [""; 0]);
        assert_eq!(advice("[[rooms]]\nmatch = \"a\"\n", &[]), [""; 0]);
    }

    #[test]
    fn a_rule_that_needs_claims_without_tokens_is_warned_about() {
        let rule = "[[rooms]]\nmatch = \"a\"\njoin = \"claim\"\n";
        let lines = advice(rule, &[]);
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with("rooms[0].join is \"claim\""),
            "{lines:?}"
        );
        let jwt = [
            ("SIGNALBOX_AUTH__MODE", "jwt"),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ];
        assert_eq!(advice(rule, &jwt), [""; 0]);
        assert_eq!(advice(&rule.replace("claim", "backend"), &[]), [""; 0]);
    }

    #[test]
    fn a_jwks_url_without_tls_is_warned_about() {
        let auth = |url: &str| {
            format!(
                "[auth]\nmode = \"jwt\"\njwks_url = \"{url}\"\njwt_issuer = \"i\"\njwt_audience = \"a\"\n"
            )
        };
        let lines = advice(&auth("http://login.example.com/keys"), &[]);
        assert!(lines[0].contains("without TLS"), "{lines:?}");
        for url in [
            "https://login.example.com/keys",
            "http://127.0.0.1:1/keys",
            "http://[::1]:1/keys",
            "http://localhost/keys",
        ] {
            assert_eq!(advice(&auth(url), &[]), [""; 0], "{url}");
        }
    }
}
