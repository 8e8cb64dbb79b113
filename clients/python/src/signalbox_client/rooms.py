"""The rooms that the application wants to be in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .backoff import Backoff
from .calls import Call, Result, new_call
from .dispatch import Dispatcher
from .errors import SignalboxError
from .frames import Json, Message, Place, Position, place_of, text_of
from .membership import Membership
from .options import Options
from .presence import Presence
from .room import Host, JoinOptions, Recovery, Room
from .timers import Timers
from .tokens import TokenFailed, TokenSource

#: The most joins without an answer.
_JOINS_MAX = 50
#: Joins are retried after 1 s to 20 s.
_RETRY_MIN = 1.0
_RETRY_MAX = 20.0


class Rooms:
    """All rooms of a client."""

    def __init__(
        self,
        host: Host,
        options: Options,
        timers: Timers,
        dispatcher: Dispatcher,
        control: Callable[[Call], None],
        settled: Callable[[], None],
        failed: Callable[[SignalboxError], None],
    ) -> None:
        self._host = host
        self._options = options
        self._timers = timers
        self._dispatcher = dispatcher
        self._control = control
        self._settled = settled
        self._failed = failed
        self._handles: dict[str, Room] = {}
        self._memberships: dict[str, Membership] = {}
        self._connected = False
        self._to_join: deque[Membership] = deque()
        self._unanswered = 0
        #: The rooms that messages wait for after a reconnect.
        self._unsettled: set[Membership] = set()

    def handle(self, name: str) -> Room:
        """The room with this name."""
        room = self._handles.get(name)
        if room is None:
            room = Room(name, self._host, self._keep)
            self._handles[name] = room
        return room

    def joined(self) -> list[str]:
        """The names of the rooms that the client is in."""
        return sorted(name for name, membership in self._memberships.items() if membership.joined)

    def request(self, name: str, options: JoinOptions) -> asyncio.Future[bool | None]:
        """The application wants to be in the room, with these options."""
        future: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        membership = self._memberships.get(name)
        if membership is None:
            membership = self._new(name, options)
        elif membership.options == options and membership.joined and membership.call is None:
            future.set_result(membership.room.recovered)
            return future
        elif membership.options != options:
            if membership.options.token != options.token:
                membership.tokens.cancel()
                membership.tokens = self._tokens(name, options)
                membership.stop_fetching()
            membership.options = options
            membership.again = membership.call is not None
        membership.waiters.append(future)
        self._enqueue(membership)
        return future

    def leave(self, name: str) -> bool:
        """The application does not want to be in the room. Returns whether the server has to know."""
        membership = self._memberships.get(name)
        if membership is None:
            return False
        known = membership.joined or membership.call is not None
        self._end(membership, SignalboxError("closed", "the application left the room"))
        return known and self._connected

    def connected(self) -> None:
        """There is a connection: join all rooms again."""
        self._connected = True
        self._unsettled = set(self._memberships.values())
        if not self._unsettled:
            self._settled()
        for membership in list(self._memberships.values()):
            self._enqueue(membership)

    def lost(self) -> None:
        """The connection is gone, and with it all memberships."""
        self._connected = False
        self._to_join.clear()
        self._unanswered = 0
        self._unsettled.clear()
        for membership in self._memberships.values():
            membership.stop()

    def fail_waiting(self, error: SignalboxError) -> None:
        """The client is closed: no join resolves any more. Only the memberships of joined rooms stay."""
        for membership in list(self._memberships.values()):
            membership.tokens.cancel()
            if membership.confirmed:
                membership.fail(error)
            else:
                self._end(membership, error)

    def on_joined(self, payload: dict[str, Json]) -> None:
        """A `joined` came: a member may have missed messages. Before the answer to a join it says nothing new."""
        membership = self._memberships.get(text_of(payload, "room") or "")
        place = place_of(payload)
        if membership is None or place is None or not membership.joined or place.recovered is not False:
            return
        membership.position = place.position
        self._dispatcher.emit(membership.room._on_recovery, Recovery(False, place.reason))

    def on_left(self, payload: dict[str, Json]) -> None:
        """A `left` came. The one after a `leave` finds no membership."""
        membership = self._memberships.get(text_of(payload, "room") or "")
        if membership is None or not membership.joined:
            return
        reason = text_of(payload, "reason")
        membership.joined = False
        if reason == "expired" and membership.tokens.can_fetch:
            membership.tokens.forget()
            membership.fresh = True
            self._enqueue(membership)
            return
        error = SignalboxError(reason or "removed", "the server ended the membership")
        if membership.call is not None:
            # A join is on its way, and would make the client a member again.
            self._control(new_call({"type": "leave", "room": membership.room.name}, lambda _: None))
        self._give_up(membership, error)

    def on_presence(self, payload: dict[str, Json]) -> None:
        """A `presence` came."""
        membership = self._memberships.get(text_of(payload, "room") or "")
        if membership is None:
            return
        membership.room.presence = membership.room.presence.after(payload)
        self._dispatcher.emit(membership.room._on_presence, membership.room.presence)

    def accept(self, message: Message) -> bool:
        """Whether the application gets this message of a room now. A gap leads to another join."""
        membership = self._memberships.get(message.room or "")
        if membership is None or membership.position is None or message.offset is None:
            return True
        expected = membership.position.offset + 1
        if message.offset == expected:
            membership.position = Position(membership.position.epoch, expected)
            return True
        if message.offset > expected and membership.retry is None:
            self._enqueue(membership)
        return False

    def deliver(self, message: Message) -> None:
        """Call the room's own callbacks."""
        room = self._handles.get(message.room or "")
        if room is None:
            return
        for key in (message.type, "*"):
            callbacks = room._by_type.get(key)
            if callbacks is not None:
                self._dispatcher.emit(callbacks, message)

    def _keep(self, room: Room) -> None:
        self._handles.setdefault(room.name, room)

    def _new(self, name: str, options: JoinOptions) -> Membership:
        backoff = Backoff(_RETRY_MIN, _RETRY_MAX, self._options.random)
        room = self.handle(name)
        room.recovered = None
        membership = Membership(room, options, self._tokens(name, options), backoff)
        self._memberships[name] = membership
        return membership

    def _tokens(self, name: str, options: JoinOptions) -> TokenSource:
        token = options.token
        if token is None or isinstance(token, str):
            return TokenSource(self._timers, self._options.token_timeout, token, None)
        fetch = token
        return TokenSource(self._timers, self._options.token_timeout, None, lambda: fetch(name))

    def _enqueue(self, membership: Membership) -> None:
        if not self._connected or membership.call is not None or membership.fetching is not None:
            return
        if membership.retry is not None:
            membership.retry.cancel()
            membership.retry = None
        if membership not in self._to_join:
            self._to_join.append(membership)
        self._pump()

    def _pump(self) -> None:
        while self._to_join and self._unanswered < _JOINS_MAX:
            membership = self._to_join.popleft()
            if membership.tokens.missing:
                membership.fetching = asyncio.ensure_future(self._fetch(membership))
            else:
                self._send(membership)

    async def _fetch(self, membership: Membership) -> None:
        try:
            await membership.tokens.get()
        except TokenFailed as failed:
            membership.fetching = None
            if failed.final:
                self._give_up(membership, failed.error)
            else:
                self._failed(failed.error)
                self._retry(membership)
            return
        membership.fetching = None
        membership.fresh = True
        self._enqueue(membership)

    def _send(self, membership: Membership) -> None:
        since = membership.position
        frame = membership.join_frame()
        call = new_call(frame, lambda result: self._answered(membership, call, since, result))
        membership.call = call
        self._unanswered += 1
        self._control(call)

    def _answered(self, membership: Membership, call: Call, since: Position | None, result: Result) -> None:
        if membership.call is not call:
            return
        membership.call = None
        self._unanswered -= 1
        if isinstance(result, SignalboxError):
            self._refused(membership, result)
        else:
            self._joined(membership, since, place_of(result.get("room")))
        self._settle(membership)
        self._pump()

    def _joined(self, membership: Membership, since: Position | None, place: Place | None) -> None:
        membership.joined = True
        membership.confirmed = True
        membership.fresh = False
        membership.backoff.reset()
        recovered = None
        if place is None:
            membership.position = None
            if since is not None:
                recovered = False
                self._dispatcher.emit(membership.room._on_recovery, Recovery(False, "no_history"))
        elif since is None:
            # Old messages that the client asked for are still to come.
            membership.position = Position(place.position.epoch, place.position.offset - place.count)
        else:
            recovered = place.recovered is True
            if not recovered:
                membership.position = place.position
            self._dispatcher.emit(membership.room._on_recovery, Recovery(recovered, place.reason))
        if membership.again:
            membership.again = False
            self._enqueue(membership)
            return
        membership.room.recovered = recovered
        membership.resolve(recovered)

    def _refused(self, membership: Membership, error: SignalboxError) -> None:
        if membership.again:
            membership.again = False
            self._enqueue(membership)
        elif error.code == "invalid_token" and membership.tokens.can_fetch and not membership.fresh:
            # The token was good for an earlier join, and has expired since.
            membership.tokens.forget()
            self._enqueue(membership)
        elif error.retryable:
            self._retry(membership)
        else:
            self._give_up(membership, error)

    def _retry(self, membership: Membership) -> None:
        if not self._connected:
            return

        def again() -> None:
            membership.retry = None
            self._enqueue(membership)

        membership.retry = self._timers.call_later(membership.backoff.next(), again)

    def _give_up(self, membership: Membership, error: SignalboxError) -> None:
        self._dispatcher.emit(membership.room._on_left, error)
        self._end(membership, error)

    def _end(self, membership: Membership, error: SignalboxError) -> None:
        if membership.call is not None:
            self._unanswered -= 1
        membership.stop()
        membership.tokens.cancel()
        if membership in self._to_join:
            self._to_join.remove(membership)
        room = membership.room
        del self._memberships[room.name]
        room.presence = Presence()
        if not room.has_callbacks:
            self._handles.pop(room.name, None)
        membership.fail(error)
        self._settle(membership)
        self._pump()

    def _settle(self, membership: Membership) -> None:
        if membership in self._unsettled and membership.call is None:
            self._unsettled.discard(membership)
            if not self._unsettled:
                self._settled()
