// Compiled, and never run: the types say what an application may do.
import { Signalbox } from "@signalbox/client";
import { SignalboxProvider, useConnection, useEvent, usePresence, useRequest, useRoom, useSignalbox } from "../../src/index.js";

declare module "../../src/types.js" {
  interface Register {
    events: { chat_message: { text: string }; "chat.typing": { typing: boolean } };
    requests: { sum: { payload: number[]; data: number } };
  }
}

const client = new Signalbox<
  { chat_message: { text: string }; "chat.typing": { typing: boolean } },
  { sum: { payload: number[]; data: number } }
>({ url: "wss://example.com/ws", token: async () => "token" });

export function App() {
  return (
    <SignalboxProvider client={client} onError={({ code }) => code satisfies string}>
      <Chat />
    </SignalboxProvider>
  );
}

function Chat() {
  const { messages, pending, post, send, hasOlder, loadOlder, status, error } = useRoom("r", { last: 20, types: ["chat_message"] });
  const all = useRoom("r");
  for (const { payload, gapAfter, key } of messages) [payload.text satisfies string, gapAfter, key];
  for (const message of all.messages) if (message.type === "chat.typing") message.payload.typing satisfies boolean;
  void post("chat_message", { text: "hi" });
  // @ts-expect-error: the payload is another
  void post("chat_message", { txt: "hi" });
  // @ts-expect-error: no such type
  void send("chat_mesage", { text: "hi" });
  // @ts-expect-error: no such type
  useRoom("r", { types: ["chat_mesage"] });
  useEvent("chat.typing", ({ payload }) => payload.typing satisfies boolean, { room: "r" });
  const { data } = useRequest("sum", [1, 2]);
  // @ts-expect-error: the payload is another
  useRequest("sum", "1");
  const { members, total } = usePresence("r");
  const { state, retryInMs } = useConnection();
  void useSignalbox().request("sum", [1]).then((sum) => sum satisfies number);
  return <p>{[data?.toFixed(), members?.length, total, state, retryInMs, pending.length, hasOlder, status, error?.message, String(loadOlder)]}</p>;
}
