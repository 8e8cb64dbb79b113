"""Frames that wait for their answers, and messages that wait for the connection."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .backoff import Backoff
from .errors import SignalboxError
from .frames import Json, encode
from .options import Options
from .timers import Timer, Timers

#: How often a call with `once` is repeated after a retryable error of the server.
_RETRIES = 3
#: The error for a repetition of a call that is being handled, or was until its node died.
_IN_PROGRESS = "in_progress"
#: How long a call is repeated after its first `in_progress`, and the longest wait in between, in seconds.
_IN_PROGRESS_TIME = 15.0
_IN_PROGRESS_WAIT_MAX = 2.0
#: The bytes that may wait for a socket that is slow, as a multiple of the queue.
_OUTBOX_FACTOR = 16

#: The payload of an `ack`, or why there is none.
Result = dict[str, Json] | SignalboxError


class Wire(Protocol):
    """The connection, as far as calls need it."""

    def send(self, call_id: str, text: str) -> None:
        """Write a frame."""

    @property
    def waiting_bytes(self) -> int:
        """The bytes that wait to be written."""


@dataclass(eq=False, slots=True)
class Call:
    """A frame with an ID, and the function that gets its answer, once."""

    id: str
    text: str
    size: int
    once: bool
    answered: Callable[[Result], None]
    #: Whether it waits for a connection; calls about the connection itself do not.
    queued: bool = True
    retries: int = 0
    #: Repetitions after `in_progress`, which are no `retries`, and when they end.
    polls: int = 0
    polls_end: float | None = None
    #: Waits for the answer, or for the next try.
    timer: Timer | None = None
    done: bool = False


def new_call(frame: dict[str, Json], answered: Callable[[Result], None], *, once: bool = False) -> Call:
    """A call with a new ID. Raises `ValueError` or `TypeError` if the payload is not JSON."""
    call_id = secrets.token_urlsafe(12)
    extra = {"id": call_id, "once": True} if once else {"id": call_id}
    text = encode(frame | extra)
    return Call(call_id, text, len(text.encode()), once, answered)


@dataclass(eq=False)
class Calls:
    """All calls of a client."""

    options: Options
    timers: Timers
    _wire: Wire | None = None
    #: Whether messages may go out: the rooms were joined again.
    _flowing: bool = False
    _frame_bytes_max: int | None = None
    _pending: dict[str, Call] = field(default_factory=dict)
    _queue: deque[Call] = field(default_factory=deque)
    _queue_bytes: int = 0
    #: Calls with `once` that a connection took with it. They come before the queue.
    _again: deque[Call] = field(default_factory=deque)
    #: Calls with `once` that wait for their next try.
    _resting: set[Call] = field(default_factory=set)

    @property
    def queued(self) -> int:
        """The number of messages that wait for the connection."""
        return len(self._queue) + len(self._again)

    def start(self, call: Call) -> None:
        """Send a message now, or after the connection and the rooms are there."""
        if self._too_large(call):
            self._finish(call, _too_large(call, self._frame_bytes_max))
        elif self._flowing and self._wire is not None:
            if self._wire.waiting_bytes + call.size > _OUTBOX_FACTOR * self.options.queue_bytes_max:
                self._finish(call, SignalboxError("queue_full", "the connection is too slow for so many messages"))
                return
            self._write(call, self._wire)
        elif self._wire is None and self.options.offline == "error":
            self._finish(call, SignalboxError("offline", "there is no connection"))
        elif (
            len(self._queue) >= self.options.queue_max
            or self._queue_bytes + call.size > self.options.queue_bytes_max
        ):
            self._finish(call, SignalboxError("queue_full", "too many messages wait for the connection"))
        else:
            self._queue.append(call)
            self._queue_bytes += call.size

    def control(self, call: Call) -> None:
        """Send a frame about the connection itself, which must be there: it waits for no other."""
        call.queued = False
        if self._wire is None:
            self._finish(call, SignalboxError("connection_lost", "there is no connection"))
        elif self._too_large(call):
            self._finish(call, _too_large(call, self._frame_bytes_max))
        else:
            self._write(call, self._wire)

    def forget(self, call: Call) -> None:
        """Nobody waits for the answer any more. A message that was not sent yet is not sent."""
        if call.done:
            return
        call.done = True
        self._remove(call)

    def leaves(self, call_id: str) -> bool:
        """The frame of a call is written now. `False`: nobody waits for its answer any more."""
        call = self._pending.get(call_id)
        if call is None:
            return False
        if call.timer is None:
            call.timer = self.timers.call_later(self.options.answer_timeout, lambda: self._expire(call))
        return True

    def answer(self, payload: dict[str, Json]) -> None:
        """An `ack` came."""
        call = self._pending.get(str(payload.get("id")))
        if call is not None:
            self._finish(call, payload)

    def refuse(self, call_id: str, error: SignalboxError) -> None:
        """An `error` with an ID came."""
        call = self._pending.get(call_id)
        if call is None:
            return
        wait = self._wait_after(call, error.code) if call.once and error.retryable else None
        if wait is None:
            self._finish(call, error)
        else:
            self._rest(call, wait)

    def connected(self, wire: Wire, frame_bytes_max: int | None) -> None:
        """There is a connection. Messages still wait."""
        self._wire = wire
        self._frame_bytes_max = frame_bytes_max

    def flow(self) -> None:
        """Send all messages that wait."""
        if self._wire is None or self._flowing:
            return
        self._flowing = True
        waiting = [*self._again, *self._queue]
        self._again.clear()
        self._queue.clear()
        self._queue_bytes = 0
        for call in waiting:
            if self._too_large(call):
                self._finish(call, _too_large(call, self._frame_bytes_max))
            else:
                self._write(call, self._wire)

    def lost(self) -> None:
        """The connection is gone, and with it the answers."""
        self._wire = None
        self._flowing = False
        pending = list(self._pending.values())
        self._pending.clear()
        kept = [call for call in pending if call.once]
        for call in kept:
            self._stop(call)
        self._again.extendleft(reversed(kept))
        for call in pending:
            if not call.once:
                self._finish(call, SignalboxError("connection_lost", "the connection was lost before the answer came"))

    def fail_all(self, error: SignalboxError) -> None:
        """The client is closed."""
        self._wire = None
        self._flowing = False
        for call in [*self._pending.values(), *self._again, *self._resting, *self._queue]:
            self._finish(call, error)

    def _too_large(self, call: Call) -> bool:
        return self._frame_bytes_max is not None and call.size > self._frame_bytes_max

    def _write(self, call: Call, wire: Wire) -> None:
        self._pending[call.id] = call
        wire.send(call.id, call.text)

    def _expire(self, call: Call) -> None:
        self._finish(call, SignalboxError("timeout", f"no answer came within {self.options.answer_timeout:g} s"))

    def _wait_after(self, call: Call, code: str) -> float | None:
        """The wait before the next try of a call that was refused for now, in seconds; `None` if there is none."""
        options = self.options
        if code != _IN_PROGRESS:
            call.retries += 1
            if call.retries > _RETRIES:
                return None
            return Backoff(options.backoff_min, options.backoff_max, options.random, call.retries - 1).next()
        now = self.timers.time()
        if call.polls_end is None:
            call.polls_end = now + _IN_PROGRESS_TIME
        if now >= call.polls_end:
            return None
        longest = min(options.backoff_max, _IN_PROGRESS_WAIT_MAX)
        wait = Backoff(options.backoff_min, longest, options.random, call.polls).next()
        call.polls += 1
        return min(wait, call.polls_end - now)

    def _rest(self, call: Call, wait: float) -> None:
        self._stop(call)
        del self._pending[call.id]
        self._resting.add(call)
        call.timer = self.timers.call_later(wait, lambda: self._rested(call))

    def _rested(self, call: Call) -> None:
        self._resting.discard(call)
        call.timer = None
        if self._wire is not None and self._flowing:
            self._write(call, self._wire)
        else:
            self._again.append(call)

    def _finish(self, call: Call, result: Result) -> None:
        if call.done:
            return
        call.done = True
        self._remove(call)
        call.answered(result)

    def _remove(self, call: Call) -> None:
        self._stop(call)
        self._pending.pop(call.id, None)
        self._resting.discard(call)
        if call in self._queue:
            self._queue.remove(call)
            self._queue_bytes -= call.size
        if call in self._again:
            self._again.remove(call)

    @staticmethod
    def _stop(call: Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None


def _too_large(call: Call, limit: int | None) -> SignalboxError:
    return SignalboxError("too_large", f"the frame has {call.size} bytes, and the server takes {limit}")
