import { useMemo, useState } from "react";
import { loadRecord } from "../api";
import { count, duration, valueText } from "../lib/format";
import { useLoad } from "../lib/load";
import { oneLine, visible } from "../lib/visible";
import { reasonOf, RunFold, statusOf, type RunNode } from "../model/fold";
import type { Json, RunRecord } from "../model/types";
import { Fault, Loading } from "../parts/States";
import { Status } from "../parts/Status";
import type { Route } from "../route";

interface Side {
  record: RunRecord;
  fold: RunFold;
}

/** Two runs side by side: what they answer, and the nodes in which they differ. */
export function Compare({ route }: { route: Route }) {
  const a = route.query.get("a") ?? "";
  const b = route.query.get("b") ?? "";
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <h1>Compare two runs</h1>
      <form
        className="form-row compare-form"
        key={`${a}-${b}`}
        onSubmit={(event) => {
          event.preventDefault();
          const data = new FormData(event.currentTarget);
          route.set({ a: String(data.get("a")).trim(), b: String(data.get("b")).trim() });
        }}
      >
        <label htmlFor="run-a">before</label>
        <input id="run-a" name="a" className="mono" defaultValue={a} size={22} required />
        <label htmlFor="run-b">after</label>
        <input id="run-b" name="b" className="mono" defaultValue={b} size={22} required />
        <button type="submit" className="button primary">
          Compare
        </button>
        <span className="soft">
          or choose two in the <a href="#/runs">list of runs</a>
        </span>
      </form>
      {a && b && <Both key={`${a} ${b}`} a={a} b={b} />}
    </main>
  );
}

function Both({ a, b }: { a: string; b: string }) {
  const found = useLoad<[RunRecord, RunRecord]>((signal) => Promise.all([loadRecord(a, signal), loadRecord(b, signal)]), `compare-${a}-${b}`);
  if (found.error) return <Fault error={found.error} retry={found.reload} />;
  if (!found.data) return <Loading what="both runs" />;
  const [before, after] = found.data;
  return <Difference before={sideOf(before)} after={sideOf(after)} />;
}

function sideOf(record: RunRecord): Side {
  const fold = new RunFold();
  fold.addAll(record.events);
  return { record, fold };
}

interface Change {
  path: string;
  before: RunNode | undefined;
  after: RunNode | undefined;
  same: boolean;
}

function words(node: RunNode | undefined): string {
  if (!node) return "";
  const outcome = node.outcome;
  return outcome?.type === "value" ? valueText(outcome.value) : reasonOf(node);
}

function Difference({ before, after }: { before: Side; after: Side }) {
  const [all, setAll] = useState(false);
  const changes = useMemo(() => {
    const paths = new Set([...before.fold.nodes.keys(), ...after.fold.nodes.keys()]);
    const found: Change[] = [];
    for (const path of paths) {
      const one = before.fold.nodes.get(path);
      const other = after.fold.nodes.get(path);
      found.push({ path, before: one, after: other, same: !!one && !!other && statusOf(one, before.fold.finished !== null) === statusOf(other, after.fold.finished !== null) && words(one) === words(other) });
    }
    return found;
  }, [before, after]);
  const different = changes.filter((one) => !one.same);
  const shown = all ? changes : different;
  return (
    <>
      <div className="compare-heads">
        {[before, after].map(({ record, fold }, index) => (
          <section className="box" key={index} aria-label={index === 0 ? "before" : "after"}>
            <p className="soft">{index === 0 ? "before" : "after"}</p>
            <h2>
              <a href={`#/runs/${record.run}`}>{oneLine(record.workflow)}</a> <Status status={record.status} small />
            </h2>
            <p className="soft">
              <span className="mono">{record.run}</span> · {fold.finished !== null ? duration(fold.finished - fold.begin) : "not ended"} · {count(fold.usage.prompt_tokens + fold.usage.output_tokens)} tokens · {count(fold.usage.calls)} calls
            </p>
          </section>
        ))}
      </div>
      <PromptChanges before={before.record} after={after.record} />
      <InputChanges before={before.fold.start?.inputs} after={after.fold.start?.inputs} />
      <section>
        <h2>Output</h2>
        <TextDiff before={outputText(before.fold)} after={outputText(after.fold)} />
      </section>
      <section>
        <div className="form-row">
          <h2>Nodes</h2>
          <span className="soft">
            {count(different.length)} of {count(changes.length)} differ
          </span>
          <span className="grow" />
          <label className="check">
            <input type="checkbox" checked={all} onChange={(event) => setAll(event.target.checked)} /> show equal ones too
          </label>
        </div>
        {shown.length === 0 && <p className="notice">Every node has the same outcome in both runs.</p>}
        {shown.slice(0, 300).map((one) => (
          <div className="change" key={one.path}>
            <div className="change-head">
              <span className="mono strong">{oneLine(one.path, 100)}</span>
              {one.before ? <Status status={statusOf(one.before, before.fold.finished !== null)} small /> : <span className="soft">only after</span>}
              <span className="soft">→</span>
              {one.after ? <Status status={statusOf(one.after, after.fold.finished !== null)} small /> : <span className="soft">only before</span>}
              <span className="grow" />
              <span className="soft">
                {one.before ? count(one.before.usage.prompt_tokens + one.before.usage.output_tokens) : "0"} → {one.after ? count(one.after.usage.prompt_tokens + one.after.usage.output_tokens) : "0"} tokens
              </span>
            </div>
            {!one.same && <TextDiff before={words(one.before)} after={words(one.after)} />}
          </div>
        ))}
        {shown.length > 300 && <p className="soft">and {count(shown.length - 300)} more</p>}
      </section>
    </>
  );
}

