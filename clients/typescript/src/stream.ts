import { textOf } from "./errors.js";
import { EventStream } from "./eventStream.js";
import { isObject, parseFrame } from "./frames.js";
import { BODY_BYTES_MAX, refusalOf, waitOf } from "./socket.js";
import type { Link, LinkEvents } from "./transport.js";
import type { End } from "./verdict.js";

/** The most frames that wait for their turn. */
const WAITING_MAX = 1_000;

/** The least wait after 429. */
const RATE_WAIT_MIN_MS = 1_000;

/** A link over server-sent events: the server's frames come in one long answer, and each frame of the client is a request. */
export class Stream implements Link {
  readonly #events: LinkEvents;
  readonly #address: string;
  readonly #timeoutMs: number;
  readonly #abort = new AbortController();
  /** The frames that were not taken yet. The first one is under way. */
  readonly #waiting: string[] = [];
  /** The URL and the key of the requests. */
  #target: { readonly url: string; readonly key: string } | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOpen = false;

  /** Connects at once. `address` is the URL of the WebSocket, and `timeoutMs` the time for the answer to a frame. */
  constructor(address: URL, token: string | undefined, timeoutMs: number, events: LinkEvents) {
    const url = new URL(address.href.replace(/^ws/, "http"));
    url.pathname = url.pathname.replace(/[^/]*$/, "sse");
    this.#events = events;
    this.#timeoutMs = timeoutMs;
    this.#address = url.origin + url.pathname;
    void this.#read(url.href, token).then(
      (end) => this.#end(end),
      (error: unknown) => this.#end({ reason: `the stream failed: ${textOf(error)}` }),
    );
  }

  /** Whether the head of the answer has arrived. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  send(text: string): void {
    if (this.#waiting.length >= WAITING_MAX) {
      this.#refuse(text, "queue_full", "too many frames wait for their turn", true);
    } else if (this.#waiting.push(text) === 1) {
      this.#post().catch((error: unknown) => this.#end({ reason: `a frame could not be sent: ${textOf(error)}` }));
    }
  }

  close(): void {
    this.drop();
  }

  drop(): void {
    this.#waiting.length = 0;
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  /** Reads the stream to its end. */
  async #read(url: string, token: string | undefined): Promise<End> {
    const headers = { Accept: "text/event-stream", ...(token !== undefined && { Authorization: `Bearer ${token}` }) };
    const response = await this.#fetch(url, { headers, cache: "no-store" });
    const reader = response.body?.getReader();
    const { status } = response;
    if (response.type === "opaqueredirect") return { reason: "the answer redirects" };
    if (status !== 200) return refusalOf(status, await beginningOf(reader), response.headers.get("Retry-After"));
    if (!reader || !/^text\/event-stream\b/i.test(response.headers.get("Content-Type") ?? "")) {
      return { status, reason: "the answer is no stream of events" };
    }
    this.#isOpen = true;
    const stream = new EventStream((name, data) => this.#take(name, data));
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return { reason: "the stream has ended" };
      this.#events.heard();
      stream.feed(value);
    }
  }

  #take(name: string, data: string): void {
    if (this.#isOver) return;
    if (name === "close") {
      const { code, reason } = objectIn(data);
      this.#end({ ...(typeof code === "number" && { code }), ...(typeof reason === "string" && { reason }) });
    } else if (name === "" || name === "message") {
      this.#target ??= this.#targetIn(data);
      this.#events.frame(data);
    }
  }

  /** The target of the client's frames, if this frame is `welcome`. */
  #targetIn(text: string) {
    const frame = parseFrame(text);
    if (frame?.type !== "welcome" || !isObject(frame.payload)) return undefined;
    const { connectionId, sendKey } = frame.payload;
    return { url: `${this.#address}/${encodeURIComponent(String(connectionId))}`, key: String(sendKey) };
  }

  /** Sends the frames that wait, one after another. */
  async #post(): Promise<void> {
    for (let text = this.#waiting[0]; text !== undefined; text = this.#waiting[0]) {
      const { status, retryAfterMs = 0 } = await this.#answerTo(text);
      if (this.#isOver) return;
      if (status === 429) {
        await this.#pause(Math.max(retryAfterMs, RATE_WAIT_MIN_MS));
        continue;
      }
      if (status === 503) {
        this.#refuse(text, "connection_lost", "the node did not answer: the message may have arrived", true);
        await this.#pause(retryAfterMs);
      } else if (status === 413) {
        this.#refuse(text, "too_large", "the frame is too large for the server", false);
      } else if (status !== 202) {
        return this.#end({ reason: `a frame was answered with HTTP status ${status}` });
      }
      this.#waiting.shift();
    }
  }

  async #answerTo(text: string) {
    const { url, key } = this.#target ?? { url: this.#address, key: "" };
    const late = () => this.#end({ reason: `a frame got no answer within ${this.#timeoutMs} ms` });
    this.#timer = setTimeout(late, this.#timeoutMs);
    const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
    const { status, headers: answer, body } = await this.#fetch(url, { method: "POST", headers, body: text });
    await body?.cancel();
    clearTimeout(this.#timer);
    return { status, retryAfterMs: waitOf(answer.get("Retry-After")) };
  }

  #fetch(url: string, options: RequestInit): Promise<Response> {
    return fetch(url, { ...options, redirect: "manual", signal: this.#abort.signal });
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => (this.#timer = setTimeout(resolve, ms)));
  }

  /** Reports that the frame was not taken. */
  #refuse(text: string, code: string, message: string, retryable: boolean): void {
    const { id } = objectIn(text);
    this.#events.refused({ id, code, message, retryable });
  }

  get #isOver(): boolean {
    return this.#abort.signal.aborted;
  }

  #end(end: End): void {
    if (this.#isOver) return;
    this.drop();
    this.#events.ended(end);
  }
}

/** The beginning of the body of a refusal. */
async function beginningOf(reader: ReadableStreamDefaultReader<Uint8Array> | undefined): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  while (reader && text.length < BODY_BYTES_MAX) {
    const { value, done } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  return text;
}

/** The object that a JSON text is; without fields if it is none. */
function objectIn(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}
