import { useState } from "react";
import { clock, plural } from "../lib/format";
import { oneLine, visible } from "../lib/visible";
import type { RunNode } from "../model/fold";
import type { PlanDraft } from "../model/types";

interface Line {
  text: string;
  state: "kept" | "new" | "gone";
}

/** The lines of a plan version against those of the version before it. */
export function diffLines(before: string[], after: string[]): Line[] {
  const table: number[][] = Array.from({ length: before.length + 1 }, () => new Array<number>(after.length + 1).fill(0));
  for (let i = before.length - 1; i >= 0; i--)
    for (let j = after.length - 1; j >= 0; j--) table[i]![j] = before[i] === after[j] ? table[i + 1]![j + 1]! + 1 : Math.max(table[i + 1]![j]!, table[i]![j + 1]!);
  const lines: Line[] = [];
  let i = 0;
  let j = 0;
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      lines.push({ text: after[j]!, state: "kept" });
      i++;
      j++;
    } else if (j >= after.length || (i < before.length && table[i + 1]![j]! >= table[i]![j + 1]!)) lines.push({ text: before[i++]!, state: "gone" });
    else lines.push({ text: after[j++]!, state: "new" });
  }
  return lines;
}

interface Version {
  number: number;
  last: PlanDraft;
  at: number;
  rejections: [string, string, string, string][];
}

function versionsOf(node: RunNode): Version[] {
  const found = new Map<number, Version>();
  for (const { at, draft } of node.drafts) {
    const number = draft.version ?? 0;
    const known = found.get(number) ?? { number, last: draft, at, rejections: [] };
    for (const one of draft.rejections ?? []) if (!known.rejections.some((other) => other.join() === one.join())) known.rejections.push(one);
    if ((draft.lines?.length ?? 0) >= (known.last.lines?.length ?? 0)) known.last = draft;
    found.set(number, known);
  }
  return [...found.values()].sort((a, b) => a.number - b.number);
}

export function PlanVersions({ node }: { node: RunNode }) {
  const versions = versionsOf(node);
  const [chosen, setChosen] = useState<number | null>(null);
  const index = chosen === null ? versions.length - 1 : Math.min(chosen, versions.length - 1);
  const version = versions[index];
  if (!version) return null;
  const draft = version.last;
  const lines = diffLines(versions[index - 1]?.last.lines ?? [], draft.lines ?? []);
  return (
    <section>
      <h3>Plan</h3>
      {versions.length > 1 && (
        <div className="exchange-bar" role="group" aria-label="versions of the plan">
          {versions.map((one, at) => (
            <button key={one.number} type="button" className="segment" aria-pressed={at === index} onClick={() => setChosen(at)}>
              version {one.number || at + 1}
            </button>
          ))}
        </div>
      )}
      <ol className="plan-lines mono">
        {lines.map((line, at) => (
          <li key={at} className={`plan-line ${index > 0 ? line.state : "kept"}`}>
            {index > 0 && line.state !== "kept" && <span className="hidden">{line.state === "new" ? "added: " : "removed: "}</span>}
            {visible(line.text)}
          </li>
        ))}
        {lines.length === 0 && <li className="soft">no line is accepted yet</li>}
      </ol>
      <p className="soft">
        {[
          `at ${clock(version.at)}`,
          draft.reused_from ? `reused from run ${draft.reused_from}` : "",
          draft.agreement != null ? `${Math.round(draft.agreement * 100)} % of the samples agree` : "",
          draft.repaired_lines ? `${plural(draft.repaired_lines, "line")} written again` : "",
          draft.escalated ? "by the larger planner" : "",
        ]
          .filter(Boolean)
          .join(" · ")}
      </p>
      {draft.warning && <p className="notice">{visible(draft.warning)}</p>}
      {draft.failed_calls && draft.failed_calls.length > 0 && (
        <>
          <h4>Why the version before was replaced</h4>
          <ul className="verdicts">
            {draft.failed_calls.map(([line, why], at) => (
              <li key={at} className="verdict">
                <code>{oneLine(line, 300)}</code>
                <p className="verdict-reason">{visible(why)}</p>
              </li>
            ))}
          </ul>
        </>
      )}
      {version.rejections.length > 0 && (
        <>
          <h4>{plural(version.rejections.length, "rejected line")}</h4>
          <ul className="verdicts">
            {version.rejections.map(([code, path, reason, hint], at) => (
              <li key={at} className="verdict">
                <div className="verdict-head">
                  <code>{code}</code> <span className="mono soft">{oneLine(path)}</span>
                </div>
                <p className="verdict-reason">{visible(reason)}</p>
                {hint && <p className="verdict-reason soft">{visible(hint)}</p>}
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
