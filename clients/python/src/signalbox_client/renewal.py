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

    def start(self, connection: Connection) -> None:
        """The token of the connection expires soon."""
        if self._tokens.can_fetch and self._task is None:
            self._tokens.forget()
            self._task = asyncio.ensure_future(self._run(connection))

    def stop(self) -> None:
        """The connection is gone."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, connection: Connection) -> None:
        options = self._options
        backoff = Backoff(options.backoff_min, options.backoff_max, options.random)
        while True:
            error = await self._once(connection)
            if error is None or not error.retryable:
                break
            await Alarm(self._timers, backoff.next()).wait()
        self._task = None
        if error is not None:
            self._report(error)

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
