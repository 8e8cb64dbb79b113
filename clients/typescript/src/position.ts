/** A place in a history: live messages continue after `offset`. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A place as the server names it in an `ack`, in `joined` and in `welcome`. */
export interface NamedPlace extends Partial<Position> {
  readonly recovered?: boolean;
  /** The number of old messages that follow. */
  readonly count?: number;
  /** Why nothing was recovered. */
  readonly reason?: string;
}

/** The outcome of a return to a history. */
export interface Recovery {
  /** Whether nothing was missed. If not, reload your state. */
  readonly recovered: boolean;
  /** The number of missed messages that follow. */
  readonly count?: number;
  /** Why messages are missing: `epoch`, `expired`, `too_many`, or `no_history` if the room has none any more. */
  readonly reason?: string;
}

/** The position before the old messages that follow; `undefined` if there is no history. */
export function positionOf(place: NamedPlace | undefined): Position | undefined {
  if (place?.epoch === undefined || place.offset === undefined) return undefined;
  const coming = place.recovered ? (place.count ?? 0) : 0;
  return { epoch: place.epoch, offset: place.offset - coming };
}

/** The place of a message with `offset` for a reader at `position`. */
export function placeOf(offset: number, position: Position): "next" | "repetition" | "gap" {
  if (offset <= position.offset) return "repetition";
  return offset === position.offset + 1 ? "next" : "gap";
}

/** `undefined` if the place says nothing about a recovery. */
export function recoveryOf({ recovered, count, reason }: NamedPlace): Recovery | undefined {
  if (recovered === undefined) return undefined;
  return { recovered, ...(count !== undefined && { count }), ...(reason !== undefined && { reason }) };
}
