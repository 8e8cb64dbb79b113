"""Server-sent events."""

from __future__ import annotations

from dataclasses import dataclass


class EventTooLarge(Exception):
    """An event is larger than the client takes."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event with data."""

    name: str
    data: str


class EventParser:
    """Reads events from the bytes of a stream, in pieces of any size."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._line = bytearray()
        # The last piece ended with a carriage return, so a line feed at the beginning of the next one ends no line.
        self._after_return = False
        self._begun = False
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece. Raises `EventTooLarge`."""
        if self._after_return and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_return = False
        if not piece:
            return []
        self._after_return = piece.endswith(b"\r")
        first, *others = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._grow(first)
        events = []
        for following in others:
            event = self._end_line()
            if event is not None:
                events.append(event)
            self._grow(following)
        return events

    def _grow(self, piece: bytes) -> None:
        self._line += piece
        if self._size + len(self._line) > self._bytes_max:
            raise EventTooLarge(f"an event has more than {self._bytes_max} bytes")

    def _end_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if not self._begun:
            self._begun = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._end_event()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _end_event(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        if not data:
            return None
        return Event(name, b"\n".join(data).decode("utf-8", "replace"))
