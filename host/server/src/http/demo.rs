//! The chat page at `/demo/` for trying the server: the files of `examples/web-chat`, and the endpoints that they use
//! in addition to the WebSocket. Served only with `demo.enabled`, and to other machines only with `demo.public`.

use std::future::ready;

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Serialize;
use signalbox_config::{AuthConfig, Config};
use signalbox_plugin_manager::PluginView;
use tracing::warn;

use super::{AppState, error::json};

/// Allows nothing from other origins, and no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A file of the page: path, content type and text.
type File = (&'static str, &'static str, &'static str);

macro_rules! file {
    ($name:literal, $kind:literal) => {
        (
            concat!("/demo/", $name),
            $kind,
            include_str!(concat!("../../../../examples/web-chat/", $name)),
        )
    };
}

const FILES: [File; 8] = [
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("debug.js", "text/javascript; charset=utf-8"),
    file!("lines.js", "text/javascript; charset=utf-8"),
    file!("plugins.js", "text/javascript; charset=utf-8"),
    file!("present.js", "text/javascript; charset=utf-8"),
    file!("signalbox.js", "text/javascript; charset=utf-8"),
];

const PAGE: &str = include_str!("../../../../examples/web-chat/index.html");

/// Options that the page needs before it connects.
#[derive(Clone, Serialize)]
struct Options {
    /// `none` or `jwt`.
    auth: &'static str,
    /// The path of the WebSocket.
    socket: String,
}

/// The public facts about a plugin: neither its configuration nor its errors.
#[derive(Serialize)]
struct Plugin<'a> {
    name: &'a str,
    live: Option<&'a str>,
    versions: Vec<Version<'a>>,
}

#[derive(Serialize)]
struct Version<'a> {
    /// `None` if a file could not be read.
    version: Option<&'a str>,
    semver: Option<&'a str>,
    state: &'a str,
    since: String,
    trigger: &'a str,
}

/// The routes of the page; empty if the page is not served.
pub(super) fn routes(config: &Config) -> Router<AppState> {
    let listen = config.server.listen;
    if !config.demo.enabled {
        return Router::new();
    }
    if !config.demo.public && !listen.ip().is_loopback() {
        warn!(
            %listen,
            "the demo page is not served, because others can reach this address; demo.public = true serves it anyway"
        );
        return Router::new();
    }
    let auth = match &config.auth {
        AuthConfig::None { .. } => "none",
        AuthConfig::Jwt(_) => "jwt",
    };
    let options = Options {
        auth,
        socket: config.server.websocket_path.clone(),
    };
    let routes = Router::new()
        .route("/demo", get(|| ready(Redirect::permanent("/demo/"))))
        .route(
            "/demo/",
            get(|| ready(served("text/html; charset=utf-8", PAGE))),
        )
        .route(
            "/demo/options.json",
            get(move || ready(json(StatusCode::OK, &options))),
        )
        .route("/demo/plugins.json", get(plugins));
    let routes = FILES
        .into_iter()
        .fold(routes, |routes, (path, kind, text)| {
            routes.route(path, get(move || ready(served(kind, text))))
        });
    routes.layer(map_response(guarded))
}

/// Adds the headers of every response of the page.
async fn guarded(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn served(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// `GET /demo/plugins.json`: the versions of each plugin.
async fn plugins(State(state): State<AppState>) -> Response {
    #[derive(Serialize)]
    struct Plugins<'a> {
        plugins: Vec<Plugin<'a>>,
    }
    let views = state.services.manager.view();
    let plugins = views.iter().map(public).collect();
    json(StatusCode::OK, &Plugins { plugins })
}

fn public(view: &PluginView) -> Plugin<'_> {
    let versions = view.versions.iter().map(|version| Version {
        version: version.version.as_deref(),
        semver: version.semver.as_deref(),
        state: version.state,
        since: humantime::format_rfc3339_millis(version.since).to_string(),
        trigger: version.trigger,
    });
    Plugin {
        name: &view.name,
        live: view.live.as_deref(),
        versions: versions.collect(),
    }
}
