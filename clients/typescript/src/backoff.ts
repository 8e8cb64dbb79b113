/** The bounds of a random wait that grows with each attempt. */
export interface Bounds {
  /** The longest wait before attempt 0, in milliseconds. */
  readonly minMs: number;
  /** The longest wait before any attempt, in milliseconds. */
  readonly maxMs: number;
}

/** Full jitter: a random time in milliseconds between 0 and `minMs` × 2^`attempt`, at most `maxMs`. */
export function backoffMs(attempt: number, { minMs, maxMs }: Bounds, random: () => number = Math.random): number {
  return Math.round(random() * Math.min(maxMs, minMs * 2 ** attempt));
}
