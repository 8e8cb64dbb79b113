"""Many clients in one process, for the herd of clients/conformance/README.md."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "src"))

from signalbox_client import Client, Message, Room, SignalboxError, StateChange  # noqa: E402


class Report:
    """What one client has seen."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.attempts = 0
        self.connected: list[int] = []
        self.waits: list[int] = []
        self.errors: list[str] = []
        self.rooms: dict[str, dict[str, Any]] = {}
        self._last = "disconnected"

    def fields(self) -> dict[str, Any]:
        """The report."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def on_state(self, change: StateChange) -> None:
        """The state has changed."""
        if change.state == "disconnected" and self._last == "connected":
            self.waits.append(round((change.retry_in or 0) * 1000))
        self._last = change.state
        if change.state == "connecting":
            self.attempts += 1
        elif change.state == "connected":
            self.connected.append(time.time_ns() // 1_000_000)
        elif change.state == "closed":
            self.errors.append(f"closed with {change.code}")

    def watch(self, room: Room) -> None:
        """Report the messages of a room, and whether they were recovered."""
        numbers: list[list[int]] = []
        offsets: list[list[int]] = []
        recovered: list[bool] = []
        self.rooms[room.name] = {"joined": False, "numbers": numbers, "offsets": offsets, "recovered": recovered}

        def on_message(message: Message) -> None:
            note(numbers, message.payload)
            note(offsets, message.offset)

        room.on("*", on_message)
        room.on_recovery(lambda recovery: recovered.append(recovery.recovered))
        room.on_left(lambda error: self.errors.append(error.code))


class Herd:
    """All clients, and the commands for them."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._reports: list[Report] = []
        self._joins: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Carry out the commands of the standard input until it ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            print(json.dumps({"n": command["n"], "ok": self._do(command)}), flush=True)
        await asyncio.gather(*(client.close() for client in self._clients))

    def _do(self, command: dict[str, Any]) -> Any:
        if command["do"] == "open":
            for client in command["clients"]:
                self._open(command["url"], client["user"], client["rooms"])
            return None
        return [report.fields() for report in self._reports]

    def _open(self, url: str, user: str, rooms: list[str]) -> None:
        report = Report(user)
        client = Client(url, user_id=user)
        client.on_state(report.on_state)
        client.on_error(lambda error: report.errors.append(error.code))
        client.connect()
        for name in rooms:
            room = client.room(name)
            report.watch(room)
            task = asyncio.ensure_future(join(room, report))
            self._joins.add(task)
            task.add_done_callback(self._joins.discard)
        self._clients.append(client)
        self._reports.append(report)


async def join(room: Room, report: Report) -> None:
    """Join a room."""
    try:
        await room.join()
    except SignalboxError:
        return  # `on_left` or the state reports it
    report.rooms[room.name]["joined"] = True


def note(runs: list[list[int]], number: Any) -> None:
    """Add a number to runs, `[first, last]` each, in which each number is one more than the one before."""
    if runs and runs[-1][1] + 1 == number:
        runs[-1][1] = number
    else:
        runs.append([number, number])


if __name__ == "__main__":
    asyncio.run(Herd().run())
