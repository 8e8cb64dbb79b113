"""The conformance plugin for cases.json, in Python."""

import json

import signalbox
from componentize_py_types import Err
from signalbox import Action, Client, Disconnection, Draft, Message, Outcome, Outcome_Changed, guarded
from wit_world import exports
from wit_world.exports.handover import Snapshot
from wit_world.exports.requests import Reply
from wit_world.imports import context, log, metrics, room_state, store

configured = ""
hits = 0

PLACES = {
    "nobody": None,
    "sender": signalbox.SENDER,
    "user": signalbox.user("zoë"),
    "room": signalbox.room("café"),
    "everyone": signalbox.EVERYONE,
}


def typed(message: Message) -> None:
    value = signalbox.payload(message)
    text, n = (value.get("text"), value.get("n")) if isinstance(value, dict) else (None, None)
    if not isinstance(text, str) or not isinstance(n, int) or abs(n) >= 2**31:
        signalbox.reject("invalid_payload", "it has a text and a whole number of 32 bits")
    if text == "bad":
        signalbox.reject("bad", "bad")


class Validation(exports.Validation):
    @guarded
    def validate(self, message: Message) -> None:
        if message.event_type == "c.parse":
            signalbox.payload(message)
        if message.event_type == "c.typed":
            typed(message)
        if message.event_type == "c.reject":
            signalbox.reject(**signalbox.payload(message))


class Transformation(exports.Transformation):
    @guarded
    def transform(self, message: Message) -> Outcome:
        raw = Draft(message.event_type, message.destination, message.payload)
        match message.event_type:
            case "c.echo":
                return signalbox.with_payload(message, signalbox.payload(message))
            case "c.text":
                return signalbox.with_payload(message, signalbox.payload(message) + "!")
            case "c.raw":
                return Outcome_Changed(raw)
            case "c.drop":
                return signalbox.DROPPED
            case "c.move":
                return Outcome_Changed(signalbox.draft("c.moved", PLACES[signalbox.payload(message)], 1))
            case "c.bad-json":
                raw.payload = "{"
                return Outcome_Changed(raw)
        return signalbox.UNCHANGED


class Screening(exports.Screening):
    @guarded
    def screen(self, message: Message) -> Outcome:
        Validation().validate(message)
        return Transformation().transform(message)


def stored() -> list:
    found = []
    store.set("k", "value ü".encode(), None)
    found.append(store.get("k").decode())
    found.append(store.increment("n", 5, None))
    found.append(store.increment("n", -2, 60))
    found.append(store.compare_and_swap("k", "value ü".encode(), b"x", None))
    found.append(store.compare_and_swap("k", "value ü".encode(), b"y", None))
    store.remove("k")
    found.append(store.get("k"))
    store.set("t", b"abc", None)
    try:
        store.increment("t", 1, None)
    except Err as error:
        found.append(error.value.name.lower().replace("_", "-"))
    return found


def big() -> str:
    store.set("big", b"9007199254740993", None)
    return str(store.increment("big", 0, None))


def about():
    client = context.current_client()
    return None if client is None else [client.user, json.loads(client.claims)]


class Events(exports.Events):
    @guarded
    def event_types(self) -> list[str]:
        names = ["actions", "none", "many", "config", "context", "store", "big", "clock", "observe", "fail", "loop", "hits"]
        return [f"c.{name}" for name in names]

    @guarded
    def handle(self, message: Message) -> list[Action]:
        match message.event_type:
            case "c.actions":
                return [
                    signalbox.DELIVER,
                    signalbox.send(signalbox.draft("c.sent", signalbox.user("bob"), 1)),
                    signalbox.announce(signalbox.draft("c.said", signalbox.EVERYONE, [1.5])),
                    signalbox.join("café"),
                    signalbox.leave("café"),
                    signalbox.disconnect(4501, "go away"),
                ]
            case "c.many":
                return [signalbox.join("a")] * 300
            case "c.config":
                return [signalbox.reply("c.config", json.loads(configured))]
            case "c.context":
                return [signalbox.reply("c.context", about())]
            case "c.store":
                return [signalbox.reply("c.store", stored())]
            case "c.big":
                return [signalbox.reply("c.big", big())]
            case "c.clock":
                return [signalbox.reply("c.clock", context.now() > 1_700_000_000_000 and context.node() != "")]
            case "c.observe":
                metrics.count("seen", 2)
                metrics.observe("size", 1.5)
                log.write(log.Level.INFO, "seen ü")
            case "c.hits":
                global hits
                hits += 1
                return [signalbox.reply("c.hits", hits)]
            case "c.fail":
                raise ValueError("on purpose")
            case "c.loop":
                while True:
                    pass
        return []


