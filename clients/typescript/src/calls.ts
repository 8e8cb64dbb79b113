import { backoffMs } from "./backoff.js";
import { SignalboxError } from "./errors.js";
import { isObject, type Ack } from "./frames.js";
import type { ClientFrame, Settings } from "./types.js";

/** Retries of a call with `once` that the server refused for now. */
const RETRIES_MAX = 3;

/** The error for a repetition of a call that is being handled, or was until its node died. */
const IN_PROGRESS = "in_progress";

/** How long a call is repeated after its first `in_progress`. */
const IN_PROGRESS_MS = 15_000;

/** The longest wait after an `in_progress`. */
const IN_PROGRESS_WAIT_MS = 2_000;

/** Gets the result of a call, in the order of the frames. */
export interface Outcome {
  answered(ack: Ack): void;
  failed(error: SignalboxError): void;
}

interface Call extends Outcome {
  readonly id: string;
  readonly text: string;
  readonly bytes: number;
  readonly once: boolean;
  /** `queued`: never written. `written`: its answer is awaited. `again`: to be written again once that is possible. */
  place: "queued" | "written" | "again";
  timer?: ReturnType<typeof setTimeout> | undefined;
  retries: number;
  /** Repetitions after `in_progress`, which are no `retries`. */
  polls: number;
  /** When these end; undefined before the first `in_progress`. */
  pollsEndAt?: number;
}

/** The calls that wait: for their answers, or to be sent. */
export class Calls {
  readonly #settings: Settings;
  readonly #write: (text: string) => void;
  /** In the order of the calls. */
  readonly #calls = new Map<string, Call>();
  readonly #encoder = new TextEncoder();
  #queued = 0;
  #queuedBytes = 0;
  #frameBytesMax = Infinity;
  #status: "offline" | "connected" | "ready" | "closed" = "offline";

  /** `write` sends a frame on the connection. */
  constructor(settings: Settings, write: (text: string) => void) {
    this.#settings = settings;
    this.#write = write;
  }

  /** The number of calls that were never written. */
  get queued(): number {
    return this.#queued;
  }

