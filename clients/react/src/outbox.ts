import type { Answer, Message, SignalboxError } from "@signalbox/client";
import type { PendingMessage, RoomMessage } from "./types.js";

/** Errors after which the message may have been delivered. */
const UNCERTAIN: ReadonlySet<string> = new Set(["closed", "connection_lost", "in_progress", "timeout"]);

interface Sending {
  readonly pending: PendingMessage;
  /** The ID in the answer, for which the echo is awaited. */
  readonly messageId?: string;
}

/**
 * The messages of this page on their way into a room. A room sends the user's own messages back, before or after the answer: each
 * is shown once.
 */
export class Outbox {
  readonly #send: (type: string, payload: unknown) => Promise<Answer>;
  readonly #changed: () => void;
  readonly #sendings = new Map<string, Sending>();
  /** Own messages, by ID, that arrived while answers are awaited: one of these may name them. */
  readonly #held = new Map<string, Message>();
  #count = 0;

  constructor(send: (type: string, payload: unknown) => Promise<Answer>, changed: () => void) {
    this.#send = send;
    this.#changed = changed;
  }

  get pending(): PendingMessage[] {
    return [...this.#sendings.values()].map(({ pending }) => pending);
  }

  /** Sends a message. A failure is reported in `pending`, and resolves with nothing. */
  post(type: string, payload: unknown): Promise<Answer | undefined> {
    const key = `pending:${++this.#count}`;
    const discard = () => this.#remove(key);
    const retry = () => {
      if (this.#remove(key)) void this.post(type, payload);
    };
    this.#sendings.set(key, { pending: { key, type, payload, status: "sending", retry, discard } });
    this.#changed();
    return this.#send(type, payload).then(
      (answer) => {
        this.#answered(key, answer);
        return answer;
      },
      (error: SignalboxError) => {
        this.#failed(key, error);
        return undefined;
      },
    );
  }

  /** Takes a message of the user that arrived. */
  echoed(message: Message): void {
    const { messageId } = message;
    if (messageId === undefined) return;
    const isAwaited = (sending: Sending) => sending.messageId === messageId || isLost(sending.pending, message);
    const awaited = [...this.#sendings].find(([, sending]) => isAwaited(sending));
    if (awaited) this.#sendings.delete(awaited[0]);
    else if (this.#isWaiting()) this.#held.set(messageId, message);
  }

  /** Whether a message is shown as pending, so that it must not be shown again. */
  hides({ messageId }: RoomMessage): boolean {
    return messageId !== undefined && this.#held.has(messageId);
  }

  /** Messages are missing: the echo of a message that was sent may be one of them. */
  missed(): void {
    for (const [key, { pending }] of this.#sendings) if (pending.status === "sent") this.#sendings.delete(key);
  }

  #answered(key: string, { status, messageId }: Answer): void {
    const sending = this.#sendings.get(key);
    if (sending) {
      // A plugin that handles a message sends what it likes, or nothing.
      if (status === "handled" || this.#held.has(messageId)) this.#sendings.delete(key);
      else this.#sendings.set(key, { pending: { ...sending.pending, status: "sent" }, messageId });
    }
    this.#settled(messageId);
  }

  #failed(key: string, error: SignalboxError): void {
    const sending = this.#sendings.get(key);
    const echo = sending && UNCERTAIN.has(error.code) ? this.#heldLike(sending.pending) : undefined;
    if (echo !== undefined) this.#sendings.delete(key);
    else if (sending) this.#sendings.set(key, { pending: { ...sending.pending, status: "failed", error } });
    this.#settled(echo);
  }

  #settled(messageId: string | undefined): void {
    if (messageId !== undefined) this.#held.delete(messageId);
    if (!this.#isWaiting()) this.#held.clear();
    this.#changed();
  }

  #heldLike(pending: PendingMessage): string | undefined {
    return [...this.#held].find(([, held]) => isSame(pending, held))?.[0];
  }

  #isWaiting(): boolean {
    return [...this.#sendings.values()].some(({ pending }) => pending.status === "sending");
  }

  #remove(key: string): boolean {
    const removed = this.#sendings.get(key)?.pending.status === "failed" && this.#sendings.delete(key);
    if (removed) this.#changed();
    return removed;
  }
}

/** Whether this is the echo of a message whose answer never came. */
function isLost(pending: PendingMessage, message: Message): boolean {
  return pending.error !== undefined && UNCERTAIN.has(pending.error.code) && isSame(pending, message);
}

function isSame({ type, payload }: PendingMessage, message: Message): boolean {
  return type === message.type && JSON.stringify(payload) === JSON.stringify(message.payload);
}
