/// <reference path="./server.d.ts" />

/** Where a message goes: back to the connection that the call is about, a user, a room, or every connection. */
export type Destination = { tag: "sender" } | { tag: "user"; val: string } | { tag: "room"; val: string } | { tag: "everyone" };

/** A message on its way in. */
export interface Message {
  /** Unique in the cluster. */
  id: string;
  /** For example `chat_message`. */
  eventType: string;
  /** The ID of the user who sent it; empty where a backend named none. */
  sender: string;
  /** Null where nobody was named. */
  destination: Destination | null;
  /** JSON text: `payload(message)` parses it. */
  payload: string;
  /** Milliseconds since 1970. */
  timestamp: number;
}

/** A message that a plugin makes: `draft` makes one. */
export interface Draft {
  eventType: string;
  destination: Destination | null;
  /** JSON text. */
  payload: string;
}

/** What a transformation makes of a message: `unchanged`, `dropped`, or `changed(...)`. */
export type Outcome = { tag: "unchanged" } | { tag: "changed"; val: Draft } | { tag: "dropped" };

/** A refusal that the client is told: `reject` throws one. */
export interface Rejection {
  /** For programs: 1 to 64 of `a-z 0-9 _ . -`. */
  code: string;
  /** For people. */
  reason: string;
}

/** One connection of a user. */
export interface Client {
  connection: string;
  user: string;
  /** The claims of its token, as JSON text. */
  claims: string;
  address: string;
  /** Milliseconds since 1970. */
  connectedAt: number;
}

/** How a connection is to be closed, or was. */
export interface Disconnection {
  code: number;
  reason: string;
}

/** Something that the server is to do. */
export type Action =
  | { tag: "deliver" }
  | { tag: "send"; val: Draft }
  | { tag: "announce"; val: Draft }
  | { tag: "join"; val: string }
  | { tag: "leave"; val: string }
  | { tag: "disconnect"; val: Disconnection };

/** Export it as `validation`. `validate` lets a message pass by returning, and refuses it by `reject`. */
export interface Validation {
  validate(message: Message): void;
}

/** Export it as `transformation`. */
export interface Transformation {
  transform(message: Message): Outcome;
}

/** Export it as `screening`, beside `validation` and `transformation`: both in one call. */
export interface Screening {
  screen(message: Message): Outcome;
}

/** Export it as `events`. */
export interface Events {
  /** Event types, or patterns that end in `*`. */
  eventTypes(): string[];
  handle(message: Message): Action[];
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

/** Export it as `lifecycle`. */
export interface Lifecycle {
  /** `config` is JSON text; a text that is thrown keeps the version from going live. */
  init(config: string): void;
  selfTest(): void;
}

/** The memory of an instance, in a form of the plugin's own; its author numbers the formats of `data`. */
export interface Snapshot {
  format: number;
  data: Uint8Array;
}

/**
 * Export it as `handover`, for a plugin with `instances = "single"`. `save` is asked of the old version, `restore` of the
 * new one after its `init`; a text that is thrown leaves the old version live.
 */
export interface Handover {
  save(): Snapshot;
  restore(snapshot: Snapshot): void;
}

/** A function whose answer is there when it returns: nobody waits for a promise. */
type Synchronous<F> = F extends (...values: never[]) => infer Answer
  ? [Extract<Answer, PromiseLike<unknown> | Iterator<unknown> | AsyncIterator<unknown>>] extends [never]
    ? unknown
    : "a function that the server calls cannot be async or a generator: nobody waits for its answer"
  : unknown;

/**
 * Checks the functions of an interface, and returns them: one that is `async` or a generator ends the build, because nobody
 * would wait for its answer.
 */
export function guard<T extends Validation | Transformation | Screening | Events | Connections | Rooms | Lifecycle | Handover>(
  functions: T & { [Name in keyof T]: Synchronous<T[Name]> },
): T;

/** Refuses a message, a connection or a join. */
export function reject(code: string, reason: string): never;
/**
 * The payload of a message; its shape is for the plugin to check. Refuses with `invalid_payload` what receivers could read
 * differently: the same key twice in an object, half of a surrogate pair, a number beyond 1.8e308, more than 100 levels.
 * Integers beyond 2^53 are rounded.
 */
export function payload(message: Message): unknown;
/** A message with `payload` as JSON. */
export function draft(eventType: string, destination: Destination | null, payload: unknown): Draft;
export const sender: Destination;
export const everyone: Destination;
export function user(id: string): Destination;
export function room(name: string): Destination;

export const unchanged: Outcome;
export const dropped: Outcome;
export function changed(draft: Draft): Outcome;
/** The message with another payload. */
export function withPayload(message: Message, payload: unknown): Outcome;

/** Delivers the message that is being handled. */
export const deliver: Action;
/** A message in the sender's name. */
export function send(draft: Draft): Action;
/** A message in the name of the platform. */
export function announce(draft: Draft): Action;
/** A message of the platform back to the connection that the call is about. */
export function reply(eventType: string, payload: unknown): Action;
export function join(room: string): Action;
export function leave(room: string): Action;
/** Closes the connection; below 4500 the client comes back by itself. */
export function disconnect(code: number, reason: string): Action;

/** A text as UTF-8, such as for `Snapshot.data`: there is no `TextEncoder`. */
export function bytes(text: string): Uint8Array;
/** UTF-8 as a text. */
export function text(bytes: Uint8Array): string;

export const log: Record<"debug" | "info" | "warn" | "error", (line: string) => void>;

export const context: {
  /** The connection that the call is about; null for what a backend sent. */
  currentClient(): Client | null;
  node(): string;
  /** Milliseconds since 1970, as `Date.now()`. */
  now(): number;
  /** 32 uniform, unpredictable bits. */
  random(): number;
};

/** Thrown if an operation of the store was not done. */
export interface StoreError extends Error {
  payload: "too-large" | "not-a-number" | "too-many-calls" | "unavailable";
}

/** Values that outlive an instance and a swap. A `StoreError` that nobody catches refuses the message in
 * functions that may refuse it, and fails the call in others. */
export const store: {
  /** Null where there is none. */
  get(key: string): string | null;
  set(key: string, value: string, ttlSeconds?: number): void;
  remove(key: string): void;
  increment(key: string, by: number, ttlSeconds?: number): number;
  /** False: the value is not `expected` (null for none), and nothing changed. */
  compareAndSwap(key: string, expected: string | null, value: string, ttlSeconds?: number): boolean;
};

export const metrics: {
  count(name: string, by: number): void;
  observe(name: string, value: number): void;
};
