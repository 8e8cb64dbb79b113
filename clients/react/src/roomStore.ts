import type { Answer, JoinOptions, Member, Message, Recovery, Room, Signalbox, SignalboxError } from "@signalbox/client";
import { Outbox } from "./outbox.js";
import { deferred, Store } from "./store.js";
import { Timeline } from "./timeline.js";
import type { PendingMessage, RoomMessage } from "./types.js";

/** The messages of a page of older ones. */
const PAGE = 50;
/** A page may have none of the types that are kept. So many are read for one call. */
const PAGES_MAX = 5;
const MESSAGES_MAX = 500;

/** What one component wants from a room. */
export interface Holder extends JoinOptions {
  /** The types of messages to keep; by default all. */
  readonly types?: readonly string[] | undefined;
  readonly messagesMax?: number | undefined;
}

/** A room as components see it. */
export interface RoomSnapshot {
  /** `joining` also while there is no connection. `ended`: refused or removed, `error` says why. */
  readonly status: "joining" | "joined" | "ended";
  readonly error: SignalboxError | undefined;
  readonly messages: readonly RoomMessage[];
  readonly pending: readonly PendingMessage[];
  readonly hasOlder: boolean;
  readonly loadingOlder: boolean;
  readonly olderError: SignalboxError | undefined;
  readonly members: readonly Member[] | undefined;
  readonly total: number | undefined;
  /** The outcome of the last return to the room's history. */
  readonly recovery: Recovery | undefined;
}

const EMPTY: RoomSnapshot = {
  status: "joining",
  error: undefined,
  messages: [],
  pending: [],
  hasOlder: false,
  loadingOlder: false,
  olderError: undefined,
  members: undefined,
  total: undefined,
  recovery: undefined,
};

/** The parts of a room that is joined. */
interface Open {
  readonly room: Room;
  readonly timeline: Timeline;
  readonly outbox: Outbox;
  readonly off: () => void;
  options: JoinOptions;
}

/** A room that all components of a page share: joined while one of them is mounted. */
export class RoomStore extends Store<RoomSnapshot> {
  readonly #client: Signalbox;
  readonly #name: string;
  readonly #holders = new Set<Holder>();
  #open: Open | undefined;
  #loading: Promise<void> | undefined;

  constructor(client: Signalbox, name: string) {
    super(EMPTY);
    this.#client = client;
    this.#name = name;
  }

  /** Stays in the room until the returned function is called. */
  hold(holder: Holder): () => void {
    this.#holders.add(holder);
    this.#reconcile();
    return () => {
      this.#holders.delete(holder);
      this.#reconcile();
    };
  }

