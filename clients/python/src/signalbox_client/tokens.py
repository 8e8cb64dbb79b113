"""Tokens and the callbacks that fetch them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .errors import SignalboxError, TokenDenied
from .timers import Timers, within

#: A coroutine function of the application that returns a token.
Fetch = Callable[[], Awaitable[str]]


class TokenFailed(Exception):
    """A token callback failed. `final`: it need not be called again."""

    def __init__(self, error: SignalboxError, final: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.final = final


class TokenSource:
    """A token that the application gave, or the callback that fetches one. The callback never runs twice at the same time."""

    def __init__(self, timers: Timers, timeout: float, token: str | None, fetch: Fetch | None) -> None:
        self._timers = timers
        self._timeout = timeout
        self._token = token
        self._fetch = fetch
        self._running: asyncio.Task[str] | None = None
        self._cancelled = False

    @property
    def can_fetch(self) -> bool:
        """Whether the application gave a callback."""
        return self._fetch is not None

    @property
    def current(self) -> str | None:
        """The token, if there is one now."""
        return self._token

    @property
    def missing(self) -> bool:
        """Whether the callback must be called first."""
        return self._token is None and self._fetch is not None

    def forget(self) -> None:
        """The token is worth nothing any more, or soon. Without a callback there is no other."""
        if self._fetch is not None:
            self._token = None

    async def get(self) -> str | None:
        """The token; `None` if the client has none. May raise `TokenFailed`."""
        if self.missing:
            self._token = await self._fetched()
        return self._token

    def cancel(self) -> None:
        """End a callback that runs."""
        if self._running is not None:
            self._cancelled = True
            self._running.cancel()

    async def _fetched(self) -> str:
        while self._running is not None and self._cancelled:
            await asyncio.wait({self._running})
        if self._running is None:
            self._cancelled = False
            self._running = asyncio.ensure_future(self._call())
            self._running.add_done_callback(self._ended)
        running = self._running
        # Several may wait for the same call, so none of them cancels it.
        return await asyncio.shield(running)

    async def _call(self) -> str:
        assert self._fetch is not None
        fetch = self._fetch

        async def call() -> str:
            return await fetch()

        try:
            token = await within(self._timers, self._timeout, call())
        except TokenDenied as denied:
            raise TokenFailed(SignalboxError("unauthorized", f"no token: {denied}"), final=True) from denied
        except TimeoutError as error:
            raise _failed(f"the token callback took longer than {self._timeout:g} s") from error
        except Exception as error:
            raise _failed(f"the token callback failed: {error!r}") from error
        if not isinstance(token, str):
            raise _failed("the token callback returned something other than a string")
        return token

    def _ended(self, task: asyncio.Task[str]) -> None:
        self._running = None
        if not task.cancelled():
            # Its waiters may have gone.
            task.exception()


def _failed(message: str) -> TokenFailed:
    return TokenFailed(SignalboxError("token_failed", message, retryable=True), final=False)
