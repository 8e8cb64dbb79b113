"""Sections 1 to 3 of clients/SPEC.md."""

from __future__ import annotations

import asyncio

import pytest
from scripted import World, play, until

from signalbox_client import Client, SignalboxError
from signalbox_client.backoff import Backoff
from signalbox_client.outcomes import End, Next, retry_after


def test_the_backoff_is_full_jitter_up_to_its_bound() -> None:
    draws = iter([1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0])
    backoff = Backoff(0.5, 20, lambda: next(draws))
    assert [backoff.next() for _ in range(7)] == [0.5, 1, 1, 0, 8, 16, 20]


def test_the_backoff_has_a_bound_after_years() -> None:
    backoff = Backoff(0.5, 20, lambda: 1.0)
    assert {backoff.next() for _ in range(5000)} <= {0.5, 1, 2, 4, 8, 16, 20}


@pytest.mark.parametrize(
    ("codes", "following"),
    [
        ([4500, 4504], Next.NEW_TOKEN),
        ([4501, 4502, 4503, 4505, 4506, 4999, 1002, 1003, 1007, 1008, 1009, 1010], Next.CLOSE),
        ([None, 1000, 1001, 1006, 1011, 1012, 3000, 4000, 4008, 4009, 4499], Next.RECONNECT),
    ],
)
def test_the_close_code_decides_what_follows(codes: list[int | None], following: Next) -> None:
    assert {End("", code=code).next() for code in codes} == {following}


@pytest.mark.parametrize(
    ("statuses", "following"),
    [
        ([401], Next.NEW_TOKEN),
        ([400, 403, 404, 405, 410, 426], Next.CLOSE),
        ([200, 301, 302, 408, 429, 500, 502, 503], Next.RECONNECT),
    ],
)
def test_the_status_decides_what_follows(statuses: list[int], following: Next) -> None:
    assert {End("", status=status).next() for status in statuses} == {following}


def test_a_retry_after_counts_up_to_a_minute() -> None:
    headers = [None, "", "soon", "7", "3600"]
    assert [retry_after(header) for header in headers] == [0, 0, 0, 7, 60]


def test_a_client_needs_a_web_socket_and_one_identity() -> None:
    with pytest.raises(ValueError):
        Client("http://localhost/ws", user_id="ann")
    with pytest.raises(ValueError):
        Client("ws://localhost/ws")
    with pytest.raises(ValueError):
        Client("ws://localhost/ws", user_id="ann", token="t")


def test_a_client_connects_once_and_closes_with_1000() -> None:
    async def scene(world: World) -> None:
        assert world.client.state == "disconnected"
        peer = await world.connected()
        world.client.connect()
        assert peer.path == "/ws?userId=ann"
        closing = asyncio.ensure_future(peer.closed_with())
        await world.client.close()
        assert await closing == 1000
        await world.record.until("state", "closed")
        states = [state for state, _, _ in world.record.of("state")]
        assert states == ["connecting", "connected", "closed"]
        assert world.server.upgrades == 1

    play(scene)


def test_a_closed_client_starts_again() -> None:
    async def scene(world: World) -> None:
        await world.connected()
        await world.client.close()
        world.client.connect()
        await world.accepted()

    play(scene)


def test_a_lost_connection_comes_back_after_the_backoff() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await peer.drop()
        assert await world.record.until("state", "disconnected") == ("state", "disconnected", None, 0.5)
        world.clock.advance(0.4)
        assert world.client.state == "disconnected"
        world.clock.advance(0.1)
        await world.accepted()

    play(scene)


def test_only_a_connection_that_lasts_resets_the_backoff() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        for count, (lasts, wait) in enumerate([(4.9, 0.5), (4.9, 1), (5, 0.5)], 1):
            world.clock.advance(lasts)
            await peer.drop()
            event = await world.record.until("state", "disconnected", count=count)
            assert event[3] == wait
            world.clock.advance(wait)
            peer = await world.accepted()

    play(scene)


def test_a_refused_upgrade_waits_as_long_as_the_server_says() -> None:
    async def scene(world: World) -> None:
        world.server.refusals = [(503, {"Retry-After": "7"}, '{"error":{"code":"draining","message":"bye"}}')]
        world.client.connect()
        assert await world.record.until("state", "disconnected") == ("state", "disconnected", 503, 7)
        world.clock.advance(7)
        await world.accepted()

    play(scene)


def test_a_redirect_is_not_followed() -> None:
    async def scene(world: World) -> None:
        world.server.refusals = [(302, {"Location": world.server.url}, "")]
        world.client.connect()
        assert (await world.record.until("state", "disconnected"))[2] == 302
        assert world.server.upgrades == 1

    play(scene)


def test_a_refusal_for_good_closes_the_client_with_an_error() -> None:
    async def scene(world: World) -> None:
        errors: list[SignalboxError] = []
        world.client.on_error(errors.append)
        world.server.refusals = [(403, {}, '{"error":{"code":"blocked","message":"blocked for now"}}')]
        world.client.connect()
        assert await world.record.until("state", "closed") == ("state", "closed", 403, None)
        assert [(error.code, error.status, error.message) for error in errors] == [("refused", 403, "blocked for now")]

    play(scene)


def test_a_close_code_for_good_closes_the_client_with_an_error() -> None:
    async def scene(world: World) -> None:
        errors: list[SignalboxError] = []
        world.client.on_error(errors.append)
        peer = await world.connected()
        await peer.close(4501, "kicked")
        await world.record.until("state", "closed")
        assert [(error.code, error.close_code, error.message) for error in errors] == [("refused", 4501, "kicked")]

    play(scene)


def test_a_server_without_the_protocol_closes_the_client() -> None:
    async def scene(world: World) -> None:
        world.server.subprotocol = False
        world.client.connect()
        await world.record.until("state", "closed")
        assert world.record.of("error") == [("unsupported_protocol",)]

    play(scene)


def test_an_attempt_without_a_welcome_fails_after_its_time() -> None:
    async def scene(world: World) -> None:
        world.client.connect()
        await world.server.accept_silently()
        world.clock.advance(10)
        await world.record.until("state", "disconnected")

    play(scene)


def test_a_change_of_the_network_ends_the_wait_at_most_once_in_five_seconds() -> None:
    async def scene(world: World) -> None:
        peer = await world.connected()
        await peer.drop()
        await world.record.until("state", "disconnected")
        world.client.wake()
        peer = await world.accepted()
        await peer.drop()
        await world.record.until("state", "disconnected", count=2)
        world.client.wake()
        assert world.client.state == "disconnected" and 1.0 in world.clock.pending
        world.clock.advance(1)
        await world.accepted()

    play(scene)


def test_a_client_that_is_closed_while_it_connects_leaves_nothing() -> None:
    async def scene(world: World) -> None:
        world.client.connect()
        peer = await world.server.accept_silently()
        await world.client.close()
        assert await peer.closed_with() is None
        await until(lambda: world.record.of("state")[-1][0] == "closed")

    play(scene)
