// A plugin with a validator, a transformer and a custom event type. The functions of the server are in sdk/index.d.ts.
import * as signalbox from "@signalbox/plugin";

// Called first. A refusal is sent to the sender, and the message goes no further.
function validate(message) {
  if (message.eventType !== "note") return;
  const note = signalbox.payload(message);
  if (typeof note !== "string") signalbox.reject("invalid_payload", "a note is a text");
  if ([...note].length > 280) signalbox.reject("too_long", "a note has at most 280 characters");
}

// Called next. Return "unchanged" if nothing changes: that is the fastest answer.
function transform(message) {
  if (message.eventType !== "note" || !message.payload.includes(":)")) return signalbox.unchanged;
  return signalbox.withPayload(message, signalbox.payload(message).replaceAll(":)", "🙂"));
}

// Answers the event types that are listed below, only to the sender.
function handle(message) {
  return [signalbox.reply("my-plugin.greeting", `Hello, ${message.sender}`)];
}

// Every interface in wit/plugin.wit must be exported under its name. `guard` refuses functions that are async.
export const validation = signalbox.guard({ validate });
export const transformation = signalbox.guard({ transform });
export const events = signalbox.guard({ eventTypes: () => ["my-plugin.hello"], handle });
