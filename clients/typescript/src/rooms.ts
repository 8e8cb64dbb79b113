import { backoffMs } from "./backoff.js";
import type { Calls } from "./calls.js";
import { callbackReason, Credentials, isFinal } from "./credentials.js";
import { SignalboxError } from "./errors.js";
import { isObject, type Ack } from "./frames.js";
import { placeOf, positionOf, recoveryOf, type NamedPlace } from "./position.js";
import type { PresenceFrame } from "./presence.js";
import { Room, type JoinOptions, type RoomActions } from "./room.js";
import type { Message } from "./types.js";

/** The most joins that wait for their answers. */
const PENDING_MAX = 50;

/** The place in a room that keeps no messages. */
const NO_HISTORY: NamedPlace = { recovered: false, reason: "no_history" };

/** The bounds of the wait before a join is tried again. */
const BACKOFF = { minMs: 1_000, maxMs: 20_000 };

/** The reports of rooms to their client. */
export interface RoomReports {
  /** A callback for events has failed. */
  callbackFailed(error: unknown): void;
  /** A token callback has failed, and is called again. */
  tokenFailed(error: SignalboxError): void;
}

/** The rooms in which the application wants to be. */
export class Rooms {
  readonly #calls: Calls;
  readonly #actions: Omit<RoomActions, "leave">;
  readonly #tokenTimeoutMs: number;
  readonly #reports: RoomReports;
  /** In the order of the joins. */
  readonly #rooms = new Map<string, Room>();
  /** Leaves that wait for their answers, by room: their `left` frames are expected. */
  readonly #leaving = new Map<string, number>();
  #connected = false;
  /** The number of the connection: results of an earlier one are ignored. */
  #connection = 0;
  #pending = 0;
  #settled: (() => void) | undefined;

  /** A token callback may take `tokenTimeoutMs`. */
  constructor(calls: Calls, actions: Omit<RoomActions, "leave">, tokenTimeoutMs: number, reports: RoomReports) {
    this.#calls = calls;
    this.#actions = actions;
    this.#tokenTimeoutMs = tokenTimeoutMs;
    this.#reports = reports;
  }

