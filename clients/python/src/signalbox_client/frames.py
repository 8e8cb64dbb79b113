"""The frames of the protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

#: Any JSON value.
Json = Any


@dataclass(frozen=True, slots=True)
class Message:
    """A message to the user, to a room, or to everyone."""

    type: str
    payload: Json
    #: The user who sent it; empty for the platform.
    sender: str
    #: The user to whom it was sent; empty for a message to a room or to everyone.
    receiver: str
    #: When the server received it, in RFC 3339 with microseconds.
    timestamp: str
    room: str | None = None
    message_id: str | None = None
    #: Its number in the history of the room or of the user.
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of the server to a call."""

    #: `delivered`, `offline`, `kept` or `handled`.
    status: str
    message_id: str
    #: The data with which a plugin answered.
    data: Json = None
    #: Whether the server had handled the call before, and repeats its answer.
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of a room's history, oldest first."""

    messages: list[Message]
    #: Whether older messages are kept: ask again, with the smallest offset as `before`.
    has_older: bool


@dataclass(frozen=True, slots=True)
class Position:
    """The place in a history: its epoch, and the offset of the last message that the application got."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Place:
    """A position as the server reports it."""

    position: Position
    #: Whether nothing was missed since the position that the client named; `None` if it named none.
    recovered: bool | None
    reason: str | None
    #: How many old messages follow.
    count: int


class InvalidFrame(ValueError):
    """A frame is not JSON, or not one of the protocol."""


def encode(frame: dict[str, Json]) -> str:
    """The text of a frame."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def decode(text: str | bytes) -> tuple[str, Json, dict[str, Json]]:
    """The type, the payload, and the frame."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFrame(f"a frame is not JSON: {error}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise InvalidFrame("a frame is not an object with a `type`")
    return frame["type"], frame.get("payload"), frame


def message_of(frame: dict[str, Json]) -> Message:
    """The message in a frame."""
    return Message(
        type=frame["type"],
        payload=frame.get("payload"),
        sender=text_of(frame, "senderId") or "",
        receiver=text_of(frame, "receiverID") or "",
        timestamp=text_of(frame, "timestamp") or "",
        room=text_of(frame, "room"),
        message_id=text_of(frame, "messageId"),
        offset=number_of(frame, "offset"),
    )


def place_of(value: Json) -> Place | None:
    """The position in an `ack`, a `joined` or a `welcome`; `None` if there is none."""
    if not isinstance(value, dict):
        return None
    epoch, offset = text_of(value, "epoch"), number_of(value, "offset")
    if epoch is None or offset is None:
        return None
    recovered = value.get("recovered")
    return Place(
        position=Position(epoch, offset),
        recovered=recovered if isinstance(recovered, bool) else None,
        reason=text_of(value, "reason"),
        count=number_of(value, "count") or 0,
    )


def page_of(value: Json) -> Page:
    """The messages in the `ack` of a `history` frame."""
    fields = value if isinstance(value, dict) else {}
    frames = fields.get("messages")
    messages = [
        message_of(frame)
        for frame in (frames if isinstance(frames, list) else [])
        if isinstance(frame, dict) and isinstance(frame.get("type"), str)
    ]
    return Page(messages=messages, has_older=fields.get("hasOlder") is True)


def text_of(fields: dict[str, Json], name: str) -> str | None:
    """The string in a field, if it is one."""
    value = fields.get(name)
    return value if isinstance(value, str) else None


def number_of(fields: dict[str, Json], name: str) -> int | None:
    """The whole number in a field, if it is one."""
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
