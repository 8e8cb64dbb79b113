// Compiled, and never run: the types say what an application may do.
import { sse } from "../../src/sse.js";
import { Signalbox, type Answer, type Message, type Room } from "../../src/index.js";

interface Events {
  chat_message: { text: string };
  typing: null;
}

interface Requests {
  sum: { payload: number[]; data: number };
}

const client = new Signalbox<Events, Requests>({ url: "wss://example.com/ws", token: async () => "token" });

client.on("chat_message", ({ payload, senderId }) => `${senderId}: ${payload.text satisfies string}`);
client.on("message", (message: Message) => message.payload);
client.on("state", ({ state, retryInMs }) => [state, retryInMs satisfies number | undefined]);
client.on("error", ({ code, retryable }) => [code satisfies string, retryable satisfies boolean]);
// @ts-expect-error: no such type
client.on("chat_mesage", () => {});
// @ts-expect-error: the payload is another
void client.send("chat_message", { txt: "hi" });

void (client.send("chat_message", { text: "hi" }, { to: "bob", once: true }) satisfies Promise<Answer>);
void (client.request("sum", [1, 2]) satisfies Promise<number>);

const room: Room = client.join("chat:7", { last: 20, presence: true });
room.on("presence", ({ members }) => members?.map(({ userId }) => userId satisfies string));
room.on("left", ({ code }) => code);

// Without types everything is allowed.
const untyped = new Signalbox({ url: "wss://example.com/ws", userId: "ann" });
untyped.on("anything", ({ payload }) => payload satisfies unknown);
void untyped.send("anything", { a: 1 });

// The fallback is one of the package, and nothing else.
new Signalbox({ url: "wss://example.com/ws", fallback: sse });
// @ts-expect-error: not a fallback
new Signalbox({ url: "wss://example.com/ws", fallback: true });
