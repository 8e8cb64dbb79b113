/** Takes the name and the data of an event. The name is empty if the event has none. */
export type TakeEvent = (name: string, data: string) => void;

/** Parses a stream of server-sent events. */
export class EventStream {
  readonly #take: TakeEvent;
  readonly #decoder = new TextDecoder();
  /** The beginning of a line. */
  #line = "";
  /** Whether the last byte was a carriage return, to which a line feed may belong. */
  #hasReturned = false;
  #name = "";
  #data: string[] = [];

  constructor(take: TakeEvent) {
    this.#take = take;
  }

  /** Takes the next bytes. */
  feed(bytes: Uint8Array): void {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return;
    if (this.#hasReturned && text.startsWith("\n")) text = text.slice(1);
    this.#hasReturned = text.endsWith("\r") || (text === "" && this.#hasReturned);
    const [rest = "", ...lines] = text.split(/\r\n|\r|\n/).reverse();
    for (const line of lines.reverse()) {
      this.#endLine(this.#line + line);
      this.#line = "";
    }
    this.#line += rest;
  }

  #endLine(line: string): void {
    if (line === "") return this.#endEvent();
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
  }

  #endEvent(): void {
    const [name, data] = [this.#name, this.#data];
    this.#name = "";
    this.#data = [];
    if (data.length > 0) this.#take(name, data.join("\n"));
  }
}
