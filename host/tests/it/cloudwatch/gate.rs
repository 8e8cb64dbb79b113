//! A proxy in front of CloudWatch that can simulate several kinds of failure.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// How the gate treats requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Forwards them.
    Open,
    /// Answers them with 500.
    Broken,
    /// Throttles them, as CloudWatch does if there are too many.
    Throttled,
    /// Reads them and never answers.
    Silent,
    /// Does not listen.
    Refused,
}

/// A port that treats requests in the selected way.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// A gate that forwards to `behind`.
    pub(crate) async fn before(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let way = Arc::new(watch::Sender::new(Way::Open));
        let task = tokio::spawn(keep(listener, behind, way.clone()));
        Self { address, way, task }
    }

    /// Changes how requests are treated, and drops the existing connections.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(listener: TcpListener, behind: SocketAddr, way: Arc<watch::Sender<Way>>) {
    let address = listener.local_addr().expect("a bound address");
    let mut listener = Some(listener);
    let mut changes = way.subscribe();
    loop {
        let now = *changes.borrow_and_update();
        if now == Way::Refused {
            listener = None;
            changes.changed().await.expect("the gate is alive");
            continue;
        }
        let open = match &listener {
            Some(open) => open,
            None => listener.insert(listen_again(address)),
        };
        tokio::select! {
            accepted = open.accept() => {
                let (stream, _) = accepted.expect("a connection");
                let mut changes = way.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(stream, now, behind) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
            changed = changes.changed() => changed.expect("the gate is alive"),
        }
    }
}

/// Listens again on the same port, which dropped connections may still occupy.
fn listen_again(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("the port is still free");
    socket.listen(64).expect("it listens")
}

async fn serve(mut stream: TcpStream, way: Way, behind: SocketAddr) {
    match way {
        Way::Open => {
            if let Ok(mut onward) = TcpStream::connect(behind).await {
                let _ = copy_bidirectional(&mut stream, &mut onward).await;
            }
        }
        Way::Broken => {
            answer(
                &mut stream,
                "500 Internal Server Error",
                "InternalServiceFault",
            )
            .await
        }
        Way::Throttled => answer(&mut stream, "400 Bad Request", "ThrottlingException").await,
        Way::Silent | Way::Refused => read_all(&mut stream).await,
    }
}

/// Answers the first request with an error of CloudWatch, and closes.
async fn answer(stream: &mut TcpStream, status: &str, code: &str) {
    read_request(stream).await;
    // CBOR: a map with one entry of two short texts.
    let mut body = vec![0xa1];
    for text in ["__type", code] {
        assert!(text.len() < 24);
        body.push(0x60 | u8::try_from(text.len()).expect("it is short"));
        body.extend(text.bytes());
    }
    let head = format!(
        "HTTP/1.1 {status}\r\nsmithy-protocol: rpc-v2-cbor\r\nContent-Type: application/cbor\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.shutdown().await;
    read_all(stream).await;
}

/// Reads a head and the body that it announces.
async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
                .unwrap_or(0_usize);
            if request.len() >= end + 4 + length {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => request.extend(&buffer[..read]),
            _ => return,
        }
    }
}

async fn read_all(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
