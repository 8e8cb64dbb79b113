"""One attempt to connect, up to `welcome`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .connection import Connection
from .errors import SignalboxError
from .frames import InvalidFrame, Json, decode
from .link import Link, Transport
from .options import Options
from .outcomes import End, Ended
from .socket import open_socket, with_query
from .sse import open_stream
from .timers import Timers, within


class Attempt:
    """An attempt with one transport."""

    def __init__(
        self,
        url: str,
        options: Options,
        timers: Timers,
        report: Callable[[SignalboxError], None],
        transport: Transport,
    ) -> None:
        self._url = url
        self._options = options
        self._timers = timers
        self._report = report
        self._transport = transport
        # Whether the head of the answer to GET has come.
        self._begun = False
        # Whether a frame has come.
        self._answered = False

    async def connect(self, query: dict[str, str], token: str | None) -> Connection:
        """The connection. Raises `Ended` if there is none."""
        limit = self._options.connect_timeout
        try:
            return await within(self._timers, limit, self._connect(query, token))
        except TimeoutError:
            raise Ended(self._too_late(limit)) from None
        except Ended as ended:
            if self._answered:
                raise Ended(replace(ended.end, answered=True)) from ended
            raise

    def _too_late(self, limit: float) -> End:
        reason = f"no connection within {limit:g} s"
        if self._begun and not self._answered:
            reason = f"a proxy holds back the server's events: the answer has begun, but no `welcome` came within {limit:g} s"
            self._report(SignalboxError("buffered", reason))
        return End(reason=reason, answered=self._answered)

    async def _connect(self, query: dict[str, str], token: str | None) -> Connection:
        url = with_query(self._url, query)
        link: Link
        if self._transport == "sse":
            link = await open_stream(url, self._options, self._timers, token, self._begin)
        else:
            link = await open_socket(url, self._options, token)
        try:
            while True:
                kind, payload = self._read(await link.receive())
                self._answered = True
                if kind == "welcome" and isinstance(payload, dict):
                    link.welcomed(payload)
                    return Connection(link, payload)
        except BaseException:
            link.abort()
            raise

    def _begin(self) -> None:
        self._begun = True

    def _read(self, text: str | bytes) -> tuple[str, Json]:
        try:
            kind, payload, _ = decode(text)
        except InvalidFrame as error:
            self._report(SignalboxError("invalid_frame", str(error)))
            return "", None
        return kind, payload
