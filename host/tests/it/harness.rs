//! Starts nodes on port 0, and talks to them.

use std::{
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Value, json};
use signalbox::{
    Listeners, Server, Source,
    config::{Config, Environment},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::client::{Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes, even on a machine that is busy with other work. A test that waits for so long has
/// failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The log of nodes in tests. Clients get no details of why a message could not be sent; the log has them.
const LOG: &str = "info,signalbox_server::session::outcome=debug";

/// The interval for polling the metrics.
const POLL_PAUSE: Duration = Duration::from_millis(25);

/// The address of a server, in this process or another: everything that any client can do there.
#[derive(Clone, Copy)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
}

/// A server in this process.
pub(crate) struct Node {
    endpoint: Endpoint,
    internal: Option<Endpoint>,
    pub(crate) dir: tempfile::TempDir,
    stop: CancellationToken,
    served: Option<JoinHandle<()>>,
}

impl Deref for Node {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// The folder in which `cargo xtask plugins --guests` puts components.
fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/plugins")
}

/// The cache of compiled components, shared by all tests because compiling takes most of their time.
pub(crate) fn plugin_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache")
}

/// `config` with that cache, unless it names another one.
pub(crate) fn with_plugin_cache(config: &str) -> String {
    if config.contains("[plugin_cache]") {
        return config.to_owned();
    }
    format!("{config}\n[plugin_cache]\ndir = {:?}\n", plugin_cache())
}

/// `config` with clients that may send any type, unless it restricts them.
fn with_any_event(config: &str) -> String {
    if config.contains("[events]") {
        return config.to_owned();
    }
    format!("{config}\n[events]\nclient = [\"*\"]\n")
}

/// The chat plugin.
pub(crate) fn chat_plugin() -> PathBuf {
    plugins().join("chat.wasm")
}

/// A guest of `host/tests/guests`.
pub(crate) fn guest(name: &str) -> PathBuf {
    plugins().join("guests").join(name).with_extension("wasm")
}

/// A configuration with the chat plugin at `chat.wasm` in the node's folder. Its time limits suit a busy machine.
pub(crate) const WITH_CHAT: &str = r#"
[[plugins]]
name = "chat"
path = "chat.wasm"
events = ["chat_message", "chat.*"]
call_cpu_max = "10s"
call_time_max = "25s"
"#;

impl Node {
    /// A node with `config`, in a temporary folder with the chat plugin.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(&[], config).await
    }

    /// Like [`Node::start`], with more files in the folder.
    pub(crate) async fn start_with(files: &[(&str, &[u8])], config: &str) -> Self {
        let node = Self::start_in(folder(files), config).await;
        node.until_healthy().await;
        node
    }

    /// A node that accepts only connections that begin with a header of the PROXY protocol.
    pub(crate) async fn start_proxied(config: &str) -> Self {
        let node = Self::start_in(folder(&[]), config).await;
        let check =
            "PROXY UNKNOWN\r\nGET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert!(node.raw(check).await.starts_with("HTTP/1.1 200 "));
        node
    }

    async fn start_in(dir: tempfile::TempDir, text: &str) -> Self {
        // Shown if a test fails.
        let log = tracing_subscriber::fmt().with_env_filter(LOG);
        let _ = log.with_test_writer().try_init();
        let file = dir.path().join("platform.toml");
        std::fs::write(&file, with_any_event(&with_plugin_cache(text)))
            .expect("the configuration is written");
        let env = Environment::new();
        let config = Config::load(Some(&file), &env).unwrap_or_else(|errors| panic!("{errors}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let stop = CancellationToken::new();
        let source = Source {
            file: Some(file),
            env,
        };
        let mut listeners = Listeners::from(listener);
        if config.server.internal_listen.is_some() {
            let internal = TcpListener::bind("127.0.0.1:0").await;
            listeners.internal = Some(internal.expect("a free port"));
        }
        let internal = listeners.internal.as_ref().map(|listener| Endpoint {
            address: listener.local_addr().expect("a bound address"),
        });
        let server = Server::builder(config).source(source).listeners(listeners);
        let run = server.run(stop.clone());
        let served = tokio::spawn(async move { run.await.expect("the node starts") });
        Self {
            endpoint: Endpoint { address },
            internal,
            dir,
            stop,
            served: Some(served),
        }
    }

    /// The second listener, from `server.internal_listen`.
    pub(crate) fn internal(&self) -> Endpoint {
        self.internal.expect("it has a second listener")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Asks the node to stop, as SIGTERM does.
    pub(crate) fn terminate(&self) {
        self.stop.cancel();
    }

    /// Waits until the node has stopped.
    pub(crate) async fn stopped(mut self) {
        let served = self.served.take().expect("it runs");
        timeout(PATIENCE, served)
            .await
            .expect("it stops")
            .expect("it does not panic");
    }

    /// Replaces a file atomically.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        replace(self.dir.path(), name, bytes);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A temporary folder with the chat plugin and `files` in it.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(chat_plugin(), dir.path().join("chat.wasm"))
        .expect("the chat plugin is there; `cargo xtask plugins` makes it");
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), content(name, bytes)).expect("the file is written");
    }
    dir
}

