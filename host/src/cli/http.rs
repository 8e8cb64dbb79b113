//! A client for a server's HTTP API: one request per connection, with TLS if the URL asks for it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Uri,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest response body, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A server, and the key to authenticate with.
pub(super) struct HttpClient {
    base: Uri,
    authorization: HeaderValue,
    tls: Option<TlsConnector>,
    timeout: Duration,
}

/// A server's response.
pub(super) struct HttpResponse {
    pub(super) status: u16,
    /// The parsed body; null if it was not JSON.
    pub(super) body: Value,
}

impl HttpClient {
    /// Creates a client for the server at `url`. The server's certificate is checked against `ca_file`, or against the
    /// system's trusted certificates if that is `None`. A response may take up to `timeout`.
    pub(super) fn new(
        url: &str,
        key: &str,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let base: Uri = url
            .parse()
            .with_context(|| format!("{url:?} is not a URL"))?;
        let tls = match (base.scheme_str(), base.host()) {
            (Some("http"), Some(_)) => None,
            (Some("https"), Some(_)) => Some(connector(ca_file)?),
            _ => {
                bail!("{url:?} is not the URL of a server; write for example http://127.0.0.1:8080")
            }
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}"))
            .context("the key contains characters that a header may not contain")?;
        authorization.set_sensitive(true);
        Ok(Self {
            base,
            authorization,
            tls,
            timeout,
        })
    }

    /// Whether the key would cross a network where everybody can read it.
    pub(super) fn is_open(&self) -> bool {
        let is_loopback = match self.host() {
            "localhost" => true,
            host => host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback()),
        };
        self.tls.is_none() && !is_loopback
    }

    /// Sends a request for `path`, which begins with a slash and may have a query.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<HttpResponse> {
        let is_upload = !body.is_empty();
        let exchange = self.exchange(method, path, body);
        let answered = timeout(self.timeout, exchange).await;
        let url = &self.base;
        answered
            .map_err(|_| {
                anyhow!(
                    "{url} did not answer within {:?}; allow more with --timeout",
                    self.timeout
                )
            })?
            .with_context(|| match is_upload {
                true => format!(
                    "{url} closed the connection; if the file is larger than its limits.plugin_file_bytes_max, raise \
                     that"
                ),
                false => format!("{url} cannot be reached"),
            })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<HttpResponse> {
        let stream = self.connect().await?;
        match &self.tls {
            None => self.talk(stream, method, path, body).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host().to_owned())
                    .context("its name cannot be in a certificate")?;
                let stream = tls.connect(name, stream).await.context("TLS")?;
                self.talk(stream, method, path, body).await
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.base.port_u16().unwrap_or(default);
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host(), port))).await;
        connected
            .map_err(|_| anyhow!("no connection within {CONNECT_TIMEOUT:?}"))?
            .context("no connection; is the server running, and is --url its address")
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<HttpResponse> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The task ends with the sender, which also reports its errors.
        tokio::spawn(connection);
        let authority = self
            .base
            .authority()
            .map_or("", |authority| authority.as_str());
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.path().trim_end_matches('/')))
            .header(HOST, authority)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body
            .await
            .map_err(|error| anyhow!("the answer is incomplete: {error}"))?
            .to_bytes();
        Ok(HttpResponse {
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }

    /// The host, without the brackets of an IPv6 address.
    fn host(&self) -> &str {
        let host = self.base.host().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

fn connector(ca_file: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let named = || format!("{}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).with_context(named)? {
                roots
                    .add(certificate.with_context(named)?)
                    .with_context(named)?;
            }
            if roots.is_empty() {
                bail!("{} holds no certificate", file.display());
            }
        }
        // Some systems have certificates that cannot be parsed; the others are used.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
