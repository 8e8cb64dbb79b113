"""A server that does what a test says, a clock that a test moves, and a record of the events of a client."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from signalbox_client import Client, Options

#: The longest time for anything that a test waits for; none of it depends on a time.
PATIENCE = 20.0


class Clock:
    """Timers that fire when a test moves the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._number = itertools.count()
        self._timers: list[tuple[float, int, Handle]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle:
        handle = Handle(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._number), handle))
        return handle

    def advance(self, seconds: float) -> None:
        """Fire all timers of the next `seconds`."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end + 1e-9:
            due, _, handle = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            handle.fire()
        self.now = end

    @property
    def pending(self) -> list[float]:
        """The times until all timers that wait."""
        return sorted(due - self.now for due, _, handle in self._timers if handle.waits)


class Handle:
    """A timer of a `Clock`."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self.waits = True

    def cancel(self) -> None:
        self.waits = False

    def fire(self) -> None:
        if self.waits:
            self.waits = False
            self._callback()


class Peer:
    """The server's end of a connection."""

    path: str
    headers: Headers

    async def write(self, text: str) -> None:
        raise NotImplementedError

    async def read(self) -> str | bytes:
        raise NotImplementedError

    async def send(self, type: str, payload: Any = None, **fields: Any) -> None:
        await self.write(json.dumps({"type": type, "payload": payload, **fields}))

    async def welcome(self, **fields: Any) -> None:
        limits = {"frameBytesMax": 65536}
        await self.send("welcome", {"connectionId": "c", "heartbeatIntervalMs": 25000, "limits": limits} | fields)

    async def receive(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(self.read(), PATIENCE))
        return frame

    async def ack(self, frame: dict[str, Any], **fields: Any) -> None:
        await self.send("ack", {"id": frame["id"], "messageId": "m", "status": "handled"} | fields)

    async def refuse(self, frame: dict[str, Any], code: str, retryable: bool = False) -> None:
        await self.send("error", {"id": frame["id"], "code": code, "message": "no", "retryable": retryable})

    async def message(self, payload: Any, room: str | None = None, offset: int | None = None) -> None:
        optional = {"room": room, "offset": offset}
        given = {name: value for name, value in optional.items() if value is not None}
        await self.send("note", payload, receiverID="", senderId="bob", timestamp="", **given)

    async def answer_join(self, **place: Any) -> dict[str, Any]:
        """Receive a join and answer it, with a place in a history."""
        frame = await self.receive()
        assert frame["type"] == "join", frame
        await self.ack(frame, **({"room": place} if place else {}))
        return frame


class SocketPeer(Peer):
    """The server's end of a WebSocket."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        assert socket.request is not None
        self.path = socket.request.path
        self.headers = socket.request.headers

    async def write(self, text: str) -> None:
        await self.socket.send(text)

    async def read(self) -> str | bytes:
        return await self.socket.recv()

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)

    async def drop(self) -> None:
        """End the connection as a killed server does."""
        self.socket.transport.abort()

    async def closed_with(self) -> int | None:
        """The close code of the client; `None` if it sent none."""
        try:
            while True:
                await asyncio.wait_for(self.socket.recv(), PATIENCE)
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code


class Server:
    """A WebSocket server on a free port. Each upgrade is refused with the next of `refusals`, or waits in `accept`."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[SocketPeer] = asyncio.Queue()
        self.refusals: list[tuple[int, dict[str, str], str]] = []
        self.subprotocol = True
        self.upgrades = 0
        #: The path and query of each request.
        self.paths: list[str] = []
        self._server: WebSocketServer | None = None

    async def __aenter__(self) -> Server:
        def select(_: ServerConnection, offered: Any) -> Any:
            return offered[0] if self.subprotocol and offered else None

        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            select_subprotocol=select,
            process_request=self._refuse,
            ping_interval=None,
            close_timeout=1,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/ws"

    async def accept(self, **welcome: Any) -> SocketPeer:
        """The next connection, after its `welcome`."""
        peer = await self.accept_silently()
        await peer.welcome(**welcome)
        return peer

    async def accept_silently(self) -> SocketPeer:
        return await asyncio.wait_for(self._peers.get(), PATIENCE)

    async def _serve(self, socket: ServerConnection) -> None:
        self._peers.put_nowait(SocketPeer(socket))
        await socket.wait_closed()

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        self.upgrades += 1
        self.paths.append(request.path)
        if not self.refusals:
            return None
        status, headers, body = self.refusals.pop(0)
        fields = Headers({"Content-Length": str(len(body)), **headers})
        return Response(status, HTTPStatus(status).phrase, fields, body.encode())


