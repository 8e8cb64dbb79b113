//! Tests the relay at the byte level: handshakes, frames in pieces, and input that it must refuse.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use signalbox_bench::frame::{
    Opcode, PAYLOAD_BYTES_MAX, Writer, close_code, next_frame, put_client_frame, put_server_frame,
};
use signalbox_bench::{handshake, relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const KEY: [u8; 4] = [1, 2, 3, 4];

/// No step of these tests takes long; this only keeps a failing test from hanging.
const STEP_TIME_MAX: Duration = Duration::from_secs(120);

async fn start_relay() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(relay::serve(listener));
    Ok(address)
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr, query: &str) -> Self {
        let mut stream = TcpStream::connect(address)
            .await
            .expect("the relay listens");
        let target = format!("/ws?{query}");
        let received = handshake::request(&mut stream, "localhost", &target)
            .await
            .expect("the relay upgrades");
        Self { stream, received }
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        put_client_frame(&mut frame, opcode, payload, KEY);
        self.send_bytes(&frame).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the relay reads");
    }

    /// Returns the next frame, or `None` if the relay has closed.
    async fn next(&mut self) -> Option<(Opcode, Vec<u8>)> {
        let next = async {
            loop {
                let frame = next_frame(&mut self.received, 0, Writer::Server)
                    .expect("the relay writes valid frames");
                if let Some(frame) = frame {
                    let (opcode, payload, end) = (frame.opcode, frame.payload.to_vec(), frame.end);
                    self.received.drain(..end);
                    return Some((opcode, payload));
                }
                match self.stream.read_buf(&mut self.received).await {
                    Ok(count) if count > 0 => {}
                    _ => return None,
                }
            }
        };
        timeout(STEP_TIME_MAX, next)
            .await
            .expect("the relay answers in time")
    }

    /// Sends a ping and waits for the pong; the relay has then handled everything sent before.
    async fn settle(&mut self) {
        self.send(Opcode::Ping, b"settle").await;
        assert_eq!(self.next().await, Some((Opcode::Pong, b"settle".to_vec())));
    }
}

async fn pair(address: SocketAddr) -> (Client, Client) {
    let mut a = Client::connect(address, "userId=a&peer=b").await;
    let mut b = Client::connect(address, "userId=b&peer=a").await;
    a.settle().await;
    b.settle().await;
    (a, b)
}

