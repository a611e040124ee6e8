import { get } from "../api";
import { count, duration, money } from "../lib/format";
import { useLoad } from "../lib/load";
import { oneLine } from "../lib/visible";
import type { Usage } from "../model/types";
import { NumberHeader } from "../parts/NumberHeader";
import { Empty, Fault, Loading } from "../parts/States";
import type { Route } from "../route";

interface CostSum {
  group: Record<string, string>;
  runs: number;
  usage: Usage;
  money: number | null;
  reused: number;
  open: number;
  unpriced: Record<string, number>;
}

interface Summary {
  by: string[];
  rows: CostSum[];
  total: CostSum;
  unfinished: number;
  reused_plans: number;
  saved: Usage;
  unread: string[];
}

const BY: [string, string][] = [
  ["workflow", "workflow"],
  ["agent", "agent"],
  ["model", "model"],
  ["day", "day"],
  ["workflow,day", "workflow and day"],
];
const SINCE: [string, string][] = [
  ["24h", "last day"],
  ["7d", "last week"],
  ["30d", "last 30 days"],
  ["", "all time"],
];

export function Costs({ route }: { route: Route }) {
  const by = route.query.get("by") ?? "workflow";
  const since = route.query.get("since") ?? "7d";
  const found = useLoad<Summary>((signal) => get(`api/costs?by=${encodeURIComponent(by)}${since ? `&since=${since}` : ""}`, signal), `costs-${by}-${since}`);
  const data = found.data;
  const most = Math.max(1, ...(data?.rows.map((row) => tokensOf(row)) ?? []));
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <div className="page-head">
        <h1>Costs</h1>
        <span className="grow" />
        <label>
          by{" "}
          <select value={by} onChange={(event) => route.set({ by: event.target.value }, true)}>
            {BY.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label>
          of the{" "}
          <select value={since} onChange={(event) => route.set({ since: event.target.value || "all" }, true)}>
            {SINCE.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
      </div>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="costs" />}
      {data && data.rows.length === 0 && <Empty title="No run in this time">Choose a longer time.</Empty>}
      {data && data.rows.length > 0 && (
        <div className="scroll-x" tabIndex={0} role="region" aria-label="costs">
          <table className="list">
            <thead>
              <tr>
                {data.by.map((name) => (
                  <th scope="col" key={name}>
                    {name}
                  </th>
                ))}
                <NumberHeader>Runs</NumberHeader>
                <NumberHeader>Calls</NumberHeader>
                <NumberHeader>Reused</NumberHeader>
                <NumberHeader>Tokens in</NumberHeader>
                <NumberHeader>Tokens out</NumberHeader>
                <th scope="col">
                  <span className="hidden">share of the tokens</span>
                </th>
                <NumberHeader>Time of calls</NumberHeader>
                <NumberHeader>Money</NumberHeader>
              </tr>
            </thead>
            <tbody>
              {data.rows.map((row, index) => (
                <tr key={index}>
                  {data.by.map((name) => (
                    <td key={name} className="strong">
                      {oneLine(row.group[name] || "–")}
                    </td>
                  ))}
                  <Sums row={row} most={most} />
                </tr>
              ))}
            </tbody>
            <tfoot>
              <tr>
                <td colSpan={data.by.length}>total</td>
                <Sums row={data.total} most={0} />
              </tr>
            </tfoot>
          </table>
        </div>
      )}
      {data && data.unread.length > 0 && <p className="notice">{data.unread.length} runs could not be read, so they are not in the sums.</p>}
    </main>
  );
}

function tokensOf(row: CostSum): number {
  return (row.usage.prompt_tokens ?? 0) + (row.usage.output_tokens ?? 0);
}

function Sums({ row, most }: { row: CostSum; most: number }) {
  return (
    <>
      <td className="number">{count(row.runs)}</td>
      <td className="number">{count(row.usage.calls ?? 0)}</td>
      <td className="number">{row.reused ? count(row.reused) : ""}</td>
      <td className="number">{count(row.usage.prompt_tokens ?? 0)}</td>
      <td className="number">{count(row.usage.output_tokens ?? 0)}</td>
      <td className="share">{most > 0 && <span className="load" aria-hidden="true"><span style={{ width: `${(100 * tokensOf(row)) / most}%` }} /></span>}</td>
      <td className="number">{duration(row.usage.seconds ?? 0)}</td>
      <td className="number">{row.money === null ? "no price" : row.money > 0 ? money(row.money) : ""}</td>
    </>
  );
}
