/// <reference path="./server.d.ts" />

/** The receivers of a message: the connection that the call is about, a user, a room, or every connection. */
export type Destination = { tag: "sender" } | { tag: "user"; val: string } | { tag: "room"; val: string } | { tag: "everyone" };

/** An incoming message. */
export interface Message {
  /** Unique in the cluster. */
  id: string;
  /** For example `chat_message`. */
  eventType: string;
  /** The ID of the sending user; empty if a backend sent the message without a sender. */
  sender: string;
  /** Null if no receiver is named. */
  destination: Destination | null;
  /** JSON text: `payload(message)` parses it. */
  payload: string;
  /** Milliseconds since 1970. */
  timestamp: number;
}

/** A message that a plugin creates with `draft`. */
export interface Draft {
  eventType: string;
  destination: Destination | null;
  /** JSON text. */
  payload: string;
}

/** The result of a transformation: `unchanged`, `dropped`, or `changed(...)`. */
export type Outcome = { tag: "unchanged" } | { tag: "changed"; val: Draft } | { tag: "dropped" };

/** A refusal that is sent to the client: `reject` throws one. */
export interface Rejection {
  /** For programs: 1 to 64 of `a-z 0-9 _ . -`. */
  code: string;
  /** For people. */
  reason: string;
}

/** A connection of a user. */
export interface Client {
  connection: string;
  user: string;
  /** The claims of the token, as JSON text. */
  claims: string;
  address: string;
  /** Milliseconds since 1970. */
  connectedAt: number;
}

/** How a connection should be closed, or was closed. */
export interface Disconnection {
  code: number;
  reason: string;
}

/** Something that the server should do after a call. */
export type Action =
  | { tag: "deliver" }
  | { tag: "send"; val: Draft }
  | { tag: "announce"; val: Draft }
  | { tag: "join"; val: string }
  | { tag: "leave"; val: string }
  | { tag: "disconnect"; val: Disconnection };

/** Export it as `validation`. `validate` returns to accept a message, and calls `reject` to refuse it. */
export interface Validation {
  validate(message: Message): void;
}

/** Export it as `transformation`. */
export interface Transformation {
  transform(message: Message): Outcome;
}

/** Export it as `screening`, in addition to `validation` and `transformation`: it does both in one call. */
export interface Screening {
  screen(message: Message): Outcome;
}

/** Export it as `events`. */
export interface Events {
  /** Event types, or patterns that end in `*`. */
  eventTypes(): string[];
  handle(message: Message): Action[];
}

/** The answer to a request, which `answer` creates. */
export interface Reply {
  /** JSON text. */
  data: string;
  /** Carried out before the answer is sent. */
  actions: Action[];
}

/** Export it as `requests`. */
export interface Requests {
  /** Types of requests, or patterns that end in `*`. */
  requestTypes(): string[];
  respond(message: Message): Reply;
}

/** Export it as `connections`. */
export interface Connections {
  connected(client: Client): Action[];
  disconnected(client: Client, how: Disconnection): Action[];
}

/** Export it as `rooms`. */
export interface Rooms {
  authorizeJoin(client: Client, room: string): void;
}

/**
 * Export it as `membership`. `connections` is the number of connections of the user on this node that are members of the
 * room after the change.
 */
export interface Membership {
  joined(client: Client, room: string, connections: number): Action[];
  left(client: Client, room: string, connections: number): Action[];
}

/** Export it as `lifecycle`. */
export interface Lifecycle {
  /** `config` is JSON text. A thrown string keeps the version from going live. */
  init(config: string): void;
  selfTest(): void;
}

/** The memory of an instance. The plugin's author numbers the formats of `data`. */
export interface Snapshot {
  format: number;
  data: Uint8Array;
}

/**
 * Export it as `handover`, for a plugin with `instances = "single"`. `save` is called on the old version, `restore` on
 * the new one after its `init`. A thrown string leaves the old version live.
 */
export interface Handover {
  save(): Snapshot;
  restore(snapshot: Snapshot): void;
}

/** A function that returns its result, not a promise or an iterator: the server does not wait for those. */
type Synchronous<F> = F extends (...values: never[]) => infer Answer
  ? [Extract<Answer, PromiseLike<unknown> | Iterator<unknown> | AsyncIterator<unknown>>] extends [never]
    ? unknown
    : "a function that the server calls cannot be async or a generator: nobody waits for its answer"
  : unknown;

/**
 * Checks the functions of an interface and returns them. A function that is `async` or a generator fails the build,
 * because the server does not wait for its result.
 */
