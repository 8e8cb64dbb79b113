// A plugin with a validator, a transformer and an event type of its own. What can be asked of the server is in
// sdk/index.d.ts.
import * as signalbox from "@signalbox/plugin";

// Asked first: a refusal is told to the sender, and the message goes no further.
function validate(message) {
  if (message.eventType !== "note") return;
  const note = signalbox.payload(message);
  if (typeof note !== "string") signalbox.reject("invalid_payload", "a note is a text");
  if ([...note].length > 280) signalbox.reject("too_long", "a note has at most 280 characters");
}

// Asked next. Say "unchanged" wherever nothing changes: that is the fastest answer.
function transform(message) {
  if (message.eventType !== "note" || !message.payload.includes(":)")) return signalbox.unchanged;
  return signalbox.withPayload(message, signalbox.payload(message).replaceAll(":)", "🙂"));
}

// Answers the event types that are named below, to the sender alone.
function handle(message) {
  return [signalbox.reply("my-plugin.greeting", `Hello, ${message.sender}`)];
}

// What wit/plugin.wit lists must be exported, each under its name. `guard` refuses functions that are async.
export const validation = signalbox.guard({ validate });
export const transformation = signalbox.guard({ transform });
export const events = signalbox.guard({ eventTypes: () => ["my-plugin.hello"], handle });