  /** The names of the rooms that are joined now. */
  get names(): string[] {
    return [...this.#rooms.values()].filter(({ state }) => state.member).map(({ name }) => name);
  }

  /** Starts a membership, or changes the options of one. */
  join(name: string, options: JoinOptions): Room {
    const known = this.#rooms.get(name);
    if (known) {
      const { state } = known;
      state.options = options;
      state.token = undefined;
      if (state.pending) state.changed = true;
      else if (state.member) this.#join(known);
      return known;
    }
    const actions = { ...this.#actions, leave: (left: Room) => this.#leave(left) };
    const room = new Room(name, options, actions, (error) => this.#reports.callbackFailed(error));
    this.#rooms.set(name, room);
    this.#joinMore();
    return room;
  }

  /** The connection is there: joins all rooms, and calls `settled` once each has been answered. */
  connected(settled: () => void): void {
    this.#connected = true;
    this.#settled = settled;
    this.#joinMore();
    this.#checkSettled();
  }

  /** The connection is gone. */
  lost(): void {
    this.#connected = false;
    this.#connection += 1;
    this.#pending = 0;
    this.#settled = undefined;
    this.#leaving.clear();
    for (const { state } of this.#rooms.values()) {
      clearTimeout(state.retry);
      state.retry = undefined;
      state.member = state.pending = state.answered = state.changed = false;
      state.failures = 0;
    }
  }

  /** The client was closed. The rooms that were joined are joined again if it is opened again. */
  close(): void {
    this.lost();
    for (const room of [...this.#rooms.values()]) {
      room.state.emitter.silence();
      room.state.credentials?.reset();
      if (room.state.settled) continue;
      this.#rooms.delete(room.name);
      room.state.reject(new SignalboxError("closed", "the client was closed"));
    }
  }

  /** Whether the application gets this message: it is no repetition, and follows the one before. */
  accepts(message: Message): boolean {
    const room = this.#rooms.get(message.room ?? "");
    const position = room?.state.position;
    if (!room || !position || message.offset === undefined) return true;
    const place = placeOf(message.offset, position);
    if (place === "next") room.state.position = { epoch: position.epoch, offset: message.offset };
    else if (place === "gap" && room.state.member && !room.state.pending) this.#join(room);
    return place === "next";
  }

  /** Gives a message to the callbacks of its room. */
  emit(message: Message): void {
    this.#rooms.get(message.room ?? "")?.state.emitter.emit("message", message);
  }

  /** Takes the payload of `joined`, which has news only about a room that is joined already. */
  joined(payload: NamedPlace & { readonly room: string }): void {
    const room = this.#rooms.get(payload.room);
    if (room?.state.member && !room.state.pending && payload.recovered === false) this.#take(room, payload);
  }

  /** Takes the payload of `left`. */
  left({ room: name, reason }: { readonly room: string; readonly reason?: string }): void {
    const room = this.#rooms.get(name);
    if (!room || this.#leaving.has(name) || !room.state.member) return;
    room.state.member = false;
    if (reason === "expired" && typeof room.state.options.token === "function") {
      room.state.token = undefined;
      if (!room.state.pending) this.#join(room);
    } else {
      this.#end(room, new SignalboxError(reason ?? "removed", "the membership was ended"));
    }
  }

  /** Takes the payload of `presence`. */
  presence(payload: PresenceFrame): void {
    this.#rooms.get(payload.room)?.state.merge(payload);
  }

  #leave(room: Room): void {
    if (this.#rooms.get(room.name) !== room) return;
    const { state } = room;
    const sent = state.member || state.pending;
    this.#forget(room);
    if (!state.settled) state.reject(new SignalboxError("closed", "the room was left"));
    if (sent && this.#connected) this.#sendLeave(room.name);
    this.#checkSettled();
  }

  #sendLeave(name: string): void {
    this.#leaving.set(name, (this.#leaving.get(name) ?? 0) + 1);
    const done = () => {
      const left = (this.#leaving.get(name) ?? 1) - 1;
      if (left > 0) this.#leaving.set(name, left);
      else this.#leaving.delete(name);
    };
    this.#calls.sendNow({ type: "leave", room: name }, { answered: done, failed: done });
  }

  /** Sends the joins of rooms that wait for one. */
  #joinMore(): void {
    if (!this.#connected) return;
    for (const room of this.#rooms.values()) {
      if (this.#pending >= PENDING_MAX) return;
      const { member, pending, retry } = room.state;
      if (!member && !pending && retry === undefined) this.#join(room);
    }
  }

  #join(room: Room): void {
    const { state } = room;
    state.pending = true;
    state.changed = false;
    this.#pending += 1;
    const { token } = state.options;
    if (typeof token !== "function") this.#sendJoin(room, token);
    else if (state.token !== undefined) this.#sendJoin(room, state.token);
    else this.#joinWithNewToken(room, token);
  }

  #joinWithNewToken(room: Room, callback: (room: string) => string | Promise<string>): void {
    const { state } = room;
    const connection = this.#connection;
    // A later `join` may have brought another callback.
    const newest = () => (typeof state.options.token === "function" ? state.options.token : callback);
    state.credentials ??= new Credentials(() => newest()(room.name), this.#tokenTimeoutMs);
    state.credentials.renew().then(
      (token) => {
        state.token = token;
        if (connection !== this.#connection) return;
        if (this.#rooms.get(room.name) === room) this.#sendJoin(room, token);
        else this.#answered(room);
      },
      (error: unknown) => {
        if (connection !== this.#connection) return;
        const code = isFinal(error) ? "unauthorized" : "token_failed";
        const failure = new SignalboxError(code, callbackReason(error), { cause: error });
        if (failure.retryable && this.#rooms.get(room.name) === room) this.#reports.tokenFailed(failure);
        this.#refused(room, failure);
      },
    );
  }

  #sendJoin(room: Room, token: string | undefined): void {
    const { state } = room;
    const { last, presence } = state.options;
    const since = state.position;
    const payload = {
      ...(since ? { since } : last !== undefined && { last }),
      ...(presence && { presence }),
      ...(token !== undefined && { token }),
    };
    const frame = { type: "join", room: room.name, ...(Object.keys(payload).length > 0 && { payload }) };
    this.#calls.sendNow(frame, {
      answered: (ack) => this.#accepted(room, ack, since !== undefined),
      failed: (error) => this.#connected && this.#refused(room, error),
    });
  }

  #accepted(room: Room, ack: Ack, returned: boolean): void {
    if (!this.#answered(room)) return;
    const { state } = room;
    state.member = true;
    state.failures = 0;
    const place = isObject(ack.room) ? (ack.room as NamedPlace) : NO_HISTORY;
    if (returned) this.#take(room, place);
    else state.position = positionOf(place);
    if (!state.settled) {
      state.settled = true;
      state.resolve({ recovered: returned ? place.recovered : undefined });
    }
    if (state.changed && this.#rooms.get(room.name) === room && !state.pending) this.#join(room);
    this.#joinMore();
    this.#checkSettled();
  }

  #refused(room: Room, error: SignalboxError): void {
    if (!this.#answered(room)) return;
    const { state } = room;
    const hasNewToken = error.code === "invalid_token" && typeof state.options.token === "function" && state.failures === 0;
    if (error.retryable || hasNewToken) {
      state.token = undefined;
      const again = () => {
        state.retry = undefined;
        this.#joinMore();
      };
      state.retry = setTimeout(again, hasNewToken ? 0 : backoffMs(state.failures, BACKOFF));
      state.failures += 1;
      state.member = false;
    } else {
      this.#end(room, error);
    }
    this.#joinMore();
    this.#checkSettled();
  }

  /** A join was answered. Returns `false` if nobody wants the room any more. */
  #answered(room: Room): boolean {
    const { state } = room;
    if (state.pending) this.#pending -= 1;
    state.pending = false;
    state.answered = true;
    if (this.#rooms.get(room.name) === room) return true;
    this.#joinMore();
    return false;
  }

  /** Takes the position after a return, and reports whether messages are missing. */
  #take(room: Room, place: NamedPlace): void {
    room.state.position = positionOf(place);
    const recovery = recoveryOf(place);
    if (recovery) room.state.emitter.emit("recovered", recovery);
  }

  /** Ends a membership without the application. */
  #end(room: Room, error: SignalboxError): void {
    const { state } = room;
    this.#forget(room);
    if (state.member && this.#connected) this.#sendLeave(room.name);
    if (!state.settled) state.reject(error);
    state.settled = true;
    state.emitter.emit("left", error);
  }

  #forget(room: Room): void {
    clearTimeout(room.state.retry);
    room.state.credentials?.reset();
    this.#rooms.delete(room.name);
  }

  #checkSettled(): void {
    if (!this.#settled || [...this.#rooms.values()].some(({ state }) => !state.answered)) return;
    const settled = this.#settled;
    this.#settled = undefined;
    settled();
  }
}
