"""The client of backends for `/api`."""

from __future__ import annotations

import asyncio
import http.client
import json
import selectors
import ssl
import threading
import time
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from . import api_requests as requests
from .api_requests import (
    Connected,
    Disconnected,
    Outgoing,
    Request,
    RoomChange,
    RoomInfo,
    RoomMember,
    RoomMembers,
    Sent,
    error_of,
)
from .errors import SignalboxError
from .frames import Json, Page, encode

__all__ = [
    "Api",
    "AsyncApi",
    "Connected",
    "Disconnected",
    "Outgoing",
    "RoomChange",
    "RoomInfo",
    "RoomMember",
    "RoomMembers",
    "Sent",
]

T = TypeVar("T")

#: The server closes a connection that is idle for 75 s.
_IDLE_MAX = 60.0
#: The most idle connections that are kept.
_IDLE_CONNECTIONS_MAX = 8


class Api:
    """Calls of a backend. It can be used by several threads at once; connections are kept and used again.

    `url` is that of the server, such as `http://127.0.0.1:8080`, `key` one of `api.keys`. `timeout` is the longest silence
    of the server, in seconds. All calls raise `SignalboxError`; with `retryable` the same call may succeed later.
    An `idempotency_key` makes it safe to repeat a call that may have had an effect.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 10.0, ssl: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"the URL must begin with http:// or https://: {url!r}")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._key = key
        self._timeout = timeout
        self._ssl = ssl
        self._lock = threading.Lock()
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def send(self, message: Outgoing, *, idempotency_key: str | None = None) -> list[Sent]:
        """Send a message. The result has an entry for each of its receivers, or one."""
        return self._call(requests.send(message, idempotency_key))

    def batch(self, messages: Sequence[Outgoing], *, idempotency_key: str | None = None) -> list[list[Sent]]:
        """Send messages one after another. A failed one has `error` in its entry, and does not stop the others."""
        return self._call(requests.batch(messages, idempotency_key))

    def user(self, user: str) -> Connected:
        """Find out where a user is connected."""
        return self._call(requests.user(user))

    def online(self, users: Sequence[str]) -> list[str]:
        """Those of the users that are online."""
        return self._call(requests.online(users))

    def disconnect(
        self, user: str, *, code: int | None = None, reason: str | None = None, block: str | None = None
    ) -> Disconnected:
        """Close all connections of a user. `block` keeps the user out for a time such as `10m`."""
        return self._call(requests.disconnect(user, code, reason, block))

    def add_to_room(self, room: str, user: str) -> RoomChange:
        """Make all connections of a user members of a room."""
        return self._call(requests.member("PUT", room, user))

    def remove_from_room(self, room: str, user: str) -> RoomChange:
        """End the membership of all connections of a user."""
        return self._call(requests.member("DELETE", room, user))

    def room(self, room: str) -> RoomInfo:
        """Count the members of a room."""
        return self._call(requests.room(room))

    def members(self, room: str) -> RoomMembers:
        """The users in a room with presence."""
        return self._call(requests.members(room))

    def history(self, room: str, *, before: int | None = None, limit: int | None = None) -> Page:
        """Messages of a room with a history: the newest ones, or those before an offset."""
        return self._call(requests.history(room, before, limit))

    def revoke(
        self,
        *,
        jti: str | None = None,
        user: str | None = None,
        issued_before: int | None = None,
        until: int | None = None,
    ) -> int:
        """Revoke one token by its `jti`, or those of a user. Returns until when, in seconds since 1970."""
        return self._call(requests.revoke(jti, user, issued_before, until))

    def _call(self, request: Request[T]) -> T:
        status, text = self._exchange(request)
        try:
            answer: Json = json.loads(text) if text else {}
        except ValueError:
            answer = None
        if status != 200 or not isinstance(answer, dict):
            raise error_of(answer, status)
        return request.read(answer)

    def _exchange(self, request: Request[T]) -> tuple[int, bytes]:
        connection = self._reused()
        if connection is not None:
            try:
                return self._on(connection, request)
            except (OSError, http.client.HTTPException) as error:
                # The server may have closed the idle connection at the same moment.
                if not request.repeatable:
                    raise _lost(error) from error
        try:
            return self._on(self._new(), request)
        except (OSError, http.client.HTTPException) as error:
            raise _lost(error) from error

    def _on(self, connection: http.client.HTTPConnection, request: Request[T]) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._key}"} | request.headers
        body = None
        if request.body is not None:
            body = encode(request.body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(request.method, self._prefix + request.path, body, headers)
            response = connection.getresponse()
            text = response.read()
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return response.status, text

    def _new(self) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._ssl)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _reused(self) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            if time.monotonic() - since < _IDLE_MAX and not _ended(connection):
                return connection
            connection.close()

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        if connection.sock is None:
            return
        with self._lock:
            if len(self._idle) < _IDLE_CONNECTIONS_MAX:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()


class AsyncApi:
    """`Api` for asyncio: each call runs in a thread."""

    def __init__(self, url: str, key: str, *, timeout: float = 10.0, ssl: ssl.SSLContext | None = None) -> None:
        self._api = Api(url, key, timeout=timeout, ssl=ssl)

    def close(self) -> None:
        """Close idle connections."""
        self._api.close()

    async def send(self, message: Outgoing, *, idempotency_key: str | None = None) -> list[Sent]:
        """See `Api.send`."""
        return await self._call(requests.send(message, idempotency_key))

    async def batch(self, messages: Sequence[Outgoing], *, idempotency_key: str | None = None) -> list[list[Sent]]:
        """See `Api.batch`."""
        return await self._call(requests.batch(messages, idempotency_key))

    async def user(self, user: str) -> Connected:
        """See `Api.user`."""
        return await self._call(requests.user(user))

    async def online(self, users: Sequence[str]) -> list[str]:
        """See `Api.online`."""
        return await self._call(requests.online(users))

    async def disconnect(
        self, user: str, *, code: int | None = None, reason: str | None = None, block: str | None = None
    ) -> Disconnected:
        """See `Api.disconnect`."""
        return await self._call(requests.disconnect(user, code, reason, block))

    async def add_to_room(self, room: str, user: str) -> RoomChange:
        """See `Api.add_to_room`."""
        return await self._call(requests.member("PUT", room, user))

    async def remove_from_room(self, room: str, user: str) -> RoomChange:
        """See `Api.remove_from_room`."""
        return await self._call(requests.member("DELETE", room, user))

    async def room(self, room: str) -> RoomInfo:
        """See `Api.room`."""
        return await self._call(requests.room(room))

    async def members(self, room: str) -> RoomMembers:
        """See `Api.members`."""
        return await self._call(requests.members(room))

    async def history(self, room: str, *, before: int | None = None, limit: int | None = None) -> Page:
        """See `Api.history`."""
        return await self._call(requests.history(room, before, limit))

    async def revoke(
        self,
        *,
        jti: str | None = None,
        user: str | None = None,
        issued_before: int | None = None,
        until: int | None = None,
    ) -> int:
        """See `Api.revoke`."""
        return await self._call(requests.revoke(jti, user, issued_before, until))

    async def _call(self, request: Request[T]) -> T:
        return await asyncio.to_thread(self._api._call, request)


def _ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed an idle connection."""
    if connection.sock is None:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def _lost(error: Exception) -> SignalboxError:
    code = "timeout" if isinstance(error, TimeoutError) else "connection_lost"
    return SignalboxError(code, f"no answer from the server: {error!r}")