  /** Joins a room again that has ended. */
  readonly rejoin = (): void => {
    if (this.get().status !== "ended" || this.#holders.size === 0) return;
    this.#leave();
    this.#join();
  };

  /** Sends a message that is shown at once. Resolves with the answer, or with nothing if it failed. */
  readonly post = (type: string, payload: unknown): Promise<Answer | undefined> => {
    if (!this.#open && this.#holders.size > 0) this.#join();
    if (this.#open) return this.#open.outbox.post(type, payload);
    // The component is gone, so nobody can show the failure.
    return this.#client.send(type, payload, { room: this.#name, once: true }).catch((error) => void console.error(error));
  };

  /** Reads a page of older messages. Failures are reported in `olderError`. */
  readonly loadOlder = (): Promise<void> => {
    this.#loading ??= this.#loadOlder().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  };

  /** Does in one step all that the components of a turn ask for. */
  readonly #reconcile = deferred(() => {
    if (this.#holders.size === 0) this.#leave();
    else if (!this.#open) this.#join();
    else this.#adapt(this.#open);
  });

  #join(): void {
    const options = this.#options();
    const room = this.#client.join(this.#name, options);
    const max = () => Math.max(0, ...this.#each(({ messagesMax }) => messagesMax ?? MESSAGES_MAX));
    const timeline = new Timeline(max, (type) => this.#isKept(type));
    const outbox = new Outbox(
      (type, payload) => room.send(type, payload, { once: true }),
      () => this.#open?.outbox === outbox && this.#show(),
    );
    const offs = [
      room.on("message", (message) => this.#received(message)),
      room.on("recovered", (recovery) => this.#recovered(recovery)),
      room.on("presence", ({ members, total }) => this.#update({ members, total })),
      room.on("left", (error) => this.#update({ status: "ended", error })),
    ];
    const opened = { room, timeline, outbox, options, off: () => offs.forEach((off) => off()) };
    this.#open = opened;
    this.#update({ ...EMPTY, members: room.members, total: room.total });
    room.joined.then(
      () => this.#open === opened && this.#update({ status: "joined" }),
      (error: SignalboxError) => this.#open === opened && this.#update({ status: "ended", error }),
    );
  }

  #leave(): void {
    this.#open?.off();
    this.#open?.room.leave();
    this.#open = undefined;
    this.set(EMPTY);
  }

  /** Joins again with what further components ask for. */
  #adapt(open: Open): void {
    if (this.get().status === "ended") return;
    const { last, presence, token } = this.#options();
    const old = open.options;
    if (presence && !old.presence) {
      open.options = this.#options();
      this.#client.join(this.#name, open.options);
    }
    if (last !== undefined && old.last === undefined) {
      open.options = { ...open.options, last, ...(token !== undefined && { token }) };
      void open.room.joined.then(() => this.loadOlder(), () => {});
    }
  }

  #options(): JoinOptions {
    const lasts = this.#each(({ last }) => last).filter((last) => last !== undefined);
    const token = this.#each((holder) => holder.token).find((given) => given !== undefined);
    return {
      ...(lasts.length > 0 && { last: Math.max(...lasts) }),
      ...(this.#each(({ presence }) => presence).includes(true) && { presence: true }),
      ...(token !== undefined && { token }),
    };
  }

  #isKept(type: string): boolean {
    return this.#each(({ types }) => types).some((types) => types?.includes(type) ?? true);
  }

  #each<T>(read: (holder: Holder) => T): T[] {
    return [...this.#holders].map(read);
  }

  #received(message: Message): void {
    if (message.senderId === this.#client.session?.userId) this.#open?.outbox.echoed(message);
    this.#open?.timeline.add(message);
    this.#show();
  }

  #recovered(recovery: Recovery): void {
    const open = this.#open;
    const { recovered, reason = "" } = recovery;
    this.#update({ recovery });
    if (!open || recovered) return;
    open.timeline.missed(reason);
    open.outbox.missed();
    this.#show();
    open.room.history({ limit: PAGE }).then(
      ({ messages }) => {
        open.timeline.fill(messages);
        if (this.#open === open) this.#show();
      },
      // The gap is shown, and stays.
      () => {},
    );
  }

  async #loadOlder(): Promise<void> {
    const open = this.#open;
    if (!open) return;
    this.#update({ loadingOlder: true, olderError: undefined });
    let olderError: SignalboxError | undefined;
    try {
      let kept = 0;
      let more = true;
      for (let page = 0; page < PAGES_MAX && more && kept === 0 && this.#open === open; page++) {
        const before = open.timeline.first;
        const older = await open.room.history({ limit: PAGE, ...(before !== undefined && { before }) });
        kept = open.timeline.addOlder(older.messages, older.hasOlder);
        more = open.timeline.hasOlder;
      }
    } catch (error) {
      olderError = error as SignalboxError;
    }
    if (this.#open !== open) return;
    this.#update({ loadingOlder: false, olderError });
    this.#show();
  }

  #show(): void {
    if (!this.#open) return;
    const { timeline, outbox } = this.#open;
    const messages = timeline.messages.filter((message) => !outbox.hides(message));
    this.#update({ messages, pending: outbox.pending, hasOlder: timeline.hasOlder });
  }

  #update(change: Partial<RoomSnapshot>): void {
    this.set({ ...this.get(), ...change });
  }
}
