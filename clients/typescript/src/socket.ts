import type { WebSocketClass, WebSocketLike } from "./types.js";
import type { End } from "./verdict.js";

const PROTOCOL = "signalbox.v1";

/** The most bytes of the body of a refused upgrade that are read. */
const BODY_BYTES_MAX = 4096;

/** The longest wait that the server may ask for. */
const RETRY_AFTER_MAX_MS = 60_000;

/** A client that was closed must not hold the process for long if the server does not answer. */
const NODE_OPTIONS = { closeTimeout: 1_000 };

/** The reports of a socket. Nothing follows `ended`. */
export interface SocketEvents {
  /** A frame arrived. */
  frame(text: string): void;
  /** Something else arrived. */
  heard(): void;
  ended(end: End): void;
}

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

/** One attempt to connect, and the connection that may come of it. */
export class Socket {
  readonly #socket: WebSocketLike;
  readonly #events: SocketEvents;
  readonly #decoder = new TextDecoder();

  /** Connects at once. `query` has the pairs that are added to the query of `url`. */
  constructor(
    Class: WebSocketClass,
    url: string,
    query: Readonly<Record<string, string>>,
    token: string | undefined,
    events: SocketEvents,
  ) {
    const canReadStatus = typeof (Class.prototype as Partial<NodeSocket>).on === "function";
    const address = new URL(url);
    for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
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

  /** Ends the connection with a close handshake, for which nobody waits. */
  close(): void {
    this.#forget();
    this.#socket.close(1000);
  }

  /** Ends the connection at once, or as soon as the platform allows it. */
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
    const reason = reasonOf(body);
    const retryAfterMs = waitOf(headers["retry-after"]);
    this.#end({ status, ...(reason && { reason }), ...(retryAfterMs !== undefined && { retryAfterMs }) });
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

/** The message in the body of a refused upgrade. */
function reasonOf(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: { message?: unknown } };
    if (typeof error?.message === "string") return error.message;
  } catch {
    // The body is text then.
  }
  return body.trim().slice(0, 200);
}

/** The wait that `Retry-After` asks for, in milliseconds. */
export function waitOf(header: string | undefined, now = Date.now()): number | undefined {
  if (!header) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), RETRY_AFTER_MAX_MS);
}
