import { Calls } from "./calls.js";
import { Connection } from "./connection.js";
import { Emitter, type Unsubscribe } from "./emitter.js";
import { SignalboxError, textOf } from "./errors.js";
import { isObject, messageOf, type Ack, type Welcome } from "./frames.js";
import { placeOf, positionOf, recoveryOf, type NamedPlace, type Position, type Recovery } from "./position.js";
import type { PresenceFrame } from "./presence.js";
import { type History, type HistoryOptions, type JoinOptions, type Room } from "./room.js";
import { Rooms } from "./rooms.js";
import { TokenRenewal } from "./renewal.js";
import {
  settingsOf,
  type Answer,
  type ClientFrame,
  type Message,
  type Options,
  type SendOptions,
  type ServerFrame,
  type Session,
  type State,
  type StateChange,
} from "./types.js";

/** The reports of a client in addition to messages of the application's types, by name. */
export interface ClientEvents {
  /** Each change of the state. */
  state: StateChange;
  /** Each message, of any type. */
  message: Message;
  /** Each error that belongs to no call. */
  error: SignalboxError;
  /** The outcome of each return to the history of the user's own messages. */
  recovered: Recovery;
}

/** Data that a request sends, and the data of its answer, by type. */
export type Requests = Record<string, { payload: unknown; data: unknown }>;

/** The longest time that queued messages wait until the rooms are joined again. */
const REJOIN_TIME_MAX_MS = 10_000;

/**
 * A client of a Signalbox server. `Events` has the payloads of the application's messages by type, and `Calling` the payloads and
 * data of its requests.
 */
export class Signalbox<Events extends object = Record<string, unknown>, Calling extends object = Requests> {
  readonly #connection: Connection;
  readonly #calls: Calls;
  readonly #rooms: Rooms;
  readonly #renewal: TokenRenewal;
  readonly #emitter = new Emitter((error) => this.#callbackFailed(error));
  /** Whether a callback for errors is running: if it fails, it is not called again. */
  #reporting = false;
  #rejoin: ReturnType<typeof setTimeout> | undefined;
  #session: Session | undefined;
  /** The place in the user's own messages. */
  #position: Position | undefined;

