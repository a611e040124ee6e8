import { useId, useState } from "react";
import { errorWords, get, patch, post, remove } from "../api";
import { dateTime } from "../lib/format";
import { useLoad } from "../lib/load";
import { oneLine } from "../lib/visible";
import type { Json } from "../model/types";
import { JsonField } from "../parts/SchemaForm";
import { Empty, Fault, Loading } from "../parts/States";
import { go } from "../route";
import { useMay, type Page, type RunAnswer, type WorkflowItem } from "./server";

interface Schedule {
  id: string;
  cron: string;
  timezone: string;
  workflow: string;
  inputs: { [key: string]: Json };
  paused: boolean;
  created: number;
  next: number | null;
  last: { due: number; run: string } | null;
}

export function Schedules() {
  const found = useLoad<Page<Schedule>>((signal) => get("api/schedules", signal), "schedules", 5000);
  const admin = useMay("admin");
  const [problem, setProblem] = useState("");
  const [adding, setAdding] = useState(false);
  const act = (work: Promise<unknown>): void => {
    setProblem("");
    work.then(found.reload, (failure: unknown) => setProblem(errorWords(failure)));
  };
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <div className="page-head">
        <h1>Schedules</h1>
        <span className="grow" />
        {admin && (
          <button type="button" className="button primary" aria-expanded={adding} onClick={() => setAdding(!adding)}>
            New schedule
          </button>
        )}
      </div>
      {adding && (
        <NewSchedule
          done={() => {
            setAdding(false);
            found.reload();
          }}
        />
      )}
      {problem && (
        <p className="error" role="alert">
          {problem}
        </p>
      )}
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="schedules" />}
      {found.data && found.data.items.length === 0 && <Empty title="There is no schedule yet">A schedule starts a workflow at fixed times, once each, however many servers run.</Empty>}
      {found.data && found.data.items.length > 0 && (
        <div className="scroll-x" tabIndex={0} role="region" aria-label="schedules">
          <table className="list">
            <thead>
              <tr>
                <th scope="col">Workflow</th>
                <th scope="col">Times</th>
                <th scope="col">Next</th>
                <th scope="col">Last run</th>
                <th scope="col">
                  <span className="hidden">actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {found.data.items.map((one) => (
                <tr key={one.id}>
                  <td className="strong">{oneLine(one.workflow)}</td>
                  <td>
                    <span className="mono">{oneLine(one.cron)}</span> <span className="soft">{oneLine(one.timezone)}</span>
                  </td>
                  <td>{one.paused ? "paused" : one.next ? dateTime(one.next) : ""}</td>
                  <td className="mono">{one.last ? <a href={`#/runs/${one.last.run}`}>{one.last.run}</a> : <span className="soft">none yet</span>}</td>
                  <td>
                    {admin && (
                      <span className="form-row">
                        <button type="button" className="link" onClick={() => act(post<RunAnswer>(`api/schedules/${one.id}/trigger`, {}).then((made) => go(`/runs/${made.id}`)))}>
                          run now
                        </button>
                        <button type="button" className="link" onClick={() => act(patch(`api/schedules/${one.id}`, { paused: !one.paused }))}>
                          {one.paused ? "go on" : "pause"}
                        </button>
                        <button type="button" className="link" onClick={() => confirm(`Delete the schedule of ${one.workflow}?`) && act(remove(`api/schedules/${one.id}`))}>
                          delete
                        </button>
                      </span>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </main>
  );
}

function NewSchedule({ done }: { done: () => void }) {
  const workflows = useLoad<Page<WorkflowItem>>((signal) => get("api/workflows", signal), "workflows");
  const [workflow, setWorkflow] = useState("");
  const [cron, setCron] = useState("0 7 * * 1-5");
  const [timezone, setTimezone] = useState(Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC");
  const [inputs, setInputs] = useState<Json>({});
  const [error, setError] = useState("");
  const id = useId();
  return (
    <form
      className="stack box"
      onSubmit={(event) => {
        event.preventDefault();
        setError("");
        post("api/schedules", { workflow, cron, timezone, inputs, options: {}, paused: false }).then(done, (failure: unknown) => setError(errorWords(failure)));
      }}
    >
      <div className="field">
        <label htmlFor={`${id}-w`}>workflow</label>
        <select id={`${id}-w`} value={workflow} required onChange={(event) => setWorkflow(event.target.value)}>
          <option value="">choose</option>
          {workflows.data?.items.map((one) => (
            <option key={one.name}>{one.name}</option>
          ))}
        </select>
      </div>
      <div className="field">
        <label htmlFor={`${id}-c`}>times, as cron: minute, hour, day, month, weekday</label>
        <input id={`${id}-c`} className="mono" value={cron} required onChange={(event) => setCron(event.target.value)} />
      </div>
      <div className="field">
        <label htmlFor={`${id}-z`}>time zone</label>
        <input id={`${id}-z`} value={timezone} required onChange={(event) => setTimezone(event.target.value)} />
      </div>
      <div className="field">
        <label htmlFor={`${id}-i`}>inputs, as JSON</label>
        <JsonField id={`${id}-i`} value={inputs} change={(value) => setInputs(value ?? {})} />
      </div>
      {error && (
        <p className="error" role="alert">
          {error}
        </p>
      )}
      <div className="form-row">
        <button type="submit" className="button primary">
          Save
        </button>
      </div>
    </form>
  );
}
