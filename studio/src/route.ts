import { useCallback, useEffect, useMemo, useState } from "react";

/** The place in the studio: the part of the address after `#`. It works below any prefix and in a file. */
export interface Route {
  parts: string[];
  query: URLSearchParams;
  /** Changes values of the query; null removes one. */
  set: (changes: Record<string, string | null>, replace?: boolean) => void;
}

function read(): string {
  return location.hash.replace(/^#/, "") || "/";
}

export function go(to: string): void {
  location.hash = to;
}

export function useRoute(): Route {
  const [place, setPlace] = useState(read);
  // The same function for ever, so that a change of place does not make all parts of a run again.
  const set = useCallback((changes: Record<string, string | null>, replace = false): void => {
    const [here = "/", current = ""] = read().split("?");
    const query = new URLSearchParams(current);
    for (const [name, value] of Object.entries(changes))
      if (value === null || value === "") query.delete(name);
      else query.set(name, value);
    const text = query.toString();
    const next = `#${here}${text ? `?${text}` : ""}`;
    if (next === location.hash) return;
    if (replace) {
      history.replaceState(null, "", next);
      setPlace(read());
    } else location.hash = next;
  }, []);
  useEffect(() => {
    const onChange = (): void => setPlace(read());
    window.addEventListener("hashchange", onChange);
    return () => window.removeEventListener("hashchange", onChange);
  }, []);
  return useMemo(() => {
    const [path = "/", search = ""] = place.split("?");
    return {
      parts: path.split("/").filter(Boolean).map(decodeURIComponent),
      query: new URLSearchParams(search),
      set,
    };
  }, [place, set]);
}
