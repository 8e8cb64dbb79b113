"""A small client for HTTP/1.1, which reads an answer while it arrives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .channel import Channel, Origin

#: The longest head of an answer, and the longest line that frames its body.
_HEAD_MAX = 64 * 1024
#: The most bytes that are read at once.
_PIECE = 64 * 1024


class HttpError(Exception):
    """The peer does not speak HTTP, or ended the connection within an answer."""


@dataclass(frozen=True)
class Request:
    """A request without redirects, cookies and compression."""

    method: str
    #: The path and the query.
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def encode(self, origin: Origin, channel: Channel) -> bytes:
        """Its bytes. Raises `ValueError` if a header cannot be sent."""
        headers = {"Host": origin.authority} | self.headers
        target = self.path
        if channel.proxy is not None:
            target = f"http://{origin.authority}{self.path}"
            headers |= channel.proxy.headers
        if self.body is not None:
            headers["Content-Length"] = str(len(self.body))
        if any("\r" in value or "\n" in value for value in headers.values()):
            raise ValueError("a header has a line break")
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + (self.body or b"")


class Response:
    """An answer, whose body is still to come."""

    def __init__(self, reader: asyncio.StreamReader, version: int, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader
        self._chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        #: The bytes that are left of the body, or of the chunk; `None`: until the end of the connection.
        self._left = None if self._chunked else _length(status, headers)
        self._in_chunk = False
        self._ended = self._left == 0
        connection = headers.get("connection", "").lower()
        self._kept = connection != "close" and (version == 1 or connection == "keep-alive")

    @property
    def bounded(self) -> bool:
        """Whether the body ends before the connection does."""
        return self._chunked or self._left is not None

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request."""
        return self._ended and self._kept

    async def read(self) -> bytes:
        """The next bytes of the body; none at its end. Raises `HttpError` or `OSError`."""
        if not self._ended and self._chunked and not self._left:
            await self._begin_chunk()
        if self._ended:
            return b""
        piece = await self._reader.read(_PIECE if self._left is None else min(self._left, _PIECE))
        if not piece:
            if self._left is not None:
                raise HttpError("the connection ended within an answer")
            self._ended, self._kept = True, False
        elif self._left is not None:
            self._left -= len(piece)
            self._ended = self._left == 0 and not self._chunked
        return piece

    async def read_all(self, most: int) -> bytes:
        """The rest of the body, or the beginning of one with more than so many bytes. Raises `HttpError` or `OSError`."""
        body = bytearray()
        while len(body) <= most:
            piece = await self.read()
            if not piece:
                break
            body += piece
        return bytes(body[:most])

    async def _begin_chunk(self) -> None:
        if self._in_chunk and await _line(self._reader):
            raise HttpError("a chunk is longer than it says")
        self._in_chunk = True
        size = (await _line(self._reader)).split(b";", 1)[0].strip()
        try:
            self._left = int(size, 16) if size.isalnum() else -1
        except ValueError:
            self._left = -1
        if self._left < 0:
            raise HttpError("a chunk has no size")
        if self._left == 0:
            while await _line(self._reader):
                pass
            self._ended = True


async def exchange(channel: Channel, origin: Origin, request: Request) -> Response:
    """Send a request, and wait for the head of the answer. Raises `HttpError`, `OSError` or `ValueError`."""
    channel.write(request.encode(origin, channel))
    while True:
        response = await _head(channel.reader)
        if response.status >= 200:
            return response


async def _head(reader: asyncio.StreamReader) -> Response:
    first = await _line(reader)
    version, _, rest = first.partition(b" ")
    status = rest[:3]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not status.isdigit() or len(status) < 3:
        raise HttpError("the answer is not HTTP/1.1")
    headers: dict[str, str] = {}
    size = 0
    while line := await _line(reader):
        size += len(line)
        if size > _HEAD_MAX:
            raise HttpError("the head of the answer is too long")
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise HttpError("the answer has a header without a value")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Response(reader, 1 if version == b"HTTP/1.1" else 0, int(status), headers)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except ValueError as error:
        raise HttpError("a line of the answer is too long") from error
    if not line.endswith(b"\n"):
        raise HttpError("the connection ended before the answer" if not line else "the connection ended within an answer")
    return line.rstrip(b"\r\n")


def _length(status: int, headers: dict[str, str]) -> int | None:
    if status in (204, 304):
        return 0
    length = headers.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()):
        raise HttpError("the answer has no valid length")
    return int(length)
