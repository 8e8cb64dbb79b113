import type { Answer, PluginVersion, Recovery, State } from "@signalbox/client";
import { createContext, useContext, useSyncExternalStore } from "react";

/** Figures for the debug panel. */
export interface Figures {
  readonly connections: number;
  readonly recovered: number;
  readonly gaps: number;
  readonly latenciesMs: readonly number[];
  readonly plugins: readonly PluginVersion[];
  /** Whether the last answer to a message named plugins; `undefined` before the first. */
  readonly isTraced: boolean | undefined;
}

const LATENCIES_MAX = 20;

/** Collects the figures. */
export class Stats {
  #figures: Figures = { connections: 0, recovered: 0, gaps: 0, latenciesMs: [], plugins: [], isTraced: undefined };
  readonly #listeners = new Set<() => void>();

  readonly get = (): Figures => this.#figures;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  changed(state: State): void {
    if (state === "connected") this.#set({ connections: this.#figures.connections + 1 });
  }

  recovered({ recovered, count = 0 }: Recovery): void {
    if (recovered) this.#set({ recovered: this.#figures.recovered + count });
    else this.#set({ gaps: this.#figures.gaps + 1 });
  }

  measured(ms: number): void {
    this.#set({ latenciesMs: [...this.#figures.latenciesMs, ms].slice(-LATENCIES_MAX) });
  }

  answered({ plugins }: Answer): void {
    this.#set({ isTraced: plugins !== undefined, ...(plugins?.length && { plugins }) });
  }

  #set(change: Partial<Figures>): void {
    this.#figures = { ...this.#figures, ...change };
    for (const listener of this.#listeners) listener();
  }
}

/** Absent without `?debug`. */
export const StatsContext = createContext<Stats | undefined>(undefined);

export const useStats = () => useContext(StatsContext);

export const useFigures = (stats: Stats): Figures => useSyncExternalStore(stats.subscribe, stats.get);
