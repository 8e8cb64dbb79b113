"""A plugin with a validator, a transformer and a custom event type. The functions of the server are in signalbox.py.
Import everything at the top: only modules that are imported during the build become part of the component."""

import signalbox
from signalbox import Action, Message, Outcome, guarded
from wit_world import exports


# Each interface in wit/plugin.wit needs a class with its name. `guarded` refuses methods that are async.
class Validation(exports.Validation):
    @guarded
    def validate(self, message: Message) -> None:
        """Called first. A refusal is sent to the sender, and the message goes no further."""
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
        """Called next. Return "unchanged" if nothing changes: that is the fastest answer."""
        if message.event_type != "note" or ":)" not in message.payload:
            return signalbox.UNCHANGED
        return signalbox.with_payload(message, signalbox.payload(message).replace(":)", "🙂"))


class Events(exports.Events):
    @guarded
    def event_types(self) -> list[str]:
        return ["my-plugin.hello"]

    @guarded
    def handle(self, message: Message) -> list[Action]:
        """Answers the event types that are listed above, only to the sender."""
        return [signalbox.reply("my-plugin.greeting", f"Hello, {message.sender}")]
