"""A server behind a network that blocks WebSockets: it answers GET /sse and POST as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from scripted import PATIENCE, Clock, Peer, Record, leaves_nothing, new_client, until
from websockets.datastructures import Headers

from signalbox_client import Client

#: A status, header fields and a body.
Answer = tuple[int, dict[str, str], str]
#: What a proxy without WebSockets answers to an upgrade.
BLOCKED: Answer = (502, {}, "<html>no</html>")


class StreamPeer(Peer):
    """The server's end of a stream of events."""

    def __init__(self, path: str, headers: Headers, writer: asyncio.StreamWriter) -> None:
        self.path = path
        self.headers = headers
        #: The bodies of the POSTs, in order.
        self.frames: asyncio.Queue[str] = asyncio.Queue()
        #: The answers to the next POSTs; `None`: there is none. After them each gets 202.
        self.answers: list[Answer | None] = []
        #: The paths and headers of the POSTs.
        self.posts: list[tuple[str, Headers]] = []
        self.ended = asyncio.Event()
        self._writer = writer

    async def begin(self, content_type: str = "text/event-stream") -> None:
        """Send the head of the answer."""
        self.raw(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n")

    async def welcome(self, **fields: Any) -> None:
        await super().welcome(**({"sendKey": "k3y"} | fields))

    async def write(self, text: str) -> None:
        self.raw(f"data: {text}\n\n")

    async def read(self) -> str:
        return await self.frames.get()

    def raw(self, text: str) -> None:
        """Send these bytes."""
        self._writer.write(text.encode())

    def end(self, code: int, reason: str = "") -> None:
        """Send an event `close`, and end the answer."""
        self.raw(f"event: close\ndata: {json.dumps({'code': code, 'reason': reason})}\n\n")
        self._writer.close()

    def drop(self) -> None:
        """End the answer as a killed server does."""
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Return when the client has ended the request."""
        await asyncio.wait_for(self.ended.wait(), PATIENCE)


class StreamServer:
    """Upgrades get the next of `upgrades`, then `BLOCKED`; `GET /sse` the next of `refusals`, then waits in `accept`."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[StreamPeer] = asyncio.Queue()
        self._peer: StreamPeer | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.upgrades: list[Answer] = []
        self.refusals: list[Answer] = []
        #: The attempts so far.
        self.attempts: list[str] = []
        #: The connections so far.
        self.accepted = 0

    async def __aenter__(self) -> StreamServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await until(lambda: not self._writers)

    @property
    def open(self) -> int:
        """The connections that are open."""
        return len(self._writers)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"

    async def accept_silently(self) -> StreamPeer:
        """The next request for events, without an answer yet."""
        return await asyncio.wait_for(self._peers.get(), PATIENCE)

    async def accept(self, **welcome: Any) -> StreamPeer:
        """The next stream, after its `welcome`."""
        peer = await self.accept_silently()
        await peer.begin()
        await peer.welcome(**welcome)
        return peer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.accepted += 1
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = Headers([(name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2])])
        if method == "POST":
            return await self._post(path, headers, reader, writer)
        if "Upgrade" in headers:
            self.attempts.append("websocket")
            refusal = self.upgrades.pop(0) if self.upgrades else BLOCKED
        else:
            self.attempts.append("sse")
            if not self.refusals:
                self._peer = StreamPeer(path, headers, writer)
                self._peers.put_nowait(self._peer)
                await self._ended(self._peer, reader)
                return False
            refusal = self.refusals.pop(0)
        writer.write(encode(*refusal))
        return False

    async def _ended(self, peer: StreamPeer, reader: asyncio.StreamReader) -> None:
        try:
            await reader.read()
        finally:
            peer.ended.set()

    async def _post(
        self, path: str, headers: Headers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        body = await reader.readexactly(int(headers["Content-Length"]))
        peer = self._peer
        assert peer is not None
        answer = peer.answers.pop(0) if peer.answers else (202, {}, "")
        peer.posts.append((path, headers))
        peer.frames.put_nowait(body.decode())
        if answer is None:
            await reader.read()
            return False
        writer.write(encode(*answer))
        return True


def encode(status: int, headers: dict[str, str], body: str) -> bytes:
    """The bytes of an answer."""
    lines = [f"{name}: {value}\r\n" for name, value in ({"Content-Length": str(len(body))} | headers).items()]
    return f"HTTP/1.1 {status} x\r\n{''.join(lines)}\r\n{body}".encode()


class StreamWorld:
    """A server, a client, its clock and its record."""

    def __init__(self, server: StreamServer, clock: Clock, client: Client) -> None:
        self.server = server
        self.clock = clock
        self.client = client
        self.record = Record(client)

    async def fails(self, count: int) -> None:
        """Wait until so many attempts or connections have failed, and let the backoff pass."""
        await self.record.until("state", "disconnected", count=count)
        self.clock.advance(60)

    async def connected(self, **welcome: Any) -> StreamPeer:
        """Connect after a WebSocket was refused, and return the server's end."""
        self.client.connect()
        await self.fails(1)
        return await self.accepted(**welcome)

    async def accepted(self, **welcome: Any) -> StreamPeer:
        """Accept an attempt, and return the server's end once the client is connected."""
        before = len([event for event in self.record.events if event[:2] == ("state", "connected")])
        peer = await self.server.accept(**welcome)
        await self.record.until("state", "connected", count=before + 1)
        return peer

    async def reconnected(self, **welcome: Any) -> StreamPeer:
        """Let the backoff pass, and return the server's end of the new connection."""
        await until(lambda: self.client.state == "disconnected")
        self.clock.advance(60)
        return await self.accepted(**welcome)


def play(scene: Callable[[StreamWorld], Coroutine[Any, Any, None]], **arguments: Any) -> None:
    """Run a scene with a server, a client and a clock. The client must leave nothing behind."""

    async def run() -> None:
        async with StreamServer() as server:
            clock, client = new_client(server.url, arguments)
            await leaves_nothing(clock, client, scene(StreamWorld(server, clock, client)))

    asyncio.run(run())
