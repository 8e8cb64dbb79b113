import type { Link, LinkEvents } from "./transport.js";
import type { WebSocketClass, WebSocketLike } from "./types.js";
import type { End } from "./verdict.js";

const PROTOCOL = "signalbox.v1";

/** The most bytes of the body of a refusal that are read. */
export const BODY_BYTES_MAX = 4096;

/** The longest wait that the server may ask for. */
const RETRY_AFTER_MAX_MS = 60_000;

/** A client that was closed must not hold the process for long if the server does not answer. */
const NODE_OPTIONS = { closeTimeout: 1_000 };

/** The additions of the class of the package `ws`. */
interface NodeSocket extends WebSocketLike {
  on(event: string, callback: (...values: never[]) => void): void;
  terminate(): void;
}

interface Response {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  on(event: string, callback: (chunk: Uint8Array) => void): void;
}

/** A link over a WebSocket. */
export class Socket implements Link {
  readonly #socket: WebSocketLike;
  readonly #events: LinkEvents;
  readonly #decoder = new TextDecoder();

  /** Connects at once. */
  constructor(Class: WebSocketClass, address: URL, token: string | undefined, events: LinkEvents) {
    const canReadStatus = typeof (Class.prototype as Partial<NodeSocket>).on === "function";
    if (!canReadStatus) address.searchParams.set("refuse", "close");
    this.#events = events;
    const protocols = token === undefined ? [PROTOCOL] : [PROTOCOL, "bearer", token];
    this.#socket = canReadStatus ? new Class(address.href, protocols, NODE_OPTIONS) : new Class(address.href, protocols);
    this.#listen(this.#socket);
    if (canReadStatus) this.#listenInNode(this.#socket as NodeSocket);
  }

  send(text: string): void {
    this.#socket.send(text);
  }

  /** Begins a close handshake, for which nobody waits. */
  close(): void {
    this.#forget();
    this.#socket.close(1000);
  }

  drop(): void {
    this.#forget();
    const socket = this.#socket as Partial<NodeSocket>;
    if (socket.terminate) socket.terminate();
    else this.#socket.close();
  }

  #listen(socket: WebSocketLike): void {
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (socket.protocol !== PROTOCOL) this.#end({ unsupported: true });
    };
    socket.onmessage = ({ data }: { data: string | ArrayBuffer }) => {
      this.#events.frame(typeof data === "string" ? data : this.#decoder.decode(data));
    };
    // A browser says no more than that the attempt failed; `onclose` follows.
    socket.onerror = ({ message }: { message?: string }) => {
      if (message && /subprotocol/.test(message)) this.#end({ unsupported: true });
    };
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      // 1005 and 1006 are no codes of the wire: there was no code, or no close frame.
      const end = code === 1005 || code === 1006 ? {} : { code };
      this.#end(reason ? { ...end, reason } : end);
    };
  }

  #listenInNode(socket: NodeSocket): void {
    socket.on("ping", () => this.#events.heard());
    socket.on("unexpected-response", (_request: unknown, response: Response) => {
      const chunks: Uint8Array[] = [];
      let bytes = 0;
      const end = () => this.#refused(response, chunks);
      response.on("data", (chunk) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > BODY_BYTES_MAX) end();
      });
      response.on("end", end);
      response.on("close", end);
    });
  }

  #refused({ statusCode: status, headers }: Response, chunks: readonly Uint8Array[]): void {
    const body = chunks.map((chunk) => this.#decoder.decode(chunk, { stream: true })).join("");
    this.#end(refusalOf(status, body, headers["retry-after"]));
  }

  #end(end: End): void {
    if (!this.#socket.onclose) return;
    this.drop();
    this.#events.ended(end);
  }

  /** Ends all reports. An error without a listener would end a Node process. */
  #forget(): void {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => {};
  }
}

/** The end of an attempt that was answered with a refusal. */
export function refusalOf(status: number, body: string, retryAfter: string | null | undefined): End {
  const { code, message } = errorIn(body);
  const reason = typeof message === "string" ? message : body.trim().slice(0, 200);
  const retryAfterMs = waitOf(retryAfter);
  return { status, errorCode: code, ...(reason && { reason }), ...(retryAfterMs !== undefined && { retryAfterMs }) };
}

/** The error in the body of a refusal of the server. Other bodies have none. */
function errorIn(body: string): { code?: unknown; message?: unknown } {
  try {
    return (JSON.parse(body) as { error?: object } | null)?.error ?? {};
  } catch {
    return {};
  }
}

/** The wait that `Retry-After` asks for, in milliseconds. */
export function waitOf(header: string | null | undefined, now = Date.now()): number | undefined {
  if (!header) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), RETRY_AFTER_MAX_MS);
}
