"""One connection over server-sent events: frames come in one long answer, and each frame of the client is a POST."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote, urlsplit

from .channel import Channel, Origin, open_channel
from .errors import SignalboxError
from .events import Event, EventParser, EventTooLarge
from .frames import Json, number_of, text_of
from .http1 import HttpError, Request, Response, exchange
from .link import Sender, Transport
from .options import Options
from .outcomes import End, Ended, refused, retry_after
from .timers import Alarm, Timers, within

#: What an exchange may raise.
_FAILURES = (HttpError, EventTooLarge, OSError, EOFError, ValueError, ImportError)
#: Some firewalls refuse requests without one.
_USER_AGENT = f"signalbox-client (Python {sys.version_info.major}.{sys.version_info.minor})"
#: The most bytes that are read of a refusal.
_BODY_MAX = 16 * 1024
#: The shortest wait before the client repeats a frame for which there was no room, in seconds.
_FULL_WAIT_MIN = 1.0
#: The most frames that wait for their turn.
_WAITING_MAX = 1000
#: Proxies close idle connections, often after a few seconds; a POST must not meet that moment.
_IDLE_MAX = 5.0


class EventStream:
    """A `Link` over server-sent events."""

    transport: Transport = "sse"

    def __init__(self, channel: Channel, response: Response, poster: Poster, options: Options) -> None:
        self._channel = channel
        self._response = response
        self._poster = poster
        self._parser = EventParser(options.receive_bytes_max)
        self._frames: deque[str] = deque()
        #: The close event of the server, or why this side ended the connection.
        self._end: End | None = None

    @property
    def waiting_bytes(self) -> int:
        """The bytes that wait to be written."""
        return self._poster.waiting_bytes

    def welcomed(self, welcome: dict[str, Json]) -> None:
        """Learn where frames go. Raises `Ended` if `welcome` does not say."""
        connection_id, key = text_of(welcome, "connectionId"), text_of(welcome, "sendKey")
        if connection_id is None or key is None:
            raise Ended(End(reason="`welcome` has no `sendKey`", answered=True))
        self._poster.welcomed(connection_id, key)

    def listen(self, heard: Callable[[], None], sender: Sender) -> None:
        """Call `heard` whenever bytes arrive, and `sender` about the frames that are sent from now on."""
        self._channel.listen(heard)
        self._poster.begin(sender, self._lose)

    def send(self, call_id: str, text: str) -> None:
        """Write a frame after those before it."""
        self._poster.send(call_id, text)

    async def receive(self) -> str:
        """The next frame. Raises `Ended` at the end of the connection."""
        while not self._frames:
            if self._end is not None:
                raise Ended(self._end)
            try:
                piece = await self._response.read()
                events = self._parser.feed(piece)
            except _FAILURES as error:
                raise Ended(self._end or End(reason=str(error) or type(error).__name__)) from error
            if not piece:
                raise Ended(self._end or End(reason="the answer has ended without an event `close`"))
            for event in events:
                self._take(event)
        return self._frames.popleft()

    def abort(self) -> None:
        """End the requests at once."""
        self._poster.stop()
        self._channel.abort()

    async def close(self, reason: str = "") -> None:
        """End the requests: the server notices it."""
        self.abort()

    def _take(self, event: Event) -> None:
        if self._end is not None:
            return
        if event.name in ("", "message"):
            self._frames.append(event.data)
        elif event.name == "close":
            self._end = _end_of(event.data)

    def _lose(self, reason: str) -> None:
        self._end = self._end or End(reason=reason)
        self.abort()


class Poster:
    """Sends frames, one at a time and in order, in a task that exists only while some wait."""

    def __init__(self, origin: Origin, path: str, options: Options, timers: Timers) -> None:
        self._origin = origin
        self._path = path
        self._options = options
        self._timers = timers
        self._outbox: deque[tuple[str, str]] = deque()
        self._headers: dict[str, str] = {}
        self._sender: Sender | None = None
        self._lose: Callable[[str], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._channel: Channel | None = None
        self._used = 0.0
        self._stopped = False
        #: The bytes that wait to be written.
        self.waiting_bytes = 0

    def welcomed(self, connection_id: str, key: str) -> None:
        """The connection has an ID and a key."""
        self._path += "/" + quote(connection_id, safe="")
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
        }

    def begin(self, sender: Sender, lose: Callable[[str], None]) -> None:
        """Frames can be sent from now on. `lose` is called with a reason if the connection turns out to be gone."""
        self._sender, self._lose = sender, lose

    def send(self, call_id: str, text: str) -> None:
        """Send a frame after those before it."""
        if self._stopped:
            # The loss of the connection ends the call.
            return
        if len(self._outbox) >= _WAITING_MAX:
            self._refuse(call_id, SignalboxError("queue_full", "too many frames wait for their turn"))
            return
        self._outbox.append((call_id, text))
        self.waiting_bytes += len(text)
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """Send no more, and end the request that is under way."""
        self._stopped = True
        self._outbox.clear()
        self.waiting_bytes = 0
        if self._task is not None:
            self._task.cancel()
        self._hang_up()

    async def _run(self) -> None:
        try:
            while self._outbox:
                call_id, text = self._outbox[0]
                if self._sender is None or not self._sender.leaves(call_id):
                    self._drop_first()
                    continue
                response = await within(self._timers, self._options.connect_timeout, self._post(text.encode()))
                await self._answered(call_id, response)
        except TimeoutError:
            self._fail(f"a POST had no answer within {self._options.connect_timeout:g} s")
        except _FAILURES as error:
            self._fail(f"a POST failed: {str(error) or type(error).__name__}")
        finally:
            self._task = None

    async def _answered(self, call_id: str, response: Response) -> None:
        wait = retry_after(response.headers.get("retry-after"))
        if response.status == 429:
            await Alarm(self._timers, max(wait, _FULL_WAIT_MIN)).wait()
            return
        self._drop_first()
        if response.status == 503:
            self._refuse(call_id, SignalboxError("connection_lost", "the server did not answer in time: the message may have arrived"))
            if wait > 0:
                await Alarm(self._timers, wait).wait()
        elif response.status == 413:
            self._refuse(call_id, SignalboxError("too_large", "the frame is larger than the server takes"))
        elif response.status != 202:
            self._fail(f"a POST was answered with HTTP {response.status}")

    async def _post(self, body: bytes) -> Response:
        channel = self._channel
        if channel is None or channel.ended or self._timers.time() - self._used > _IDLE_MAX:
            self._hang_up()
            channel = self._channel = await open_channel(self._origin, self._options.ssl)
        try:
            response = await exchange(channel, self._origin, Request("POST", self._path, self._headers, body))
            if response.bounded:
                await response.read_all(_BODY_MAX)
        except BaseException:
            self._hang_up()
            raise
        self._used = self._timers.time()
        if not response.reusable:
            self._hang_up()
        return response

    def _drop_first(self) -> None:
        if self._outbox:
            _, text = self._outbox.popleft()
            self.waiting_bytes -= len(text)

    def _refuse(self, call_id: str, error: SignalboxError) -> None:
        if self._sender is not None:
            self._sender.refuse(call_id, error)

    def _fail(self, reason: str) -> None:
        if self._lose is not None:
            self._lose(reason)

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.abort()
            self._channel = None


async def open_stream(
    url: str, options: Options, timers: Timers, token: str | None, begun: Callable[[], None]
) -> EventStream:
    """Ask for the events. `begun` is called when the head of the answer has come. Raises `Ended` if there are none."""
    try:
        origin, path, query = _parts(url)
        channel = await open_channel(origin, options.ssl)
    except _FAILURES as error:
        raise Ended(End(reason=str(error) or type(error).__name__)) from error
    try:
        headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Cache-Control": "no-store",
            "User-Agent": _USER_AGENT,
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        target = f"{path}?{query}" if query else path
        response = await exchange(channel, origin, Request("GET", target, headers))
        if response.status != 200 or not _is_stream(response):
            raise Ended(await _refused(response))
    except _FAILURES as error:
        channel.abort()
        raise Ended(End(reason=str(error) or type(error).__name__)) from error
    except BaseException:
        channel.abort()
        raise
    begun()
    return EventStream(channel, response, Poster(origin, path, options, timers), options)


def _parts(url: str) -> tuple[Origin, str, str]:
    """The server, the path and the query for the URL of a WebSocket."""
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError(f"the URL has no host: {url!r}")
    secure = parts.scheme == "wss"
    path = quote(parts.path.rpartition("/")[0] + "/sse", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~")
    return Origin(secure, parts.hostname, parts.port or (443 if secure else 80)), path, query


def _is_stream(response: Response) -> bool:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return False
    return response.headers.get("content-type", "").split(";", 1)[0].strip().lower() == "text/event-stream"


async def _refused(response: Response) -> End:
    body = await response.read_all(_BODY_MAX)
    end = refused(response.status, response.headers.get("retry-after"), body)
    return replace(end, reason="the answer to GET is no event stream") if response.status == 200 else end


def _end_of(data: str) -> End:
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return End(reason="the event `close` says nothing", answered=True)
    return End(reason=text_of(fields, "reason") or "", code=number_of(fields, "code"), answered=True)
