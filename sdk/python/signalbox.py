"""Helpers for Signalbox plugins in Python that create the values of the interfaces and read payloads. The types are those
of wit_world, which componentize-py generates from wit/."""

import inspect
import json
import math
import re
from typing import Any, Callable, NoReturn, Optional, Sequence, TypeVar

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import context, log, metrics, room_state, store
from wit_world.imports.log import Level
from wit_world.imports.types import (
    Action,
    Action_Announce,
    Action_Deliver,
    Action_Disconnect,
    Action_Join,
    Action_Leave,
    Action_Send,
    Client,
    Destination,
    Destination_Everyone,
    Destination_Room,
    Destination_Sender,
    Destination_User,
    Disconnection,
    Draft,
    Message,
    Outcome,
    Outcome_Changed,
    Outcome_Dropped,
    Outcome_Unchanged,
    Rejection,
)

T = TypeVar("T")


def reject(code: str, reason: str) -> NoReturn:
    """Refuses a message, a connection or a join. The code is for programs (1 to 64 of a-z 0-9 _ . -), the reason for
    people."""
    raise Err(Rejection(code, reason))


# The deepest nesting that the server allows in a payload.
LEVELS_MAX = 100

STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def payload(message: Message) -> Any:
    """Parses the payload of a message. Refuses JSON that receivers could read differently, or not at all, with
    `invalid_payload`: the same key twice in an object, half of a surrogate pair, a number beyond 1.8e308, more than 100
    levels."""
    text = message.payload
    # The parser is recursive, and a plugin's stack is small.
    if _levels(text) > LEVELS_MAX:
        _unreadable(f"is nested more than {LEVELS_MAX} levels deep")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except (ValueError, RecursionError):
        _unreadable("is not JSON")
    if "\\u" in text and not _has_utf8(value):
        _unreadable("has half of a surrogate pair in a text")
    return value


def _unreadable(problem: str) -> NoReturn:
    reject("invalid_payload", f"the payload {problem}")


def _levels(text: str) -> int:
    opened = text.count("[") + text.count("{")
    if opened <= LEVELS_MAX:
        return opened
    level = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", STRING.sub("", text)):
        level += 1 if bracket in "[{" else -1
        deepest = max(deepest, level)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        _unreadable("has an object with the same key twice")
    return fields


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        _unreadable("has a number that is too large")
    return number


def _integer(digits: str) -> int:
    # Python refuses integers of more than 4,300 digits. In other languages, more than 309 digits exceed a double.
    if len(digits) > 300:
        _float(digits)
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _has_utf8(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Half of a surrogate pair cannot be encoded as UTF-8.
    return text.encode("utf-8", "replace").decode()


def draft(event_type: str, to: Optional[Destination], value: Any) -> Draft:
    """Creates a message with value as JSON. If to is None, it has no receiver."""
    return Draft(event_type, to, _json(value))


SENDER: Destination = Destination_Sender()
EVERYONE: Destination = Destination_Everyone()


def user(name: str) -> Destination:
    """Every connection of a user."""
    return Destination_User(name)


def room(name: str) -> Destination:
    """Every member of a room."""
    return Destination_Room(name)


UNCHANGED: Outcome = Outcome_Unchanged()
DROPPED: Outcome = Outcome_Dropped()


def with_payload(message: Message, value: Any) -> Outcome:
    """Lets the message continue with a new payload."""
    return Outcome_Changed(draft(message.event_type, message.destination, value))


DELIVER: Action = Action_Deliver()


def send(message: Draft) -> Action:
    """Sends a message in the sender's name."""
    return Action_Send(message)


def announce(message: Draft) -> Action:
    """Sends a message in the name of the platform."""
    return Action_Announce(message)


def reply(event_type: str, value: Any) -> Action:
    """Sends a message from the platform to the connection that the call is about."""
    return Action_Announce(draft(event_type, SENDER, value))


def join(name: str) -> Action:
    """Adds the connection to a room."""
    return Action_Join(name)


def leave(name: str) -> Action:
    """Removes the connection from a room."""
    return Action_Leave(name)


def disconnect(code: int, reason: str) -> Action:
    """Closes the connection with a code of 4000 to 4999. Below 4500 the client reconnects by itself."""
    return Action_Disconnect(Disconnection(code, reason))


def answer(data: Any, actions: Sequence[Action] = ()) -> Any:
    """Creates the `Reply` of `Requests.respond` with data as JSON. For plugins that export `requests`: only those have the
    class."""
    return getattr(exports, "requests").Reply(_json(data), list(actions))


def guarded(function: Callable[..., T]) -> Callable[..., T]:
    """Checks a method of an interface and returns it. A method that is `async` or a generator fails the build, because the
    server does not wait for its result."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} answers later, and nobody waits for it: remove `async`, `await` and `yield`, and call "
            "functions that return their result"
        )
    return function
