import { useCallback, useEffect, useRef, useState } from "react";

export interface Loaded<T> {
  data: T | null;
  error: unknown;
  loading: boolean;
  reload: () => void;
}

/** Loads something, and again every `every` milliseconds while the page is visible. The last good data stay after a fault. */
export function useLoad<T>(load: (signal: AbortSignal) => Promise<T>, key: string, every = 0): Loaded<T> {
  const [state, setState] = useState<{ key: string; data: T | null; error: unknown; loading: boolean }>({ key, data: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  const current = useRef(load);
  current.current = load;
  useEffect(() => {
    const control = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = async (): Promise<void> => {
      try {
        const data = await current.current(control.signal);
        if (!control.signal.aborted) setState({ key, data, error: null, loading: false });
      } catch (error) {
        if (!control.signal.aborted) setState((known) => ({ key, data: known.key === key ? known.data : null, error, loading: false }));
      }
      if (!control.signal.aborted && every > 0) timer = setTimeout(next, every);
    };
    const next = (): void => {
      if (document.visibilityState === "visible") void run();
      else timer = setTimeout(next, 1000);
    };
    setState((known) => (known.key === key ? known : { key, data: null, error: null, loading: true }));
    void run();
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [key, every, turn]);
  const reload = useCallback(() => setTurn((known) => known + 1), []);
  const own = state.key === key;
  return { data: own ? state.data : null, error: own ? state.error : null, loading: own ? state.loading : true, reload };
}

/** The time now, updated each `every` milliseconds. */
export function useClock(every = 1000): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}