export function guard<
  T extends Validation | Transformation | Screening | Events | Requests | Connections | Rooms | Membership | Lifecycle | Handover,
>(functions: T & { [Name in keyof T]: Synchronous<T[Name]> }): T;

/** Refuses a message, a connection or a join. The code is for programs, the reason for people. */
export function reject(code: string, reason: string): never;
/**
 * Parses the payload of a message. The plugin must check its shape. Refuses JSON that receivers could read differently
 * with `invalid_payload`: the same key twice in an object, half of a surrogate pair, a number beyond 1.8e308, more than
 * 100 levels. Integers beyond 2^53 are rounded.
 */
export function payload(message: Message): unknown;
/** Creates a message with `payload` as JSON. */
export function draft(eventType: string, destination: Destination | null, payload: unknown): Draft;
export const sender: Destination;
export const everyone: Destination;
export function user(id: string): Destination;
export function room(name: string): Destination;

export const unchanged: Outcome;
export const dropped: Outcome;
export function changed(draft: Draft): Outcome;
/** Lets the message continue with a new payload. */
export function withPayload(message: Message, payload: unknown): Outcome;

/** Delivers the handled message to its destination. */
export const deliver: Action;
/** Sends a message in the sender's name. */
export function send(draft: Draft): Action;
/** Sends a message in the name of the platform. */
export function announce(draft: Draft): Action;
/** Sends a message from the platform to the connection that the call is about. */
export function reply(eventType: string, payload: unknown): Action;
export function join(room: string): Action;
export function leave(room: string): Action;
/** Closes the connection with a code of 4000 to 4999. Below 4500 the client reconnects by itself. */
export function disconnect(code: number, reason: string): Action;

/** Creates the reply to a request with `data` as JSON. */
export function answer(data: unknown, actions?: Action[]): Reply;

/** Encodes a string as UTF-8, for example for `Snapshot.data`. There is no `TextEncoder`. */
export function bytes(text: string): Uint8Array;
/** Decodes UTF-8. */
export function text(bytes: Uint8Array): string;

export const log: Record<"debug" | "info" | "warn" | "error", (line: string) => void>;

export const context: {
  /** The connection that the call is about; null for a message from a backend. */
  currentClient(): Client | null;
  node(): string;
  /** Milliseconds since 1970, like `Date.now()`. */
  now(): number;
  /** A uniform, unpredictable whole number from 0 to 2^32 - 1. */
  random(): number;
};

/** Thrown if a store operation fails. */
export interface StoreError extends Error {
  payload: "too-large" | "not-a-number" | "too-many-calls" | "unavailable";
}

/**
 * Values that outlive instances and swaps. An uncaught `StoreError` refuses the message if the function may refuse it,
 * otherwise it fails the call.
 */
export const store: {
  /** Null if the key does not exist. */
  get(key: string): string | null;
  set(key: string, value: string, ttlSeconds?: number): void;
  remove(key: string): void;
  increment(key: string, by: number, ttlSeconds?: number): number;
  /** Sets the value if it is still `expected` (null: absent). Returns false if another call changed it first. */
  compareAndSwap(key: string, expected: string | null, value: string, ttlSeconds?: number): boolean;
};

/** A user in a room. */
export interface Member {
  user: string;
  /** The number of the user's connections in the room. */
  connections: number;
  /** The claim `info` of the user's token as JSON text; null without the claim. */
  info: string | null;
}

/** A message that the history of a room keeps. */
export interface KeptMessage {
  /** Its number in the room, rounded beyond 2^53. */
  offset: number;
  eventType: string;
  /** The ID of the sending user; empty if the platform sent the message. */
  sender: string;
  /** JSON text. */
  payload: string;
  /** Milliseconds since 1970. */
  timestamp: number;
}

/** Thrown if a question about a room has no answer. */
export interface RoomError extends Error {
  name: "RoomError";
  payload: "switched-off" | "invalid" | "too-many-calls" | "unavailable";
}

/**
 * The members and the history of any room, on all nodes. An uncaught `RoomError` refuses the message if the function may
 * refuse it, otherwise it fails the call.
 */
export const roomState: {
  /** The number of connections in the room. */
  count(room: string): number;
  /** The users in the room, ordered by ID. */
  members(room: string): Member[];
  /** The last `limit` messages of the room, or those before the offset `before`, the oldest first. */
  history(room: string, before: number | null, limit: number): KeptMessage[];
};

export const metrics: {
  count(name: string, by: number): void;
  observe(name: string, value: number): void;
};
