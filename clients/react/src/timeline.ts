import type { Message } from "@signalbox/client";
import type { RoomMessage } from "./types.js";

/** A message, and the history in which its offset counts. */
interface Entry {
  readonly message: RoomMessage;
  readonly epoch: number;
}

/** The messages of a room, oldest first, without repetitions. */
export class Timeline {
  readonly #isKept: (type: string) => boolean;
  #entries: Entry[] = [];
  /** Counts the histories that the room has had: the offsets of one say nothing about another. */
  #epoch = 0;
  /** The bounds of the offsets of the present history that were seen, also of messages that are not kept. */
  #first: number | undefined;
  #last: number | undefined;
  #withoutOffset = 0;
  /** The last offset before the last gap, if it counts in the present history. */
  #beforeGap: number | undefined;
  readonly #max: () => number;
  /** The number of messages that were read back, which `max` does not bound. */
  #readBack = 0;
  /** Whether there are older messages; `undefined` if the server has not said so. */
  #hasOlder: boolean | undefined;

  /** Keeps the last `max` messages and those that were read back, of the types that `isKept` accepts. */
  constructor(max: () => number, isKept: (type: string) => boolean) {
    this.#max = max;
    this.#isKept = isKept;
  }

  get messages(): RoomMessage[] {
    return this.#entries.map(({ message }) => message);
  }

  /** Whether older messages can be read. */
  get hasOlder(): boolean {
    return this.#hasOlder ?? (this.#first ?? 1) > 1;
  }

  /** The offset before which older messages are read. */
  get first(): number | undefined {
    return this.#first;
  }

  /** Adds a message that has just arrived. */
  add(message: Message): void {
    const { offset } = message;
    if (offset !== undefined) {
      if (this.#last !== undefined && offset <= this.#last) return;
      this.#first ??= offset;
      this.#last = offset;
    }
    if (!this.#isKept(message.type)) return;
    this.#entries.push(this.#entry(message));
    const excess = this.#entries.length - this.#max() - this.#readBack;
    if (excess > 0) this.#drop(excess);
  }

  /** Adds older messages, and returns how many of them are kept. */
  addOlder(messages: readonly Message[], hasOlder: boolean): number {
    const known = this.#first ?? Infinity;
    const older = messages.filter(({ offset }) => offset !== undefined && offset < known);
    this.#see(older);
    this.#hasOlder = hasOlder && older.length > 0 && (this.#entries[0]?.epoch ?? this.#epoch) === this.#epoch;
    const kept = older.filter(({ type }) => this.#isKept(type)).map((message) => this.#entry(message));
    const at = this.#entries.findIndex(({ epoch }) => epoch === this.#epoch);
    this.#entries.splice(at < 0 ? this.#entries.length : at, 0, ...kept);
    this.#readBack += kept.length;
    return kept.length;
  }

  /** Messages are missing after the last one. */
  missed(reason: string): void {
    if (reason === "epoch") {
      this.#epoch += 1;
      this.#first = this.#last = undefined;
      this.#hasOlder = this.#entries.length === 0 ? undefined : false;
    }
    this.#beforeGap = this.#last;
    this.#mark(this.#entries.length - 1, reason);
  }

  /** Takes the newest messages after `missed`. Those that arrived in the meantime stay. */
  fill(messages: readonly Message[]): void {
    const gap = this.#entries.map(({ message }) => message.gapAfter !== undefined).lastIndexOf(true);
    const before = this.#entries.slice(0, gap + 1);
    const after = this.#entries.slice(gap + 1);
    const known = new Set(this.#entries.filter(({ epoch }) => epoch === this.#epoch).map(({ message }) => message.offset));
    const end = before.at(-1);
    const least = end?.epoch === this.#epoch ? (end.message.offset ?? 0) : 0;
    const missing = messages.filter(({ type, offset = 0 }) => offset > least && !known.has(offset) && this.#isKept(type));
    const filled = [...missing.map((message) => this.#entry(message)), ...after];
    filled.sort((a, b) => (a.message.offset ?? 0) - (b.message.offset ?? 0));
    this.#entries = [...before, ...filled];
    const oldest = messages[0]?.offset;
    if (this.#beforeGap !== undefined && oldest !== undefined && oldest <= this.#beforeGap + 1) this.#mark(gap, undefined);
    this.#see(messages);
  }

  #mark(index: number, gapAfter: string | undefined): void {
    const entry = this.#entries[index];
    if (!entry) return;
    const { gapAfter: _, ...message } = entry.message;
    const marked = gapAfter === undefined ? message : { ...message, gapAfter };
    this.#entries[index] = { ...entry, message: marked as RoomMessage };
  }

  #see(messages: readonly Message[]): void {
    for (const { offset } of messages) {
      if (offset === undefined) continue;
      this.#first = Math.min(this.#first ?? offset, offset);
      this.#last = Math.max(this.#last ?? offset, offset);
    }
  }

  #entry(message: Message): Entry {
    const key = message.offset === undefined ? `-${++this.#withoutOffset}` : `${this.#epoch}:${message.offset}`;
    return { message: { ...message, key } as RoomMessage, epoch: this.#epoch };
  }

  #drop(excess: number): void {
    this.#entries.splice(0, excess);
    const first = this.#entries[0];
    if (first?.epoch !== this.#epoch || first.message.offset === undefined) return;
    this.#first = first.message.offset;
    this.#hasOlder = true;
  }
}
