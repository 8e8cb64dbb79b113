"""Sections 6 and 7 of clients/SPEC.md."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted import Peer, World, play, until

from signalbox_client import SignalboxError, TokenDenied


async def joined(world: World, peer: Peer, room: str = "r", **place: Any) -> dict[str, Any]:
    """Join a room, and return the frame."""
    world.record.watch(room)
    joining = asyncio.ensure_future(world.client.join(room))
    frame = await peer.answer_join(**place)
    await joining
    return frame


def test_a_room_is_joined_again_with_its_position_after_each_reconnect() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        frame = await joined(world, peer, epoch="e", offset=7)
        assert "payload" not in frame
        await peer.message("eight", room="r", offset=8)
        await world.record.until("message", "eight")
        await peer.drop()
        peer = await world.reconnected()
        frame = await peer.answer_join(epoch="e", offset=10, recovered=True, count=2)
        assert frame["payload"] == {"since": {"epoch": "e", "offset": 8}}
        await peer.message("nine", room="r", offset=9)
        await peer.message("ten", room="r", offset=10)
        await world.record.until("message", "ten")
        assert world.record.events[-3:] == [
            ("recovered", "r", True, None),
            ("message", "nine", "r", 9),
            ("message", "ten", "r", 10),
        ]

    play(scene)


def test_a_failed_recovery_is_reported_before_later_messages() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await joined(world, peer, epoch="e", offset=7)
        await peer.drop()
        peer = await world.reconnected()
        await peer.answer_join(epoch="f", offset=2, recovered=False, reason="epoch")
        await peer.message("three", room="r", offset=3)
        await world.record.until("message", "three")
        assert world.record.events[-2:] == [("recovered", "r", False, "epoch"), ("message", "three", "r", 3)]

    play(scene)


def test_a_room_that_has_lost_its_history_did_not_recover() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await joined(world, peer, epoch="e", offset=7)
        await peer.drop()
        peer = await world.reconnected()
        await peer.answer_join()
        await peer.message("new", room="r")
        await world.record.until("message", "new")
        assert world.record.of("recovered") == [("r", False, "no_history")]
        assert world.client.room("r").recovered is False

    play(scene)


def test_the_old_messages_of_a_late_comer_are_no_repetitions() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        joining = asyncio.ensure_future(world.client.join("r", last=2))
        frame = await peer.answer_join(epoch="e", offset=7, recovered=True, count=2)
        assert frame["payload"] == {"last": 2}
        assert (await joining).recovered is None
        await peer.message("six", room="r", offset=6)
        await peer.message("seven", room="r", offset=7)
        await world.record.until("message", "seven")
        assert [payload for payload, _, _ in world.record.of("message")] == ["six", "seven"]

    play(scene)


def test_a_room_without_a_position_is_joined_again_as_at_first() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        joining = asyncio.ensure_future(world.client.join("r", last=5))
        await peer.answer_join()
        await joining
        await peer.drop()
        peer = await world.reconnected()
        assert (await peer.answer_join())["payload"] == {"last": 5}

    play(scene)


def test_repetitions_are_dropped_and_a_gap_leads_to_another_join() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await joined(world, peer, epoch="e", offset=1)
        for offset in (2, 2, 1, 5, 6):
            await peer.message(offset, room="r", offset=offset)
        frame = await peer.answer_join(epoch="e", offset=6, recovered=True, count=4)
        assert frame["payload"] == {"since": {"epoch": "e", "offset": 2}}
        for offset in (3, 4, 5, 6):
            await peer.message(offset, room="r", offset=offset)
        await world.record.until("message", 6)
        assert [payload for payload, _, _ in world.record.of("message")] == [2, 3, 4, 5, 6]

    play(scene)


def test_a_member_that_missed_messages_learns_it_from_joined() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        world.record.watch("r")
        joining = asyncio.ensure_future(world.client.join("r"))
        frame = await peer.receive()
        # The one before the answer belongs to the join.
        await peer.send("joined", {"room": "r", "epoch": "e", "offset": 1, "recovered": False, "reason": "epoch"})
        await peer.ack(frame, room={"epoch": "e", "offset": 1})
        await joining
        await peer.send("joined", {"room": "r", "epoch": "e", "offset": 9, "recovered": False, "reason": "expired"})
        await peer.message("ten", room="r", offset=10)
        await world.record.until("message", "ten")
        assert world.record.of("recovered") == [("r", False, "expired")]

    play(scene)


def test_at_most_fifty_joins_wait_for_their_answers_in_the_order_of_the_memberships() -> None:
    async def scene(world: World) -> None:
        joins = [asyncio.ensure_future(world.client.join(f"r{number}")) for number in range(60)]
        await asyncio.sleep(0)
        peer = await world.connected()
        frames = [await peer.receive() for _ in range(50)]
        assert [frame["room"] for frame in frames] == [f"r{number}" for number in range(50)]
        # Nothing else comes before an answer: the next frame is the 51st room.
        await peer.ack(frames[0])
        assert (await peer.receive())["room"] == "r50"
        for frame in frames[1:]:
            await peer.ack(frame)
        for number in range(51, 60):
            assert (await peer.answer_join())["room"] == f"r{number}"
        for join in joins[:50]:
            await join

        for join in joins[50:]:
            join.cancel()

    play(scene)


def test_a_join_that_may_succeed_later_is_retried() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        joining = asyncio.ensure_future(world.client.join("r"))
        for wait in (1, 2, 4):
            await peer.refuse(await peer.receive(), "room_full", retryable=True)
            await until(lambda wait=wait: float(wait) in world.clock.pending)  # type: ignore[misc]
            world.clock.advance(wait)
        await peer.answer_join()
        await joining

    play(scene)


def test_a_join_that_is_refused_for_good_ends_the_membership() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        world.record.watch("r")
        joining = asyncio.ensure_future(world.client.join("r"))
        await peer.refuse(await peer.receive(), "forbidden_room")
        with pytest.raises(SignalboxError, match="forbidden_room"):
            await joining
        assert await world.record.until("left") == ("left", "r", "forbidden_room")
        await peer.drop()
        peer = await world.reconnected()
        await answered_by(world, peer)

    play(scene)


async def answered_by(world: World, peer: Peer) -> None:
    """The next frame of the client is a message: no join comes before it."""
    sending = asyncio.ensure_future(world.client.send("note"))
    frame = await peer.receive()
    assert frame["type"] == "note", frame
    await peer.ack(frame)
    await sending


def test_the_server_can_end_a_membership() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await joined(world, peer)
        await peer.send("left", {"room": "r"})
        assert await world.record.until("left") == ("left", "r", "removed")
        assert world.client.joined == []

    play(scene)


def test_a_left_after_a_leave_says_nothing_about_the_next_join() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await joined(world, peer)
        leaving = asyncio.ensure_future(world.client.leave("r"))
        leave = await peer.receive()
        assert leave["type"] == "leave"
        joining = asyncio.ensure_future(world.client.join("r"))
        join = await peer.receive()
        await peer.send("left", {"room": "r"})
        await peer.ack(leave)
        await leaving
        await peer.ack(join)
        await joining
        assert world.client.joined == ["r"] and world.record.of("left") == []

    play(scene)


def test_a_room_token_that_expires_is_replaced() -> None:
    tokens = iter(["one", "two"])
    rooms: list[str] = []

    async def fetch(room: str) -> str:
        rooms.append(room)
        return next(tokens)

    async def scene(world: World) -> None:
        peer = await world.connected()
        joining = asyncio.ensure_future(world.client.join("r", token=fetch))
        frame = await peer.answer_join(epoch="e", offset=3)
        assert frame["payload"] == {"token": "one"}
        await joining
        await peer.send("left", {"room": "r", "reason": "expired"})
        frame = await peer.answer_join(epoch="e", offset=3, recovered=True, count=0)
        assert frame["payload"] == {"since": {"epoch": "e", "offset": 3}, "token": "two"}
        assert rooms == ["r", "r"]

    play(scene)


def test_an_expired_room_token_without_a_callback_ends_the_membership() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        world.record.watch("r")
        joining = asyncio.ensure_future(world.client.join("r", token="t"))
        await peer.answer_join()
        await joining
        await peer.send("left", {"room": "r", "reason": "expired"})
        assert await world.record.until("left") == ("left", "r", "expired")

    play(scene)


def test_a_room_token_that_is_denied_ends_the_membership() -> None:
    async def deny(_: str) -> str:
        raise TokenDenied("not yours")

    async def scene(world: World) -> None:
        await world.connected()
        with pytest.raises(SignalboxError, match="unauthorized"):
            await world.client.join("r", token=deny)

    play(scene)


def test_joining_twice_changes_the_options_of_one_membership() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        first = asyncio.ensure_future(world.client.join("r"))
        frame = await peer.receive()
        second = asyncio.ensure_future(world.client.join("r", presence=True))
        await asyncio.sleep(0)
        await peer.ack(frame)
        assert (await peer.answer_join())["payload"] == {"presence": True}
        await first
        await second
        await world.client.join("r", presence=True)
        await peer.drop()
        peer = await world.reconnected()
        assert (await peer.answer_join())["payload"] == {"presence": True}
        await answered_by(world, peer)

    play(scene)


def test_presence_is_merged_and_stays_until_the_next_list() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await joined(world, peer)
        ann, bob, eve = ({"userId": name, "connections": 1} for name in ("ann", "bob", "eve"))
        await peer.send("presence", {"room": "r", "total": 2, "members": [ann, bob]})
        await peer.send("presence", {"room": "r", "total": 2, "joined": [eve], "left": ["bob"]})
        await peer.send("presence", {"room": "r", "total": 2000})
        await peer.send("presence", {"room": "r", "total": 2001, "joined": [bob]})
        await peer.send("presence", {"room": "r", "total": 1, "members": [ann]})
        await world.record.until("presence", 1)
        assert world.record.of("presence") == [
            (2, ["ann", "bob"]),
            (2, ["ann", "eve"]),
            (2000, None),
            (2001, None),
            (1, ["ann"]),
        ]
        await peer.drop()
        peer = await world.reconnected()
        assert world.client.room("r").presence.total == 1

    play(scene)


def test_the_messages_of_the_user_are_recovered() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected(user={"epoch": "u", "offset": 4})
        await peer.message("five", offset=5)
        await peer.message("five again", offset=5)
        await peer.message("to all")
        await world.record.until("message", "to all")
        await peer.drop()
        peer = await world.reconnected(user={"epoch": "u", "offset": 6, "recovered": True, "count": 1})
        assert peer.path == "/ws?userId=ann&since=u%3A5"
        await peer.message("six", offset=6)
        # A gap: the client comes back for the missing ones.
        await peer.message("eight", offset=8)
        peer = await world.reconnected(user={"epoch": "v", "offset": 1, "recovered": False, "reason": "epoch"})
        assert peer.path == "/ws?userId=ann&since=u%3A6"
        await world.record.until("recovered", None, False, "epoch")
        payloads = [payload for payload, _, _ in world.record.of("message")]
        assert payloads == ["five", "to all", "six"]
        assert world.record.of("recovered") == [(None, True, None), (None, False, "epoch")]

    play(scene)


def test_a_user_who_missed_messages_learns_it_from_joined() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected(user={"epoch": "u", "offset": 4})
        await peer.send("joined", {"user": {"epoch": "v", "offset": 0, "recovered": False, "reason": "epoch"}})
        await peer.message("one", offset=1)
        await world.record.until("message", "one")
        assert world.record.events[-2:] == [("recovered", None, False, "epoch"), ("message", "one", None, 1)]

    play(scene)


def test_a_client_forgets_rooms_that_it_left() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        for number in range(3):
            joining = asyncio.ensure_future(world.client.join(f"r{number}"))
            await peer.answer_join()
            room = await joining
            leaving = asyncio.ensure_future(room.leave())
            await peer.ack(await peer.receive())
            await leaving
        assert not world.client._rooms._handles
        joining = asyncio.ensure_future(room.join())
        await peer.answer_join()
        assert await joining is room and room.joined

    play(scene)
