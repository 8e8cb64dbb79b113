"""The calls of the backend API: their requests, and what their answers mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

from .errors import SignalboxError
from .frames import Json, Page, Position, number_of, page_of, place_of, text_of

T = TypeVar("T")


@dataclass(frozen=True)
class Request(Generic[T]):
    """An HTTP request, and the function that reads the answer."""

    method: str
    path: str
    read: Callable[[dict[str, Json]], T]
    body: dict[str, Json] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def repeatable(self) -> bool:
        """Whether a second request does no harm if the first one had an effect."""
        return self.method != "POST" or "Idempotency-Key" in self.headers


@dataclass(frozen=True)
class Outgoing:
    """A message of a backend. Give one of `to`, `users`, `room`, `rooms` and `everyone`, or none for a type that a plugin handles."""

    type: str
    payload: Json = None
    to: str | None = None
    users: Sequence[str] | None = None
    room: str | None = None
    rooms: Sequence[str] | None = None
    everyone: bool = False
    #: The user in whose name it is sent; `None`: the platform.
    sender: str | None = None
    #: Whether it bypasses the plugins.
    raw: bool = False

    def fields(self) -> dict[str, Json]:
        """The JSON of the message."""
        optional = {
            "receiverId": self.to,
            "receiverIds": None if self.users is None else list(self.users),
            "room": self.room,
            "rooms": None if self.rooms is None else list(self.rooms),
            "everyone": self.everyone or None,
            "senderId": self.sender,
            "raw": self.raw or None,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"type": self.type, "payload": self.payload} | given


@dataclass(frozen=True)
class Sent:
    """What became of a message to one receiver."""

    #: `delivered`, `offline`, `kept` or `handled`; empty if it failed.
    status: str = ""
    message_id: str = ""
    #: The data with which a plugin answered.
    data: Json = None
    #: Whether the server repeats an earlier answer.
    duplicate: bool = False
    #: The receiver, if the message has several.
    user: str | None = None
    room: str | None = None
    #: Why it failed, if the message is one of several or has several receivers.
    error: SignalboxError | None = None


@dataclass(frozen=True)
class Connected:
    """The connections of a user."""

    online: bool
    connections: int
    nodes: list[str]
    #: Nodes that did not answer, whose connections are not counted.
    unanswered: list[str]


@dataclass(frozen=True)
class Disconnected:
    """The result of a disconnect."""

    connections: int
    #: Until when the user is blocked, in seconds since 1970.
    blocked_until: int | None
    unanswered: list[str]


@dataclass(frozen=True)
class RoomChange:
    """The connections that joined or left a room."""

    connections: int
    failed: int
    unanswered: list[str]


@dataclass(frozen=True)
class RoomInfo:
    """The connections in a room, and the end of its history."""

    connections: int
    nodes: list[str]
    history: Position | None
    unanswered: list[str]


@dataclass(frozen=True)
class RoomMember:
    """A user in a room."""

    user: str
    connections: int
    #: When the first connection joined, in RFC 3339.
    since: str
    info: Json


@dataclass(frozen=True)
class RoomMembers:
    """The users in a room; `total` also counts those that are not listed."""

    total: int
    members: list[RoomMember]


def send(message: Outgoing, key: str | None) -> Request[list[Sent]]:
    """Send a message; an entry for each receiver, or one."""
    return Request("POST", "/api/messages", _sent_to_all, message.fields(), _once(key))


def batch(messages: Sequence[Outgoing], key: str | None) -> Request[list[list[Sent]]]:
    """Send messages in order; the entries of each."""
    body = {"messages": [message.fields() for message in messages]}
    return Request("POST", "/api/batch", lambda answer: [_sent_to_all(entry) for entry in _list(answer, "results")], body, _once(key))


def user(name: str) -> Request[Connected]:
    """Find a user."""
    return Request(
        "GET",
        f"/api/users/{_name(name)}",
        lambda answer: Connected(
            online=answer.get("online") is True,
            connections=number_of(answer, "connections") or 0,
            nodes=_texts(answer, "nodes"),
            unanswered=_texts(answer, "unanswered"),
        ),
    )


def online(users: Sequence[str]) -> Request[list[str]]:
    """Find out which users are online."""
    return Request("POST", "/api/users/online", lambda answer: _texts(answer, "online"), {"users": list(users)})


def disconnect(name: str, code: int | None, reason: str | None, block: str | None) -> Request[Disconnected]:
    """Close all connections of a user."""
    return Request(
        "POST",
        f"/api/users/{_name(name)}/disconnect",
        lambda answer: Disconnected(
            connections=number_of(answer, "connections") or 0,
            blocked_until=number_of(answer, "blockedUntil"),
            unanswered=_texts(answer, "unanswered"),
        ),
        _given(code=code, reason=reason, block=block),
    )


def member(method: str, room_name: str, user_name: str) -> Request[RoomChange]:
    """Put a user into a room, or take them out."""
    return Request(
        method,
        f"/api/rooms/{_name(room_name)}/members/{_name(user_name)}",
        lambda answer: RoomChange(
            connections=number_of(answer, "connections") or 0,
            failed=number_of(answer, "failed") or 0,
            unanswered=_texts(answer, "unanswered"),
        ),
    )


def room(name: str) -> Request[RoomInfo]:
    """Look at a room."""

    def read(answer: dict[str, Json]) -> RoomInfo:
        place = place_of(answer.get("history"))
        return RoomInfo(
            connections=number_of(answer, "connections") or 0,
            nodes=_texts(answer, "nodes"),
            history=None if place is None else place.position,
            unanswered=_texts(answer, "unanswered"),
        )

    return Request("GET", f"/api/rooms/{_name(name)}", read)


def members(name: str) -> Request[RoomMembers]:
    """List the users in a room."""

    def read(answer: dict[str, Json]) -> RoomMembers:
        listed = [
            RoomMember(
                user=text_of(entry, "userId") or "",
                connections=number_of(entry, "connections") or 0,
                since=text_of(entry, "since") or "",
                info=entry.get("info"),
            )
            for entry in _list(answer, "members")
        ]
        return RoomMembers(number_of(answer, "total") or 0, listed)

    return Request("GET", f"/api/rooms/{_name(name)}/members", read)


def history(name: str, before: int | None, limit: int | None) -> Request[Page]:
    """Read the history of a room."""
    query = urlencode(_given(before=before, limit=limit))
    return Request("GET", f"/api/rooms/{_name(name)}/history" + ("?" + query if query else ""), page_of)


def revoke(jti: str | None, user_name: str | None, issued_before: int | None, until: int | None) -> Request[int]:
    """Revoke tokens; until when, in seconds since 1970."""
    body = _given(jti=jti, user=user_name, issuedBefore=issued_before, until=until)
    return Request("POST", "/api/tokens/revoke", lambda answer: number_of(answer, "until") or 0, body)


def error_of(value: Json, status: int | None) -> SignalboxError:
    """The error in an answer."""
    fields = value.get("error") if isinstance(value, dict) else None
    if not isinstance(fields, dict):
        retryable = status in (408, 429, 502, 503, 504)
        return SignalboxError("refused", f"HTTP {status}", status=status, retryable=retryable)
    return SignalboxError(
        text_of(fields, "code") or "refused",
        text_of(fields, "message") or "",
        retryable=fields.get("retryable") is True,
        plugin=text_of(fields, "plugin"),
        status=status,
    )


def _sent_to_all(answer: dict[str, Json]) -> list[Sent]:
    if isinstance(answer.get("results"), list):
        return [_sent(entry) for entry in _list(answer, "results")]
    return [_sent(answer)]


def _sent(entry: dict[str, Json]) -> Sent:
    return Sent(
        status=text_of(entry, "status") or "",
        message_id=text_of(entry, "messageId") or "",
        data=entry.get("data"),
        duplicate=entry.get("duplicate") is True,
        user=text_of(entry, "receiverId"),
        room=text_of(entry, "room"),
        error=error_of(entry, None) if "error" in entry else None,
    )


def _once(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _name(name: str) -> str:
    return quote(name, safe="")


def _given(**fields: Json) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if value is not None}


def _list(answer: dict[str, Json], name: str) -> list[dict[str, Json]]:
    value = answer.get(name)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _texts(answer: dict[str, Json], name: str) -> list[str]:
    value = answer.get(name)
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
