//! One GET of a small text, bounded in time and size.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, StatusCode,
    header::{ACCEPT, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::crypto::aws_lc_rs;
use signalbox_telemetry::error_chain::with_causes;
use tokio::{task::spawn_blocking, time::timeout};

/// The time for the whole request, from the DNS lookup to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the text at `url`, which is `http://` or `https://`. Redirects are not followed: only the configuration
/// decides where keys come from.
///
/// # Errors
/// Returns why there is none, in words for the log that contain nothing of the response.
pub(super) async fn text(url: &str, bytes_max: usize) -> Result<String, String> {
    timeout(TIMEOUT, get(url, bytes_max))
        .await
        .unwrap_or_else(|_| Err(format!("there is no whole answer within {TIMEOUT:?}")))
}

async fn get(url: &str, bytes_max: usize) -> Result<String, String> {
    let request = Request::get(url)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("signalbox/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
        .map_err(|error| format!("it cannot be requested: {error}"))?;
    // The system's certificates are read from files, and read again each time, because they change too.
    let connector = spawn_blocking(connector)
        .await
        .map_err(|error| error.to_string())??;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client
        .request(request)
        .await
        .map_err(|error| with_causes(&error))?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!(
            "the answer is {status}, and redirects are not followed; write the address that it leads to"
        ));
    }
    if status != StatusCode::OK {
        return Err(format!("the answer is {status} and not 200 OK"));
    }
    let body = Limited::new(answer.into_body(), bytes_max).collect().await;
    let body = body.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            format!("the answer is larger than {} KiB", bytes_max >> 10)
        } else {
            format!("the answer broke off: {}", with_causes(&*error))
        }
    })?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| "the answer is not UTF-8".to_owned())
}

fn connector() -> Result<HttpsConnector<HttpConnector>, String> {
    let builder = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(aws_lc_rs::default_provider())
        .map_err(|error| {
            format!("the system has no certificates to check the server's: {error}")
        })?;
    Ok(builder.https_or_http().enable_http1().build())
}
