import type { Signalbox } from "@signalbox/client";
import { createContext, createElement, useContext, useEffect, useRef, type ReactNode } from "react";
import { ConnectionStore, type OnError } from "./connection.js";
import { RoomStore } from "./roomStore.js";
import type { Events, Requests } from "./types.js";

/** A client with the types of `Register`. */
export type Client = Signalbox<Events, Requests>;

/** All that the components below a provider share. */
export interface Shared {
  readonly client: Client;
  readonly connection: ConnectionStore;
  room(name: string): RoomStore;
}

const Context = createContext<Shared | undefined>(undefined);

/** By client, so that two providers of one client share its connection. */
const shared = new WeakMap<object, Shared>();

/** The properties of `SignalboxProvider`. */
export interface SignalboxProviderProps {
  /** Created once, outside of a component or in `useState`. */
  readonly client: Client;
  /** Gets the errors that belong to no call; by default they are written to the console. */
  readonly onError?: OnError;
  readonly children?: ReactNode;
}

/** Gives the components below it the client, which is connected while this is mounted. */
export function SignalboxProvider({ client, onError, children }: SignalboxProviderProps): ReactNode {
  const value = sharedOf(client);
  const latest = useRef(onError);
  useEffect(() => {
    latest.current = onError;
  });
  useEffect(() => value.connection.hold((error) => (latest.current ?? console.error)(error)), [value]);
  return createElement(Context.Provider, { value }, children);
}

/** The client. */
export function useSignalbox(): Client {
  return useShared().client;
}

/** All that the components below the nearest provider share. */
export function useShared(): Shared {
  const value = useContext(Context);
  if (!value) throw new Error("a hook of @signalbox/react needs a <SignalboxProvider> above its component");
  return value;
}

function sharedOf(client: Client): Shared {
  const known = shared.get(client);
  if (known) return known;
  const untyped = client as unknown as Signalbox;
  const rooms = new Map<string, RoomStore>();
  const room = (name: string) => {
    const store = rooms.get(name) ?? new RoomStore(untyped, name);
    rooms.set(name, store);
    return store;
  };
  const value = { client, connection: new ConnectionStore(untyped), room };
  shared.set(client, value);
  return value;
}
