"""Replaces the token of a connection before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .backoff import Backoff
from .calls import Calls, Result, new_call
from .connection import Connection
from .errors import SignalboxError
from .options import Options
from .timers import Alarm, Timers
from .tokens import TokenFailed, TokenSource

#: A token that expires so soon after another was replaced lives no longer than that, in seconds.
_SHORT = 30.0


class Renewal:
    """At most one task, which tries until it succeeds, fails for good, or the connection is gone."""

    def __init__(
        self,
        options: Options,
        timers: Timers,
        tokens: TokenSource,
        calls: Calls,
        report: Callable[[SignalboxError], None],
    ) -> None:
        self._options = options
        self._timers = timers
        self._tokens = tokens
        self._calls = calls
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self._replaced = float("-inf")
        #: The time that is left to the new token, if the server has announced its end already.
        self._next: float | None = None

    def start(self, connection: Connection, expires_in: float) -> None:
        """The token of the connection expires in so many seconds."""
        if not self._tokens.can_fetch:
            return
        self._next = expires_in
        if self._task is None:
            self._task = asyncio.ensure_future(self._run(connection))

    def stop(self) -> None:
        """The connection is gone."""
        self._next = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, connection: Connection) -> None:
        while self._next is not None:
            expires_in, self._next = self._next, None
            if self._timers.time() - self._replaced < _SHORT:
                # The server announces the end of a short-lived token at once.
                await Alarm(self._timers, max(1.0, expires_in / 2)).wait()
            self._tokens.forget()
            error = await self._replace(connection)
            if error is not None:
                self._report(error)
                break
            self._replaced = self._timers.time()
        self._task = None

    async def _replace(self, connection: Connection) -> SignalboxError | None:
        options = self._options
        backoff = Backoff(options.backoff_min, options.backoff_max, options.random)
        while True:
            error = await self._once(connection)
            if error is None or not error.retryable:
                return error
            await Alarm(self._timers, backoff.next()).wait()

    async def _once(self, connection: Connection) -> SignalboxError | None:
        try:
            token = await self._tokens.get()
        except TokenFailed as failed:
            if failed.final:
                connection.deny(failed.error.message)
                return None
            self._report(failed.error)
            return failed.error
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def answered(result: Result) -> None:
            if not answer.done():
                answer.set_result(result)

        self._calls.control(new_call({"type": "token", "payload": token}, answered))
        result = await answer
        if not isinstance(result, SignalboxError):
            return None
        if result.code == "invalid_token":
            self._tokens.forget()
        return result
