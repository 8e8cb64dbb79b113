"""Section 4 of clients/SPEC.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from scripted import World, play, until

from signalbox_client import TokenDenied


class Issuer:
    """A token callback that counts its calls."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.running = 0

    async def __call__(self) -> str:
        self.calls += 1
        self.running += 1
        assert self.running == 1, "the callback runs twice at the same time"
        await asyncio.sleep(0)
        self.running -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def with_issuer(issuer: Any, scene: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    play(scene, get_token=issuer)


def test_a_token_is_kept_until_the_server_refuses_it() -> None:
    issuer = Issuer("one", "two")

    async def scene(world: World) -> None:
        peer = await world.connected()
        assert (peer.headers["Authorization"], peer.path) == ("Bearer one", "/ws")
        await peer.drop()
        peer = await world.reconnected()
        assert (peer.headers["Authorization"], issuer.calls) == ("Bearer one", 1)
        await peer.close(4500, "expired")
        peer = await world.reconnected()
        assert (peer.headers["Authorization"], issuer.calls) == ("Bearer two", 2)

    with_issuer(issuer, scene)


def test_a_token_that_is_refused_three_times_in_a_row_closes_the_client() -> None:
    issuer = Issuer("bad")

    async def scene(world: World) -> None:
        world.server.refusals = [(401, {}, ""), (503, {}, ""), (401, {}, ""), (401, {}, "")]
        world.client.connect()
        for count in (1, 2, 3):
            await world.record.until("state", "disconnected", count=count)
            world.clock.advance(60)
        await world.record.until("state", "closed")
        assert world.record.of("error") == [("unauthorized",)]
        assert issuer.calls == 3

    with_issuer(issuer, scene)


def test_a_refused_token_without_a_callback_closes_the_client() -> None:
    async def scene(world: World) -> None:
        world.server.refusals = [(401, {}, "")]
        world.client.connect()
        await world.record.until("state", "closed", 401)
        assert world.record.of("error") == [("unauthorized",)]

    play(scene, token="t")


def test_a_callback_that_fails_is_called_again_after_the_backoff() -> None:
    issuer = Issuer(RuntimeError("down"), "good")

    async def scene(world: World) -> None:
        world.client.connect()
        await world.record.until("state", "disconnected", None, 0.5)
        assert world.server.upgrades == 0
        world.clock.advance(0.5)
        await world.accepted()
        assert world.record.of("error") == [("token_failed",)]

    with_issuer(issuer, scene)


def test_a_callback_that_denies_a_token_closes_the_client() -> None:
    async def scene(world: World) -> None:
        world.client.connect()
        await world.record.until("state", "closed")
        assert world.record.of("error") == [("unauthorized",)]

    with_issuer(Issuer(TokenDenied("logged out")), scene)


def test_a_callback_has_thirty_seconds() -> None:
    begun = asyncio.Event()

    async def hang() -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    async def scene(world: World) -> None:
        world.client.connect()
        await begun.wait()
        world.clock.advance(30)
        await world.record.until("state", "disconnected")
        assert world.record.of("error") == [("token_failed",)]

    with_issuer(hang, scene)


def test_a_token_that_expires_is_replaced_on_the_connection() -> None:
    issuer = Issuer("one", RuntimeError("down"), "two")

    async def scene(world: World) -> None:
        peer = await world.connected()
        await peer.send("token_expiring", {"expiresInMs": 30000})
        await world.record.until("error", "token_failed")
        await until(lambda: 0.5 in world.clock.pending)
        world.clock.advance(0.5)
        frame = await peer.receive()
        assert (frame["type"], frame["payload"]) == ("token", "two")
        await peer.ack(frame)
        await peer.drop()
        peer = await world.reconnected()
        assert peer.headers["Authorization"] == "Bearer two"
        assert issuer.calls == 3

    with_issuer(issuer, scene)


def test_a_renewal_that_the_server_cannot_check_now_is_repeated() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await peer.send("token_expiring", {"expiresInMs": 30000})
        await peer.refuse(await peer.receive(), "unavailable", retryable=True)
        await until(lambda: 0.5 in world.clock.pending)
        world.clock.advance(0.5)
        await peer.ack(await peer.receive())

    with_issuer(Issuer("one", "two"), scene)


def test_a_renewal_that_is_denied_closes_the_client() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await peer.send("token_expiring", {"expiresInMs": 30000})
        await world.record.until("state", "closed")
        assert world.record.of("error") == [("unauthorized",)]

    with_issuer(Issuer("one", TokenDenied("logged out")), scene)


def test_a_token_that_lives_shortly_is_replaced_after_half_of_its_time() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await peer.send("token_expiring", {"expiresInMs": 14000})
        frame = await peer.receive()
        # The server announces the end of the new token before its answer, and once more later.
        await peer.send("token_expiring", {"expiresInMs": 14000})
        await peer.ack(frame)
        await until(lambda: 7.0 in world.clock.pending)
        world.clock.advance(7)
        await peer.ack(await peer.receive())
        await peer.send("token_expiring", {"expiresInMs": 100})
        await until(lambda: 1.0 in world.clock.pending)
        world.clock.advance(1)
        await peer.ack(await peer.receive())

    with_issuer(Issuer("one"), scene)
