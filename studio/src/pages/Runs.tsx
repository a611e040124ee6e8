import { useEffect, useMemo, useRef, useState } from "react";
import { get } from "../api";
import { ago, count, dateTime, duration, money, plural } from "../lib/format";
import { useClock, useLoad } from "../lib/load";
import { oneLine } from "../lib/visible";
import { STATUS, wordsOf } from "../model/words";
import { NumberHeader } from "../parts/NumberHeader";
import { Empty, Fault, Loading } from "../parts/States";
import { Status } from "../parts/Status";
import { go, type Route } from "../route";
import type { Page, RunItem, WorkflowItem } from "./server";

const STATUSES = ["running", "waiting", "interrupted", "done", "abstained", "failed", "budget", "cancelled"];
const FILTERS = ["workflow", "label", "verdict", "since", "until", "tag", "parent", "min_tokens", "max_tokens", "min_money", "max_money"];
const VERDICTS: [string, string][] = [
  ["", "every verdict"],
  ["pass", "checks passed"],
  ["fail", "a check failed"],
  ["unknown", "a check is undecided"],
  ["none", "nothing checked"],
];
const COSTS: [string, string][] = [
  ["min_tokens", "tokens from"],
  ["max_tokens", "tokens to"],
  ["min_money", "money from"],
  ["max_money", "money to"],
];
const SINCE: [string, string][] = [
  ["", "any time"],
  ["1h", "last hour"],
  ["24h", "last day"],
  ["7d", "last week"],
  ["30d", "last 30 days"],
];