function outputText(fold: RunFold): string {
  const outcome = fold.outcome;
  if (!outcome) return "no output yet";
  return outcome.type === "value" ? valueText(outcome.value) : `no output: ${outcome.reason}`;
}

function InputChanges({ before, after }: { before: Json | undefined; after: Json | undefined }) {
  const one = valueText(before);
  const other = valueText(after);
  if (one === other) return <p className="soft">Both have the same inputs.</p>;
  return (
    <section>
      <h2>Inputs</h2>
      <TextDiff before={one} after={other} />
    </section>
  );
}

function PromptChanges({ before, after }: { before: RunRecord; after: RunRecord }) {
  const changed = Object.keys(after.cards).filter((name) => {
    const [one, other] = [before.cards[name]?.prompt, after.cards[name]?.prompt];
    return one !== undefined && other !== undefined && one !== other;
  });
  if (changed.length === 0) return null;
  return (
    <section>
      <h2>Prompts</h2>
      {changed.map((name) => (
        <div className="change" key={name}>
          <div className="change-head">
            <span className="mono strong">{oneLine(name, 100)}</span>
          </div>
          <TextDiff before={before.cards[name]?.prompt ?? ""} after={after.cards[name]?.prompt ?? ""} />
        </div>
      ))}
    </section>
  );
}

const MOST_WORDS = 1500;

/** Two texts with removed and added words; equal ones once. */
export function TextDiff({ before, after }: { before: string; after: string }) {
  const parts = useMemo(() => diffWords(before, after), [before, after]);
  if (before === after) return <pre className="diff same">{visible(before.slice(0, 4000))}</pre>;
  return (
    <pre className="diff">
      {parts.map((part, index) =>
        part.state === "same" ? (
          visible(part.text)
        ) : part.state === "gone" ? (
          <del key={index}>{visible(part.text)}</del>
        ) : (
          <ins key={index}>{visible(part.text)}</ins>
        ),
      )}
    </pre>
  );
}

interface Part {
  text: string;
  state: "same" | "gone" | "new";
}

export function diffWords(before: string, after: string): Part[] {
  const one = before.split(/(\s+)/);
  const other = after.split(/(\s+)/);
  if (one.length > MOST_WORDS || other.length > MOST_WORDS)
    return [
      { text: before.slice(0, 4000), state: "gone" },
      { text: "\n", state: "same" },
      { text: after.slice(0, 4000), state: "new" },
    ];
  const width = other.length + 1;
  const table = new Uint16Array((one.length + 1) * width);
  for (let i = one.length - 1; i >= 0; i--)
    for (let j = other.length - 1; j >= 0; j--)
      table[i * width + j] = one[i] === other[j] ? table[(i + 1) * width + j + 1]! + 1 : Math.max(table[(i + 1) * width + j]!, table[i * width + j + 1]!);
  const parts: Part[] = [];
  const push = (text: string, state: Part["state"]): void => {
    const last = parts.at(-1);
    if (last?.state === state) last.text += text;
    else parts.push({ text, state });
  };
  let i = 0;
  let j = 0;
  while (i < one.length || j < other.length) {
    if (i < one.length && j < other.length && one[i] === other[j]) {
      push(one[i++]!, "same");
      j++;
    } else if (j >= other.length || (i < one.length && table[(i + 1) * width + j]! >= table[i * width + j + 1]!)) push(one[i++]!, "gone");
    else push(other[j++]!, "new");
  }
  return parts;
}
