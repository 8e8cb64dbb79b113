"""The client for programs without asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from .client import Client, State, StateChange
from .errors import SignalboxError
from .frames import Answer, Json, Message, Page
from .options import Options
from .presence import Presence
from .room import Recovery, Room

T = TypeVar("T")


class SyncClient:
    """A `Client` in a separate thread. Its methods block, and can be called from every thread.

    Callbacks run one after another in another thread, so they may call its methods; `get_token` runs in a third one.
    """

    def __init__(
        self,
        url: str,
        *,
        user_id: str | None = None,
        token: str | None = None,
        get_token: Callable[[], str] | None = None,
        options: Options | None = None,
    ) -> None:
        fetch = None if get_token is None else _in_loop(get_token)
        self._client = Client(url, user_id=user_id, token=token, get_token=fetch, options=options)
        self._loop = asyncio.new_event_loop()
        self._callbacks = ThreadPoolExecutor(1, "signalbox-callbacks")
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="signalbox-client", daemon=True)
        self._thread.start()

    def connect(self) -> None:
        """Begin to connect, see `Client.connect`."""
        self._run(_do(self._client.connect))

    def close(self) -> None:
        """Close the client and end its threads. It cannot be used afterwards."""
        self._refuse_own_thread()
        with self._lock:
            if self._ended:
                return
            self._ended = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        # A callback may be the caller, so its thread ends by itself.
        self._callbacks.shutdown(wait=False)
        self._loop.close()

    def __enter__(self) -> SyncClient:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def state(self) -> State:
        """The state, see `Client.state`."""
        return self._client.state

    def on(self, type: str, callback: Callable[[Message], None]) -> None:
        """Call `callback` with each message of this type; `*` for every type."""
        self._run(_do(lambda: self._client.on(type, self._wrap(callback))))

    def on_state(self, callback: Callable[[StateChange], None]) -> None:
        """Call `callback` with each change of the state."""
        self._run(_do(lambda: self._client.on_state(self._wrap(callback))))

    def on_error(self, callback: Callable[[SignalboxError], None]) -> None:
        """Call `callback` with errors that no call gets."""
        self._run(_do(lambda: self._client.on_error(self._wrap(callback))))

    def on_recovery(self, callback: Callable[[Recovery], None]) -> None:
        """Call `callback` after a reconnect, with whether the user's own messages were recovered."""
        self._run(_do(lambda: self._client.on_recovery(self._wrap(callback))))

    def room(self, name: str) -> SyncRoom:
        """The room with this name, to add callbacks before `join`."""
        return SyncRoom(self, self._run(_do(lambda: self._client.room(name))))

    def join(self, room: str, *, last: int | None = None, presence: bool = False, token: str | None = None) -> SyncRoom:
        """Join a room, see `Client.join`."""
        return SyncRoom(self, self._run(self._client.join(room, last=last, presence=presence, token=token)))

    def leave(self, room: str) -> None:
        """Leave a room, see `Client.leave`."""
        self._run(self._client.leave(room))

    def send(
        self, type: str, payload: Json = None, *, to: str | None = None, room: str | None = None, once: bool = False
    ) -> Answer:
        """Send a message and wait for the answer, see `Client.send`."""
        return self._run(self._client.send(type, payload, to=to, room=room, once=once))

    def request(self, type: str, payload: Json = None) -> Json:
        """Send a request and return the data of the answer, see `Client.request`."""
        return self._run(self._client.request(type, payload))

    def history(self, room: str, *, before: int | None = None, limit: int | None = None) -> Page:
        """Read older messages of a room, see `Client.history`."""
        return self._run(self._client.history(room, before=before, limit=limit))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._refuse_own_thread()
            with self._lock:
                if self._ended:
                    raise SignalboxError("closed", "the client is closed")
                call = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise
        try:
            return call.result()
        except CancelledError:
            raise SignalboxError("closed", "the client was closed during the call") from None

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call from the client's own thread would wait for itself")

    async def _end(self) -> None:
        """Close the client, and end calls of other threads, which would wait for ever for a loop that has stopped."""
        await self._client.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wrap(self, callback: Callable[[T], None]) -> Callable[[T], Coroutine[Any, Any, None]]:
        async def run(event: T) -> None:
            await self._loop.run_in_executor(self._callbacks, callback, event)

        return run


class SyncRoom:
    """A room of a `SyncClient`."""

    def __init__(self, client: SyncClient, room: Room) -> None:
        self._client = client
        self._room = room
        self.name = room.name

    @property
    def joined(self) -> bool:
        """Whether the client is a member now."""
        return self._room.joined

    @property
    def presence(self) -> Presence:
        """The users, if the room was joined with `presence=True`."""
        return self._room.presence

    def on(self, type: str, callback: Callable[[Message], None]) -> None:
        """Call `callback` with each message of this type to the room; `*` for every type."""
        self._client._run(_do(lambda: self._room.on(type, self._client._wrap(callback))))

    def on_presence(self, callback: Callable[[Presence], None]) -> None:
        """Call `callback` with the users of the room after each change."""
        self._client._run(_do(lambda: self._room.on_presence(self._client._wrap(callback))))

    def on_recovery(self, callback: Callable[[Recovery], None]) -> None:
        """Call `callback` after each rejoin, before any later message of the room."""
        self._client._run(_do(lambda: self._room.on_recovery(self._client._wrap(callback))))

    def on_left(self, callback: Callable[[SignalboxError], None]) -> None:
        """Call `callback` when the server ended the membership, or refused it, for good."""
        self._client._run(_do(lambda: self._room.on_left(self._client._wrap(callback))))

    def join(self, *, last: int | None = None, presence: bool = False, token: str | None = None) -> SyncRoom:
        """Join, see `Client.join`."""
        self._client._run(self._room.join(last=last, presence=presence, token=token))
        return self

    def leave(self) -> None:
        """Leave, see `Client.leave`."""
        self._client.leave(self.name)

    def send(self, type: str, payload: Json = None, *, once: bool = False) -> Answer:
        """Send a message to the room, see `Client.send`."""
        return self._client.send(type, payload, room=self.name, once=once)

    def history(self, *, before: int | None = None, limit: int | None = None) -> Page:
        """Read older messages, see `Client.history`."""
        return self._client.history(self.name, before=before, limit=limit)


async def _do(work: Callable[[], T]) -> T:
    return work()


def _in_loop(get_token: Callable[[], str]) -> Callable[[], Coroutine[Any, Any, str]]:
    async def fetch() -> str:
        return await asyncio.get_running_loop().run_in_executor(None, get_token)

    return fetch
