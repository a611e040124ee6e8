import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { count, dateTime, duration, money, plural } from "../lib/format";
import { oneLine } from "../lib/visible";
import { RunFold } from "../model/fold";
import { RunTexts } from "../model/texts";
import { RUN_MEANING } from "../model/words";
import type { RunRecord } from "../model/types";
import { Icon } from "../parts/Icon";
import { Status } from "../parts/Status";
import type { BlobLoader } from "../parts/Exchange";
import { Answer } from "./Answer";
import { RunContext, type RunActions } from "./context";
import { RunGraph } from "./Graph";
import { NodePanel } from "./NodePanel";
import { timeScale } from "./scale";
import { Timeline } from "./Timeline";

/** The status of a run while its events arrive; the record may be older than them. */
export function liveStatus(record: RunRecord, fold: RunFold): string {
  if (fold.finished !== null) return fold.endStatus;
  if (fold.seq <= record.seq) return record.status;
  const waits = fold.questions.length > 0;
  if (!waits) return "running";
  const asked = new Set(fold.questions.map((one) => one.node));
  for (const node of fold.nodes.values())
    if (node.attempts.length > 0 && node.outcome === null && node.children.length === 0 && !asked.has(node.path)) return "running";
  return "waiting";
}

type Pane = "answer" | "graph" | "timeline";

export interface RunViewProps {
  record: RunRecord;
  fold: RunFold;
  version: number;
  load: BlobLoader;
  actions: RunActions | null;
  selected: string | null;
  select: (path: string | null) => void;
  live: "live" | "lost" | "off";
  toolbar?: React.ReactNode;
  notice?: React.ReactNode;
}

export function RunView({ record, fold, version, load, actions, selected, select, live, toolbar, notice }: RunViewProps) {
  const over = fold.finished !== null || (live === "off" && record.status === "interrupted");
  const [cursor, setCursor] = useState<number | null>(null);
  const [pane, setPane] = useState<Pane>("answer");
  const status = liveStatus(record, fold);
  const now = useNow(status === "running" && live !== "off");
  // eslint-disable-next-line
  const scale = useMemo(() => timeScale(fold, status === "running" ? now : null), [fold, version, now, status]);
  // eslint-disable-next-line
  const texts = useMemo(() => new RunTexts(fold), [fold, fold.finished !== null, Math.floor(fold.log.length / 50)]);
  const choose = useCallback(
    (path: string | null) => {
      select(path);
      if (path !== null) setPane("answer");
    },
    [select],
  );
  const context = useMemo(() => ({ record, fold, texts, load, actions, select: choose, over }), [record, fold, texts, load, actions, choose, over]);
  const usage = fold.usage;
  const took = fold.finished !== null ? fold.finished - fold.begin : null;
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (event.key === "Escape" && !/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) select(null);
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [select]);
  return (
    <RunContext.Provider value={context}>
      <main className="run" data-pane={pane} id="content" tabIndex={-1}>
        <header className="run-head">
          <div className="run-title">
            <h1>{oneLine(record.workflow, 80)}</h1>
            <Status status={status} />
            {live === "lost" && (
              <span className="status tone-doubt" role="status">
                <Icon name="pause" size={14} />
                connection lost, trying again
              </span>
            )}
            {live === "live" && status === "running" && <span className="live-mark">live</span>}
            <span className="grow" />
            {toolbar}
          </div>
          <p className="run-facts">
            <span className="mono">{record.run}</span>
            <span>{dateTime(fold.begin)}</span>
            {took !== null && <span>took {duration(took)}</span>}
            <span>{plural(fold.nodes.size, "node")}</span>
            <span>{plural(usage.calls, "call")}</span>
            <span>
              {count(usage.prompt_tokens)} tokens in, {count(usage.output_tokens)} out
            </span>
            {usage.money > 0 && <span>{money(usage.money)} money</span>}
            <span>label {record.label}</span>
            {Object.entries(record.tags).map(([name, value]) => (
              <span key={name} className="chip">
                {oneLine(`${name}=${value}`, 60)}
              </span>
            ))}
            {fold.start?.parent && (
              <a href={`#/runs/${fold.start.parent}`} className="mono">
                fork of {fold.start.parent}
              </a>
            )}
          </p>
          {notice}
        </header>
        <div className="pane-tabs" role="group" aria-label="part of the run">
          {(["answer", "graph", "timeline"] as const).map((one) => (
            <button key={one} type="button" className="segment" aria-pressed={pane === one} onClick={() => setPane(one)}>
              {one === "answer" ? (selected === null ? "Answer" : "Node") : one === "graph" ? "Graph" : "Timeline"}
            </button>
          ))}
        </div>
        <div className="run-body">
          <div className="run-map">
            {cursor !== null && (
              <div className="past" role="status">
                <span>
                  The run {duration(cursor - scale.begin)} after its start
                </span>
                <button type="button" className="button" onClick={() => setCursor(null)}>
                  {fold.finished === null ? "Back to now" : "Back to the end"}
                </button>
              </div>
            )}
            <section className="graph-area" aria-label="graph">
              <RunGraph selected={selected} cursor={cursor} version={version} />
            </section>
            <Timeline selected={selected} cursor={cursor} setCursor={setCursor} scale={scale} version={version} live={status === "running"} />
          </div>
          <aside className="inspector" aria-label={selected === null ? "answer" : `node ${selected}`}>
            {selected === null ? <Answer version={version} status={status} /> : <NodePanel path={selected} version={version} cursor={cursor} />}
          </aside>
        </div>
        <p className="hidden" aria-live="polite">
          {status === "running" ? "" : (RUN_MEANING[status] ?? "")}
        </p>
      </main>
    </RunContext.Provider>
  );
}

/** The current time, twice a second while it is needed. */
function useNow(active: boolean): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    if (!active) return;
    const timer = setInterval(() => setNow(Date.now() / 1000), 500);
    return () => clearInterval(timer);
  }, [active]);
  return now;
}

/** The fold of a record, kept over renders. */
export function useFold(record: RunRecord): RunFold {
  const held = useRef<{ run: string; fold: RunFold } | null>(null);
  if (held.current?.run !== record.run) {
    const fold = new RunFold();
    fold.addAll(record.events);
    held.current = { run: record.run, fold };
  } else held.current.fold.addAll(record.events);
  return held.current.fold;
}
