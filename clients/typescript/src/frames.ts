import type { NamedPlace } from "./position.js";
import type { Message, PluginVersion, ServerFrame, Session } from "./types.js";

/** The payload of the first frame of a connection. */
export interface Welcome extends Session {
  readonly heartbeatIntervalMs: number;
  readonly limits?: { readonly frameBytesMax?: number };
  readonly user?: NamedPlace;
}

/** The payload of an `ack`. */
export interface Ack {
  readonly id: string;
  readonly messageId: string;
  readonly status: string;
  readonly data?: unknown;
  readonly duplicate?: boolean;
  readonly room?: NamedPlace;
  readonly history?: unknown;
  readonly plugins?: readonly PluginVersion[];
}

/** Parses a frame; `undefined` if it is none of the protocol. */
export function parseFrame(text: string): ServerFrame | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value) || typeof value["type"] !== "string") return undefined;
  const isWrong = (field: string, kind: string) => value[field] !== undefined && typeof value[field] !== kind;
  if (isWrong("room", "string") || isWrong("offset", "number")) return undefined;
  return value as unknown as ServerFrame;
}

/** Whether it is an object with fields. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A message as the application sees it. */
export function messageOf(frame: ServerFrame): Message {
  const { type, payload, room, messageId, offset } = frame;
  return {
    type,
    payload: payload ?? null,
    senderId: String(frame.senderId ?? ""),
    receiverId: String(frame.receiverID ?? ""),
    timestamp: String(frame.timestamp ?? ""),
    ...(room !== undefined && { room }),
    ...(messageId !== undefined && { messageId }),
    ...(offset !== undefined && { offset }),
  };
}
