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
        self._wishes: dict[str, Membership] = {}
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
        return sorted(name for name, wish in self._wishes.items() if wish.joined)

    def wish(self, name: str, options: JoinOptions) -> asyncio.Future[bool | None]:
        """The application wants to be in the room, with these options."""
        future: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        wish = self._wishes.get(name)
        if wish is None:
            wish = self._new(name, options)
        elif wish.options == options and wish.joined and wish.call is None:
            future.set_result(wish.room.recovered)
            return future
        elif wish.options != options:
            if wish.options.token != options.token:
                wish.tokens.cancel()
                wish.tokens = self._tokens(name, options)
                wish.stop_fetching()
            wish.options = options
            wish.again = wish.call is not None
        wish.waiters.append(future)
        self._enqueue(wish)
        return future

    def leave(self, name: str) -> bool:
        """The application does not want to be in the room. Returns whether the server has to know."""
        wish = self._wishes.get(name)
        if wish is None:
            return False
        known = wish.joined or wish.call is not None
        self._end(wish, SignalboxError("closed", "the application left the room"))
        return known and self._connected

    def connected(self) -> None:
        """There is a connection: join all rooms again."""
        self._connected = True
        self._unsettled = set(self._wishes.values())
        if not self._unsettled:
            self._settled()
        for wish in list(self._wishes.values()):
            self._enqueue(wish)

    def lost(self) -> None:
        """The connection is gone, and with it all memberships."""
        self._connected = False
        self._to_join.clear()
        self._unanswered = 0
        self._unsettled.clear()
        for wish in self._wishes.values():
            wish.stop()

    def fail_waiting(self, error: SignalboxError) -> None:
        """The client is closed: no join resolves any more. Only rooms that were joined stay wishes."""
        for wish in list(self._wishes.values()):
            wish.tokens.cancel()
            if wish.confirmed:
                wish.fail(error)
            else:
                self._end(wish, error)

    def on_joined(self, payload: dict[str, Json]) -> None:
        """A `joined` came: a member may have missed messages. Before the answer to a join it says nothing new."""
        wish = self._wishes.get(text_of(payload, "room") or "")
        place = place_of(payload)
        if wish is None or place is None or not wish.joined or place.recovered is not False:
            return
        wish.position = place.position
        self._dispatcher.emit(wish.room._on_recovery, Recovery(False, place.reason))

    def on_left(self, payload: dict[str, Json]) -> None:
        """A `left` came. The one after a `leave` finds no membership."""
        wish = self._wishes.get(text_of(payload, "room") or "")
        if wish is None or not wish.joined:
            return
        reason = text_of(payload, "reason")
        wish.joined = False
        if reason == "expired" and wish.tokens.can_fetch:
            wish.tokens.forget()
            wish.fresh = True
            self._enqueue(wish)
            return
        error = SignalboxError(reason or "removed", "the server ended the membership")
        if wish.call is not None:
            # A join is on its way, and would make the client a member again.
            self._control(new_call({"type": "leave", "room": wish.room.name}, lambda _: None))
        self._give_up(wish, error)

    def on_presence(self, payload: dict[str, Json]) -> None:
        """A `presence` came."""
        wish = self._wishes.get(text_of(payload, "room") or "")
        if wish is None:
            return
        wish.room.presence = wish.room.presence.after(payload)
        self._dispatcher.emit(wish.room._on_presence, wish.room.presence)

    def accept(self, message: Message) -> bool:
        """Whether the application gets this message of a room now. A gap leads to another join."""
        wish = self._wishes.get(message.room or "")
        if wish is None or wish.position is None or message.offset is None:
            return True
        expected = wish.position.offset + 1
        if message.offset == expected:
            wish.position = Position(wish.position.epoch, expected)
            return True
        if message.offset > expected and wish.retry is None:
            self._enqueue(wish)
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
        wish = Membership(room, options, self._tokens(name, options), backoff)
        self._wishes[name] = wish
        return wish

    def _tokens(self, name: str, options: JoinOptions) -> TokenSource:
        token = options.token
        if token is None or isinstance(token, str):
            return TokenSource(self._timers, self._options.token_timeout, token, None)
        fetch = token
        return TokenSource(self._timers, self._options.token_timeout, None, lambda: fetch(name))

    def _enqueue(self, wish: Membership) -> None:
        if not self._connected or wish.call is not None or wish.fetching is not None:
            return
        if wish.retry is not None:
            wish.retry.cancel()
            wish.retry = None
        if wish not in self._to_join:
            self._to_join.append(wish)
        self._pump()

    def _pump(self) -> None:
        while self._to_join and self._unanswered < _JOINS_MAX:
            wish = self._to_join.popleft()
            if wish.tokens.missing:
                wish.fetching = asyncio.ensure_future(self._fetch(wish))
            else:
                self._send(wish)

    async def _fetch(self, wish: Membership) -> None:
        try:
            await wish.tokens.get()
        except TokenFailed as failed:
            wish.fetching = None
            if failed.final:
                self._give_up(wish, failed.error)
            else:
                self._failed(failed.error)
                self._retry(wish)
            return
        wish.fetching = None
        wish.fresh = True
        self._enqueue(wish)

    def _send(self, wish: Membership) -> None:
        since = wish.position
        frame = wish.join_frame()
        call = new_call(frame, lambda result: self._answered(wish, call, since, result))
        wish.call = call
        self._unanswered += 1
        self._control(call)

    def _answered(self, wish: Membership, call: Call, since: Position | None, result: Result) -> None:
        if wish.call is not call:
            return
        wish.call = None
        self._unanswered -= 1
        if isinstance(result, SignalboxError):
            self._refused(wish, result)
        else:
            self._joined(wish, since, place_of(result.get("room")))
        self._settle(wish)
        self._pump()

    def _joined(self, wish: Membership, since: Position | None, place: Place | None) -> None:
        wish.joined = True
        wish.confirmed = True
        wish.fresh = False
        wish.backoff.reset()
        recovered = None
        if place is None:
            wish.position = None
            if since is not None:
                recovered = False
                self._dispatcher.emit(wish.room._on_recovery, Recovery(False, "no_history"))
        elif since is None:
            # Old messages that the client asked for are still to come.
            wish.position = Position(place.position.epoch, place.position.offset - place.count)
        else:
            recovered = place.recovered is True
            if not recovered:
                wish.position = place.position
            self._dispatcher.emit(wish.room._on_recovery, Recovery(recovered, place.reason))
        if wish.again:
            wish.again = False
            self._enqueue(wish)
            return
        wish.room.recovered = recovered
        wish.resolve(recovered)

    def _refused(self, wish: Membership, error: SignalboxError) -> None:
        if wish.again:
            wish.again = False
            self._enqueue(wish)
        elif error.code == "invalid_token" and wish.tokens.can_fetch and not wish.fresh:
            # The token was good for an earlier join, and has expired since.
            wish.tokens.forget()
            self._enqueue(wish)
        elif error.retryable:
            self._retry(wish)
        else:
            self._give_up(wish, error)

    def _retry(self, wish: Membership) -> None:
        if not self._connected:
            return

        def again() -> None:
            wish.retry = None
            self._enqueue(wish)

        wish.retry = self._timers.call_later(wish.backoff.next(), again)

    def _give_up(self, wish: Membership, error: SignalboxError) -> None:
        self._dispatcher.emit(wish.room._on_left, error)
        self._end(wish, error)

    def _end(self, wish: Membership, error: SignalboxError) -> None:
        if wish.call is not None:
            self._unanswered -= 1
        wish.stop()
        wish.tokens.cancel()
        if wish in self._to_join:
            self._to_join.remove(wish)
        room = wish.room
        del self._wishes[room.name]
        room.presence = Presence()
        if not room.has_callbacks:
            self._handles.pop(room.name, None)
        wish.fail(error)
        self._settle(wish)
        self._pump()

    def _settle(self, wish: Membership) -> None:
        if wish in self._unsettled and wish.call is None:
            self._unsettled.discard(wish)
            if not self._unsettled:
                self._settled()
