import type { Signalbox, SignalboxError, StateChange } from "@signalbox/client";
import { deferred, Store } from "./store.js";

/** The state of the connection. */
export interface ConnectionState extends StateChange {
  /** The error that ended the client or the last attempt, until the next connection. */
  readonly error?: SignalboxError;
}

/** Gets the errors that belong to no call. */
export type OnError = (error: SignalboxError) => void;

const OF_THE_CONNECTION: ReadonlySet<string> = new Set(["refused", "token_failed", "unauthorized", "unsupported_protocol"]);

/** The connection of a client: open while a provider is mounted. */
export class ConnectionStore extends Store<ConnectionState> {
  readonly #client: Signalbox;
  readonly #providers = new Set<OnError>();
  #off: (() => void) | undefined;

  constructor(client: Signalbox) {
    super({ state: client.state });
    this.#client = client;
  }

  /** Connects, until the returned function is called. */
  hold(onError: OnError): () => void {
    this.#providers.add(onError);
    this.#listen();
    this.#client.connect();
    return () => {
      this.#providers.delete(onError);
      this.#release();
    };
  }

  readonly #release = deferred(() => {
    if (this.#providers.size > 0) return;
    this.#client.close();
    this.#off?.();
    this.#off = undefined;
  });

  #listen(): void {
    if (this.#off) return;
    if (this.get().state !== this.#client.state) this.set({ state: this.#client.state });
    const offState = this.#client.on("state", (change) => {
      const { error } = this.get();
      this.set(error && change.state !== "connected" ? { ...change, error } : change);
    });
    const offError = this.#client.on("error", (error) => {
      if (OF_THE_CONNECTION.has(error.code)) this.set({ ...this.get(), error });
      for (const onError of this.#providers) onError(error);
    });
    this.#off = () => {
      offState();
      offError();
    };
  }
}
