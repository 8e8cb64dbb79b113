"""A client for Signalbox, a realtime WebSocket server.

`Client` is for asyncio, `SyncClient` for scripts and workers without it, `Api` and `AsyncApi` for backends.
"""

from .api import Api, AsyncApi, Connected, Disconnected, Outgoing, RoomChange, RoomInfo, RoomMember, RoomMembers, Sent
from .client import Client, State, StateChange
from .errors import SignalboxError, TokenDenied
from .frames import Answer, Message, Page
from .link import Transport
from .options import Options
from .presence import Member, Presence
from .room import Recovery, Room
from .sync import SyncClient, SyncRoom

__all__ = [
    "Answer",
    "Api",
    "AsyncApi",
    "Client",
    "Connected",
    "Disconnected",
    "Member",
    "Message",
    "Options",
    "Outgoing",
    "Page",
    "Presence",
    "Recovery",
    "Room",
    "RoomChange",
    "RoomInfo",
    "RoomMember",
    "RoomMembers",
    "Sent",
    "SignalboxError",
    "State",
    "StateChange",
    "SyncClient",
    "SyncRoom",
    "TokenDenied",
    "Transport",
]
