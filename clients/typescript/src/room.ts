import type { Credentials } from "./credentials.js";
import { Emitter, type Unsubscribe } from "./emitter.js";
import type { SignalboxError } from "./errors.js";
import type { Member, Presence, PresenceFrame } from "./presence.js";
import { PresenceList } from "./presence.js";
import type { Position, Recovery } from "./position.js";
import type { Answer, Message, SendOptions } from "./types.js";

/** How a room is joined. */
export interface JoinOptions {
  /** Asks for so many of the last messages, if the room has a history. */
  readonly last?: number;
  /** Asks who is in the room, if it has presence. */
  readonly presence?: boolean;
  /** A token for the room, or a callback that returns one, for rooms that require it. */
  readonly token?: string | ((room: string) => string | Promise<string>);
}

/** The result of the first join of a room. */
export interface Joined {
  /** Whether the messages that the client missed follow, if it was in the room before. */
  readonly recovered: boolean | undefined;
}

/** Older messages of a room, oldest first. */
export interface History {
  readonly messages: readonly Message[];
  /** Whether there are older ones. */
  readonly hasOlder: boolean;
}

/** A page of a history. */
export interface HistoryOptions {
  /** Only messages with a smaller offset; by default the newest. */
  readonly before?: number;
  /** The most messages; 50 by default. */
  readonly limit?: number;
}

/** The reports of a room, by name. */
export interface RoomEvents {
  /** A message to the room. */
  message: Message;
  /** The outcome of each return to the history of the room. */
  recovered: Recovery;
  /** Users came or left. */
  presence: Presence;
  /** The room ended without `leave`. */
  left: SignalboxError;
}

/** The calls of a room to its client. */
export interface RoomActions {
  leave(room: Room): void;
  send(type: string, payload: unknown, options: SendOptions): Promise<Answer>;
  history(room: Room, options: HistoryOptions): Promise<History>;
}

/** A room that the application wants to be in. It is joined again after each reconnect. */
export class Room {
  readonly name: string;
  /** The outcome of the first join. */
  readonly joined: Promise<Joined>;
  readonly #actions: RoomActions;

  /** @internal */
  readonly state: RoomState;

  /** @internal */
  constructor(name: string, options: JoinOptions, actions: RoomActions, failed: (error: unknown) => void) {
    this.name = name;
    this.#actions = actions;
    this.state = new RoomState(options, failed);
    this.joined = this.state.joined;
  }

  /** The users in the room, if the join asked for them and there are not too many. */
  get members(): readonly Member[] | undefined {
    return this.state.presence.members;
  }

  /** The number of users in the room, if the join asked for them. */
  get total(): number | undefined {
    return this.state.presence.total;
  }

  /** Calls `callback` with each `event` until the returned function is called. */
  on<E extends keyof RoomEvents>(event: E, callback: (value: RoomEvents[E]) => unknown): Unsubscribe {
    return this.state.emitter.on(event, callback);
  }

  /** Sends a message to the room. */
  send(type: string, payload?: unknown, { once = false }: Pick<SendOptions, "once"> = {}): Promise<Answer> {
    return this.#actions.send(type, payload, { room: this.name, once });
  }

  /** Reads older messages. */
  history(options: HistoryOptions = {}): Promise<History> {
    return this.#actions.history(this, options);
  }

  /** Leaves the room. */
  leave(): void {
    this.#actions.leave(this);
  }
}

/** The state of a room. */
export class RoomState {
  options: JoinOptions;
  readonly emitter: Emitter;
  readonly presence = new PresenceList();
  readonly joined: Promise<Joined>;
  resolve!: (joined: Joined) => void;
  reject!: (error: SignalboxError) => void;
  /** Whether the first join has an outcome. */
  settled = false;
  /** Whether the connection is a member. */
  member = false;
  /** Whether a join waits for its answer. */
  pending = false;
  /** Whether the server has answered a join since the connection began. */
  answered = false;
  /** Whether the options have changed since the join that waits. */
  changed = false;
  position: Position | undefined;
  /** The room token, until the server refuses it. */
  token: string | undefined;
  /** The callback that returns room tokens, once it was called. */
  credentials: Credentials | undefined;
  failures = 0;
  retry: ReturnType<typeof setTimeout> | undefined;

  constructor(options: JoinOptions, failed: (error: unknown) => void) {
    this.options = options;
    this.emitter = new Emitter(failed);
    this.joined = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // An application need not wait for it: `left` reports the same.
    this.joined.catch(() => {});
  }

  /** Merges a frame. */
  merge(frame: PresenceFrame): void {
    this.emitter.emit("presence", this.presence.apply(frame));
  }
}
