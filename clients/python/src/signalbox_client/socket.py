"""One WebSocket connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from urllib.parse import quote, urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, NegotiationError, WebSocketException
from websockets.typing import Subprotocol

from .frames import Json
from .link import Sender, Transport
from .options import Options
from .outcomes import End, Ended, refused

_PROTOCOL = Subprotocol("signalbox.v1")
#: How long the client waits for the close frame of the server, in seconds.
_CLOSE_TIMEOUT = 2.0


class _Connection(ClientConnection):
    """A connection that notices all bytes, also those of pings."""

    heard: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        if self.heard is not None:
            self.heard()
        super().data_received(data)


class _Connect(connect):
    """An attempt that follows no redirects."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Socket:
    """A `Link` over a WebSocket. Frames are written in the order of `send`, by a task that exists only while some wait."""

    transport: Transport = "websocket"

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._sender: Sender | None = None
        self._outbox: deque[str] = deque()
        self._writer: asyncio.Task[None] | None = None
        #: The bytes that wait to be written.
        self.waiting_bytes = 0

    def welcomed(self, welcome: dict[str, Json]) -> None:
        """Every `welcome` will do."""

    def listen(self, heard: Callable[[], None], sender: Sender) -> None:
        """Call `heard` whenever bytes arrive, and `sender` about the frames that are sent from now on."""
        self._sender = sender
        if isinstance(self._connection, _Connection):
            self._connection.heard = heard

    def send(self, call_id: str, text: str) -> None:
        """Write a frame after those before it."""
        if self._sender is not None:
            self._sender.leaves(call_id)
        self._outbox.append(text)
        self.waiting_bytes += len(text)
        if self._writer is None:
            self._writer = asyncio.ensure_future(self._write())

    async def receive(self) -> str | bytes:
        """The next frame. Raises `Ended` at the end of the connection."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise Ended(_end_of(closed)) from closed

    def abort(self) -> None:
        """End the connection without a close handshake."""
        self._stop()
        self._connection.transport.abort()

    async def close(self, reason: str = "") -> None:
        """End the connection with 1000."""
        self._stop()
        try:
            await self._connection.close(1000, reason)
        finally:
            self._connection.transport.abort()

    def _stop(self) -> None:
        self._outbox.clear()
        self.waiting_bytes = 0
        if self._writer is not None:
            self._writer.cancel()

    async def _write(self) -> None:
        try:
            while self._outbox:
                text = self._outbox.popleft()
                await self._connection.send(text, text=True)
                self.waiting_bytes = max(0, self.waiting_bytes - len(text))
        except ConnectionClosed:
            # The reader learns it too, and why.
            self._outbox.clear()
        finally:
            self._writer = None


async def open_socket(url: str, options: Options, token: str | None) -> Socket:
    """Connect and upgrade. Raises `Ended` if that fails."""
    attempt = _Connect(
        url,
        subprotocols=[_PROTOCOL],
        additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
        # The client has its own heartbeat, and one time limit for the whole attempt.
        open_timeout=None,
        ping_interval=None,
        close_timeout=_CLOSE_TIMEOUT,
        compression=None,
        max_size=options.receive_bytes_max,
        create_connection=_Connection,
        ssl=(options.ssl or True) if url.startswith("wss:") else None,
    )
    try:
        connection = await attempt
    except InvalidStatus as error:
        raise Ended(_refused(error)) from error
    except NegotiationError as error:
        raise Ended(_unsupported()) from error
    except (WebSocketException, OSError, EOFError, ValueError, ImportError) as error:
        raise Ended(End(reason=str(error) or type(error).__name__)) from error
    socket = Socket(connection)
    if connection.subprotocol is None:
        await socket.close("unsupported_protocol")
        raise Ended(_unsupported())
    return socket


def with_query(url: str, query: dict[str, str]) -> str:
    """The URL with more parameters in its query."""
    if not query:
        return url
    separator = "&" if "?" in url else "?"
    return url + separator + urlencode(query, quote_via=quote)


def _unsupported() -> End:
    return End(reason="the server did not accept the subprotocol signalbox.v1", unsupported=True)


def _end_of(closed: ConnectionClosed) -> End:
    # A close frame that this side sent first says nothing about the server.
    if closed.rcvd is None or closed.rcvd_then_sent is False:
        return End(reason=str(closed))
    code = closed.rcvd.code
    return End(reason=closed.rcvd.reason, code=None if code == 1005 else code, answered=True)


def _refused(error: InvalidStatus) -> End:
    response = error.response
    return refused(response.status_code, response.headers.get("Retry-After"), bytes(response.body or b""))
