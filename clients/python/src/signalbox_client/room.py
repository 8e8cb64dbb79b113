"""A room, as the application sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from .dispatch import Callback, Callbacks
from .errors import SignalboxError
from .frames import Answer, Json, Message, Page
from .presence import Presence

#: A token for a room, or a coroutine function that gets the room's name and returns one.
RoomToken = str | Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What the application wants in a room."""

    last: int | None = None
    presence: bool = False
    token: RoomToken | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """Whether messages were missed while the client was away. If so, reload your state."""

    recovered: bool
    #: Why they cannot be delivered: `epoch`, `expired`, `too_many`, or `no_history` if the room has none any more.
    reason: str | None = None


class Host(Protocol):
    """The client, as far as a room needs it."""

    async def join(
        self, room: str, *, last: int | None = None, presence: bool = False, token: RoomToken | None = None
    ) -> Room: ...

    async def leave(self, room: str) -> None: ...

    async def send(
        self, type: str, payload: Json = None, *, to: str | None = None, room: str | None = None, once: bool = False
    ) -> Answer: ...

    async def history(self, room: str, *, before: int | None = None, limit: int | None = None) -> Page: ...


class Room:
    """A room: its callbacks, its users, and the calls for it."""

    def __init__(self, name: str, host: Host, keep: Callable[[Room], None]) -> None:
        self.name = name
        self._keep = keep
        #: The users, if the room was joined with `presence=True`.
        self.presence = Presence()
        #: Whether the client is a member now.
        self.joined = False
        #: Whether the last join of the application recovered all messages; `None` if there was nothing to recover.
        self.recovered: bool | None = None
        self._host = host
        self._by_type: dict[str, Callbacks[Message]] = {}
        self._on_presence: Callbacks[Presence] = Callbacks()
        self._on_recovery: Callbacks[Recovery] = Callbacks()
        self._on_left: Callbacks[SignalboxError] = Callbacks()

    @property
    def has_callbacks(self) -> bool:
        """Whether the application waits for anything in this room."""
        others = self._on_presence, self._on_recovery, self._on_left
        return any(self._by_type.values()) or any(others)

    def on(self, type: str, callback: Callback[Message]) -> Callable[[], None]:
        """Call `callback` with each message of this type to the room; `*` for every type. Returns the function that ends it.

        Callbacks outlive `leave`: remove them if the client is not to remember the room.
        """
        self._keep(self)
        return self._by_type.setdefault(type, Callbacks()).add(callback)

    def on_presence(self, callback: Callback[Presence]) -> Callable[[], None]:
        """Call `callback` with the users of the room after each change."""
        self._keep(self)
        return self._on_presence.add(callback)

    def on_recovery(self, callback: Callback[Recovery]) -> Callable[[], None]:
        """Call `callback` after each rejoin, before any later message of the room."""
        self._keep(self)
        return self._on_recovery.add(callback)

    def on_left(self, callback: Callback[SignalboxError]) -> Callable[[], None]:
        """Call `callback` when the server ended the membership, or refused it, for good."""
        self._keep(self)
        return self._on_left.add(callback)

    async def join(
        self, *, last: int | None = None, presence: bool = False, token: RoomToken | None = None
    ) -> Room:
        """Join, see `Client.join`."""
        self._keep(self)
        return await self._host.join(self.name, last=last, presence=presence, token=token)

    async def leave(self) -> None:
        """Leave, see `Client.leave`."""
        await self._host.leave(self.name)

    async def send(self, type: str, payload: Json = None, *, once: bool = False) -> Answer:
        """Send a message to the room, see `Client.send`."""
        return await self._host.send(type, payload, room=self.name, once=once)

    async def history(self, *, before: int | None = None, limit: int | None = None) -> Page:
        """Read older messages, see `Client.history`."""
        return await self._host.history(self.name, before=before, limit=limit)
