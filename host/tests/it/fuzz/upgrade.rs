//! Requests to the port, some of which become WebSockets.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    time::timeout,
};

use super::{Target, expect_well, fuzz, server};
use crate::harness::{Endpoint, PATIENCE};

const TARGET: Target = Target {
    name: "upgrade",
    words: &[
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\0",
        ":",
        " ",
        ",",
        "GET ",
        "POST ",
        "PRI * HTTP/2.0",
        "HTTP/1.0",
        "HTTP/1.1",
        "http://evil.example",
        "Host: a\r\n",
        "Host: [::1]:80\r\n",
        "Origin: null\r\n",
        "Origin: http://evil.example\r\n",
        "Connection: close\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c\r\n",
        "Sec-WebSocket-Version: 13\r\n",
        "Sec-WebSocket-Version: 8\r\n",
        "Sec-WebSocket-Key: x\r\n",
        "Sec-WebSocket-Protocol: signalbox.v1\r\n",
        "Sec-WebSocket-Protocol: bearer, x\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Expect: 100-continue\r\n",
        "X-Forwarded-For: 1.2.3.4\r\n",
        "Forwarded: for=1.2.3.4\r\n",
        "Authorization: Bearer x\r\n",
        "Accept: */*;q=0\r\n",
        "%00",
        "%ff",
        "?userId=ann",
        "&refuse=close",
        "/ws",
        "/ws/",
        "/metrics",
        "/api/messages",
        "/admin/plugins",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "\u{e9}",
        "\u{1F600}",
    ],
};

#[test]
fn any_request_is_answered_or_its_connection_closed_and_the_server_lives() {
    let runtime = Runtime::new().expect("a runtime");
    let config = "[api]\nkeys = [\"0123456789abcdef0123456789abcdef\"]\n[admin]\nkey = \"fedcba9876543210fedcba9876543210\"\n";
    let server = runtime.block_on(server(&[], config));
    fuzz(&TARGET, |input| {
        runtime.block_on(exchange(&server, input.bytes()));
        Ok(())
    });
    runtime.block_on(expect_well(server));
}

/// Sends a request and a final one that closes the connection, and reads to the end.
async fn exchange(server: &Endpoint, request: &[u8]) {
    let mut stream = server.tcp().await;
    // A server that has already refused the request may have closed the connection.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let whole = read.expect("the connection ends").is_ok();
    assert!(
        !whole || answer.is_empty() || answer.starts_with(b"HTTP/1."),
        "{}",
        answer.escape_ascii()
    );
}
