/** The codes of errors that the client itself raises. Errors of the server have codes of their own. */
export type ClientErrorCode =
  | "buffered"
  | "callback_failed"
  | "closed"
  | "connection_lost"
  | "invalid_frame"
  | "offline"
  | "queue_full"
  | "refused"
  | "timeout"
  | "token_failed"
  | "too_large"
  | "unauthorized"
  | "unsupported_protocol";

const RETRYABLE: ReadonlySet<string> = new Set(["buffered", "connection_lost", "offline", "queue_full", "timeout", "token_failed"]);

/** Further facts about an error. */
export interface ErrorDetails {
  readonly retryable?: boolean | undefined;
  /** The plugin that refused or failed. */
  readonly plugin?: string | undefined;
  /** The HTTP status of a refusal. */
  readonly status?: number | undefined;
  /** The code with which the server closed the connection. */
  readonly closeCode?: number | undefined;
  /** The error that led to this one. */
  readonly cause?: unknown;
}

/** Every error of this package: of a call, of a room, or of the connection. */
export class SignalboxError extends Error {
  override readonly name = "SignalboxError";
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** The plugin that refused or failed. */
  readonly plugin?: string;
  /** The HTTP status of a refusal. */
  readonly status?: number;
  /** The code with which the server closed the connection. */
  readonly closeCode?: number;

  constructor(
    /** A stable name of the reason: one of `ClientErrorCode`, or a code of the server or of a plugin. */
    readonly code: ClientErrorCode | (string & {}),
    message: string,
    { cause, retryable, plugin, status, closeCode }: ErrorDetails = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.retryable = retryable ?? RETRYABLE.has(code);
    if (plugin !== undefined) this.plugin = plugin;
    if (status !== undefined) this.status = status;
    if (closeCode !== undefined) this.closeCode = closeCode;
  }
}

/** The text of anything that was thrown. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