export function Runs({ route }: { route: Route }) {
  const { query } = route;
  const statuses = query.getAll("status").flatMap((one) => one.split(",")).filter(Boolean);
  const text = query.get("q") ?? "";
  const filter = useMemo(() => {
    const params = new URLSearchParams();
    for (const status of statuses) params.append("status", status);
    for (const name of FILTERS) {
      const value = query.get(name);
      if (value) params.append(name, value);
    }
    return params.toString();
    // eslint-disable-next-line
  }, [query]);
  const head = useLoad<Page<RunItem>>((signal) => get(`api/runs?limit=50${filter ? `&${filter}` : ""}`, signal), `runs-${filter}`, 3000);
  const workflows = useLoad<Page<WorkflowItem>>((signal) => get("api/workflows", signal), "workflows");
  const [more, setMore] = useState<{ filter: string; items: RunItem[]; next: string | null } | null>(null);
  const [loadingMore, setLoadingMore] = useState(false);
  const [fault, setFault] = useState<unknown>(null);
  const [chosen, setChosen] = useState<string[]>([]);
  const now = useClock();
  const older = more?.filter === filter ? more : null;
  const seen = new Set<string>();
  const items = [...(head.data?.items ?? []), ...(older?.items ?? [])].filter((one) => !seen.has(one.id) && seen.add(one.id));
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = items.filter((one) => {
    const all = `${one.id} ${one.workflow} ${one.status} ${wordsOf(one.status).word} ${one.label} ${Object.entries(one.tags).map((tag) => tag.join("="))}`.toLowerCase();
    return words.every((word) => all.includes(word));
  });
  const next = older ? older.next : (head.data?.next ?? null);
  const loadMore = async (): Promise<void> => {
    if (!next || loadingMore) return;
    setLoadingMore(true);
    setFault(null);
    try {
      const page = await get<Page<RunItem>>(`api/runs?limit=50&cursor=${encodeURIComponent(next)}${filter ? `&${filter}` : ""}`);
      setMore({ filter, items: [...(older?.items ?? []), ...page.items], next: page.next });
    } catch (failure) {
      setFault(failure);
    }
    setLoadingMore(false);
  };
  const toggleStatus = (status: string): void => {
    const left = statuses.includes(status) ? statuses.filter((one) => one !== status) : [...statuses, status];
    route.set({ status: left.join(",") || null }, true);
  };
  const filtered = filter !== "" || text !== "";
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <div className="page-head">
        <h1>Runs</h1>
        <span className="grow" />
        {chosen.length === 2 && (
          <a className="button" href={`#/compare?a=${encodeURIComponent(chosen[0]!)}&b=${encodeURIComponent(chosen[1]!)}`}>
            Compare the two
          </a>
        )}
        <a className="button primary" href="#/start">
          New run
        </a>
      </div>
      <div className="filters">
        <div className="filter-row" role="group" aria-label="status">
          {STATUSES.map((status) => (
            <button key={status} type="button" className="segment" aria-pressed={statuses.includes(status)} onClick={() => toggleStatus(status)}>
              {STATUS[status]?.word ?? status}
            </button>
          ))}
        </div>
        <div className="filter-row">
          <label>
            <span className="hidden">workflow</span>
            <select value={query.get("workflow") ?? ""} onChange={(event) => route.set({ workflow: event.target.value }, true)}>
              <option value="">every workflow</option>
              {[...new Set([...(workflows.data?.items.map((one) => one.name) ?? []), ...items.map((one) => one.workflow)])].sort().map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <label>
            <span className="hidden">since</span>
            <select value={query.get("since") ?? ""} onChange={(event) => route.set({ since: event.target.value }, true)}>
              {SINCE.map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <label>
            <span className="hidden">label</span>
            <select value={query.get("label") ?? ""} onChange={(event) => route.set({ label: event.target.value }, true)}>
              <option value="">every label</option>
              <option>public</option>
              <option>internal</option>
              <option>restricted</option>
            </select>
          </label>
          <label>
            <span className="hidden">verdict</span>
            <select value={query.get("verdict") ?? ""} onChange={(event) => route.set({ verdict: event.target.value }, true)}>
              {VERDICTS.map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <label>
            <span className="soft">until </span>
            <input type="date" value={query.get("until") ?? ""} onChange={(event) => route.set({ until: event.target.value }, true)} />
          </label>
          {COSTS.map(([name, label]) => (
            <Field key={name} name={label} placeholder={label} value={query.get(name) ?? ""} change={(value) => (value === "" || /^\d+(\.\d+)?$/.test(value)) && route.set({ [name]: value }, true)} />
          ))}
          <Field name="tag" placeholder="tag, such as customer=42" value={query.get("tag") ?? ""} change={(value) => route.set({ tag: value }, true)} />
          <Field name="text" type="search" placeholder="words in the loaded rows, or a run's id" value={text} change={(value) => route.set({ q: value }, true)} enter={(value) => /^[a-z0-9]{18,}$/.test(value) && go(`/runs/${value}`)} />
          {filtered && (
            <button type="button" className="link" onClick={() => route.set({ status: null, q: null, ...Object.fromEntries(FILTERS.map((name) => [name, null])) }, true)}>
              clear
            </button>
          )}
        </div>
      </div>
      {head.error ? <Fault error={head.error} retry={head.reload} /> : null}
      {!head.data && !head.error && <Loading what="runs" />}
      {head.data && shown.length === 0 && (filtered && next ? <Empty title="No run matches yet">Only the latest runs were searched. Load more to search older ones.</Empty> : filtered ? <Empty title="No run matches">Change a filter, or clear them.</Empty> : <Empty title="There is no run yet">
        <p>
          <a href="#/start">Start a workflow</a>, or <a href="#/ask">ask the router</a>.
        </p>
      </Empty>)}
      {shown.length > 0 && (
        <div className="scroll-x" tabIndex={0} role="region" aria-label="runs">
          <table className="list runs">
            <thead>
              <tr>
                <th scope="col">
                  <span className="hidden">choose</span>
                </th>
                <th scope="col">Status</th>
                <th scope="col">Workflow</th>
                <th scope="col">Run</th>
                <th scope="col">Started</th>
                <NumberHeader>Took</NumberHeader>
                <NumberHeader>Nodes</NumberHeader>
                <NumberHeader>Tokens</NumberHeader>
                <th scope="col">Tags</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((run) => (
                <tr key={run.id} onClick={(event) => (event.target as HTMLElement).closest("a, input") === null && go(`/runs/${run.id}`)}>
                  <td>
                    <input
                      type="checkbox"
                      aria-label={`choose run ${run.id} to compare`}
                      checked={chosen.includes(run.id)}
                      onChange={(event) => setChosen(event.target.checked ? [...chosen, run.id].slice(-2) : chosen.filter((one) => one !== run.id))}
                    />
                  </td>
                  <td>
                    <Status status={run.status} small />
                  </td>
                  <td>
                    <a href={`#/runs/${run.id}`} className="strong">
                      {oneLine(run.workflow, 60)}
                    </a>
                    {run.parent && <span className="soft"> fork</span>}
                  </td>
                  <td className="mono soft">{run.id}</td>
                  <td title={dateTime(run.started)}>{ago(run.started, now)}</td>
                  <td className="number">{run.seconds !== null ? duration(run.seconds) : run.status === "running" ? duration(Math.max(0, now - run.started)) : ""}</td>
                  <td className="number">{count(run.nodes)}</td>
                  <td className="number" title={run.usage.money ? `${money(run.usage.money)} money` : undefined}>
                    {count((run.usage.prompt_tokens ?? 0) + (run.usage.output_tokens ?? 0))}
                  </td>
                  <td>
                    {Object.entries(run.tags).map(([name, value]) => (
                      <button key={name} type="button" className="chip" title="show the runs with this tag" onClick={(event) => {
                        event.stopPropagation();
                        route.set({ tag: `${name}=${value}` }, true);
                      }}>
                        {oneLine(`${name}=${value}`, 40)}
                      </button>
                    ))}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <div className="list-foot">
        {shown.length > 0 && <span className="soft">{plural(shown.length, "run")}</span>}
        {fault ? <Fault error={fault} /> : null}
        {next && (
          <button type="button" className="button" disabled={loadingMore} onClick={() => void loadMore()}>
            {loadingMore ? "loading…" : "Older runs"}
          </button>
        )}
      </div>
    </main>
  );
}

/** A text field of a filter: it applies after a pause, or at once with Enter. */
function Field({ name, placeholder, value, change, enter, type = "text" }: { name: string; placeholder: string; value: string; change: (value: string) => void; enter?: (value: string) => void; type?: string }) {
  const [text, setText] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => setText(value), [value]);
  return (
    <input
      type={type}
      aria-label={name}
      placeholder={placeholder}
      value={text}
      size={Math.min(34, placeholder.length)}
      onChange={(event) => {
        const next = event.target.value;
        setText(next);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => change(next), 350);
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter") {
          clearTimeout(timer.current);
          change(text);
          enter?.(text);
        }
      }}
    />
  );
}
