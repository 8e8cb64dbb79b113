"""What the client needs of a transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from .errors import SignalboxError
from .frames import Json

#: How frames travel.
Transport = Literal["websocket", "sse"]


class Sender(Protocol):
    """The calls whose frames a link carries."""

    def leaves(self, call_id: str) -> bool:
        """The frame is written now. `False`: nobody waits for its answer any more, so it need not be sent."""

    def refuse(self, call_id: str, error: SignalboxError) -> None:
        """The server did not take the frame."""


class Link(Protocol):
    """An open connection, with any transport."""

    @property
    def transport(self) -> Transport:
        """How the frames travel."""

    @property
    def waiting_bytes(self) -> int:
        """The bytes that wait to be written."""

    def welcomed(self, welcome: dict[str, Json]) -> None:
        """`welcome` has arrived. Raises `Ended` if it lacks something that this transport needs."""

    def listen(self, heard: Callable[[], None], sender: Sender) -> None:
        """Call `heard` whenever bytes arrive, and `sender` about the frames that are sent from now on."""

    def send(self, call_id: str, text: str) -> None:
        """Write a frame after those before it."""

    async def receive(self) -> str | bytes:
        """The next frame. Raises `Ended` at the end of the connection."""

    def abort(self) -> None:
        """End the connection at once."""

    async def close(self, reason: str = "") -> None:
        """End the connection as the protocol says."""