  /** Does not connect yet. */
  constructor(options: Options) {
    const settings = settingsOf(options);
    this.#connection = new Connection(options, settings, {
      query: () => this.#query(),
      greeted: ({ userId, connectionId, nodeId, limits }) => {
        this.#session = { userId, connectionId, nodeId };
        this.#calls.connected(limits?.frameBytesMax);
      },
      welcomed: (welcome) => this.#welcomed(welcome),
      frame: (frame) => this.#frame(frame),
      lost: () => this.#lost(),
      changed: (change) => this.#emitter.emit("state", change),
      failed: (error) => this.#report(error),
    });
    this.#calls = new Calls(settings, (text) => this.#connection.send(text));
    const actions = {
      send: (type: string, payload: unknown, to: SendOptions) => this.#send(type, payload, to),
      history: (room: Room, page: HistoryOptions) => this.#history(room, page),
    };
    this.#rooms = new Rooms(this.#calls, actions, settings.tokenTimeoutMs, {
      callbackFailed: (error) => this.#callbackFailed(error),
      tokenFailed: (error) => this.#report(error),
    });
    this.#renewal = new TokenRenewal(
      this.#connection.credentials,
      this.#calls,
      settings.backoff,
      (error) => this.#report(error),
      (error) => this.#connection.fail(error),
    );
  }

  /** The state; `disconnected` at first. */
  get state(): State {
    return this.#connection.state;
  }

  /** The present connection, or else the last one; `undefined` before the first. */
  get session(): Session | undefined {
    return this.#session;
  }

  /** The names of the rooms that the client is in now. */
  get rooms(): readonly string[] {
    return this.#rooms.names;
  }

  /** The number of messages in the queue. */
  get queued(): number {
    return this.#calls.queued;
  }

  /** Connects, and stays connected until `close`, or until the server refuses the client for good. */
  connect(): void {
    this.#calls.open();
    this.#connection.connect();
  }

  /** Ends the connection. All calls that wait fail with `closed`. */
  close(): void {
    this.#connection.close();
  }

  /**
   * Calls `callback` with each change of the state, each message, each error, each recovery of the user's own messages, or each
   * message of one type, until the returned function is called.
   */
  on<E extends keyof ClientEvents>(event: E, callback: (value: ClientEvents[E]) => unknown): Unsubscribe;
  on<T extends keyof Events & string>(type: T, callback: (message: Message<Events[T]>) => unknown): Unsubscribe;
  on(name: string, callback: (value: never) => unknown): Unsubscribe {
    // An event type may have the name of an event of the client.
    return this.#emitter.on(name, callback);
  }

  /** Sends a message. Resolves with the server's answer, and rejects with a `SignalboxError`. */
  send<T extends keyof Events & string>(type: T, payload?: Events[T], options?: SendOptions): Promise<Answer> {
    return this.#send(type, payload, options);
  }

  /** Asks a plugin of the server, and resolves with the data of its answer. A request is repeated if its answer was lost. */
  async request<T extends keyof Calling & string>(type: T, payload?: PayloadOf<Calling[T]>): Promise<DataOf<Calling[T]>> {
    const answer = await this.#send(type, payload, { once: true });
    return answer.data as DataOf<Calling[T]>;
  }

  /** Joins a room, now and after each reconnect, until `leave`. Of a room that is joined already it changes the options. */
  join(room: string, options: JoinOptions = {}): Room {
    return this.#rooms.join(room, options);
  }

  #send(type: string, payload: unknown, { to, room, once = false }: SendOptions = {}): Promise<Answer> {
    const frame = {
      type,
      ...(payload !== undefined && { payload }),
      ...(to !== undefined && { receiverId: to }),
      ...(room !== undefined && { room }),
    };
    return this.#call(frame, once).then(({ status, data, duplicate, messageId, plugins }) => ({
      status: status as Answer["status"],
      data,
      duplicate: duplicate === true,
      messageId,
      ...(plugins && { plugins }),
    }));
  }

  async #history(room: Room, { before, limit }: HistoryOptions): Promise<History> {
    const payload = { ...(before !== undefined && { before }), ...(limit !== undefined && { limit }) };
    const { history } = await this.#call({ type: "history", room: room.name, payload }, false);
    const { messages, hasOlder } = history as { messages: readonly ServerFrame[]; hasOlder: boolean };
    return { messages: messages.map(messageOf), hasOlder };
  }

  #call(frame: ClientFrame, once: boolean): Promise<Ack> {
    return new Promise((answered, failed) => this.#calls.send(frame, once, { answered, failed }));
  }

  #query(): Readonly<Record<string, string>> {
    const at = this.#position;
    return at ? { since: `${at.epoch}:${at.offset}` } : {};
  }

  #welcomed({ user }: Welcome): void {
    const returned = this.#position !== undefined;
    this.#position = positionOf(user);
    const recovery = returned && user && recoveryOf(user);
    if (recovery) this.#emitter.emit("recovered", recovery);
    // A callback may have closed the client.
    if (this.state !== "connected") return;
    this.#rejoin = setTimeout(() => this.#calls.ready(), REJOIN_TIME_MAX_MS);
    this.#rooms.connected(() => {
      clearTimeout(this.#rejoin);
      this.#calls.ready();
    });
  }

  #lost(): void {
    clearTimeout(this.#rejoin);
    this.#renewal.stop();
    if (this.state === "closed") {
      this.#emitter.silence();
      this.#rooms.close();
      this.#calls.close();
    } else {
      this.#rooms.lost();
      this.#calls.lost();
    }
  }

  #frame(frame: ServerFrame): void {
    const { type, payload } = frame;
    switch (type) {
      case "ack":
        return this.#builtIn<Ack>(frame, (ack) => this.#calls.answered(ack));
      case "error":
        return this.#builtIn(frame, (refusal) => {
          const error = this.#calls.refused(refusal);
          if (error) this.#report(error);
        });
      case "joined":
        return this.#builtIn<NamedPlace & { room: string }>(frame, (joined) => this.#rooms.joined(joined));
      case "left":
        return this.#builtIn<{ room: string; reason?: string }>(frame, (left) => this.#rooms.left(left));
      case "presence":
        return this.#builtIn<PresenceFrame>(frame, (presence) => this.#rooms.presence(presence));
      case "token_expiring":
        return this.#renewal.start();
      case "welcome":
        return this.#report(new SignalboxError("invalid_frame", "a second welcome"));
      default:
        return this.#message(messageOf({ ...frame, payload }));
    }
  }

  /** Takes a frame of the server itself, whose payload is an object. */
  #builtIn<T>({ type, payload }: ServerFrame, take: (payload: T) => void): void {
    if (isObject(payload)) take(payload as T);
    else this.#report(new SignalboxError("invalid_frame", `${type} without its fields`));
  }

  #message(message: Message): void {
    if (message.room === undefined ? !this.#acceptsOwn(message) : !this.#rooms.accepts(message)) return;
    // A callback may close the client; none follows.
    if (!RESERVED.has(message.type)) this.#emitter.emit(message.type, message);
    if (this.state !== "closed") this.#emitter.emit("message", message);
    if (this.state !== "closed") this.#rooms.emit(message);
  }

  /** Whether the application gets a message to the user: it is no repetition, and follows the one before. */
  #acceptsOwn({ offset }: Message): boolean {
    const position = this.#position;
    if (!position || offset === undefined) return true;
    const place = placeOf(offset, position);
    if (place === "next") this.#position = { epoch: position.epoch, offset };
    else if (place === "gap") this.#connection.reconnect("messages are missing");
    return place === "next";
  }

  #callbackFailed(error: unknown): void {
    this.#report(new SignalboxError("callback_failed", `a callback failed: ${textOf(error)}`, { cause: error }));
  }

  /** An error about which nobody asks is at least seen by a developer. */
  #report(error: SignalboxError): void {
    if (!this.#emitter.has("error") || this.#reporting) {
      console.error(error);
      return;
    }
    this.#reporting = true;
    this.#emitter.emit("error", error);
    this.#reporting = false;
  }
}

const RESERVED: ReadonlySet<string> = new Set<keyof ClientEvents>(["state", "message", "error", "recovered"]);

/** The payload of a request. */
export type PayloadOf<T> = T extends { payload: infer P } ? P : unknown;

/** The data of the answer to a request. */
export type DataOf<T> = T extends { data: infer D } ? D : unknown;
