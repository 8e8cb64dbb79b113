"""Section 12 of clients/SPEC.md: which transport an attempt uses."""

from __future__ import annotations

from typing import Any

import pytest
import scripted
from scripted import Clock, World, until
from streams import BLOCKED, Answer, StreamWorld, play

from signalbox_client import Options, SignalboxError, sse
from signalbox_client.fallback import Fallback
from signalbox_client.http1 import Response, exchange
from signalbox_client.outcomes import End

DRAINING: Answer = (503, {}, '{"error":{"code":"draining","message":"bye"}}')


def test_attempts_change_the_transport_while_neither_works() -> None:
    async def scene(world: StreamWorld) -> None:
        world.server.refusals = [(502, {}, ""), (200, {"Content-Type": "text/html"}, "<html>")]
        world.client.connect()
        for count in range(1, 6):
            await world.fails(count)
        await world.accepted()
        assert world.server.attempts == ["websocket", "sse"] * 3

    play(scene)


def test_the_wait_is_short_before_server_sent_events_that_follow_a_web_socket() -> None:
    async def scene(world: StreamWorld) -> None:
        world.server.refusals = [(502, {}, "")] * 3
        world.client.connect()
        for count in range(1, 7):
            await world.fails(count)
        assert [wait for _, _, wait in world.record.of("state") if wait is not None] == [0.5, 1, 0.5, 4, 0.5, 16]
        await world.record.until("state", "disconnected", count=7)

    play(scene)


def test_without_the_fallback_only_web_sockets_are_tried() -> None:
    async def scene(world: StreamWorld) -> None:
        world.client.connect()
        for count in range(1, 5):
            await world.fails(count)
        await until(lambda: len(world.server.attempts) == 5)
        assert set(world.server.attempts) == {"websocket"}
        world.server.upgrades = [(403, {}, "<html>")]
        await world.fails(5)
        await world.record.until("state", "closed", 403)

    play(scene, fallback=False)


def test_an_answer_of_the_server_keeps_the_transport() -> None:
    async def scene(world: StreamWorld) -> None:
        world.server.upgrades = [DRAINING, (401, {}, ""), DRAINING]
        world.server.refusals = [DRAINING, DRAINING]
        world.client.connect()
        for count in range(1, 7):
            await world.fails(count)
        await world.accepted()
        assert world.server.attempts == ["websocket"] * 4 + ["sse"] * 3

    async def get_token() -> str:
        return "t"

    play(scene, get_token=get_token)


@pytest.mark.parametrize("code", ["not_an_upgrade", "websocket_version", "websocket_key"])
def test_a_proxy_that_takes_the_upgrade_out_of_the_request_leads_to_server_sent_events(code: str) -> None:
    async def scene(world: StreamWorld) -> None:
        world.server.upgrades = [(400, {}, f'{{"error":{{"code":"{code}","message":"no"}}}}')]
        await world.connected()

    play(scene)


def test_a_status_that_a_proxy_may_have_sent_counts_only_with_both_transports() -> None:
    async def scene(world: StreamWorld) -> None:
        world.server.upgrades = [(403, {}, "<html>"), (403, {}, "<html>")]
        world.server.refusals = [(502, {}, ""), (404, {}, '{"error":{"code":"sse_disabled","message":"off"}}')]
        world.client.connect()
        for count in range(1, 4):
            await world.fails(count)
        await world.record.until("state", "closed", 404)
        assert world.record.of("error") == [("refused",)]
        assert world.server.attempts == ["websocket", "sse"] * 2

    play(scene)


def test_a_refusal_of_the_server_closes_the_client_at_once() -> None:
    async def scene(world: StreamWorld) -> None:
        world.server.refusals = [(403, {}, '{"error":{"code":"blocked","message":"no"}}')]
        world.client.connect()
        await world.fails(1)
        await world.record.until("state", "closed", 403)

    play(scene)


def test_a_server_without_server_sent_events_is_asked_for_a_web_socket_next() -> None:
    fallback = Fallback(Options(), Clock())
    fallback.start()
    for expected in ("websocket", "sse", "websocket"):
        assert fallback.begin() == expected
        fallback.failed(End("", status=404 if expected == "sse" else 502, answered=expected == "sse"))


def test_a_client_with_a_web_socket_keeps_to_it_for_three_failures() -> None:
    async def scene(world: World) -> None:
        await (await world.connected()).drop()
        world.server.refusals = [BLOCKED, BLOCKED, DRAINING, BLOCKED, BLOCKED, BLOCKED, BLOCKED]
        for count in range(1, 9):
            await world.record.until("state", "disconnected", count=count)
            world.clock.advance(60)
        await world.accepted()
        assert world.server.paths == ["/ws?userId=ann"] * 7 + ["/sse?userId=ann", "/ws?userId=ann"]

    scripted.play(scene)


def test_attempts_begin_with_the_transport_that_worked_for_ten_minutes() -> None:
    async def scene(world: StreamWorld) -> None:
        peer = await world.connected()
        world.clock.advance(530)
        peer.drop()
        await until(lambda: world.client.state == "disconnected")
        world.clock.advance(0.5)
        peer = await world.accepted()
        assert world.server.attempts == ["websocket", "sse", "sse"]
        world.clock.advance(600)
        assert world.client.state == "connected"
        peer.drop()
        await world.fails(3)
        await world.fails(4)
        await world.accepted()
        assert world.server.attempts == ["websocket", "sse", "sse", "websocket", "sse"]

    play(scene, heartbeat_interval=10_000)


def test_a_proxy_that_holds_the_events_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[int] = []

    async def noticed(*arguments: Any) -> Response:
        response = await exchange(*arguments)
        heads.append(response.status)
        return response

    monkeypatch.setattr(sse, "exchange", noticed)

    async def scene(world: StreamWorld) -> None:
        errors: list[SignalboxError] = []
        world.client.on_error(errors.append)
        world.client.connect()
        await world.fails(1)
        peer = await world.server.accept_silently()
        await peer.begin()
        await until(lambda: heads == [200])
        world.clock.advance(10)
        await peer.gone()
        await world.fails(2)
        assert [(error.code, error.retryable) for error in errors] == [("buffered", True)]
        assert "proxy" in errors[0].message
        await world.fails(3)
        assert world.server.attempts == ["websocket", "sse", "websocket"]

    play(scene)