  /** Sends a message of the application, now or when the connection is ready for it. */
  send(frame: ClientFrame, once: boolean, outcome: Outcome): void {
    const call = this.#call(frame, once, outcome);
    if (this.#status === "closed") {
      call.failed(new SignalboxError("closed", "the client is closed"));
    } else if (this.#status === "offline" && this.#settings.offline === "error") {
      call.failed(new SignalboxError("offline", "there is no connection"));
    } else if (call.bytes > this.#frameBytesMax) {
      call.failed(this.#tooLarge(call));
    } else if (this.#status === "ready") {
      this.#writeCall(call);
    } else {
      this.#enqueue(call);
    }
  }

  /** Sends a frame of the client itself; only while connected. */
  sendNow(frame: ClientFrame, outcome: Outcome): void {
    this.#writeCall(this.#call(frame, false, outcome));
  }

  /** The connection is there; messages of the application wait for `ready`. */
  connected(frameBytesMax = Infinity): void {
    this.#status = "connected";
    this.#frameBytesMax = frameBytesMax;
  }

  /** Sends everything that waits. */
  ready(): void {
    if (this.#status !== "connected") return;
    this.#status = "ready";
    for (const place of ["again", "queued"]) {
      for (const call of [...this.#calls.values()]) {
        if (call.place === place && !call.timer && this.#calls.has(call.id)) this.#writeCall(call);
      }
    }
  }

  /** The connection is gone. */
  lost(): void {
    this.#status = "offline";
    for (const call of [...this.#calls.values()]) {
      if (call.place === "queued") continue;
      this.#stop(call);
      if (call.once) call.place = "again";
      else this.#fail(call, new SignalboxError("connection_lost", "the connection was lost before the answer came"));
    }
  }

  /** Nothing waits any more. */
  close(): void {
    this.#status = "closed";
    for (const call of [...this.#calls.values()]) this.#fail(call, new SignalboxError("closed", "the client was closed"));
  }

  /** The client was opened again. */
  open(): void {
    if (this.#status === "closed") this.#status = "offline";
  }

  /** Takes the payload of an `ack`. */
  answered(payload: Ack): void {
    const call = this.#written(payload.id);
    if (!call) return;
    this.#remove(call);
    call.answered(payload);
  }

  /** Takes the payload of an `error`. Returns an error that belongs to no call. */
  refused(payload: unknown): SignalboxError | undefined {
    const error = errorOf(payload);
    const id = isObject(payload) ? payload["id"] : undefined;
    if (id === undefined) return error;
    const call = this.#written(id);
    if (!call) return undefined;
    const waitMs = call.once && error.retryable ? this.#waitMs(call, error) : undefined;
    if (waitMs === undefined) this.#fail(call, error);
    else this.#retry(call, waitMs);
    return undefined;
  }

  #call(frame: ClientFrame, once: boolean, outcome: Outcome): Call {
    const id = randomId();
    const text = JSON.stringify({ ...frame, id, ...(once && { once }) });
    const bytes = this.#encoder.encode(text).length;
    const { answered, failed } = outcome;
    return { id, text, bytes, once, answered, failed, place: "written", retries: 0, polls: 0 };
  }

  #enqueue(call: Call): void {
    const { queueMax, queueBytesMax } = this.#settings;
    if (this.#queued >= queueMax || this.#queuedBytes + call.bytes > queueBytesMax) {
      call.failed(new SignalboxError("queue_full", "too many messages wait for a connection"));
      return;
    }
    call.place = "queued";
    this.#queued += 1;
    this.#queuedBytes += call.bytes;
    this.#calls.set(call.id, call);
  }

  #writeCall(call: Call): void {
    if (call.bytes > this.#frameBytesMax) {
      this.#fail(call, this.#tooLarge(call));
      return;
    }
    this.#unqueue(call);
    call.place = "written";
    this.#calls.set(call.id, call);
    const { answerTimeoutMs } = this.#settings;
    const timeout = () => this.#fail(call, new SignalboxError("timeout", `no answer after ${answerTimeoutMs} ms`));
    call.timer = setTimeout(timeout, answerTimeoutMs);
    this.#write(call.text);
  }

  /** The wait before the next try of a call that was refused for now, in milliseconds; undefined if there is none. */
  #waitMs(call: Call, { code }: SignalboxError): number | undefined {
    const { minMs, maxMs } = this.#settings.backoff;
    if (code !== IN_PROGRESS) return call.retries < RETRIES_MAX ? backoffMs(call.retries++, { minMs, maxMs }) : undefined;
    const now = Date.now();
    const leftMs = (call.pollsEndAt ??= now + IN_PROGRESS_MS) - now;
    if (leftMs <= 0) return undefined;
    return Math.min(leftMs, backoffMs(call.polls++, { minMs, maxMs: Math.min(maxMs, IN_PROGRESS_WAIT_MS) }));
  }

  #retry(call: Call, waitMs: number): void {
    this.#stop(call);
    call.place = "again";
    const again = () => {
      call.timer = undefined;
      if (this.#status === "ready") this.#writeCall(call);
    };
    call.timer = setTimeout(again, waitMs);
  }

  /** The call that waits for the answer with this ID. */
  #written(id: unknown): Call | undefined {
    const call = this.#calls.get(id as string);
    return call?.place === "written" ? call : undefined;
  }

  #tooLarge({ bytes }: Call): SignalboxError {
    return new SignalboxError("too_large", `the frame has ${bytes} bytes, and the server takes ${this.#frameBytesMax}`);
  }

  #fail(call: Call, error: SignalboxError): void {
    this.#remove(call);
    call.failed(error);
  }

  #remove(call: Call): void {
    this.#stop(call);
    this.#unqueue(call);
    this.#calls.delete(call.id);
  }

  #unqueue(call: Call): void {
    if (call.place !== "queued") return;
    call.place = "again";
    this.#queued -= 1;
    this.#queuedBytes -= call.bytes;
  }

  #stop(call: Call): void {
    clearTimeout(call.timer);
    call.timer = undefined;
  }
}

/** An ID that no other client has: 128 random bits. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function errorOf(payload: unknown): SignalboxError {
  const { code, message, plugin, retryable } = isObject(payload) ? payload : {};
  return new SignalboxError(String(code), String(message), {
    retryable: retryable === true,
    plugin: typeof plugin === "string" ? plugin : undefined,
  });
}
