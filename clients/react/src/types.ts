import type { Message, SignalboxError } from "@signalbox/client";

/**
 * The types of your messages and requests. Declare them once, and all hooks know them:
 *
 * ```ts
 * declare module "@signalbox/react" {
 *   interface Register {
 *     events: { chat_message: { text: string } };
 *     requests: { sum: { payload: number[]; data: number } };
 *   }
 * }
 * ```
 */
export interface Register {}

/** The payloads of messages by type. */
export type Events = Register extends { events: infer E extends object } ? E : Record<string, unknown>;

/** The payload and the data of requests by type. */
export type Requests = Register extends { requests: infer R extends object }
  ? R
  : Record<string, { payload: unknown; data: unknown }>;

/** The name of a type of message. */
export type EventType = keyof Events & string;

/** A message of a room. */
export type RoomMessage<T extends EventType = EventType> = {
  [E in T]: Omit<Message<Events[E]>, "type"> & {
    readonly type: E;
    /** A React key. */
    readonly key: string;
    /** Present if messages after this one are missing: `epoch`, `expired` or `too_many`. */
    readonly gapAfter?: string;
  };
}[T];

/** A message of this page that is not yet among the messages of the room. */
export interface PendingMessage {
  /** A React key. */
  readonly key: string;
  readonly type: string;
  readonly payload: unknown;
  /** `sending` also while there is no connection; `sent` if only the echo of the room is missing. */
  readonly status: "sending" | "sent" | "failed";
  /** Present if the message has failed. */
  readonly error?: SignalboxError;
  /** Sends a failed message again. */
  readonly retry: () => void;
  /** Forgets a failed message. */
  readonly discard: () => void;
}
