"""What stands between the server and the methods that a plugin exports: it says in the log why a call fails, and fails those
whose answer nobody would wait for. `signalbox plugin build` puts it into each component in Python."""

import inspect
import random
import sys
from typing import Any, Callable, Optional

from componentize_py_types import Err
from wit_world.imports import context, log
from wit_world.imports.log import Level
from wit_world.imports.store import StoreError
from wit_world.imports.types import Rejection

try:
    from wit_world.imports.room_state import RoomError
except ImportError:
    # The WIT of the project is older than this interface.
    RoomError = None

NOBODY_WAITS = (
    "and nobody waits for it: the answer must be there when the method returns. Remove `async`, `await` and `yield`, and call "
    "functions that return their result"
)

# The methods whose answer is nothing, which would otherwise be taken for consent, and those that may refuse: a client by a
# Rejection, the operator by a text.
GATES = ("Validation.validate", "Rooms.authorize_join")
REJECTING = GATES + (
    "Transformation.transform",
    "Screening.screen",
    "Events.handle",
    "Requests.respond",
    "Connections.connected",
)
EXPLAINING = ("Lifecycle.init", "Lifecycle.self_test", "Handover.save", "Handover.restore")

# The refusals for errors of `store` and of `room_state`, in the same words as in other languages.
STORE_ERRORS = {
    "TOO_LARGE": ("store_full", "there is no room to keep this"),
    "NOT_A_NUMBER": ("store_value", "what is kept is not a number"),
    "TOO_MANY_CALLS": ("store_calls", "this needs too many calls to the store"),
    "UNAVAILABLE": ("store_unavailable", "the store does not answer; try again"),
}
ROOM_ERRORS = {
    "SWITCHED_OFF": ("room_switched_off", "this room does not keep what this needs"),
    "INVALID": ("room_invalid", "there is no such room"),
    "TOO_MANY_CALLS": ("room_calls", "this needs too many calls to the server"),
    "UNAVAILABLE": ("room_unavailable", "the room cannot be read; try again"),
}

seeded = False


def begin() -> None:
    """Once in each instance: the numbers of `random` begin where the component was built, the same in all."""
    global seeded
    if not seeded:
        seeded = True
        random.seed(context.random() << 32 | context.random())


def readable(text: str) -> str:
    """A text without halves of surrogate pairs, which have no form in UTF-8."""
    return text.encode("utf-8", "replace").decode()


def report(name: str, error: BaseException) -> None:
    """Writes an exception to the log with its stack, without the frames of this module."""
    log.write(Level.ERROR, readable(f"{name}: {type(error).__name__}: {error}"))
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        if code.co_filename != __file__:
            log.write(Level.ERROR, f'  File "{code.co_filename}", line {frame.tb_lineno}, in {code.co_name}')
        frame = frame.tb_next


def refusal(name: str, error: Err) -> Optional[Err]:
    """What the server takes for a refusal of this method; none where it is a failure."""
    value = error.value
    if name in REJECTING and isinstance(value, Rejection):
        return Err(Rejection(readable(str(value.code)), readable(str(value.reason))))
    if name in REJECTING and isinstance(value, StoreError):
        return Err(Rejection(*STORE_ERRORS[value.name]))
    if name in REJECTING and RoomError is not None and isinstance(value, RoomError):
        return Err(Rejection(*ROOM_ERRORS[value.name]))
    if name in EXPLAINING and isinstance(value, str):
        return Err(readable(value))
    return None


def guarded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        begin()
        try:
            answer = method(*values)
        except Err as error:
            refused = refusal(name, error)
            if refused is not None:
                raise refused from None
            raise TypeError(f"{name} raised Err({error.value!r}), which is no refusal here") from None
        except Exception as error:
            # What is raised on is printed with its stack, and so it is in the log.
            if name not in EXPLAINING:
                raise
            report(name, error)
            raise Err(readable(f"{name} raised {type(error).__name__}: {error}")) from None
        wrong = None
        if inspect.isawaitable(answer) or inspect.isasyncgen(answer):
            wrong = f"{name} returned a coroutine, {NOBODY_WAITS}"
        elif inspect.isgenerator(answer):
            wrong = f"{name} returned a generator, {NOBODY_WAITS}"
        elif name in GATES and answer is not None:
            wrong = f"{name} returned {answer!r}, and must return nothing: refuse with signalbox.reject(code, reason)"
        if wrong is not None:
            raise Err(readable(wrong)) if name in EXPLAINING else TypeError(wrong)
        return answer

    return call


def later(method: Callable[..., Any]) -> Optional[str]:
    """What makes the answer of a method come later."""
    method = inspect.unwrap(method)
    if inspect.iscoroutinefunction(method):
        return "is async"
    if inspect.isasyncgenfunction(method):
        return "is an async generator"
    return "is a generator" if inspect.isgeneratorfunction(method) else None


def wrapped(plugin: Any, interface: str, methods: tuple[str, ...], listed: str) -> type:
    """The class of an interface as the server calls it. What is missing, or answers later, ends the build."""
    original = getattr(plugin, interface, None)
    if original is None:
        sys.exit(
            f"app.py has no class `{interface}`, and wit/plugin.wit lists `{listed}`: add it with its methods, or take the "
            "line out of wit/plugin.wit"
        )
    for method in methods:
        function = getattr(original, method, None)
        if function is None:
            sys.exit(f"app.py: the class `{interface}` has no method `{method}`")
        kind = later(function)
        if kind is not None:
            sys.exit(f"app.py: {interface}.{method} {kind}, {NOBODY_WAITS}")
    return type(
        interface, (original,), {method: guarded(f"{interface}.{method}", getattr(original, method)) for method in methods}
    )
