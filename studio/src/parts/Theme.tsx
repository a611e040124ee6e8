import { useEffect, useState } from "react";
import { Icon } from "./Icon";

type Theme = "light" | "dark";
const KEY = "orchestra-theme";

function stored(): Theme | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : null;
  } catch {
    return null;
  }
}

export function applyStoredTheme(): void {
  const theme = stored();
  if (theme) document.documentElement.dataset.theme = theme;
}

/** Switches between light and dark; at first the page follows the system. */
export function ThemeSwitch() {
  const [theme, setTheme] = useState<Theme>(() => stored() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const follow = (): void => {
      if (!stored()) setTheme(query.matches ? "dark" : "light");
    };
    query.addEventListener("change", follow);
    return () => query.removeEventListener("change", follow);
  }, []);
  const other: Theme = theme === "dark" ? "light" : "dark";
  return (
    <button
      type="button"
      className="button quiet icon-only"
      aria-label={`switch to ${other} colours`}
      title={`switch to ${other} colours`}
      onClick={() => {
        document.documentElement.dataset.theme = other;
        try {
          localStorage.setItem(KEY, other);
        } catch {
          // Without storage the choice lasts as long as the page.
        }
        setTheme(other);
      }}
    >
      <Icon name={theme === "dark" ? "sun" : "moon"} size={15} />
    </button>
  );
}
