//! Starts nodes on port 0, and speaks to them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use signalbox::{
    app::{self, Source},
    config::{Config, Environment},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server in this process.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) dir: tempfile::TempDir,
    stop: CancellationToken,
    served: Option<JoinHandle<()>>,
}

/// Where `cargo xtask plugins --guests` puts components.
fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins")
}

/// The chat plugin.
pub(crate) fn chat_plugin() -> PathBuf {
    plugins().join("chat.wasm")
}

/// A guest of `host/tests/guests`.
pub(crate) fn guest(name: &str) -> PathBuf {
    plugins().join("guests").join(name).with_extension("wasm")
}

/// A configuration with the chat plugin at `chat.wasm` in the node's folder.
pub(crate) const WITH_CHAT: &str = r#"
[[plugins]]
name = "chat"
path = "chat.wasm"
events = ["chat_message", "chat.*"]
"#;

impl Node {
    /// A node with `config`, in a folder of its own that holds the chat plugin.
    pub(crate) async fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::copy(chat_plugin(), dir.path().join("chat.wasm"))
            .expect("the chat plugin is there; `cargo xtask plugins` makes it");
        Self::start_in(dir, config).await
    }

    async fn start_in(dir: tempfile::TempDir, text: &str) -> Self {
        // Shown where a test fails.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let file = dir.path().join("platform.toml");
        std::fs::write(&file, text).expect("the configuration is written");
        let env = Environment::new();
        let config = Config::load(Some(&file), &env).unwrap_or_else(|errors| panic!("{errors}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let stop = CancellationToken::new();
        let source = Source {
            file: Some(file),
            env,
        };
        let run = app::run(config, source, listener, stop.clone());
        let served = tokio::spawn(async move { run.await.expect("the node starts") });
        let node = Self {
            address,
            dir,
            stop,
            served: Some(served),
        };
        node.until_healthy().await;
        node
    }

    async fn until_healthy(&self) {
        timeout(PATIENCE, self.get("/health"))
            .await
            .expect("the node serves");
    }

    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).await.expect("the node answers")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        self.connect(user, None)
            .await
            .unwrap_or_else(|error| panic!("{user} is not let in: {error}"))
    }

    pub(crate) async fn connect(
        &self,
        user: &str,
        protocol: Option<&str>,
    ) -> tungstenite::Result<Client> {
        let mut request =
            format!("ws://{}/ws?userId={user}", self.address).into_client_request()?;
        if let Some(protocol) = protocol {
            request.headers_mut().insert(
                "Sec-WebSocket-Protocol",
                protocol.parse().expect("a header's value"),
            );
        }
        let (socket, _) = connect_async(request).await?;
        Ok(Client { socket })
    }

    /// Asks it to stop, as SIGTERM does.
    pub(crate) fn terminate(&self) {
        self.stop.cancel();
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(mut self) {
        let served = self.served.take().expect("it runs");
        timeout(PATIENCE, served)
            .await
            .expect("it stops")
            .expect("it does not panic");
    }

    /// Replaces a file as careful tools do.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        let temporary = self.path("replacement");
        std::fs::write(&temporary, bytes).expect("the file is written");
        std::fs::rename(temporary, self.path(name)).expect("the file is renamed");
    }

    /// The value of the line of `/metrics` that starts with `start`.
    pub(crate) async fn metric(&self, start: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines()
            .find_map(|line| line.strip_prefix(start)?.trim().parse().ok())
    }

    /// Waits until the value of such a line is what it must be.
    pub(crate) async fn until_metric(&self, start: &str, holds: impl Fn(f64) -> bool) {
        let look = async {
            while !self.metric(start).await.is_some_and(&holds) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, look)
            .await
            .unwrap_or_else(|_| panic!("the metric {start} did not come to what it must"));
    }
}

/// Status and body of a GET; none where nobody answers.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A client of the wire protocol.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.socket
            .send(Message::text(text))
            .await
            .expect("the connection takes a frame");
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket
            .send(message)
            .await
            .expect("the connection takes a frame");
    }

    /// The next text frame.
    pub(crate) async fn text(&mut self) -> String {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return text.to_string(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("a text frame was expected, not {other:?}"),
                }
            }
        };
        timeout(PATIENCE, next).await.expect("no frame came")
    }

    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("a frame is JSON")
    }

    /// The close code, past whatever comes before it.
    pub(crate) async fn closed(&mut self) -> u16 {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code),
                    Some(Ok(_)) => {}
                    other => panic!("a close frame was expected, not {other:?}"),
                }
            }
        };
        timeout(PATIENCE, next).await.expect("no close frame came")
    }

    pub(crate) async fn close(mut self) {
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        self.socket
            .close(Some(close))
            .await
            .expect("the connection can be closed");
    }

    /// The socket itself, for those who read and write at the same time.
    pub(crate) fn into_socket(self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        self.socket
    }

    /// The bare TCP stream, to do what no client does.
    pub(crate) fn stream(&self) -> &TcpStream {
        match self.socket.get_ref() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => unreachable!("tests use no TLS"),
        }
    }
}

/// A copy of the component `file` with other bytes and the same behaviour: a custom section with `marker` is added.
pub(crate) fn marked(file: &Path, marker: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(file).expect("the component is there");
    let name = "marker";
    let length = 1 + name.len() + marker.len();
    bytes.extend([
        0,
        u8::try_from(length).expect("a short marker"),
        u8::try_from(name.len()).expect("a short name"),
    ]);
    bytes.extend(name.bytes().chain(marker.bytes()));
    bytes
}
