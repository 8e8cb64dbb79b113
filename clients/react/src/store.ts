/** A value that components read with `useSyncExternalStore`. */
export class Store<T> {
  readonly #listeners = new Set<() => void>();
  #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  readonly get = (): T => this.#value;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  set(value: T): void {
    this.#value = value;
    for (const listener of [...this.#listeners]) listener();
  }
}

/**
 * Runs `work` once after all calls of the returned function in this turn. React's StrictMode mounts each component twice, and a
 * component that moves unmounts and mounts: with this, neither is seen outside.
 */
export function deferred(work: () => void): () => void {
  let scheduled = false;
  return () => {
    if (scheduled) return;
    scheduled = true;
    queueMicrotask(() => {
      scheduled = false;
      work();
    });
  };
}