/// Replaces a file atomically.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8]) {
    let temporary = folder.join("replacement");
    std::fs::write(&temporary, content(name, bytes)).expect("the file is written");
    std::fs::rename(temporary, folder.join(name)).expect("the file is renamed");
}

/// The content of the file `name`. In a configuration, clients may send any type unless it restricts them.
fn content(name: &str, bytes: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(config) if name == "platform.toml" => with_any_event(config).into_bytes(),
        _ => bytes.to_owned(),
    }
}

impl Endpoint {
    pub(crate) async fn until_healthy(&self) {
        timeout(PATIENCE, self.get("/health"))
            .await
            .expect("the node serves");
    }

    /// A raw TCP connection, to send what no client would.
    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("the node listens")
    }

    /// The response to the request `head`, a request line with headers; `Host` and `Connection: close` are added.
    pub(crate) async fn http(&self, head: &str) -> Answer {
        self.http_with_body(head, "").await
    }

    /// Like [`Endpoint::http`], with a body; `head` must include its length.
    pub(crate) async fn http_with_body(&self, head: &str, body: &str) -> Answer {
        let mut stream = self.tcp().await;
        let host = self.address;
        let request = format!("{head}\r\nHost: {host}\r\nConnection: close\r\n\r\n{body}");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is sent");
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .expect("an answer arrives")
            .expect("the answer is text");
        Answer::read(&answer)
    }

    /// Sends exactly these bytes, and returns everything that the server sends until it closes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.tcp().await;
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is sent");
        to_end(&mut stream).await
    }

    /// The response to a POST of `body` with `key` as the bearer token.
    pub(crate) async fn post(
        &self,
        path: &str,
        key: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Length: {}",
            body.len()
        );
        for (name, value) in headers {
            head += &format!("\r\n{name}: {value}");
        }
        self.http_with_body(&head, body).await
    }

    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http(&format!("GET {path} HTTP/1.1")).await;
        (answer.status, answer.body)
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        self.connect(user, None)
            .await
            .unwrap_or_else(|error| panic!("{user} is rejected: {error}"))
    }

    /// A client that others can reach; after the upgrade this takes another moment.
    pub(crate) async fn reachable(&self, user: &str) -> Client {
        let mut client = self.client(user).await;
        client.expect_silence().await;
        client
    }

    pub(crate) async fn connect(
        &self,
        user: &str,
        protocol: Option<&str>,
    ) -> tungstenite::Result<Client> {
        let protocol = protocol.map(|protocol| ("Sec-WebSocket-Protocol", protocol));
        self.upgrade(&format!("/ws?userId={user}"), protocol.as_slice())
            .await
            .map(|(client, _)| client)
    }

    /// A client that connected to `path` with `headers`, and the response to its upgrade.
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> tungstenite::Result<(Client, Response)> {
        let mut request: Request = format!("ws://{}{path}", self.address).into_client_request()?;
        for (name, value) in headers {
            let value = value.parse().expect("a header's value");
            request.headers_mut().append(*name, value);
        }
        let (socket, response) = timeout(PATIENCE, connect_async(request))
            .await
            .expect("the upgrade is answered")?;
        Ok((Client { socket }, response))
    }

    /// The response to an upgrade that is refused.
    pub(crate) async fn refused(&self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        match self.upgrade(path, headers).await {
            Err(tungstenite::Error::Http(answer)) => Answer::of(&answer),
            Err(error) => panic!("the upgrade of {path} was not refused: {error}"),
            Ok(_) => panic!("the upgrade of {path} was not refused"),
        }
    }

    /// The value of the line of `/metrics` that starts with `start`.
    pub(crate) async fn metric(&self, start: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines()
            .find_map(|line| line.strip_prefix(start)?.trim().parse().ok())
    }

    /// Waits until `holds` is true for the value of that line.
    pub(crate) async fn until_metric(&self, start: &str, holds: impl Fn(f64) -> bool) {
        let polling = async {
            while !self.metric(start).await.is_some_and(&holds) {
                // A scrape costs as much as many messages: polling without a pause would put load on the server.
                tokio::time::sleep(POLL_PAUSE).await;
            }
        };
        timeout(PATIENCE, polling)
            .await
            .unwrap_or_else(|_| panic!("the metric {start} did not reach the expected value"));
    }
}

