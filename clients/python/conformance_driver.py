"""The driver of clients/conformance/README.md for the Python client."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "src"))

from signalbox_client import (  # noqa: E402
    Client,
    Message,
    Options,
    Presence,
    Recovery,
    Room,
    SignalboxError,
    StateChange,
    TokenDenied,
)

_OPTIONS: dict[str, tuple[str, float | None]] = {
    "connectTimeoutMs": ("connect_timeout", 0.001),
    "backoffMinMs": ("backoff_min", 0.001),
    "backoffMaxMs": ("backoff_max", 0.001),
    "stableAfterMs": ("stable_after", 0.001),
    "answerTimeoutMs": ("answer_timeout", 0.001),
    "heartbeatMs": ("heartbeat_interval", 0.001),
    "heartbeatTimeoutMs": ("heartbeat_timeout", 0.001),
    "offline": ("offline", None),
    "queueMax": ("queue_max", None),
    "queueBytesMax": ("queue_bytes_max", None),
    "fallback": ("fallback", None),
    "webSocketAgainMs": ("web_socket_again", 0.001),
}


class Driver:
    """One client, and the commands for it."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._watched: set[str] = set()

    async def run(self) -> None:
        """Carry out the commands of the standard input until it ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        running: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            task = asyncio.ensure_future(self._command(json.loads(line)))
            running.add(task)
            task.add_done_callback(running.discard)
        if self._client is not None:
            await self._client.close()

    async def _command(self, command: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"n": command["n"]}
        try:
            answer["ok"] = await self._do(command)
        except SignalboxError as error:
            fields: dict[str, Any] = {"code": error.code, "retryable": error.retryable}
            if error.plugin is not None:
                fields["plugin"] = error.plugin
            answer["error"] = fields
        write(answer)

    async def _do(self, command: dict[str, Any]) -> Any:
        name = command["do"]
        if name == "open":
            self._open(command)
            return None
        client = self._client
        if client is None:
            raise SignalboxError("closed", "open a client first")
        if name == "connect":
            client.connect()
        elif name == "close":
            await client.close()
        elif name == "join":
            return await self._join(client, command)
        elif name == "leave":
            await client.leave(command["room"])
        elif name == "send":
            sent = await client.send(
                command["type"],
                command.get("payload"),
                to=command.get("to"),
                room=command.get("room"),
                once=command.get("once", False),
            )
            return {"status": sent.status, "duplicate": sent.duplicate, "data": sent.data}
        elif name == "request":
            return await client.request(command["type"], command.get("payload"))
        elif name == "history":
            page = await client.history(command["room"], before=command.get("before"), limit=command.get("limit"))
            return {"messages": [message.offset for message in page.messages], "hasOlder": page.has_older}
        elif name == "presence":
            return presence(client.room(command["room"]).presence)
        elif name == "state":
            return {"state": client.state, "rooms": client.joined, "queued": client.queued}
        else:
            raise SignalboxError("unknown_command", name)
        return None

    def _open(self, command: dict[str, Any]) -> None:
        changed: dict[str, Any] = {"fallback": False}
        for name, value in command.get("options", {}).items():
            key, factor = _OPTIONS[name]
            changed[key] = value if factor is None else value * factor
        tokens = command.get("tokens")
        client = Client(
            command["url"],
            user_id=command.get("userId"),
            token=command.get("token"),
            get_token=None if tokens is None else token_callback(tokens),
            options=Options(**changed),
        )
        client.on("*", on_message)
        client.on_state(on_state)
        client.on_error(lambda error: write({"event": "error", "code": error.code}))
        client.on_recovery(lambda recovery: write({"event": "recovered"} | recovered(recovery)))
        self._client = client
        client.connect()

    async def _join(self, client: Client, command: dict[str, Any]) -> Any:
        room = client.room(command["room"])
        if room.name not in self._watched:
            self._watched.add(room.name)
            watch(room)
        tokens = command.get("tokens")
        token = command.get("token") if tokens is None else room_token_callback(tokens)
        await room.join(last=command.get("last"), presence=command.get("presence", False), token=token)
        return {"recovered": room.recovered}


def token_callback(tokens: list[str | None]) -> Callable[[], Any]:
    """A callback that gives the tokens one after another; `None`: it fails."""
    fetch = room_token_callback(tokens)
    return lambda: fetch(None)


def room_token_callback(tokens: list[str | None]) -> Callable[[str | None], Any]:
    """The same for the tokens of a room."""
    left = list(tokens)

    async def fetch(room: str | None) -> str:
        write({"event": "token"} | given(room=room))
        token = left.pop(0) if len(left) > 1 else left[0]
        if token is None:
            raise RuntimeError("no token now")
        if token == "final":
            raise TokenDenied("no token at all")
        return token

    return fetch


def watch(room: Room) -> None:
    """Report the events of a room."""
    name = room.name
    room.on_recovery(lambda recovery: write({"event": "recovered", "room": name} | recovered(recovery)))
    room.on_presence(lambda users: write({"event": "presence", "room": name} | presence(users)))
    room.on_left(lambda error: write({"event": "left", "room": name, "code": error.code}))


def on_message(message: Message) -> None:
    """Report a message."""
    event = {"event": "message", "type": message.type, "payload": message.payload, "sender": message.sender}
    write(event | given(room=message.room, offset=message.offset))


def on_state(change: StateChange) -> None:
    """Report a change of the state."""
    retry = None if change.retry_in is None else round(change.retry_in * 1000)
    transport = "sse" if change.transport == "sse" else None
    fields = given(
        code=change.code, status=change.status, reason=change.reason, retryInMs=retry, transport=transport
    )
    write({"event": "state", "state": change.state} | fields)


def recovered(recovery: Recovery) -> dict[str, Any]:
    """The fields of a recovery."""
    return given(recovered=recovery.recovered, reason=recovery.reason)


def presence(users: Presence) -> dict[str, Any]:
    """The fields of the users in a room."""
    return {"total": users.total, "members": None if users.members is None else sorted(users.members)}


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not `None`."""
    return {name: value for name, value in fields.items() if value is not None}


def write(line: dict[str, Any]) -> None:
    """Write an answer or an event."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(Driver().run())