class Record:
    """The events of a client, in order."""

    def __init__(self, client: Client) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._changed = asyncio.Event()
        self.client = client
        client.on("*", lambda m: self.add("message", m.payload, m.room, m.offset))
        client.on_state(lambda c: self.add("state", c.state, c.code or c.status, c.retry_in))
        client.on_error(lambda e: self.add("error", e.code))
        client.on_recovery(lambda r: self.add("recovered", None, r.recovered, r.reason))

    def watch(self, name: str) -> None:
        room = self.client.room(name)
        room.on_recovery(lambda r: self.add("recovered", name, r.recovered, r.reason))
        room.on_left(lambda e: self.add("left", name, e.code))
        room.on_presence(lambda p: self.add("presence", p.total, None if p.members is None else sorted(p.members)))

    def add(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, *start: Any, count: int = 1) -> tuple[Any, ...]:
        """The first event that begins with `start`, or the one with that count."""
        while True:
            found = [event for event in self.events if event[: len(start)] == start]
            if len(found) >= count:
                return found[count - 1]
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), PATIENCE)
            except asyncio.TimeoutError:
                raise AssertionError(f"no {start} in {self.events}") from None

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]


class World:
    """A server, a client, its clock and its record."""

    def __init__(self, server: Server, clock: Clock, client: Client) -> None:
        self.server = server
        self.clock = clock
        self.client = client
        self.record = Record(client)

    async def connected(self, **welcome: Any) -> SocketPeer:
        """Connect, and return the server's end."""
        self.client.connect()
        return await self.accepted(**welcome)

    async def accepted(self, **welcome: Any) -> SocketPeer:
        """Accept an attempt, and return the server's end once the client is connected."""
        before = len([event for event in self.record.events if event[:2] == ("state", "connected")])
        peer = await self.server.accept(**welcome)
        await self.record.until("state", "connected", count=before + 1)
        return peer

    async def reconnected(self, **welcome: Any) -> SocketPeer:
        """Let the backoff pass, and return the server's end of the new connection."""
        await until(lambda: self.client.state == "disconnected")
        self.clock.advance(60)
        return await self.accepted(**welcome)


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), PATIENCE)


def play(scene: Callable[[World], Coroutine[Any, Any, None]], **arguments: Any) -> None:
    """Run a scene with a server, a client and a clock. The client must leave nothing behind."""

    async def run() -> None:
        async with Server() as server:
            clock, client = new_client(server.url, arguments)
            await leaves_nothing(clock, client, scene(World(server, clock, client)))

    asyncio.run(run())


def new_client(url: str, arguments: dict[str, Any]) -> tuple[Clock, Client]:
    """A client with the options and arguments of a scene, and its clock."""
    clock = Clock()
    options = {name: arguments.pop(name) for name in list(arguments) if hasattr(Options, name)}
    random = options.pop("random", lambda: 1.0)
    if not arguments:
        arguments["user_id"] = "ann"
    return clock, Client(url, options=Options(timers=clock, random=random, **options), **arguments)


async def leaves_nothing(clock: Clock, client: Client, scene: Coroutine[Any, Any, None]) -> None:
    """Play a scene, close the client, and fail if it leaves a timer or a task behind."""
    before = asyncio.all_tasks()
    await scene
    await client.close()
    assert clock.pending == [], "a closed client holds a timer"
    await until(lambda: not _own(asyncio.all_tasks() - before))


def _own(tasks: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """The tasks of the client, without those of the server."""
    return [task for task in tasks if "signalbox_client" in repr(task.get_coro())]
