"""What an application can change about a client."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .timers import Timers


@dataclass(frozen=True)
class Options:
    """Times are seconds, sizes bytes."""

    #: The longest time for the TCP connection, the upgrade and `welcome` together, and for the answer to a POST.
    connect_timeout: float = 10.0
    #: The wait before attempt n is random, from 0 to min(`backoff_max`, `backoff_min` * 2**n).
    backoff_min: float = 0.5
    backoff_max: float = 20.0
    #: A connection that lasted this long counts as a success: the backoff starts again.
    stable_after: float = 5.0
    #: How long a call waits for its answer.
    answer_timeout: float = 10.0
    #: The silence after which the client asks for a sign of life; `None`: as the server says in `welcome`.
    heartbeat_interval: float | None = None
    #: How long it waits for one.
    heartbeat_timeout: float = 10.0
    #: How long a token callback may take.
    token_timeout: float = 30.0
    #: Whether messages wait for the connection, or fail with `offline`.
    offline: Literal["queue", "error"] = "queue"
    #: The most messages that wait for the connection, and their bytes.
    queue_max: int = 100
    queue_bytes_max: int = 256 * 1024
    #: The most frames that wait for callbacks; the client reads no more until some are done.
    callbacks_max: int = 1000
    #: The largest frame that it accepts from the server.
    receive_bytes_max: int = 16 * 1024 * 1024
    #: Whether the client uses server-sent events if WebSockets do not get through.
    fallback: bool = True
    #: How long it stays with server-sent events before it tries a WebSocket again, at the next reconnect.
    web_socket_again: float = 600.0
    #: The certificates and checks of `wss://`; `None`: those of the system.
    ssl: ssl.SSLContext | None = None
    #: The source of random numbers from 0 to 1, for tests.
    random: Callable[[], float] = random.random
    #: The clock, for tests; `None`: the event loop.
    timers: Timers | None = None
