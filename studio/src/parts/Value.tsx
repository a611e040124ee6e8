import { useState } from "react";
import { count, valueText } from "../lib/format";
import { oneLine, visible } from "../lib/visible";
import type { Json } from "../model/types";

const SHORT = 1_500;
const CHILDREN = 100;

/** A text in full; a long one is cut at first. */
export function Text({ text, mono = false, most = SHORT }: { text: string; mono?: boolean; most?: number }) {
  const [open, setOpen] = useState(false);
  const cut = !open && text.length > most * 1.2;
  return (
    <div className={`text${mono ? " mono" : ""}`}>
      {visible(cut ? `${text.slice(0, most)}…` : text)}
      {cut && (
        <div>
          <button type="button" className="link" onClick={() => setOpen(true)}>
            show all {count(text.length)} characters
          </button>
        </div>
      )}
    </div>
  );
}

/** Any JSON value: a text as text, an object or a list as a tree. */
export function Value({ value, open = 2 }: { value: Json | undefined; open?: number }) {
  if (value === undefined) return <span className="soft">no value</span>;
  if (typeof value === "string") return <Text text={value} />;
  if (value === null || typeof value !== "object") return <span className="mono json-atom">{valueText(value)}</span>;
  return (
    <div className="json mono">
      <Branch value={value} open={open} />
    </div>
  );
}

function Branch({ value, open }: { value: Json[] | { [key: string]: Json }; open: number }) {
  const [most, setMost] = useState(CHILDREN);
  const entries: [string, Json][] = Array.isArray(value)
    ? value.slice(0, most).map((one, index) => [String(index), one])
    : Object.entries(value).slice(0, most);
  const total = Array.isArray(value) ? value.length : Object.keys(value).length;
  if (total === 0) return <span className="soft">{Array.isArray(value) ? "an empty list" : "an empty object"}</span>;
  return (
    <ul>
      {entries.map(([key, one]) => (
        <li key={key}>
          <Entry name={key} value={one} open={open - 1} />
        </li>
      ))}
      {total > most && (
        <li>
          <button type="button" className="link" onClick={() => setMost(most + 1000)}>
            and {count(total - most)} more
          </button>
        </li>
      )}
    </ul>
  );
}

/** What an object is about, for its folded line. */
function hintOf(value: Json[] | { [key: string]: Json }): string {
  if (Array.isArray(value)) return "";
  const named = value.source ?? value.name ?? value.title;
  return typeof named === "string" ? oneLine(named, 80) : "";
}

function Entry({ name, value, open }: { name: string; value: Json; open: number }) {
  const [shown, setShown] = useState(open > 0);
  const key = <span className="json-key">{visible(name)}</span>;
  if (value === null || typeof value !== "object") {
    return (
      <>
        {key}{" "}
        {typeof value === "string" ? (
          <span className="json-text">
            <Text text={value} mono most={600} />
          </span>
        ) : (
          <span className="json-atom">{String(value)}</span>
        )}
      </>
    );
  }
  const total = Array.isArray(value) ? value.length : Object.keys(value).length;
  return (
    <>
      <button type="button" className="json-fold" aria-expanded={shown} onClick={() => setShown(!shown)}>
        {key} {hintOf(value) && <span className="json-hint">{hintOf(value)} </span>}
        <span className="soft">{Array.isArray(value) ? `[${count(total)}]` : `{${count(total)}}`}</span>
      </button>
      {shown && <Branch value={value} open={open} />}
    </>
  );
}
