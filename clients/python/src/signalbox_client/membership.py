"""A room that the application wants to be in."""

from __future__ import annotations

import asyncio

from .backoff import Backoff
from .calls import Call
from .errors import SignalboxError
from .frames import Json, Position
from .room import JoinOptions, Room
from .timers import Timer
from .tokens import TokenSource


class Membership:
    """A room that the application wants to be in, and the state of its joins."""

    def __init__(self, room: Room, options: JoinOptions, tokens: TokenSource, backoff: Backoff) -> None:
        self.room = room
        self.options = options
        self.tokens = tokens
        self.backoff = backoff
        self.position: Position | None = None
        #: The join that waits for its answer.
        self.call: Call | None = None
        #: The task that fetches a token for the next join.
        self.fetching: asyncio.Task[None] | None = None
        #: Whether the client was a member before.
        self.confirmed = False
        #: Whether the token was never accepted yet.
        self.fresh = True
        #: Whether to join once more after the answer.
        self.again = False
        self.retry: Timer | None = None
        self.waiters: list[asyncio.Future[bool | None]] = []

    @property
    def joined(self) -> bool:
        """Whether the client is a member now."""
        return self.room.joined

    @joined.setter
    def joined(self, joined: bool) -> None:
        self.room.joined = joined

    def stop(self) -> None:
        """End everything that would lead to another join."""
        self.joined = False
        self.call = None
        self.again = False
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        self.stop_fetching()

    def stop_fetching(self) -> None:
        """Wait for no token."""
        if self.fetching is not None:
            self.fetching.cancel()
            self.fetching = None

    def join_frame(self) -> dict[str, Json]:
        """The next join."""
        payload: dict[str, Json] = {}
        if self.position is not None:
            payload["since"] = {"epoch": self.position.epoch, "offset": self.position.offset}
        elif self.options.last is not None:
            payload["last"] = self.options.last
        if self.options.presence:
            payload["presence"] = True
        if self.tokens.current is not None:
            payload["token"] = self.tokens.current
        frame: dict[str, Json] = {"type": "join", "room": self.room.name}
        return frame | {"payload": payload} if payload else frame

    def resolve(self, recovered: bool | None) -> None:
        """The joins of the application have succeeded."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(recovered)

    def fail(self, error: SignalboxError) -> None:
        """The joins of the application have failed."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
