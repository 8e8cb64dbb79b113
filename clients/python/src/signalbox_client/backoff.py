"""Random waits between attempts."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Full jitter: before attempt n a random time between 0 and min(`longest`, `first` * 2**n), in seconds."""

    def __init__(self, first: float, longest: float, random: Callable[[], float], attempts: int = 0) -> None:
        self._first = first
        self._longest = longest
        self._random = random
        self._attempts = attempts

    def next(self, *, is_short: bool = False) -> float:
        """The wait before the next attempt, in seconds; with `is_short` as before the first one."""
        # The exponent is bounded: a client may try for years.
        exponent = 0 if is_short else min(self._attempts, 40)
        bound = min(self._longest, self._first * 2.0**exponent)
        self._attempts += 1
        return self._random() * bound

    def reset(self) -> None:
        """The next attempt is the first one again."""
        self._attempts = 0
