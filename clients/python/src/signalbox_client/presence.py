"""The users in a room."""

from __future__ import annotations

from dataclasses import dataclass

from .frames import Json, number_of, text_of


@dataclass(frozen=True, slots=True)
class Member:
    """A user in a room."""

    user: str
    #: The number of the user's connections in the room when they were last reported.
    connections: int
    #: The claim `info` of the user's token.
    info: Json = None


@dataclass(frozen=True, slots=True)
class Presence:
    """The users in a room, as far as they are known."""

    #: The number of users; `None` before the first report.
    total: int | None = None
    #: The users by their ID; `None` if they are not listed.
    members: dict[str, Member] | None = None

    def after(self, payload: dict[str, Json]) -> Presence:
        """The users after a `presence` frame."""
        total = number_of(payload, "total")
        if "members" in payload:
            return Presence(total, _members(payload["members"]))
        if "joined" not in payload and "left" not in payload:
            return Presence(total, None)
        if self.members is None:
            return Presence(total, None)
        members = self.members | _members(payload.get("joined"))
        left = payload.get("left")
        for user in left if isinstance(left, list) else []:
            if isinstance(user, str):
                members.pop(user, None)
        return Presence(total, members)


def _members(value: Json) -> dict[str, Member]:
    members = {}
    for entry in value if isinstance(value, list) else []:
        user = text_of(entry, "userId") if isinstance(entry, dict) else None
        if user is not None:
            members[user] = Member(user, number_of(entry, "connections") or 0, entry.get("info"))
    return members
