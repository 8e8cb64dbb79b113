import type { SignalboxError } from "./errors.js";

/** How an attempt or a connection ended. */
export interface End {
  /** The code of the close frame, if there was one. */
  readonly code?: number;
  /** The HTTP status of a refusal, if it could be read. */
  readonly status?: number;
  /** The code in the body of that refusal. */
  readonly errorCode?: unknown;
  /** The reason, for people. */
  readonly reason?: string;
  /** The least time until the next attempt, as the server asked for it. */
  readonly retryAfterMs?: number;
  /** Whether the server speaks another protocol. */
  readonly unsupported?: boolean;
  /** An error to report in addition to the change of the state. */
  readonly error?: SignalboxError;
}

/** The consequence: another attempt, another attempt with a new token, or nothing. */
export type Verdict = "reconnect" | "renew" | "close";

const FINAL_CODES: ReadonlySet<number> = new Set([1002, 1003, 1007, 1008, 1009, 1010]);
const FINAL_STATUSES: ReadonlySet<number> = new Set([400, 403, 404, 405, 410, 426]);

/** The table of section 3 of the specification. */
export function verdict({ code, status, unsupported }: End): Verdict {
  if (unsupported) return "close";
  if (code === 4500 || code === 4504 || status === 401) return "renew";
  if (code !== undefined && ((code >= 4501 && code <= 4999) || FINAL_CODES.has(code))) return "close";
  return status !== undefined && FINAL_STATUSES.has(status) ? "close" : "reconnect";
}
