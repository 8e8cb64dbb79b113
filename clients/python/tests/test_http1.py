"""The client for HTTP, with TLS and proxies."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signalbox_client.channel import Channel, Origin, Proxy, open_channel, proxy_for
from signalbox_client.http1 import HttpError, Request, Response, exchange

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = Request("GET", "/a?b", {"X": "y"})


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "ws", "wss", "socks", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server, and its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(*answers: bytes, heads: list[bytes] | None = None) -> Handler:
    """Answers each request without a body with the next of these bytes, then ends the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            writer.write(answer)

    return handle


def ask(answer: bytes) -> tuple[Response, bytes]:
    """The answer to a request, and its body."""

    async def run() -> tuple[Response, bytes]:
        async with serving(answering(answer)) as port:
            origin = Origin(False, "127.0.0.1", port)
            channel = await open_channel(origin, None)
            try:
                response = await exchange(channel, origin, GET)
                return response, await response.read_all(1000)
            finally:
                channel.abort()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "body", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", True),
        (b"HTTP/1.1 204\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Close\r\n\r\nabc", b"abc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc", False),
        (b"HTTP/1.1 200 OK\nX: y\nContent-Length:1\n\na", b"a", True),
        (b"HTTP/1.1 103 x\r\nLink: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n", b"abc", True),
    ],
)
def test_bodies_are_read_to_their_end(answer: bytes, body: bytes, reusable: bool) -> None:
    response, text = ask(answer)
    assert (text, response.reusable) == (body, reusable)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/2 200\r\n\r\n",
        b"hello\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 3000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab",
    ],
)
def test_an_answer_that_breaks_the_rules_is_an_error(answer: bytes) -> None:
    with pytest.raises((HttpError, ConnectionError)):
        ask(answer)


def test_a_request_has_its_headers_and_its_body() -> None:
    async def run() -> None:
        heads: list[bytes] = []
        empty = b"HTTP/1.1 202 x\r\nContent-Length: 0\r\n\r\n"
        async with serving(answering(empty, heads=heads)) as port:
            origin = Origin(False, "127.0.0.1", port)
            channel = await open_channel(origin, None)
            await exchange(channel, origin, Request("POST", "/p", {"X": "y"}, b"body"))
            lines = ["POST /p HTTP/1.1", f"Host: 127.0.0.1:{port}", "X: y", "Content-Length: 4", "", ""]
            assert heads == ["\r\n".join(lines).encode()]
            with pytest.raises(ValueError):
                await exchange(channel, origin, Request("GET", "/", {"X": "y\r\nZ: 1"}))
            channel.abort()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin(True, "example.com", 443), "example.com"),
        (Origin(False, "example.com", 443), "example.com:443"),
        (Origin(False, "::1", 80), "[::1]"),
        (Origin(True, "bücher.example", 8443), "xn--bcher-kva.example:8443"),
    ],
)
def test_the_host_names_the_port_unless_it_is_the_standard(origin: Origin, authority: str) -> None:
    assert origin.authority == authority


def test_the_proxy_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, secure = Origin(False, "example.com", 80), Origin(True, "example.com", 443)
    assert proxy_for(plain) is None
    monkeypatch.setenv("https_proxy", "http://us%65r:p%40ss@proxy:3128")
    assert proxy_for(secure) == Proxy("http", "proxy", 3128, "user", "p@ss")
    assert proxy_for(secure) == proxy_for(plain)
    monkeypatch.setenv("http_proxy", "other")
    assert proxy_for(plain) == Proxy("http", "other", 80)
    monkeypatch.setenv("socks_proxy", "socks5://socks")
    assert proxy_for(secure) == Proxy("socks5", "socks", 1080)
    monkeypatch.setenv("wss_proxy", "https://own")
    assert proxy_for(secure) == Proxy("https", "own", 443)
    monkeypatch.setenv("no_proxy", "example.com")
    assert proxy_for(secure) is None
    monkeypatch.setenv("socks_proxy", "ftp://proxy")
    with pytest.raises(ValueError):
        proxy_for(Origin(False, "example.org", 80))


def test_a_proxy_gets_whole_urls_of_plain_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        heads: list[bytes] = []
        empty = b"HTTP/1.1 202 x\r\nContent-Length: 0\r\n\r\n"
        async with serving(answering(empty, heads=heads)) as port:
            monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{port}")
            origin = Origin(False, "example.com", 8080)
            channel = await open_channel(origin, None)
            response = await exchange(channel, origin, GET)
            assert response.status == 202
            channel.abort()
        first, *others = heads[0].decode().split("\r\n")
        assert first == "GET http://example.com:8080/a?b HTTP/1.1"
        assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in others and "Host: example.com:8080" in others

    asyncio.run(run())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test")
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(
        ["openssl", *words.split(), "-keyout", file, "-out", file.with_suffix(".crt")], check=True, capture_output=True
    )
    with file.open("a") as both:
        both.write(file.with_suffix(".crt").read_text())
    return file


async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until the end."""
    while piece := await reader.read(65536):
        writer.write(piece)
    writer.close()


def tunnel(requests: list[bytes], answer: bytes) -> Handler:
    """A proxy that connects as it is asked to."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        requests.append(head)
        writer.write(answer)
        if b" 200 " not in answer:
            return
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(splice(reader, other_writer), splice(other_reader, writer))

    return handle


@pytest.mark.parametrize("with_proxy", [False, True])
def test_requests_are_encrypted_also_through_a_proxy(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, with_proxy: bool
) -> None:
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate)
    client_tls = ssl.create_default_context(cafile=str(certificate))
    requests: list[bytes] = []

    async def fetch(channel: Channel, origin: Origin) -> bytes:
        response = await exchange(channel, origin, GET)
        return await response.read_all(1000)

    async def run() -> None:
        body = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
        proxy = tunnel(requests, b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with serving(answering(body), server_tls) as port, serving(proxy) as proxy_port:
            if with_proxy:
                monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy_port}")
            origin = Origin(True, "localhost", port)
            channel = await open_channel(origin, client_tls)
            assert await fetch(channel, origin) == b"abc"
            channel.abort()
            with pytest.raises(ssl.SSLError):
                await open_channel(origin, ssl.create_default_context())
            assert all(head.startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n".encode()) for head in requests)
            assert len(requests) == (2 if with_proxy else 0)

    asyncio.run(run())


def test_a_proxy_that_does_not_connect_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serving(tunnel([], b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as port:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
            with pytest.raises(OSError, match="407 Proxy Authentication Required"):
                await open_channel(Origin(True, "example.com", 443), None)

    asyncio.run(run())
