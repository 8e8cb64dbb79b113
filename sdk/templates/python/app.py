"""A plugin with a validator, a transformer and an event type of its own. What can be asked of the server is in
signalbox.py. Import everything at the top: what is imported here is part of the component, and nothing else can be."""

import signalbox
from signalbox import Action, Message, Outcome, guarded
from wit_world import exports


# A class for each interface that wit/plugin.wit lists, with its name. `guarded` refuses methods that are async.
class Validation(exports.Validation):
    @guarded
    def validate(self, message: Message) -> None:
        """Asked first: a refusal is told to the sender, and the message goes no further."""
        if message.event_type != "note":
            return
        note = signalbox.payload(message)
        if not isinstance(note, str):
            signalbox.reject("invalid_payload", "a note is a text")
        if len(note) > 280:
            signalbox.reject("too_long", "a note has at most 280 characters")


class Transformation(exports.Transformation):
    @guarded
    def transform(self, message: Message) -> Outcome:
        """Asked next. Say "unchanged" wherever nothing changes: that is the fastest answer."""
        if message.event_type != "note" or ":)" not in message.payload:
            return signalbox.UNCHANGED
        return signalbox.with_payload(message, signalbox.payload(message).replace(":)", "🙂"))


class Events(exports.Events):
    @guarded
    def event_types(self) -> list[str]:
        return ["my-plugin.hello"]

    @guarded
    def handle(self, message: Message) -> list[Action]:
        """Answers the event types that are named above, to the sender alone."""
        return [signalbox.reply("my-plugin.greeting", f"Hello, {message.sender}")]
