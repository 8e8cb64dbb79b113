"""Hands the frames of the server to those that they concern."""

from __future__ import annotations

from collections.abc import Callable

from .calls import Calls
from .connection import Connection
from .dispatch import Callback, Callbacks, Dispatcher
from .errors import SignalboxError
from .frames import InvalidFrame, Json, Message, Position, decode, message_of, number_of, place_of
from .room import Recovery
from .rooms import Rooms


class Inbox:
    """The messages for the application, and the position of the user's own ones."""

    def __init__(
        self,
        calls: Calls,
        rooms: Rooms,
        dispatcher: Dispatcher,
        report: Callable[[SignalboxError], None],
        token_expiring: Callable[[float], None],
    ) -> None:
        self._calls = calls
        self._dispatcher = dispatcher
        self._rooms = rooms
        self._report = report
        self._by_type: dict[str, Callbacks[Message]] = {}
        self.on_recovery: Callbacks[Recovery] = Callbacks()
        #: The position of the messages to the user; `None` if they have no history.
        self.position: Position | None = None
        self._built_in: dict[str, Callable[[dict[str, Json]], None]] = {
            "ack": calls.answer,
            "error": self._refused,
            "joined": self._joined,
            "left": rooms.on_left,
            "presence": rooms.on_presence,
            "token_expiring": lambda payload: token_expiring((number_of(payload, "expiresInMs") or 0) / 1000),
            # A second one says nothing.
            "welcome": lambda _: None,
        }

    def on(self, type: str, callback: Callback[Message]) -> Callable[[], None]:
        """Call `callback` with each message of this type."""
        return self._by_type.setdefault(type, Callbacks()).add(callback)

    def welcome(self, payload: dict[str, Json]) -> None:
        """A connection begins."""
        place = place_of(payload.get("user"))
        if place is None:
            self.position = None
            return
        if place.recovered is not True or self.position is None:
            self.position = Position(place.position.epoch, place.position.offset - place.count)
        if place.recovered is not None:
            self._dispatcher.emit(self.on_recovery, Recovery(place.recovered, place.reason))

    def receive(self, text: str | bytes, connection: Connection) -> None:
        """A frame came."""
        try:
            kind, payload, frame = decode(text)
            handle = self._built_in.get(kind)
            if handle is None:
                self._message(message_of(frame), connection)
            elif isinstance(payload, dict):
                handle(payload)
            else:
                raise InvalidFrame(f"a frame `{kind}` has no payload")
        except InvalidFrame as error:
            self._report(SignalboxError("invalid_frame", str(error)))

    def _message(self, message: Message, connection: Connection) -> None:
        if message.room is not None:
            accepted = self._rooms.accept(message)
        else:
            accepted = self._accept(message, connection)
        if not accepted:
            return
        for key in (message.type, "*"):
            callbacks = self._by_type.get(key)
            if callbacks is not None:
                self._dispatcher.emit(callbacks, message)
        if message.room is not None:
            self._rooms.deliver(message)

    def _accept(self, message: Message, connection: Connection) -> bool:
        """Whether the application gets this message of the user. A gap leads to a reconnect."""
        position = self.position
        if position is None or message.offset is None:
            return True
        expected = position.offset + 1
        if message.offset == expected:
            self.position = Position(position.epoch, expected)
            return True
        if message.offset > expected:
            connection.drop("messages to the user are missing")
        return False

    def _joined(self, payload: dict[str, Json]) -> None:
        place = place_of(payload.get("user"))
        if place is None:
            self._rooms.on_joined(payload)
        elif self.position is not None and place.recovered is False:
            # Messages to the user were missed, and the server cannot deliver them any more.
            self.position = place.position
            self._dispatcher.emit(self.on_recovery, Recovery(False, place.reason))

    def _refused(self, payload: dict[str, Json]) -> None:
        plugin = payload.get("plugin")
        error = SignalboxError(
            str(payload.get("code")),
            str(payload.get("message")),
            retryable=payload.get("retryable") is True,
            plugin=plugin if isinstance(plugin, str) else None,
        )
        call_id = payload.get("id")
        if isinstance(call_id, str):
            self._calls.refuse(call_id, error)
        else:
            self._report(error)
