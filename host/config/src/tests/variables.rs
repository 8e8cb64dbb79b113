//! Environment variables, and errors that show no secret.

use super::*;

#[test]
fn variables_win_over_the_file_and_our_names_over_the_old_ones() {
    let file = "[server]\nlisten = \"127.0.0.2:1000\"\n";
    let listen = |environment: &[(&str, &str)]| {
        parse_with(file, environment)
            .expect("valid")
            .server
            .listen
            .to_string()
    };
    assert_eq!(listen(&[]), "127.0.0.2:1000");
    assert_eq!(listen(&[("WSS_PORT", "")]), "127.0.0.2:1000");
    assert_eq!(listen(&[("WSS_PORT", "2000")]), "127.0.0.2:2000");
    assert_eq!(
        listen(&[
            ("WSS_PORT", "2000"),
            ("SIGNALBOX_SERVER__LISTEN", "127.0.0.3:3000")
        ]),
        "127.0.0.3:3000"
    );
}

#[test]
fn the_old_secret_does_not_switch_jwt_on() {
    let config = parse_with(
        "",
        &[("JWT_SECRET", "short"), ("ENVIRONMENT", "production")],
    )
    .expect("valid");
    assert_eq!(
        config.auth,
        AuthConfig::None {
            allow_insecure: false
        }
    );
}

#[test]
fn an_error_of_a_variable_names_it_and_the_key() {
    assert_eq!(
        only_error("", &[("SIGNALBOX_LIMITS__FRAME_BYTES_MAX", "1MX")]),
        "SIGNALBOX_LIMITS__FRAME_BYTES_MAX: limits.frame_bytes_max: found \"1MX\", which has an unknown unit; write \
         B, KB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024); expected a size from 128B to 16MiB such \
         as \"1MiB\""
    );
    assert_eq!(
        only_error("", &[("WSS_PORT", "70000")]),
        "WSS_PORT: server.listen: found \"70000\", expected a port from 0 to 65535"
    );
    let short = [("SIGNALBOX_AUTH__MODE", "jwt"), ("JWT_SECRET", "hush")];
    let error = only_error("", &short);
    assert!(
        error.starts_with("JWT_SECRET: auth.jwt_secret: is 4 bytes long"),
        "{error}"
    );
    assert!(!error.contains("hush"), "{error}");
    let twice = [("JWT_SECRET", "0123456789abcdef0123456789abcdef")];
    let error = only_error("[auth]\nmode = \"jwt\"\njwks_file = \"a\"", &twice);
    assert!(
        error.contains("auth.jwks_file: is a second key source in addition to auth.jwt_secret"),
        "{error}"
    );
}

#[test]
fn an_unknown_variable_is_an_error_that_names_the_nearest() {
    assert_eq!(
        only_error("", &[("SIGNALBOX_LIMITS__FRAME_BYTES_MX", "1")]),
        "SIGNALBOX_LIMITS__FRAME_BYTES_MX: unknown variable; did you mean SIGNALBOX_LIMITS__FRAME_BYTES_MAX"
    );
    assert_eq!(
        only_error(
            ONE_PLUGIN,
            &[("SIGNALBOX_PLUGINS__MYCHAT__MEMORY_MAX", "1MiB")]
        ),
        "SIGNALBOX_PLUGINS__MYCHAT__MEMORY_MAX: unknown variable; did you mean SIGNALBOX_PLUGINS__MY_CHAT__MEMORY_MAX"
    );
    let error = only_error("", &[("SIGNALBOX_COLOUR", "red")]);
    assert!(
        error.contains("settings are SIGNALBOX_<SECTION>__<KEY>"),
        "{error}"
    );
}

#[test]
fn a_variable_that_two_plugins_answer_to_is_an_error() {
    let plugins = ONE_PLUGIN.to_owned() + &ONE_PLUGIN.replace("my-chat", "my_chat");
    assert!(parse(&plugins).is_ok());
    let error = only_error(
        &plugins,
        &[("SIGNALBOX_PLUGINS__MY_CHAT__MEMORY_MAX", "1MiB")],
    );
    assert!(
        error.contains("plugins.my-chat and plugins.my_chat"),
        "{error}"
    );
}

#[test]
fn errors_of_file_and_environment_come_at_once() {
    let text = "[limits]\nmessages_burst = 0\ncolour = 1\n[cloudwatch]\nstorage_resolution = 7\n";
    let errors = parse_with(text, &[("SIGNALBOX_METRICS__PROMETHEUS", "on")])
        .expect_err("all of it is wrong");
    let places: Vec<String> = errors
        .to_string()
        .lines()
        .filter_map(|line| line.split(": ").next().map(str::to_owned))
        .collect();
    let file = "/srv/platform.toml";
    let expected = [
        format!("{file}:2:18"),
        format!("{file}:3:1"),
        format!("{file}:5:22"),
        "SIGNALBOX_METRICS__PROMETHEUS".to_owned(),
    ];
    assert_eq!(places, expected);
}

#[test]
fn debug_output_shows_no_secret() {
    let text = "[auth]\nmode = \"jwt\"\njwt_secret = \"hush-hush-hush-hush-hush-hush-hush\"\n\
                [admin]\nkey = \"hush-hush-hush-hush\"\n[api]\nkeys = [\"hush-hush-hush-hush\"]\n\
                [broker]\nkind = \"redis\"\n[redis]\nurl = \"redis://hush:hush@hush\"\n";
    assert!(!format!("{:?}", parse(text).expect("valid")).contains("hush"));
}

#[test]
fn no_error_shows_a_possible_secret_even_in_an_unknown_key() {
    for (text, environment) in [
        ("[auth]\njwks_url = \"https://hush:hush@a/keys\"\n", None),
        ("[auth]\njwks_url = \"hush:hush@a/keys\"\n", None),
        ("[tracing]\notlp_endpoint = \"http://hush:hush@a\"\n", None),
        ("[cloudwatch]\nendpoint = \"hush:hush@a\"\n", None),
        (
            ONE_PLUGIN,
            Some(("SIGNALBOX_PLUGINS__MY_CHAT__CONFIG", "{\"key\":\"hush\"")),
        ),
        (
            ONE_PLUGIN,
            Some(("SIGNALBOX_PLUGINS__MY_CHAT__CONFIG", "hush")),
        ),
    ] {
        let error = only_error(text, environment.as_slice());
        assert!(!error.contains("hush"), "{error}");
    }
    let error = only_error(&format!("{ONE_PLUGIN}config = \"hush\"\n"), &[]);
    assert!(!error.contains("hush"), "{error}");
}
