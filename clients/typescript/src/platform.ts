/** The reports of the platform. */
export interface PlatformEvents {
  /** A connection has become likely. */
  likely(): void;
  /** The page may have been paused. */
  paused(): void;
}

/** Watches the events of a browser. Returns the function that ends that; elsewhere nothing happens. */
export function watchPlatform({ likely, paused }: PlatformEvents): () => void {
  const target = globalThis as unknown as Partial<Window>;
  const page = target.document;
  const shown = () => {
    if (page?.visibilityState === "hidden") return;
    likely();
    paused();
  };
  const pairs: [Partial<EventTarget> | undefined, string, () => void][] = [
    [target, "online", likely],
    [target, "pageshow", shown],
    [page, "visibilitychange", shown],
    [page, "resume", shown],
  ];
  for (const [source, event, callback] of pairs) source?.addEventListener?.(event, callback);
  return () => {
    for (const [source, event, callback] of pairs) source?.removeEventListener?.(event, callback);
  };
}
