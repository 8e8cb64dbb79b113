// The conformance plugin for cases.json, in TypeScript.
import * as signalbox from "@signalbox/plugin";
import type { Action, Client, Connections, Destination, Events, Handover, Lifecycle, Message, Outcome, Rejection, Rooms, Screening, Snapshot, StoreError, Transformation, Validation } from "@signalbox/plugin";

let config = "";
let hits = 0;

function typed(message: Message): void {
  const value = signalbox.payload(message) as { text?: unknown; n?: unknown } | null;
  const fits = typeof value?.text === "string" && Number.isInteger(value.n) && Math.abs(value.n as number) < 2 ** 31;
  if (!fits) signalbox.reject("invalid_payload", "it has a text and a whole number of 32 bits");
  if (value.text === "bad") signalbox.reject("bad", "bad");
}

function validate(message: Message): void {
  if (message.eventType === "c.parse") signalbox.payload(message);
  if (message.eventType === "c.typed") typed(message);
  if (message.eventType !== "c.reject") return;
  const { code, reason } = signalbox.payload(message) as Rejection;
  signalbox.reject(code, reason);
}

const places: Record<string, Destination | null> = {
  nobody: null,
  sender: signalbox.sender,
  user: signalbox.user("zoë"),
  room: signalbox.room("café"),
  everyone: signalbox.everyone,
};

function transform(message: Message): Outcome {
  const { eventType, destination, payload } = message;
  switch (eventType) {
    case "c.echo":
      return signalbox.withPayload(message, signalbox.payload(message));
    case "c.text":
      return signalbox.withPayload(message, `${signalbox.payload(message) as string}!`);
    case "c.raw":
      return signalbox.changed({ eventType, destination, payload });
    case "c.drop":
      return signalbox.dropped;
    case "c.move":
      return signalbox.changed(signalbox.draft("c.moved", places[signalbox.payload(message) as string] ?? null, 1));
    case "c.bad-json":
      return signalbox.changed({ eventType, destination, payload: "{" });
    default:
      return signalbox.unchanged;
  }
}

function stored(): unknown[] {
  const { store } = signalbox;
  const found: unknown[] = [];
  store.set("k", "value ü");
  found.push(store.get("k"), store.increment("n", 5), store.increment("n", -2, 60));
  found.push(store.compareAndSwap("k", "value ü", "x"), store.compareAndSwap("k", "value ü", "y"));
  store.remove("k");
  found.push(store.get("k"));
  store.set("t", "abc");
  try {
    store.increment("t", 1);
  } catch (error) {
    found.push((error as StoreError).payload);
  }
  return found;
}

function big(): string {
  signalbox.store.set("big", "9007199254740993");
  return String(signalbox.store.increment("big", 0));
}

function about(): unknown {
  const client = signalbox.context.currentClient();
  return client === null ? null : [client.user, JSON.parse(client.claims)];
}

function handle(message: Message): Action[] {
  switch (message.eventType) {
    case "c.actions":
      return [
        signalbox.deliver,
        signalbox.send(signalbox.draft("c.sent", signalbox.user("bob"), 1)),
        signalbox.announce(signalbox.draft("c.said", signalbox.everyone, [1.5])),
        signalbox.join("café"),
        signalbox.leave("café"),
        signalbox.disconnect(4501, "go away"),
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
      return [signalbox.reply("c.clock", signalbox.context.now() > 1.7e12 && signalbox.context.node() !== "")];
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
      for (;;);
    default:
      return [];
  }
}

function connected(client: Client): Action[] {
  if (client.user === "banned") signalbox.reject("banned", "go away");
  return [signalbox.join(`home:${client.user}`)];
}

function authorizeJoin(_client: Client, room: string): void {
  if (room === "secret") signalbox.reject("secret", "not for you");
}

function screen(message: Message): Outcome {
  validate(message);
  return transform(message);
}

function init(text: string): void {
  config = text;
}

function save(): Snapshot {
  return { format: 1, data: signalbox.bytes(String(hits)) };
}

function restore(snapshot: Snapshot): void {
  if (snapshot.format !== 1) throw `cannot read format ${snapshot.format}`;
  hits = Number(signalbox.text(snapshot.data));
}

const eventTypes = () => ["actions", "none", "many", "config", "context", "store", "big", "clock", "observe", "fail", "loop", "hits"].map((name) => `c.${name}`);

export const validation: Validation = signalbox.guard({ validate });
export const transformation: Transformation = signalbox.guard({ transform });
export const screening: Screening = signalbox.guard({ screen });
export const events: Events = signalbox.guard({ eventTypes, handle });
export const connections: Connections = signalbox.guard({ connected, disconnected: () => [] });
export const rooms: Rooms = signalbox.guard({ authorizeJoin });
export const lifecycle: Lifecycle = signalbox.guard({ init, selfTest() {} });
export const handover: Handover = signalbox.guard({ save, restore });
