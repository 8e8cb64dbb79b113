"""The client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from .attempt import Attempt
from .backoff import Backoff
from .calls import Calls, Result, new_call
from .connection import Connection
from .dispatch import Callback, Callbacks, Dispatcher
from .errors import SignalboxError
from .fallback import Fallback
from .frames import Answer, Json, Message, Page, page_of
from .inbox import Inbox
from .link import Transport
from .options import Options
from .outcomes import End, Ended, Next
from .renewal import Renewal
from .room import JoinOptions, Recovery, Room, RoomToken
from .rooms import Rooms
from .timers import Alarm, Timer, Timers
from .tokens import TokenFailed, TokenSource

_LOG = logging.getLogger("signalbox_client")

#: How long messages wait for the rooms after a reconnect, in seconds.
_SETTLE_TIMEOUT = 10.0
#: A token that the server refuses so often is wrong.
_REFUSALS_MAX = 3
#: A wait for the next attempt ends early at most this often, in seconds.
_WAKE_PAUSE = 5.0

State = Literal["disconnected", "connecting", "connected", "closed"]


@dataclass(frozen=True, slots=True)
class StateChange:
    """The new state of a client, and why."""

    state: State
    #: The close code of the server.
    code: int | None = None
    #: The HTTP status of a refused upgrade.
    status: int | None = None
    reason: str | None = None
    #: The time until the next attempt, in seconds.
    retry_in: float | None = None
    #: How frames travel, in the state `connected`.
    transport: Transport | None = None


class Client:
    """A connection to Signalbox that comes back, with its rooms and its calls.

    Use it in one event loop. Callbacks may be functions or coroutine functions; they run one after another, in the order in
    which the frames came. One of `user_id` (for `auth.mode = "none"`), `token` and `get_token` is needed. `get_token` is a
    coroutine function; if it raises `TokenDenied`, the client is closed.
    """

    def __init__(
        self,
        url: str,
        *,
        user_id: str | None = None,
        token: str | None = None,
        get_token: Callable[[], Awaitable[str]] | None = None,
        options: Options | None = None,
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"the URL must begin with ws:// or wss://: {url!r}")
        if sum(given is not None for given in (user_id, token, get_token)) != 1:
            raise ValueError("give one of user_id, token and get_token")
        self._url = url
        self._user_id = user_id
        self._options = options or Options()
        self._timers: Timers = self._options.timers or _LoopTimers()
        self._state: State = "disconnected"
        self._run_task: asyncio.Task[None] | None = None
        self._alarm: Alarm | None = None
        self._woken = float("-inf")
        self._connection: Connection | None = None
        self._settle_timer: Timer | None = None
        # Refused attempts since the last connection.
        self._refusals = 0
        self._backoff = self._new_backoff()
        self._fallback = Fallback(self._options, self._timers)
        self._tokens = TokenSource(self._timers, self._options.token_timeout, token, get_token)
        self._dispatcher = Dispatcher(self._options.callbacks_max, self._report)
        self._calls = Calls(self._options, self._timers)
        self._rooms = Rooms(
            self, self._options, self._timers, self._dispatcher, self._calls.control, self._flow, self._report
        )
        self._renewal = Renewal(self._options, self._timers, self._tokens, self._calls, self._report)
        self._inbox = Inbox(self._calls, self._rooms, self._dispatcher, self._report, self._token_expiring)
        self._on_state: Callbacks[StateChange] = Callbacks()
        self._on_error: Callbacks[SignalboxError] = Callbacks()

    # Its life

    @property
    def state(self) -> State:
        """`disconnected`, `connecting`, `connected` or `closed`."""
        return self._state

    def connect(self) -> None:
        """Connect, and stay connected until `close`. A wait for the next attempt ends, as with `wake`."""
        if self._state == "closed" or (self._state == "disconnected" and self._run_task is None):
            self._backoff = self._new_backoff()
            self._refusals = 0
            self._fallback.start()
            # The socket of an earlier run may still be closing.
            self._run_task = asyncio.ensure_future(self._run(self._run_task))
            self._change(StateChange("connecting"))
        else:
            self.wake()

    async def close(self) -> None:
        """End the connection, and fail all calls that wait with `closed`."""
        if self._state != "closed":
            self._dispatcher.clear()
            self._shut(StateChange("closed"))
        task = self._run_task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})

    def wake(self) -> None:
        """The network is back: end the wait for the next attempt, at most once in 5 s."""
        now = self._timers.time()
        if self._alarm is not None and now - self._woken >= _WAKE_PAUSE:
            self._woken = now
            self._alarm.end()

    async def __aenter__(self) -> Client:
        self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Callbacks

    def on(self, type: str, callback: Callback[Message]) -> Callable[[], None]:
        """Call `callback` with each message of this type; `*` for every type. Returns the function that ends it."""
        return self._inbox.on(type, callback)

    def on_state(self, callback: Callback[StateChange]) -> Callable[[], None]:
        """Call `callback` with each change of the state."""
        return self._on_state.add(callback)

    def on_error(self, callback: Callback[SignalboxError]) -> Callable[[], None]:
        """Call `callback` with errors that no call gets. Without a callback they are logged."""
        return self._on_error.add(callback)

    def on_recovery(self, callback: Callback[Recovery]) -> Callable[[], None]:
        """Call `callback` after a reconnect, with whether the user's own messages were recovered."""
        return self._inbox.on_recovery.add(callback)

    # Rooms

    def room(self, name: str) -> Room:
        """The room with this name, to add callbacks before `join`. This alone joins nothing."""
        return self._rooms.handle(name)

    async def join(
        self, room: str, *, last: int | None = None, presence: bool = False, token: RoomToken | None = None
    ) -> Room:
        """Join a room now or as soon as there is a connection, and again after each reconnect, until `leave`.

        `last` asks for as many old messages, `presence` for the users in the room. `token` is a token for the room, or a
        coroutine function that gets the room's name and returns one. Returns when the client is a member for the first time.
        """
        if self._state == "closed":
            raise _closed()
        handle = self._rooms.handle(room)
        await self._rooms.request(room, JoinOptions(last, presence, token))
        return handle

    async def leave(self, room: str) -> None:
        """Leave a room. Returns when the server has answered, or the connection is gone."""
        if not self._rooms.leave(room):
            return
        future = _future()
        self._calls.control(new_call({"type": "leave", "room": room}, _resolve(future)))
        try:
            await future
        except SignalboxError as error:
            if error.code not in ("connection_lost", "closed"):
                raise

    # Calls

    async def send(
        self, type: str, payload: Json = None, *, to: str | None = None, room: str | None = None, once: bool = False
    ) -> Answer:
        """Send a message to a user, to a room, or to the plugin that handles its type, and return the answer.

        With `once` it is sent again after a lost connection, and the server does not act twice.
        """
        frame: dict[str, Json] = {"type": type, "payload": payload}
        if to is not None:
            frame["receiverId"] = to
        if room is not None:
            frame["room"] = room
        ack = await self._call(frame, once)
        return Answer(
            status=str(ack.get("status")),
            message_id=str(ack.get("messageId")),
            data=ack.get("data"),
            duplicate=ack.get("duplicate") is True,
        )

    async def request(self, type: str, payload: Json = None) -> Json:
        """Send a request to the plugin that handles its type, and return the data of the answer."""
        return (await self.send(type, payload, once=True)).data

    async def history(self, room: str, *, before: int | None = None, limit: int | None = None) -> Page:
        """Read messages of the history of a room that the client has joined: the newest ones, or those before an offset."""
        payload = {name: value for name, value in (("before", before), ("limit", limit)) if value is not None}
        ack = await self._call({"type": "history", "room": room, "payload": payload}, once=False)
        return page_of(ack.get("history"))

    @property
    def joined(self) -> list[str]:
        """The names of the rooms that the client is in now."""
        return self._rooms.joined()

    @property
    def queued(self) -> int:
        """The number of messages that wait for the connection."""
        return self._calls.queued

    async def _call(self, frame: dict[str, Json], once: bool) -> dict[str, Json]:
        if self._state == "closed":
            raise _closed()
        future: asyncio.Future[dict[str, Json]] = _future()
        call = new_call(frame, _resolve(future), once=once)
        self._calls.start(call)
        try:
            return await future
        finally:
            self._calls.forget(call)

    # The task that owns the connection

    async def _run(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None and not earlier.done():
            await asyncio.wait({earlier})
        while True:
            end = await self._attempt()
            if self._run_task is not asyncio.current_task() or self._state == "closed":
                return
            accepted = self._connection is not None
            if self._connection is not None:
                self._disconnected(self._connection)
            final = self._final(end, accepted)
            if final is not None:
                self._report(final)
                self._shut(StateChange("closed", end.code, end.status, end.reason))
                return
            delay = max(self._backoff.next(is_short=end.paired), end.retry_after)
            self._alarm = Alarm(self._timers, delay)
            self._change(StateChange("disconnected", end.code, end.status, end.reason, delay))
            try:
                await self._alarm.wait()
            finally:
                self._alarm = None
            self._change(StateChange("connecting"))

    async def _attempt(self) -> End:
        try:
            token = await self._tokens.get()
        except TokenFailed as failed:
            if not failed.final:
                self._report(failed.error)
            return End(reason=failed.error.message, denied=failed.final)
        try:
            transport = self._fallback.begin()
            connection = await Attempt(self._url, self._options, self._timers, self._report, transport).connect(
                self._query(), token
            )
        except Ended as ended:
            return self._fallback.failed(ended.end)
        try:
            return await self._serve(connection)
        finally:
            self._fallback.start()
            # Only `close` cancels this task.
            if self._state == "closed":
                connection.stop()
                await connection.link.close()
            else:
                connection.abort()

    def _query(self) -> dict[str, str]:
        query = {} if self._user_id is None else {"userId": self._user_id}
        position = self._inbox.position
        if position is not None:
            query["since"] = f"{position.epoch}:{position.offset}"
        return query

    async def _serve(self, connection: Connection) -> End:
        self._connected(connection)
        try:
            while True:
                self._inbox.receive(await connection.link.receive(), connection)
                if self._dispatcher.full:
                    connection.pause()
                    await self._dispatcher.ready()
                    connection.resume()
        except Ended as ended:
            return connection.end or ended.end

    def _connected(self, connection: Connection) -> None:
        self._connection = connection
        self._refusals = 0
        self._fallback.connected()
        connection.supervise(self._timers, self._options, self._calls, self._ask_for_life, self._backoff.reset)
        self._change(StateChange("connected", transport=connection.link.transport))
        self._inbox.welcome(connection.welcome)
        self._calls.connected(connection.link, connection.frame_bytes_max)
        self._settle_timer = self._timers.call_later(_SETTLE_TIMEOUT, self._flow)
        self._rooms.connected()

    def _disconnected(self, connection: Connection) -> None:
        self._connection = None
        connection.stop()
        self._stop_settling()
        self._renewal.stop()
        self._rooms.lost()
        self._calls.lost()

    def _final(self, end: End, accepted: bool) -> SignalboxError | None:
        """The error that ends the client for good, if there is one. `accepted`: there was a connection."""
        if end.denied:
            return SignalboxError("unauthorized", end.reason)
        following = end.next()
        if following is Next.RECONNECT:
            return None
        if following is Next.NEW_TOKEN:
            self._refusals += 0 if accepted else 1
            if self._tokens.can_fetch and self._refusals < _REFUSALS_MAX:
                self._tokens.forget()
                return None
            code = "unauthorized"
        else:
            code = "unsupported_protocol" if end.unsupported else "refused"
        return SignalboxError(code, end.reason, status=end.status, close_code=end.code)

    def _shut(self, change: StateChange) -> None:
        """The client is closed from now on; its task closes the socket."""
        self._rooms.lost()
        self._rooms.fail_waiting(_closed())
        self._calls.fail_all(_closed())
        if self._connection is not None:
            self._disconnected(self._connection)
        self._tokens.cancel()
        self._tokens.forget()
        self._change(change)

    def _flow(self) -> None:
        self._stop_settling()
        self._calls.flow()

    def _stop_settling(self) -> None:
        if self._settle_timer is not None:
            self._settle_timer.cancel()
            self._settle_timer = None

    def _ask_for_life(self) -> None:
        self._calls.control(new_call({"type": "heartbeat"}, _ignore))

    def _token_expiring(self, expires_in: float) -> None:
        if self._connection is not None:
            self._renewal.start(self._connection, expires_in)

    # Events

    def _change(self, change: StateChange) -> None:
        self._state = change.state
        self._dispatcher.emit(self._on_state, change)

    def _report(self, error: SignalboxError) -> None:
        if self._state == "closed":
            return
        if len(self._on_error) == 0:
            _LOG.warning("%s", error)
        self._dispatcher.emit(self._on_error, error)

    def _new_backoff(self) -> Backoff:
        return Backoff(self._options.backoff_min, self._options.backoff_max, self._options.random)


class _LoopTimers:
    """The clock of the event loop that runs."""

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)


def _closed() -> SignalboxError:
    return SignalboxError("closed", "the client is closed")


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _resolve(future: asyncio.Future[Any]) -> Callable[[Result], None]:
    def resolve(result: Result) -> None:
        if future.done():
            return
        if isinstance(result, SignalboxError):
            future.set_exception(result)
        else:
            future.set_result(result)

    return resolve


def _ignore(result: Result) -> None:
    """Any frame is a sign of life."""
