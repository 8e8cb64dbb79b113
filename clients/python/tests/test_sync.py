"""The client for programs without asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from scripted import PATIENCE, Peer, Server

from signalbox_client import Message, SignalboxError, SyncClient


class Background:
    """A scripted server in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = Server()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.do(self.server.__aenter__())

    def do(self, work: object) -> object:
        return self.begin(work).result(PATIENCE)

    def begin(self, work: object) -> Future[object]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)  # type: ignore[arg-type]

    def stop(self) -> None:
        self.do(self.server.__aexit__())
        self.loop.call_soon_threadsafe(self.loop.stop)


async def echo(server: Server, script: Callable[[Peer], object]) -> None:
    """Accept a client, and answer each of its frames."""
    peer = await server.accept()
    while True:
        frame = await peer.receive()
        await peer.ack(frame, data=frame.get("payload"))
        await script(peer)  # type: ignore[misc]


def test_a_program_without_asyncio_can_call_and_be_called() -> None:
    background = Background()

    async def note(peer: Peer) -> None:
        await peer.message("hello", room="r")

    serving = background.begin(echo(background.server, note))
    seen: queue.Queue[object] = queue.Queue()
    with SyncClient(background.server.url, get_token=lambda: "t") as client:

        def on_message(message: Message) -> None:
            # A callback may call.
            seen.put((message.payload, client.request("ask", 7) if seen.empty() else None))

        client.on("note", on_message)
        room = client.join("r")
        assert seen.get(timeout=PATIENCE) == ("hello", 7)
        assert room.joined and client.state == "connected"
        assert room.send("note", 1).status == "handled"
        room.leave()
    serving.cancel()
    with pytest.raises(SignalboxError, match="closed"):
        client.send("note", 1)
    names = [thread.name for thread in threading.enumerate()]
    assert "signalbox-client" not in names
    background.stop()


def test_a_call_under_way_ends_when_the_client_is_closed() -> None:
    background = Background()
    client = SyncClient(background.server.url, get_token=lambda: "t")
    began = threading.Event()
    ended: queue.Queue[str] = queue.Queue()

    async def never() -> None:
        began.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            client._run(never())
        except SignalboxError as error:
            ended.put(error.code)

    threading.Thread(target=call, daemon=True).start()
    assert began.wait(PATIENCE)
    client.close()
    assert ended.get(timeout=PATIENCE) == "closed"
    background.stop()