#[tokio::test]
async fn frames_go_to_the_peer_and_keep_their_kind_and_order() {
    let (mut a, mut b) = pair(start_relay().await.expect("a free port")).await;
    let mut burst = Vec::new();
    put_client_frame(&mut burst, Opcode::Text, b"one", KEY);
    put_client_frame(&mut burst, Opcode::Binary, &[7; 1000], KEY);
    put_client_frame(&mut burst, Opcode::Text, b"", KEY);
    a.send_bytes(&burst).await;
    assert_eq!(b.next().await, Some((Opcode::Text, b"one".to_vec())));
    assert_eq!(b.next().await, Some((Opcode::Binary, vec![7; 1000])));
    assert_eq!(b.next().await, Some((Opcode::Text, Vec::new())));
    b.send(Opcode::Text, b"back").await;
    assert_eq!(a.next().await, Some((Opcode::Text, b"back".to_vec())));
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_is_forwarded_once_it_is_whole() {
    let (mut a, mut b) = pair(start_relay().await.expect("a free port")).await;
    let mut frame = Vec::new();
    put_client_frame(&mut frame, Opcode::Text, &[b'x'; 200], KEY);
    a.stream.set_nodelay(true).expect("an open socket");
    for byte in frame {
        a.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(b.next().await, Some((Opcode::Text, vec![b'x'; 200])));
}

#[tokio::test]
async fn the_first_frame_may_come_with_the_handshake() {
    let address = start_relay().await.expect("a free port");
    let mut b = Client::connect(address, "userId=b&peer=a").await;
    b.settle().await;
    let mut bytes = b"GET /ws?userId=a&peer=b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    put_client_frame(&mut bytes, Opcode::Text, b"early", KEY);
    let mut a = TcpStream::connect(address)
        .await
        .expect("the relay listens");
    a.write_all(&bytes).await.expect("the relay reads");
    assert_eq!(b.next().await, Some((Opcode::Text, b"early".to_vec())));
}

#[tokio::test]
async fn a_room_hears_every_member_and_the_sender_hears_itself() {
    let address = start_relay().await.expect("a free port");
    let mut members = Vec::new();
    for user in 0..5 {
        let mut member = Client::connect(address, &format!("userId={user}&room=r")).await;
        member.settle().await;
        members.push(member);
    }
    let mut elsewhere = Client::connect(address, "userId=x&room=other").await;
    elsewhere.settle().await;
    members[2].send(Opcode::Text, b"hi").await;
    for member in &mut members {
        assert_eq!(member.next().await, Some((Opcode::Text, b"hi".to_vec())));
    }
    elsewhere.send(Opcode::Text, b"mine").await;
    assert_eq!(
        elsewhere.next().await,
        Some((Opcode::Text, b"mine".to_vec()))
    );
}

#[tokio::test]
async fn a_garbage_handshake_gets_a_400_and_the_connection_ends() {
    let address = start_relay().await.expect("a free port");
    for garbage in [
        &b"\x00\xff\x16\x03\x01 garbage\r\n\r\n"[..],
        b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(address).await.expect("the relay listens");
        stream.write_all(garbage).await.expect("the relay reads");
        let mut answer = String::new();
        let read = timeout(STEP_TIME_MAX, stream.read_to_string(&mut answer)).await;
        assert!(read.is_ok_and(|read| read.is_ok()));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn an_endless_handshake_is_cut_off() {
    let address = start_relay().await.expect("a free port");
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the relay listens");
    let endless = async {
        while stream.write_all(&[b'a'; 1024]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(STEP_TIME_MAX, endless).await.is_ok());
}

#[tokio::test]
async fn frames_that_break_the_protocol_are_closed_with_the_code_for_it() {
    let address = start_relay().await.expect("a free port");
    let mut unmasked = Vec::new();
    put_server_frame(&mut unmasked, Opcode::Text, b"unmasked");
    let mut too_large = Vec::new();
    put_client_frame(
        &mut too_large,
        Opcode::Binary,
        &vec![0; PAYLOAD_BYTES_MAX + 1],
        KEY,
    );
    let fragment = [0x01, 0x81, 0, 0, 0, 0, b'x'].to_vec();
    for (bytes, code) in [(unmasked, 1002), (too_large, 1009), (fragment, 1003)] {
        let mut client = Client::connect(address, "userId=a&peer=a").await;
        client.send_bytes(&bytes).await;
        let Some((Opcode::Close, payload)) = client.next().await else {
            panic!("no close frame where {code} was due");
        };
        assert_eq!(close_code(&payload), code);
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test]
async fn the_largest_frame_passes() {
    let mut a = Client::connect(start_relay().await.expect("a free port"), "userId=a&peer=a").await;
    let payload = vec![b'x'; PAYLOAD_BYTES_MAX];
    a.send(Opcode::Text, &payload).await;
    assert_eq!(a.next().await, Some((Opcode::Text, payload)));
}

#[tokio::test]
async fn a_close_is_answered_with_the_same_code() {
    let mut a = Client::connect(start_relay().await.expect("a free port"), "userId=a&peer=a").await;
    a.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    assert_eq!(
        a.next().await,
        Some((Opcode::Close, 1000_u16.to_be_bytes().to_vec()))
    );
    assert_eq!(a.next().await, None);
}

#[tokio::test]
async fn the_newest_connection_of_a_user_takes_over() {
    let address = start_relay().await.expect("a free port");
    let mut older = Client::connect(address, "userId=b&peer=a").await;
    older.settle().await;
    let (mut a, mut newer) = pair(address).await;
    assert_eq!(older.next().await, None);
    a.send(Opcode::Text, b"to the newer").await;
    assert_eq!(
        newer.next().await,
        Some((Opcode::Text, b"to the newer".to_vec()))
    );
}

#[tokio::test]
async fn a_receiver_that_does_not_read_is_dropped_and_its_sender_goes_on() {
    let address = start_relay().await.expect("a free port");
    let (mut sender, mut slow) = pair(address).await;
    // More than the outbox and all socket buffers between the two can hold.
    let message = vec![b'x'; PAYLOAD_BYTES_MAX];
    for _ in 0..512 {
        sender.send(Opcode::Binary, &message).await;
    }
    sender.settle().await;
    let mut received = 0;
    while let Some((Opcode::Binary, _)) = slow.next().await {
        received += 1;
    }
    assert!(received < 512, "all {received} messages were buffered");
}
