import type { RoomMessage } from "@signalbox/react";

/** The messages of the chat plugin, and one that the server itself answers. */
interface ChatEvents {
  heartbeat: undefined;
  chat_message: string | { text: string; me?: boolean };
  "chat.me": { text: string };
  "chat.typing": { typing: boolean };
}

declare module "@signalbox/react" {
  interface Register {
    events: ChatEvents;
  }
}

/** A line of a conversation. */
export type ChatMessage = RoomMessage<"chat_message">;

/** The text of a payload, also of one that another application sent. */
export function textOf(payload: unknown): string {
  const text = typeof payload === "object" && payload !== null && "text" in payload ? payload.text : payload;
  return typeof text === "string" ? text : (JSON.stringify(payload) ?? "");
}

/** Whether it is said in the third person. */
export function isMe(payload: unknown): boolean {
  return typeof payload === "object" && payload !== null && "me" in payload && payload.me === true;
}

/** Why messages are missing. */
export const GAPS: Readonly<Record<string, string>> = {
  epoch: "The server has lost the older messages; some may be missing here",
  expired: "You were away for longer than messages are kept; some are missing here",
  too_many: "You were away for too many messages; some are missing here",
};
