import type { Answer, DataOf, JoinOptions, Member, Message, PayloadOf, SignalboxError } from "@signalbox/client";
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import type { ConnectionState } from "./connection.js";
import { useShared } from "./provider.js";
import type { Holder, RoomSnapshot } from "./roomStore.js";
import type { Store } from "./store.js";
import type { Events, EventType, Requests, RoomMessage } from "./types.js";

/** The options of `useRoom`. */
export interface UseRoomOptions<T extends EventType = EventType> extends JoinOptions {
  /** The types of messages to keep, such as `["chat_message"]`; by default all. */
  readonly types?: readonly T[];
  /** The most messages to keep, 500 by default; `loadOlder` raises it. */
  readonly messagesMax?: number;
}

/** The result of `useRoom`. */
export interface UseRoom<T extends EventType = EventType> extends Omit<RoomSnapshot, "messages"> {
  readonly messages: readonly RoomMessage<T>[];
  /** Sends a message to the room; rejects if it fails. */
  readonly send: <E extends EventType>(type: E, payload?: Events[E]) => Promise<Answer>;
  /**
   * Sends a message that is in `pending` at once, until it is in `messages`. It is repeated if its answer was lost. Resolves with
   * the answer, or with nothing if it failed: `pending` says why.
   */
  readonly post: <E extends EventType>(type: E, payload?: Events[E]) => Promise<Answer | undefined>;
  /** Reads a page of older messages. A failure is in `olderError`. */
  readonly loadOlder: () => Promise<void>;
  /** Joins the room again after its `status` became `ended`. */
  readonly rejoin: () => void;
}

/** The users in a room. */
export interface UsePresence {
  /** `undefined` if it is not known yet, or if there are too many to list. */
  readonly members: readonly Member[] | undefined;
  /** Their number; `undefined` if it is not known. */
  readonly total: number | undefined;
}

/** The result of `useRequest`. */
export interface UseRequest<D> {
  /** The last answer, also while another is awaited. */
  readonly data: D | undefined;
  readonly error: SignalboxError | undefined;
  readonly loading: boolean;
  /** Asks again. */
  readonly refresh: () => void;
}

/** The state of the connection. */
export function useConnection(): ConnectionState {
  return useStore(useShared().connection);
}

/** Joins a room while the component is mounted. Components that use the same room share one membership. */
export function useRoom<T extends EventType = EventType>(name: string, options: UseRoomOptions<T> = {}): UseRoom<T> {
  const { client, room } = useShared();
  const store = room(name);
  const { types, messagesMax } = options;
  const filter = types?.join(" ");
  useHold(name, { ...options, types, messagesMax });
  const snapshot = useStore(store);
  const messages = useMemo(() => {
    const wanted = filter?.split(" ");
    return snapshot.messages.filter(({ type }) => wanted?.includes(type) ?? true) as RoomMessage<T>[];
  }, [snapshot.messages, filter]);
  const actions = useMemo(
    () => ({
      send: <E extends EventType>(type: E, payload?: Events[E]) => client.send(type, payload, { room: name }),
      post: store.post,
      loadOlder: store.loadOlder,
      rejoin: store.rejoin,
    }),
    [client, name, store],
  );
  return { ...snapshot, messages, ...actions };
}

/** Who is in a room. Joins it while the component is mounted. */
export function usePresence(name: string, { token }: Pick<JoinOptions, "token"> = {}): UsePresence {
  useHold(name, { presence: true, types: NONE, messagesMax: 0, ...(token !== undefined && { token }) });
  const { members, total } = useStore(useShared().room(name));
  return { members, total };
}

/** Calls `callback` with each message of a type, from everywhere, or from one `room` that another hook has joined. */
export function useEvent<T extends EventType>(type: T, callback: (message: Message<Events[T]>) => void, { room }: { room?: string } = {}): void {
  const { client } = useShared();
  const latest = useRef(callback);
  useEffect(() => {
    latest.current = callback;
  });
  useEffect(() => {
    const take = (message: Message<Events[T]>) => {
      if (room === undefined || message.room === room) latest.current(message);
    };
    return client.on(type, take);
  }, [client, type, room]);
}

/**
 * Asks a plugin of the server when the component is mounted, and again when the payload changes or `refresh` is called. With
 * `enabled: false` it waits.
 */
export function useRequest<T extends keyof Requests & string>(
  type: T,
  payload?: PayloadOf<Requests[T]>,
  { enabled = true }: { enabled?: boolean } = {},
): UseRequest<DataOf<Requests[T]>> {
  type Result = { data: DataOf<Requests[T]> | undefined; error: SignalboxError | undefined; loading: boolean };
  const { client } = useShared();
  const [result, setResult] = useState<Result>({ data: undefined, error: undefined, loading: enabled });
  const [turn, setTurn] = useState(0);
  const text = JSON.stringify(payload);
  useEffect(() => {
    if (!enabled) return undefined;
    let wanted = true;
    const finish = (change: Partial<Result>) => {
      if (wanted) setResult((before) => ({ ...before, error: undefined, ...change, loading: false }));
    };
    setResult((before) => ({ ...before, loading: true }));
    // StrictMode mounts and unmounts first: only the second of the two asks.
    queueMicrotask(() => {
      if (!wanted) return;
      const asked = client.request(type, text === undefined ? undefined : JSON.parse(text));
      asked.then((data) => finish({ data }), (error: SignalboxError) => finish({ error }));
    });
    return () => {
      wanted = false;
    };
  }, [client, type, text, enabled, turn]);
  const refresh = useCallback(() => setTurn((before) => before + 1), []);
  return { ...result, refresh };
}

const NONE: readonly string[] = [];

/** Holds a room, with a token callback that may change with each render. */
function useHold(name: string, { last, presence, token, types, messagesMax }: Holder): void {
  const store = useShared().room(name);
  const latest = useRef(token);
  useEffect(() => {
    latest.current = token;
  });
  const text = typeof token === "function" ? undefined : token;
  const asks = typeof token === "function";
  const filter = types?.join(" ");
  useEffect(() => {
    const ask = (room: string) => {
      const now = latest.current;
      return typeof now === "function" ? now(room) : (now ?? "");
    };
    return store.hold({
      ...(last !== undefined && { last }),
      ...(presence !== undefined && { presence }),
      ...(asks ? { token: ask } : text !== undefined && { token: text }),
      types: filter?.split(" "),
      messagesMax,
    });
  }, [store, last, presence, asks, text, filter, messagesMax]);
}

function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.subscribe, store.get, store.get);
}
