//! One request to a webhook, bounded in time and size.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::crypto::aws_lc_rs;
use signalbox_config::WebhookConfig;
use signalbox_telemetry::error_chain::with_causes;
use tokio::{task::spawn_blocking, time::timeout};

use super::{EventBatch, event, signature};

/// The bytes of an answer that are read, so that its connection can be used again, and the time for them.
const ANSWER_MAX: (usize, Duration) = (64 << 10, Duration::from_secs(1));

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends requests to one webhook.
#[derive(Default)]
pub(crate) struct Poster {
    /// Made again after a failure: the certificates of the system, which are read from files, may have changed.
    client: Option<HttpClient>,
}

impl Poster {
    /// Sends a batch, and returns when the receiver has accepted it with a status from 200 to 299. Redirects are not
    /// followed: only the configuration decides where events go.
    ///
    /// # Errors
    /// Returns the reason in words for the log, which contain no secret, no URL and nothing of the answer's body.
    pub(crate) async fn post(
        &mut self,
        config: &WebhookConfig,
        batch: &EventBatch,
    ) -> Result<(), String> {
        let time = config.timeout;
        let sent = timeout(time, self.send(config, batch))
            .await
            .unwrap_or_else(|_| Err(format!("there is no answer within {time:?}")));
        match sent {
            Ok(answer) => {
                discard(answer).await;
                Ok(())
            }
            Err(reason) => {
                self.client = None;
                Err(reason)
            }
        }
    }

    async fn send(
        &mut self,
        config: &WebhookConfig,
        batch: &EventBatch,
    ) -> Result<Response<Incoming>, String> {
        let request = request(config, batch)?;
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(client().await?),
        };
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| with_causes(&error))?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(format!(
                "the answer is {status}, and redirects are not followed; write the address that it leads to"
            ));
        }
        if !status.is_success() {
            return Err(format!("the answer is {status}"));
        }
        Ok(answer)
    }
}

fn request(config: &WebhookConfig, batch: &EventBatch) -> Result<Request<Full<Bytes>>, String> {
    let body = event::body(&batch.id, &batch.events);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let timestamp = since_1970.unwrap_or_default().as_secs().to_string();
    let secrets = [Some(&config.secret), config.secret_previous.as_ref()];
    let secrets = secrets.into_iter().flatten().map(String::as_str);
    let signature = signature::header(secrets, &timestamp, &body);
    Request::post(&config.url)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("signalbox/", env!("CARGO_PKG_VERSION")))
        .header("Signalbox-Webhook-Id", &batch.id)
        .header("Signalbox-Timestamp", timestamp)
        .header("Signalbox-Signature", signature)
        .body(Full::from(body))
        .map_err(|error| format!("the request cannot be made: {error}"))
}

async fn client() -> Result<HttpClient, String> {
    let connector = spawn_blocking(connector)
        .await
        .map_err(|error| error.to_string())??;
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(1)
        .build(connector);
    Ok(client)
}

fn connector() -> Result<HttpsConnector<HttpConnector>, String> {
    let builder = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(aws_lc_rs::default_provider())
        .map_err(|error| {
            format!("the system has no certificates to check the receiver's: {error}")
        })?;
    Ok(builder.https_or_http().enable_http1().build())
}

/// Reads the rest of an answer. One that is too long, or too slow, ends with its connection.
async fn discard(answer: Response<Incoming>) {
    let (bytes_max, time) = ANSWER_MAX;
    let rest = Limited::new(answer.into_body(), bytes_max).collect();
    let _ = timeout(time, rest).await;
}