/// Reads everything until the connection closes.
pub(crate) async fn to_end(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("the answer ends")
        .expect("the answer is text, and not lost in a reset");
    answer
}

/// Status and body of a GET, or None if there is no response.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a complete answer");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status
                .and_then(|status| status.parse().ok())
                .expect("a status"),
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }

    fn of(response: &Response) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = response.headers().iter();
        Self {
            status: response.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                .collect(),
            body: text(response.body().as_deref().unwrap_or_default()),
        }
    }

    /// The header with this name, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header == name);
        header.map(|(_, value)| value.as_str())
    }

    /// The error code in a JSON body.
    pub(crate) fn error_code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(&self.body).expect("the body is JSON");
        assert!(body["error"]["message"].is_string(), "{body}");
        body["error"]["code"].as_str().expect("a code").to_owned()
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A client of the wire protocol.
pub(crate) struct Client {
    socket: Socket,
}

impl Client {
    /// Sends large messages to `user`, who does not read them, until the server has closed that connection.
    pub(crate) async fn flood(&mut self, user: &str) {
        let message =
            json!({"type": "x", "payload": "y".repeat(30_000), "receiverId": user, "id": "f"});
        loop {
            self.send(&message.to_string()).await;
            if self.json().await["payload"]["status"] == "offline" {
                return;
            }
        }
    }

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
                    other => panic!("expected a text frame, got {other:?}"),
                }
            }
        };
        timeout(PATIENCE, next).await.expect("a frame arrives")
    }

    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("a frame is JSON")
    }

    /// The next frame of any kind, or None once the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<tungstenite::Result<Message>> {
        timeout(PATIENCE, self.socket.next())
            .await
            .expect("a frame arrives")
    }

    /// Checks that no frame is pending for this client: the next text frame is the answer to a heartbeat.
    pub(crate) async fn expect_silence(&mut self) {
        self.send(r#"{"type":"heartbeat","id":"silence"}"#).await;
        let next = self.json().await;
        assert_eq!(
            (&next["type"], &next["payload"]["id"]),
            (&Value::from("ack"), &Value::from("silence")),
            "a frame that was not expected: {next}"
        );
    }

    /// The code of the next text frame, which must be an `error`.
    pub(crate) async fn error_code(&mut self) -> String {
        let error = self.json().await;
        assert_eq!(error["type"], "error", "{error}");
        let code = error["payload"]["code"].as_str();
        code.expect("an error has a code").to_owned()
    }

    /// The close code; frames before it are skipped.
    pub(crate) async fn closed(&mut self) -> u16 {
        self.closed_with_reason().await.0
    }

    /// The close code and its reason; frames before them are skipped.
    pub(crate) async fn closed_with_reason(&mut self) -> (u16, String) {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(close)))) => {
                        return (u16::from(close.code), close.reason.to_string());
                    }
                    Some(Ok(_)) => {}
                    other => panic!("expected a close frame, got {other:?}"),
                }
            }
        };
        timeout(PATIENCE, next)
            .await
            .expect("a close frame arrives")
    }

    /// The sending and the receiving half, for use in separate tasks.
    pub(crate) fn split(self) -> (SplitSink<Socket, Message>, SplitStream<Socket>) {
        self.socket.split()
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

    /// The socket itself, to read and write at the same time.
    pub(crate) fn into_socket(self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        self.socket
    }

    /// The raw TCP stream, to do what no client does.
    pub(crate) fn stream(&self) -> &TcpStream {
        match self.socket.get_ref() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => unreachable!("tests use no TLS"),
        }
    }
}
