import * as signalbox from "@signalbox/plugin";
let config = "";
let hits = 0;
function typed(message) {
  const value = signalbox.payload(message);
  const fits = typeof value?.text === "string" && Number.isInteger(value.n) && Math.abs(value.n) < 2 ** 31;
  if (!fits) signalbox.reject("invalid_payload", "it has a text and a whole number of 32 bits");
  if (value.text === "bad") signalbox.reject("bad", "bad");
}
function validate(message) {
  if (message.eventType === "c.parse") signalbox.payload(message);
  if (message.eventType === "c.typed") typed(message);
  if (message.eventType !== "c.reject") return;
  const { code, reason } = signalbox.payload(message);
  signalbox.reject(code, reason);
}
const places = {
  nobody: null,
  sender: signalbox.sender,
  user: signalbox.user("zoë"),
  room: signalbox.room("café"),
  everyone: signalbox.everyone
};
function transform(message) {
  const { eventType, destination, payload } = message;
  switch (eventType) {
    case "c.echo":
      return signalbox.withPayload(message, signalbox.payload(message));
    case "c.text":
      return signalbox.withPayload(message, `${signalbox.payload(message)}!`);
    case "c.raw":
      return signalbox.changed({ eventType, destination, payload });
    case "c.drop":
      return signalbox.dropped;
    case "c.move":
      return signalbox.changed(signalbox.draft("c.moved", places[signalbox.payload(message)] ?? null, 1));
    case "c.bad-json":
      return signalbox.changed({ eventType, destination, payload: "{" });
    default:
      return signalbox.unchanged;
  }
}
function stored() {
  const { store } = signalbox;
  const found = [];
  store.set("k", "value ü");
  found.push(store.get("k"), store.increment("n", 5), store.increment("n", -2, 60));
  found.push(store.compareAndSwap("k", "value ü", "x"), store.compareAndSwap("k", "value ü", "y"));
  store.remove("k");
  found.push(store.get("k"));
  store.set("t", "abc");
  try {
    store.increment("t", 1);
  } catch (error) {
    found.push(error.payload);
  }
  return found;
}
function big() {
  signalbox.store.set("big", "9007199254740993");
  return String(signalbox.store.increment("big", 0));
}
function about() {
  const client = signalbox.context.currentClient();
  return client === null ? null : [client.user, JSON.parse(client.claims)];
}
function isRandom() {
  const numbers = Array.from({ length: 64 }, () => signalbox.context.random());
  return new Set(numbers).size > 1 && numbers.every((number) => number >= 0 && number < 2 ** 32);
}
function handle(message) {
  switch (message.eventType) {
    case "c.actions":
      return [
        signalbox.deliver,
        signalbox.send(signalbox.draft("c.sent", signalbox.user("bob"), 1)),
        signalbox.announce(signalbox.draft("c.said", signalbox.everyone, [1.5])),
        signalbox.join("café"),
        signalbox.leave("café"),
        signalbox.disconnect(4501, "go away")
      ];
    case "c.many":
      return Array.from({ length: 300 }, () => signalbox.join("a"));
    case "c.config":
      return [signalbox.reply("c.config", JSON.parse(config))];
    case "c.context":
      return [signalbox.reply("c.context", about())];
    case "c.store":
      return [signalbox.reply("c.store", stored())];
    case "c.big":
      return [signalbox.reply("c.big", big())];
    case "c.clock":
      return [signalbox.reply("c.clock", signalbox.context.now() > 17e11 && signalbox.context.node() !== "" && isRandom())];
    case "c.observe":
      signalbox.metrics.count("seen", 2);
      signalbox.metrics.observe("size", 1.5);
      signalbox.log.info("seen ü");
      return [];
    case "c.hits":
      hits += 1;
      return [signalbox.reply("c.hits", hits)];
    case "c.fail":
      throw new Error("on purpose");
    case "c.loop":
      for (; ; ) ;
    default:
      return [];
  }
}
function ask(question) {
  try {
    return question();
  } catch (error) {
    return error.payload;
  }
}
function members(room) {
  return ask(() => signalbox.roomState.members(room).map((of) => [of.user, of.connections, JSON.parse(of.info ?? "null")]));
}
function history(room, before, limit) {
  const kept = () => signalbox.roomState.history(room, before, limit);
  return ask(() => kept().map((of) => [of.offset, of.eventType, of.sender, JSON.parse(of.payload), of.timestamp]));
}
function calls() {
  for (let answered = 0; ; answered += 1) {
    const count = ask(() => signalbox.roomState.count("café"));
    if (typeof count !== "number") return [answered, count];
  }
}
const later = () => Promise.resolve();
function respond(message) {
  const asked = signalbox.payload(message);
  switch (message.eventType) {
    case "c.ask-acts":
      return signalbox.answer({ done: true }, [signalbox.deliver, signalbox.reply("c.asked", asked), signalbox.join("café")]);
    case "c.ask-bad":
      return { data: "{", actions: [] };
    case "c.ask-deep":
      return { data: "[".repeat(101) + "]".repeat(101), actions: [] };
    case "c.ask-refused":
      return signalbox.reject("no_answer", 'nö, "so" nicht 🙂');
    case "c.ask-later":
      return later();
    case "c.room":
      return signalbox.answer([ask(() => signalbox.roomState.count(asked)), members(asked), history(asked, null, 100)]);
    case "c.who":
      return signalbox.answer(signalbox.roomState.members(asked).map((member) => member.user));
    case "c.history":
      return signalbox.answer(history(asked.room, asked.before, asked.limit));
    case "c.calls":
      return signalbox.answer(calls());
    case "c.calls-uncaught":
      for (;;) signalbox.roomState.count("café");
    default:
      return signalbox.answer(asked);
  }
}
function changed(eventType, client, room, connections) {
  if (client.user === "quiet") return [];
  if (client.user === "late") return later();
  return [signalbox.announce(signalbox.draft(eventType, signalbox.room(room), [client.user, room, connections]))];
}
const joined = (client, room, connections) => changed("c.joined", client, room, connections);
const left = (client, room, connections) => changed("c.left", client, room, connections);
function connected(client) {
  if (client.user === "banned") signalbox.reject("banned", "go away");
  return [signalbox.join(`home:${client.user}`)];
}
function authorizeJoin(_client, room) {
  if (room === "secret") signalbox.reject("secret", "not for you");
}
function screen(message) {
  validate(message);
  return transform(message);
}
function init(text) {
  config = text;
}
function save() {
  return { format: 1, data: signalbox.bytes(String(hits)) };
}
function restore(snapshot) {
  if (snapshot.format !== 1) throw `cannot read format ${snapshot.format}`;
  hits = Number(signalbox.text(snapshot.data));
}
const eventTypes = () => ["actions", "none", "many", "config", "context", "store", "big", "clock", "observe", "fail", "loop", "hits"].map((name) => `c.${name}`);
const requestTypes = () => ["ask", "ask-acts", "ask-bad", "ask-deep", "ask-refused", "ask-later", "room", "who", "history", "calls", "calls-uncaught"].map((name) => `c.${name}`);
const validation = signalbox.guard({ validate });
const transformation = signalbox.guard({ transform });
const screening = signalbox.guard({ screen });
const events = signalbox.guard({ eventTypes, handle });
const requests = signalbox.guard({ requestTypes, respond });
const connections = signalbox.guard({ connected, disconnected: () => [] });
const rooms = signalbox.guard({ authorizeJoin });
const membership = signalbox.guard({ joined, left });
const lifecycle = signalbox.guard({ init, selfTest() {
} });
const handover = signalbox.guard({ save, restore });
export {
  connections,
  events,
  handover,
  lifecycle,
  membership,
  requests,
  rooms,
  screening,
  transformation,
  validation
};
