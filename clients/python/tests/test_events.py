"""The parser of server-sent events."""

from __future__ import annotations

import pytest

from signalbox_client.events import Event, EventParser, EventTooLarge

STREAM = (
    "\ufeff: hello\n\n"
    "id: e:1\ndata: {\"a\":1}\n\n"
    "data:one\ndata: two\ndata\n\n"
    "event: close\r\ndata: ü\r\n\r\n"
    "event: nothing\n\n"
    "retry: 5\rdata:  spaced\r\r"
    "data: unfinished"
).encode()
EVENTS = [Event("", '{"a":1}'), Event("", "one\ntwo\n"), Event("close", "ü"), Event("", " spaced")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_from_pieces_of_any_size(size: int) -> None:
    parser = EventParser(1000)
    events = []
    for start in range(0, len(STREAM), size):
        events += parser.feed(STREAM[start : start + size])
    assert events == EVENTS


def test_an_event_has_a_greatest_size() -> None:
    parser = EventParser(20)
    assert parser.feed(b"data: 12345678901234\n\n") == [Event("", "12345678901234")]
    with pytest.raises(EventTooLarge):
        parser.feed(b"data: 1234567\ndata: 1234567")
    with pytest.raises(EventTooLarge):
        EventParser(20).feed(b"x" * 21)
