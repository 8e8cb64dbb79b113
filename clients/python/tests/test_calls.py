"""Sections 8 to 11 of clients/SPEC.md."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted import Peer, World, play, until

from signalbox_client import Answer, Message, Page, SignalboxError


def start(world: World, payload: Any, **options: Any) -> asyncio.Task[Answer]:
    """Begin a call."""
    return asyncio.ensure_future(world.client.send("note", payload, **options))


async def refused(world: World, peer: Peer, frame: dict[str, Any], code: str, wait: float) -> dict[str, Any]:
    """Refuse a frame for now, let the wait before the next try pass, and receive the frame again."""
    await peer.refuse(frame, code, retryable=True)
    await until(lambda: wait in world.clock.pending)
    world.clock.advance(wait)
    return await peer.receive()


async def code_of(call: asyncio.Task[Any]) -> str:
    """The code with which the call failed."""
    with pytest.raises(SignalboxError) as failed:
        await call
    return failed.value.code


def test_a_call_resolves_with_its_answer() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, {"a": "ü"}, to="bob")
        frame = await peer.receive()
        assert len(frame.pop("id")) >= 16
        assert frame == {"type": "note", "payload": {"a": "ü"}, "receiverId": "bob"}
        call.cancel()
        call = start(world, None, room="r", once=True)
        frame = await peer.receive()
        assert (frame["room"], frame["once"]) == ("r", True)
        await peer.ack(frame, status="kept", duplicate=True, data=[1])
        assert await call == Answer("kept", "m", [1], True)

    play(scene)


def test_a_request_resolves_with_the_data() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = asyncio.ensure_future(world.client.request("ask", 1))
        frame = await peer.receive()
        assert frame["once"] is True
        await peer.ack(frame, data={"b": 2})
        assert await call == {"b": 2}

    play(scene)


def test_an_error_of_the_server_reaches_the_call() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, "")
        frame = await peer.receive()
        await peer.send(
            "error", {"id": frame["id"], "code": "blank", "message": "no text", "plugin": "chat", "retryable": True}
        )
        with pytest.raises(SignalboxError) as failed:
            await call
        error = failed.value
        assert (error.code, error.message, error.plugin, error.retryable) == ("blank", "no text", "chat", True)

    play(scene)


def test_messages_wait_for_the_connection_and_the_rooms() -> None:
    async def scene(world: World) -> None:
        joining = asyncio.ensure_future(world.client.join("r"))
        calls = [start(world, number) for number in range(3)]
        await until(lambda: world.client.queued == 3)
        peer = await world.connected()
        await peer.answer_join()
        for number, call in enumerate(calls):
            frame = await peer.receive()
            assert frame["payload"] == number
            await peer.ack(frame)
            await call
        await joining

    play(scene)


def test_messages_wait_for_the_rooms_no_longer_than_ten_seconds() -> None:
    async def scene(world: World) -> None:
        joining = asyncio.ensure_future(world.client.join("r"))
        call = start(world, 1)
        await asyncio.sleep(0)
        peer = await world.connected()
        frame = await peer.receive()
        assert frame["type"] == "join"
        world.clock.advance(9.9)
        assert world.client.queued == 1
        world.clock.advance(0.1)
        while frame["type"] != "note":
            frame = await peer.receive()
        await peer.ack(frame)
        await call
        joining.cancel()

    play(scene)


def test_a_full_queue_refuses_by_number_and_by_bytes() -> None:
    async def scene(world: World) -> None:
        calls = [start(world, "x" * 500) for _ in range(3)]
        await asyncio.sleep(0)
        assert await code_of(start(world, "")) == "queue_full"
        for call in calls[:2]:
            call.cancel()
        await until(lambda: world.client.queued == 1)
        assert await code_of(start(world, "x" * 1600)) == "queue_full"
        calls[2].cancel()

    play(scene, queue_max=3, queue_bytes_max=2000)


def test_without_a_queue_messages_fail_while_there_is_no_connection() -> None:
    async def scene(world: World) -> None:
        assert await code_of(start(world, 1)) == "offline"
        peer = await world.connected()
        call = start(world, 2)
        await peer.ack(await peer.receive())
        await call

    play(scene, offline="error")


def test_a_call_without_an_answer_is_lost_with_the_connection() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, 1)
        await peer.receive()
        await peer.drop()
        assert await code_of(call) == "connection_lost"
        assert world.client.queued == 0

    play(scene)


def test_a_call_with_once_is_sent_again_with_its_id_before_the_queue() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        first, second = start(world, 1, once=True), start(world, 2, once=True)
        sent = [await peer.receive(), await peer.receive()]
        await peer.drop()
        await until(lambda: world.client.state == "disconnected")
        third = start(world, 3)
        peer = await world.reconnected()
        again = [await peer.receive() for _ in range(3)]
        assert again[:2] == sent and again[2]["payload"] == 3
        for frame in again:
            await peer.ack(frame, duplicate=frame["payload"] == 1)
        assert (await first).duplicate and not (await second).duplicate
        await third

    play(scene)


def test_a_call_with_once_is_retried_three_times() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, 1, once=True)
        first = await peer.receive()
        frame = first
        for wait in (0.5, 1, 2):
            frame = await refused(world, peer, frame, "unavailable", wait)
            assert frame == first
        await peer.refuse(frame, "unavailable", retryable=True)
        assert await code_of(call) == "unavailable"

    play(scene, stable_after=1000)


def test_a_call_whose_first_try_is_in_progress_is_repeated_for_fifteen_seconds() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, 1, once=True)
        first = await peer.receive()
        frame = first
        for wait in (0.5, 1, 2, 2, 2, 2, 2, 2, 1.5):
            frame = await refused(world, peer, frame, "in_progress", wait)
            assert frame == first
        await peer.refuse(frame, "in_progress", retryable=True)
        assert await code_of(call) == "in_progress"

    play(scene, stable_after=1000)


def test_a_repetition_after_in_progress_is_none_of_the_three_retries() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, 1, once=True)
        frame = await peer.receive()
        for code, waits in (("in_progress", (0.5, 1, 2, 2)), ("unavailable", (0.5, 1, 2)), ("in_progress", (2,))):
            for wait in waits:
                frame = await refused(world, peer, frame, code, wait)
        await peer.ack(frame)
        assert (await call).status == "handled"

    play(scene, stable_after=1000)


def test_a_call_without_once_is_not_retried() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, 1)
        await peer.refuse(await peer.receive(), "unavailable", retryable=True)
        assert await code_of(call) == "unavailable"

    play(scene)


def test_a_call_waits_ten_seconds_and_its_late_answer_is_ignored() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        call = start(world, 1)
        frame = await peer.receive()
        world.clock.advance(9.9)
        assert not call.done()
        world.clock.advance(0.1)
        assert await code_of(call) == "timeout"
        await peer.ack(frame)
        await peer.refuse(frame, "late")
        await peer.message("still here")
        await world.record.until("message", "still here")
        assert world.record.of("error") == []

    play(scene)


def test_a_message_in_the_queue_has_no_time_limit() -> None:
    async def scene(world: World) -> None:
        call = start(world, 1)
        await asyncio.sleep(0)
        world.clock.advance(3600)
        peer = await world.connected()
        await peer.ack(await peer.receive())
        await call

    play(scene)


def test_a_frame_over_the_limit_is_not_sent() -> None:
    async def scene(world: World) -> None:
        queued = start(world, "x" * 200)
        await asyncio.sleep(0)
        peer = await world.connected(limits={"frameBytesMax": 200})
        assert await code_of(queued) == "too_large"
        assert await code_of(start(world, "ü" * 100)) == "too_large"
        call = start(world, "x" * 100)
        await peer.ack(await peer.receive())
        await call

    play(scene)


def test_a_payload_that_is_not_json_is_an_error_of_the_caller() -> None:
    async def scene(world: World) -> None:
        for payload in (object(), float("nan"), "\ud83d"):
            with pytest.raises((TypeError, ValueError)):
                await world.client.send("note", payload)
        assert world.client.queued == 0

    play(scene)


def test_a_call_that_nobody_waits_for_is_not_sent() -> None:
    async def scene(world: World) -> None:
        call = start(world, "given up")
        await asyncio.sleep(0)
        call.cancel()
        await until(lambda: world.client.queued == 0)
        peer = await world.connected()
        other = start(world, "sent")
        frame = await peer.receive()
        assert frame["payload"] == "sent"
        await peer.ack(frame)
        await other

    play(scene)


def test_close_fails_everything_that_waits() -> None:
    async def scene(world: World) -> None:
        joining: asyncio.Task[Any] = asyncio.ensure_future(world.client.join("r"))
        queued = start(world, 1)
        await asyncio.sleep(0)
        peer = await world.connected()
        await peer.ack(await peer.receive())
        await joining
        joining = asyncio.ensure_future(world.client.join("s"))
        sent = start(world, 2, once=True)
        for _ in range(3):
            await peer.receive()
        await world.client.close()
        calls = joining, queued, sent, start(world, 3)
        assert [await code_of(call) for call in calls] == ["closed"] * 4
        # Only a room that was joined is joined again.
        world.client.connect()
        peer = await world.accepted()
        assert (await peer.answer_join())["room"] == "r"
        last = start(world, 4)
        assert (await peer.receive())["payload"] == 4
        last.cancel()

    play(scene)


def test_a_page_of_a_history_is_read_back() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        reading: asyncio.Task[Page] = asyncio.ensure_future(world.client.history("r", before=9, limit=2))
        frame = await peer.receive()
        assert (frame["type"], frame["room"], frame["payload"]) == ("history", "r", {"before": 9, "limit": 2})
        messages = [{"type": "note", "payload": number, "room": "r", "offset": number} for number in (7, 8)]
        await peer.ack(frame, history={"epoch": "e", "offset": 9, "hasOlder": True, "messages": messages})
        page = await reading
        assert ([message.offset for message in page.messages], page.has_older) == ([7, 8], True)

    play(scene)


def test_callbacks_come_in_order_and_one_at_a_time() -> None:
    async def scene(world: World) -> None:
        seen: list[str] = []

        async def slow(message: Message) -> None:
            seen.append(f"begin {message.payload}")
            await asyncio.sleep(0)
            seen.append(f"end {message.payload}")

        world.client.on("note", slow)
        world.client.on("note", lambda message: seen.append(f"fast {message.payload}"))
        world.client.room("r").on("*", lambda message: seen.append(f"room {message.payload}"))
        peer = await world.connected()
        await peer.message(1)
        await peer.message(2, room="r")
        await until(lambda: len(seen) == 7)
        assert seen == ["begin 1", "end 1", "fast 1", "begin 2", "end 2", "fast 2", "room 2"]

    play(scene)


def test_a_callback_may_call_and_close() -> None:
    async def scene(world: World) -> None:
        async def reply(message: Message) -> None:
            await world.client.send("reply", message.payload)
            await world.client.close()

        world.client.on("note", reply)
        peer = await world.connected()
        await peer.message(1)
        await peer.ack(await peer.receive())
        await world.record.until("state", "closed")

    play(scene)


def test_a_callback_that_fails_is_reported_and_changes_nothing_else() -> None:
    async def scene(world: World) -> None:
        def fail(message: Message) -> None:
            raise RuntimeError("a bug")

        async def fail_later(message: Message) -> None:
            raise RuntimeError("another bug")

        end = world.client.on("note", fail)
        world.client.on("note", fail_later)
        world.client.on_error(lambda error: 1 / 0)  # type: ignore[arg-type, return-value]
        peer = await world.connected()
        await peer.message(1)
        await world.record.until("error", "callback_failed", count=2)
        end()
        await peer.message(2)
        await world.record.until("error", "callback_failed", count=3)
        assert [payload for payload, _, _ in world.record.of("message")] == [1, 2]

    play(scene)


def test_slow_callbacks_slow_the_server_down_and_lose_nothing() -> None:
    async def scene(world: World) -> None:
        gate = asyncio.Event()

        async def wait(message: Message) -> None:
            await gate.wait()

        world.client.on("note", wait)
        peer = await world.connected()
        for number in range(50):
            await peer.message(number)
        await until(lambda: world.client._dispatcher.full)
        # Silence means nothing while the client does not read.
        world.clock.advance(200)
        assert world.client.state == "connected"
        gate.set()
        await world.record.until("message", 49)
        assert [payload for payload, _, _ in world.record.of("message")] == list(range(50))

    play(scene, callbacks_max=10)


def test_frames_that_are_not_of_the_protocol_are_reported() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        for text in ("{", "[1]", '{"type":7}', '{"type":"ack","payload":1}'):
            await peer.socket.send(text)
        await peer.send("error", {"code": "rate_limited", "message": "slow down", "retryable": True})
        await peer.send("brand_new", 1)
        await world.record.until("message", 1)
        assert world.record.of("error") == [("invalid_frame",)] * 4 + [("rate_limited",)]

    play(scene)


async def storm(world: World, peers: list[Peer]) -> None:
    """Accept, and drop at once."""
    while True:
        peer = await world.server.accept()
        peers.append(peer)
        await peer.drop()


def test_no_sequence_of_failures_leads_to_attempts_without_a_wait() -> None:
    async def scene(world: World) -> None:
        peers: list[Peer] = []
        storming = asyncio.ensure_future(storm(world, peers))
        world.client.connect()
        for count in range(1, 30):
            event = await world.record.until("state", "disconnected", count=count)
            assert event[3] > 0
            assert world.server.upgrades == count
            world.client.connect()
            world.clock.advance(event[3])
        storming.cancel()

    play(scene)
