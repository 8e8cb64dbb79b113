/** Ends a subscription. */
export type Unsubscribe = () => void;

type Callback = (value: never) => unknown;

/** Callbacks by the name of their event. */
export class Emitter {
  readonly #callbacks = new Map<string, Set<Callback>>();
  readonly #failed: (error: unknown) => void;
  #silenced = 0;

  /** `failed` gets the errors of callbacks. */
  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  /** Calls `callback` with each value of `name` until the returned function is called. */
  on<T>(name: string, callback: (value: T) => unknown): Unsubscribe {
    // A subscription of its own, also if the same function is given twice.
    const own: Callback = (value) => callback(value);
    const callbacks = this.#callbacks.get(name) ?? new Set();
    this.#callbacks.set(name, callbacks.add(own));
    return () => {
      if (callbacks.delete(own) && callbacks.size === 0 && this.#callbacks.get(name) === callbacks) {
        this.#callbacks.delete(name);
      }
    };
  }

  /** Whether anybody waits for `name`. */
  has(name: string): boolean {
    return this.#callbacks.has(name);
  }

  /** Calls no further callbacks with the values that are being given out. */
  silence(): void {
    this.#silenced += 1;
  }

  /** Gives `value` to all callbacks of `name`, in the order of their subscriptions. */
  emit(name: string, value: unknown): void {
    const callbacks = this.#callbacks.get(name);
    if (!callbacks) return;
    const silenced = this.#silenced;
    for (const callback of [...callbacks]) {
      if (silenced !== this.#silenced) return;
      try {
        const result = callback(value as never);
        if (result instanceof Promise) result.catch(this.#failed);
      } catch (error) {
        this.#failed(error);
      }
    }
  }
}
