"""Section 5 of clients/SPEC.md."""

from __future__ import annotations

from scripted import Clock, World, play, until

from signalbox_client.heartbeat import Heartbeat


class Watched:
    """A heartbeat, and what it did."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked = 0
        self.lost = 0
        self.beat = Heartbeat(self.clock, 25, 10, self._ask, self._lose, wall=self.clock.time)

    def _ask(self) -> None:
        self.asked += 1

    def _lose(self) -> None:
        self.lost += 1


def test_silence_leads_to_a_question_and_then_to_a_loss() -> None:
    watched = Watched()
    watched.clock.advance(24)
    assert watched.asked == 0
    watched.clock.advance(1)
    assert watched.asked == 1
    watched.clock.advance(9)
    assert watched.lost == 0
    watched.clock.advance(1)
    assert watched.lost == 1 and watched.clock.pending == []


def test_everything_that_arrives_is_a_sign_of_life() -> None:
    watched = Watched()
    watched.clock.advance(20)
    watched.beat.heard()
    watched.clock.advance(24)
    assert watched.asked == 0
    watched.clock.advance(1)
    watched.beat.heard()
    watched.clock.advance(24)
    assert (watched.asked, watched.lost) == (1, 0)
    watched.clock.advance(1)
    assert watched.asked == 2


def test_silence_counts_anew_after_an_answer() -> None:
    watched = Watched()
    watched.beat = Heartbeat(watched.clock, 1, 60, watched._ask, watched._lose, wall=watched.clock.time)
    for count in range(1, 6):
        watched.clock.advance(1)
        assert watched.asked == count
        watched.beat.heard()
    watched.beat.stop()
    watched.beat.heard()
    assert 1.0 not in watched.clock.pending


def test_a_pause_leads_to_a_question_at_once_with_five_seconds() -> None:
    watched = Watched()
    # The process stands still for an hour: the timer comes late.
    watched.clock.now += 3600
    watched.clock.advance(0)
    assert (watched.asked, watched.clock.pending) == (1, [5.0])
    watched.clock.advance(5)
    assert watched.lost == 1


def test_a_question_that_a_pause_interrupts_is_asked_again() -> None:
    watched = Watched()
    watched.clock.advance(25)
    watched.clock.now += 3600
    watched.clock.advance(0)
    assert (watched.asked, watched.lost) == (2, 0)


def test_a_dead_connection_is_replaced() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected(heartbeatIntervalMs=3000)
        world.clock.advance(3)
        frame = await peer.receive()
        assert frame["type"] == "heartbeat" and frame["id"]
        world.clock.advance(10)
        await world.record.until("state", "disconnected")
        await world.reconnected()

    play(scene)


def test_a_ping_is_a_sign_of_life() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected(heartbeatIntervalMs=3000)
        world.clock.advance(2)
        await (await peer.socket.ping())
        world.clock.advance(2)
        await until(lambda: 1.0 in world.clock.pending)

    play(scene)
