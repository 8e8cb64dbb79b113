"""Section 12 of clients/SPEC.md: connections over server-sent events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from scripted import until
from streams import StreamPeer, StreamWorld, play

from signalbox_client import SignalboxError, StateChange


def start(world: StreamWorld, payload: Any, **options: Any) -> asyncio.Task[Any]:
    """Begin a call."""
    return asyncio.ensure_future(world.client.send("note", payload, **options))


async def code_of(call: asyncio.Task[Any]) -> str:
    """The code with which the call failed."""
    with pytest.raises(SignalboxError) as failed:
        await call
    return failed.value.code


async def payload_of(peer: StreamPeer) -> Any:
    """The payload of the next frame."""
    return (await peer.receive())["payload"]


def test_everything_works_over_events_and_posts() -> None:
    async def scene(world: StreamWorld) -> None:
        changes: list[StateChange] = []
        world.client.on_state(changes.append)
        peer = await world.connected()
        assert (peer.path, peer.headers["Accept"]) == ("/sse?userId=ann", "text/event-stream")
        await until(lambda: [change.transport for change in changes] == [None, None, None, "sse"])
        joining = asyncio.ensure_future(world.client.join("r"))
        await peer.answer_join(epoch="e", offset=3)
        await joining
        await peer.message("hi", room="r", offset=4)
        await world.record.until("message", "hi", "r", 4)
        call = start(world, {"a": "ü"}, room="r")
        frame = await peer.receive()
        assert frame["payload"] == {"a": "ü"}
        await peer.ack(frame)
        assert (await call).status == "handled"
        path, headers = peer.posts[-1]
        assert path == "/sse/c"
        assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer k3y", "application/json")

    play(scene)


def test_a_token_travels_in_the_header() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        assert (peer.path, peer.headers["Authorization"]) == ("/sse", "Bearer t")

    play(scene, token="t")


def test_rooms_and_the_user_recover_after_a_loss() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected(user={"epoch": "u", "offset": 7})
        joining = asyncio.ensure_future(world.client.join("r"))
        await peer.answer_join(epoch="e", offset=3)
        await joining
        peer.drop()
        peer = await world.reconnected(user={"epoch": "u", "offset": 7, "recovered": True})
        assert peer.path == "/sse?userId=ann&since=u%3A7"
        assert (await peer.answer_join(epoch="e", offset=3, recovered=True))["payload"]["since"]["offset"] == 3

    play(scene)


def test_a_close_event_is_a_close_code() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        await peer.message("last")
        peer.end(4000, "going down")
        await world.record.until("message", "last")
        assert (await world.record.until("state", "disconnected", 4000))[2] == 4000
        peer = await world.reconnected()
        peer.end(4501, "kicked")
        await world.record.until("state", "closed", 4501)
        assert world.record.of("error") == [("refused",)]

    play(scene)


def test_a_body_that_ends_without_a_close_event_is_a_lost_connection() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.drop()
        await world.record.until("state", "disconnected", None, count=1)
        await world.reconnected()

    play(scene)


def test_comments_are_signs_of_life_and_unknown_events_are_ignored() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected(heartbeatIntervalMs=3000)
        world.clock.advance(2)
        peer.raw(": \n\nevent: new\ndata: 1\n\n")
        # The next message says that the comment has arrived.
        await peer.message("after")
        await world.record.until("message", "after")
        assert world.record.of("error") == []
        world.clock.advance(2)
        await until(lambda: 1.0 in world.clock.pending)
        world.clock.advance(1)
        assert (await peer.receive())["type"] == "heartbeat"
        world.clock.advance(10)
        await world.fails(2)

    play(scene)


def test_frames_are_sent_one_at_a_time_in_their_order_on_one_connection() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        before = world.server.accepted
        calls = [start(world, number) for number in range(20)]
        for number in range(20):
            assert await payload_of(peer) == number
        assert world.server.accepted == before + 1
        for call in calls:
            call.cancel()

    play(scene)


def test_a_connection_that_was_idle_is_not_used_again() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [(202, {"Connection": "close"}, ""), (202, {}, "")]
        before = world.server.accepted
        for number, wait in enumerate((0, 0, 4, 6), 1):
            world.clock.advance(wait)
            call = start(world, number)
            await peer.ack(await peer.receive())
            await call
        assert world.server.accepted == before + 3

    play(scene)


def test_a_frame_for_which_there_is_no_room_waits_and_is_repeated() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [(429, {"Retry-After": "3"}, ""), (429, {}, "")]
        calls = [start(world, number) for number in range(2)]
        assert await payload_of(peer) == 0
        await until(lambda: 3.0 in world.clock.pending)
        world.clock.advance(3)
        assert await payload_of(peer) == 0
        await until(lambda: 1.0 in world.clock.pending)
        world.clock.advance(1)
        assert [await payload_of(peer), await payload_of(peer)] == [0, 1]
        for call in calls:
            call.cancel()

    play(scene)


def test_a_frame_that_may_have_arrived_is_repeated_only_with_once() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [(503, {"Retry-After": "2"}, ""), (503, {}, "")]
        plain, once, last = start(world, 1), start(world, 2, once=True), start(world, 3)
        assert await payload_of(peer) == 1
        assert await code_of(plain) == "connection_lost"
        await until(lambda: 2.0 in world.clock.pending)
        assert peer.frames.empty()
        world.clock.advance(2)
        first = await peer.receive()
        assert await payload_of(peer) == 3
        await until(lambda: 0.5 in world.clock.pending)
        world.clock.advance(0.5)
        again = await peer.receive()
        assert again == first
        await peer.ack(again)
        assert (await once).status == "handled"
        last.cancel()

    play(scene)


def test_only_so_many_frames_wait_for_their_turn() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [None]
        calls = [start(world, number) for number in range(1001)]
        assert await code_of(calls[-1]) == "queue_full"
        assert await payload_of(peer) == 0
        for call in calls[:-1]:
            call.cancel()

    play(scene)


def test_a_frame_that_is_too_large_fails_alone() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [(413, {}, "")]
        calls = [start(world, number) for number in range(2)]
        assert await code_of(calls[0]) == "too_large"
        await peer.receive()
        await peer.ack(await peer.receive())
        assert (await calls[1]).status == "handled"

    play(scene)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 408, 500, 502])
def test_any_other_answer_to_a_post_is_a_lost_connection(status: int) -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [(status, {"Location": "/elsewhere"}, "")]
        plain, once = start(world, 1), start(world, 2, once=True)
        assert await code_of(plain) == "connection_lost"
        await peer.gone()
        peer = await world.reconnected()
        await peer.ack(await peer.receive())
        assert (await once).status == "handled"

    play(scene)


def test_a_post_without_an_answer_is_a_lost_connection() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [None]
        call, once = start(world, 1), start(world, 2, once=True)
        await peer.receive()
        world.clock.advance(5)
        assert await code_of(call) == "connection_lost"
        await peer.gone()
        peer = await world.reconnected()
        await peer.ack(await peer.receive())
        assert (await once).status == "handled"

    play(scene, connect_timeout=5)


def test_the_wait_for_an_answer_begins_with_the_post() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [(429, {"Retry-After": "8"}, "")]
        early, late = start(world, 1), start(world, 2)
        await peer.receive()
        await until(lambda: 8.0 in world.clock.pending)
        world.clock.advance(8)
        assert [await payload_of(peer), await payload_of(peer)] == [1, 2]
        world.clock.advance(2)
        assert await code_of(early) == "timeout"
        world.clock.advance(7.9)
        assert not late.done()
        world.clock.advance(0.1)
        assert await code_of(late) == "timeout"

    play(scene)


def test_a_frame_for_whose_answer_nobody_waits_is_not_sent() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [(429, {"Retry-After": "7"}, "")]
        calls = [start(world, number) for number in range(3)]
        await peer.receive()
        await until(lambda: 7.0 in world.clock.pending)
        calls[1].cancel()
        world.clock.advance(7)
        assert [await payload_of(peer), await payload_of(peer)] == [0, 2]
        calls[0].cancel()
        calls[2].cancel()

    play(scene)


def test_a_closed_client_ends_its_requests() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        peer.answers = [None]
        call = start(world, 1)
        await peer.receive()
        await world.client.close()
        assert await code_of(call) == "closed"
        await peer.gone()
        await until(lambda: world.server.open == 0)

    play(scene)


def test_a_welcome_without_a_key_is_a_failed_attempt() -> None:
    async def scene(world: StreamWorld) -> None:
        world.client.connect()
        await world.fails(1)
        peer = await world.server.accept_silently()
        await peer.begin()
        await peer.write(json.dumps({"type": "welcome", "payload": {"connectionId": "c"}}))
        await world.fails(2)
        await world.accepted()

    play(scene)
