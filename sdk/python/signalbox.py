"""Helpers for Signalbox plugins in Python: shorter ways to make the values that the interfaces take, and `guarded`, which
logs exceptions. The types are those of wit_world, which componentize-py makes of wit/."""

import functools
import json
from typing import Any, Callable, List, NoReturn, Optional, TypeVar

from componentize_py_types import Err
from wit_world.imports import context, log, metrics, store
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
    """Refuses a message, a connection or a join: code is for programs (1 to 64 of a-z 0-9 _ . -), reason for people."""
    raise Err(Rejection(code, reason))


def payload(message: Message) -> Any:
    """The payload of a message."""
    return json.loads(message.payload)


def draft(event_type: str, to: Optional[Destination], value: Any) -> Draft:
    """A message with value as JSON; to None for nobody."""
    return Draft(event_type, to, json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


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
    """The message with another payload."""
    return Outcome_Changed(draft(message.event_type, message.destination, value))


DELIVER: Action = Action_Deliver()


def send(message: Draft) -> Action:
    """A message in the sender's name."""
    return Action_Send(message)


def announce(message: Draft) -> Action:
    """A message in the name of the platform."""
    return Action_Announce(message)


def reply(event_type: str, value: Any) -> Action:
    """A message of the platform back to the connection that the call is about."""
    return Action_Announce(draft(event_type, SENDER, value))


def join(name: str) -> Action:
    """Puts the connection into a room."""
    return Action_Join(name)


def leave(name: str) -> Action:
    """Takes it out of a room."""
    return Action_Leave(name)


def disconnect(code: int, reason: str) -> Action:
    """Closes it; below 4500 the client comes back by itself."""
    return Action_Disconnect(Disconnection(code, reason))


def guarded(function: Callable[..., T]) -> Callable[..., T]:
    """Logs an exception with its stack before it fails the call: without it the server's log says no more than
    `unreachable`. Refusals go through."""

    @functools.wraps(function)
    def call(*values: Any) -> T:
        try:
            return function(*values)
        except Err:
            raise
        except BaseException as error:
            log.write(Level.ERROR, f"{function.__qualname__}: {type(error).__name__}: {error}")
            # The module traceback reads source files, of which there are none here.
            frame = error.__traceback__
            while frame is not None:
                code = frame.tb_frame.f_code
                log.write(Level.ERROR, f'  File "{code.co_filename}", line {frame.tb_lineno}, in {code.co_name}')
                frame = frame.tb_next
            raise

    return call