def asked_of_room(question, *values):
    try:
        return question(*values)
    except Err as error:
        return error.value.name.lower().replace("_", "-")


def members(room: str):
    found = asked_of_room(room_state.members, room)
    if isinstance(found, str):
        return found
    return [[of.user, of.connections, None if of.info is None else json.loads(of.info)] for of in found]


def history(room: str, before, limit: int):
    kept = asked_of_room(room_state.history, room, before, limit)
    if isinstance(kept, str):
        return kept
    return [[of.offset, of.event_type, of.sender, json.loads(of.payload), of.timestamp] for of in kept]


def calls() -> list:
    answered = 0
    while isinstance(answer := asked_of_room(room_state.count, "café"), int):
        answered += 1
    return [answered, answer]


async def later():
    return signalbox.answer(None)


class Requests(exports.Requests):
    @guarded
    def request_types(self) -> list[str]:
        names = ["ask", "ask-acts", "ask-bad", "ask-deep", "ask-refused", "ask-later"]
        names += ["room", "who", "history", "calls", "calls-uncaught"]
        return [f"c.{name}" for name in names]

    @guarded
    def respond(self, message: Message) -> Reply:
        asked = signalbox.payload(message)
        match message.event_type:
            case "c.ask-acts":
                actions = [signalbox.DELIVER, signalbox.reply("c.asked", asked), signalbox.join("café")]
                return signalbox.answer({"done": True}, actions)
            case "c.ask-bad":
                return Reply("{", [])
            case "c.ask-deep":
                return Reply("[" * 101 + "]" * 101, [])
            case "c.ask-refused":
                signalbox.reject("no_answer", 'nö, "so" nicht 🙂')
            case "c.ask-later":
                return later()
            case "c.room":
                count = asked_of_room(room_state.count, asked)
                return signalbox.answer([count, members(asked), history(asked, None, 100)])
            case "c.who":
                return signalbox.answer([member.user for member in room_state.members(asked)])
            case "c.history":
                return signalbox.answer(history(asked["room"], asked.get("before"), asked["limit"]))
            case "c.calls":
                return signalbox.answer(calls())
            case "c.calls-uncaught":
                while True:
                    room_state.count("café")
        return signalbox.answer(asked)


def changed(event_type: str, client: Client, room: str, connections: int) -> list[Action]:
    if client.user == "quiet":
        return []
    if client.user == "late":
        return later()
    return [signalbox.announce(signalbox.draft(event_type, signalbox.room(room), [client.user, room, connections]))]


class Membership(exports.Membership):
    @guarded
    def joined(self, client: Client, room: str, connections: int) -> list[Action]:
        return changed("c.joined", client, room, connections)

    @guarded
    def left(self, client: Client, room: str, connections: int) -> list[Action]:
        return changed("c.left", client, room, connections)


class Connections(exports.Connections):
    @guarded
    def connected(self, client: Client) -> list[Action]:
        if client.user == "banned":
            signalbox.reject("banned", "go away")
        return [signalbox.join(f"home:{client.user}")]

    @guarded
    def disconnected(self, client: Client, how: Disconnection) -> list[Action]:
        return []


class Rooms(exports.Rooms):
    @guarded
    def authorize_join(self, client: Client, room: str) -> None:
        if room == "secret":
            signalbox.reject("secret", "not for you")


class Lifecycle(exports.Lifecycle):
    @guarded
    def init(self, config: str) -> None:
        global configured
        configured = config

    @guarded
    def self_test(self) -> None:
        pass


class Handover(exports.Handover):
    @guarded
    def save(self) -> Snapshot:
        return Snapshot(1, str(hits).encode())

    @guarded
    def restore(self, snapshot: Snapshot) -> None:
        global hits
        if snapshot.format != 1:
            raise Err(f"cannot read format {snapshot.format}")
        hits = int(snapshot.data)
