//! HTTP/1.1 connections to the server.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::MaybeTlsStream;

/// The server, and the path of the stream of events.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    is_secure: bool,
    host: String,
    port: u16,
    /// The value of the header `Host`.
    pub(crate) authority: String,
    pub(crate) path: String,
    /// With its question mark; empty if there is none.
    pub(crate) query: String,
}

impl Target {
    /// The place of the stream of events for the URL of a WebSocket.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let invalid = || format!("the URL {url} is invalid");
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let is_secure = uri.scheme_str() == Some("wss");
        let authority = uri.authority().ok_or_else(invalid)?;
        let path = uri.path();
        let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
        let host = authority.host();
        Ok(Self {
            is_secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_secure { 443 } else { 80 }),
            authority: authority
                .port()
                .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            path: format!("{folder}sse"),
            query: uri
                .query()
                .map(|query| format!("?{query}"))
                .unwrap_or_default(),
        })
    }
}

/// A request that was not sent, and may be sent again on another connection; or the reason of another failure.
pub(crate) enum Failure {
    Unsent(Box<Request<String>>),
    Failed(String),
}

/// A connection for one request after another.
pub(crate) struct Http {
    sender: SendRequest<String>,
    /// Moves the bytes; None once the connection is over.
    driver: Driver,
}

type Driver = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

impl Http {
    pub(crate) async fn connect(target: &Target) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let address = (target.host.as_str(), target.port);
        let stream = TcpStream::connect(address).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let stream = if target.is_secure {
            secure(&target.host, stream).await?
        } else {
            MaybeTlsStream::Plain(stream)
        };
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| error.to_string())?;
        // How it ends is seen by the request or the body that it ends.
        let driver = Box::pin(async { drop(connection.await) });
        Ok(Self {
            sender,
            driver: Some(driver),
        })
    }

    /// Sends a request, and returns the answer without its body.
    pub(crate) async fn send(
        &mut self,
        request: Request<String>,
    ) -> Result<Response<Incoming>, Failure> {
        let Self { sender, driver } = self;
        let exchange = async {
            if sender.ready().await.is_err() {
                return Err(Failure::Unsent(Box::new(request)));
            }
            sender
                .try_send_request(request)
                .await
                .map_err(|mut failed| {
                    let reason = failed.error().to_string();
                    failed
                        .take_message()
                        .map_or(Failure::Failed(reason), |request| {
                            Failure::Unsent(Box::new(request))
                        })
                })
        };
        let mut exchange = pin!(exchange);
        poll_fn(|context| {
            drive(driver, context);
            exchange.as_mut().poll(context)
        })
        .await
    }

    /// Returns the next part of a body.
    pub(crate) fn poll_data(
        &mut self,
        body: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        drive(&mut self.driver, context);
        loop {
            match std::task::ready!(Pin::new(&mut *body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }

    /// Reads a body up to about `bytes_max`. Returns whether that is all of it.
    pub(crate) async fn read(&mut self, body: &mut Incoming, bytes_max: usize) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        while bytes.len() < bytes_max {
            match poll_fn(|context| self.poll_data(body, context)).await {
                Some(Ok(data)) => bytes.extend_from_slice(&data),
                Some(Err(_)) => return (bytes, false),
                None => return (bytes, true),
            }
        }
        (bytes, false)
    }
}

fn drive(driver: &mut Driver, context: &mut Context<'_>) {
    if let Some(connection) = driver
        && connection.as_mut().poll(context).is_ready()
    {
        *driver = None;
    }
}

#[cfg(feature = "tls")]
async fn secure(host: &str, stream: TcpStream) -> Result<MaybeTlsStream<TcpStream>, String> {
    use std::sync::Arc;

    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls::{ClientConfig, RootCertStore};

    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let secured = connector.connect(name, stream).await;
    secured
        .map(MaybeTlsStream::Rustls)
        .map_err(|error| error.to_string())
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
async fn secure(_host: &str, _stream: TcpStream) -> Result<MaybeTlsStream<TcpStream>, String> {
    Err("https needs the feature `tls` of signalbox-client".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_next_to_the_web_socket() {
        let target = |url| {
            let target = Target::new(url).unwrap();
            (
                target.authority,
                target.host,
                target.port,
                target.path + &target.query,
            )
        };
        let expected = |authority: &str, host: &str, port, path: &str| {
            (authority.to_owned(), host.to_owned(), port, path.to_owned())
        };
        assert_eq!(
            target("ws://a:8080/ws?userId=ann"),
            expected("a:8080", "a", 8080, "/sse?userId=ann")
        );
        assert_eq!(
            target("wss://a.b/c/ws"),
            expected("a.b", "a.b", 443, "/c/sse")
        );
        assert_eq!(
            target("ws://[::1]/ws"),
            expected("[::1]", "::1", 80, "/sse")
        );
        assert_eq!(target("ws://a"), expected("a", "a", 80, "/sse"));
    }
}
