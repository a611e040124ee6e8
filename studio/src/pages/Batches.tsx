import { errorWords, get, getText, post } from "../api";
import { count, dateTime } from "../lib/format";
import { useLoad } from "../lib/load";
import { oneLine } from "../lib/visible";
import { NumberHeader } from "../parts/NumberHeader";
import { Empty, Fault, Loading } from "../parts/States";
import { Status } from "../parts/Status";
import type { Page } from "./server";
import { wordsOf } from "../model/words";
import { useState } from "react";

interface Batch {
  id: string;
  workflow: string;
  created: number;
  status: string;
  rows: number;
  counts: Record<string, number>;
}

export function Batches({ id }: { id: string }) {
  return id ? <One key={id} id={id} /> : <List />;
}

function Progress({ batch }: { batch: Batch }) {
  return (
    <span className="map-bar wide-bar" role="img" aria-label={Object.entries(batch.counts).map(([name, number]) => `${number} ${wordsOf(name).word}`).join(", ")}>
      {Object.entries(batch.counts).map(([name, number]) => (
        <span key={name} className={`fill tone-${wordsOf(name).tone}${name === "queued" ? " pending" : ""}`} style={{ flexGrow: number }} />
      ))}
    </span>
  );
}

function List() {
  const found = useLoad<Page<Batch>>((signal) => get("api/batches", signal), "batches", 3000);
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <h1>Batches</h1>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="batches" />}
      {found.data && found.data.items.length === 0 && (
        <Empty title="There is no batch yet">
          A batch runs one workflow on many rows. Start one with <code>POST /api/batches</code>, or in this folder with <code>orchestra batch</code>.
        </Empty>
      )}
      {found.data && found.data.items.length > 0 && (
        <div className="scroll-x" tabIndex={0} role="region" aria-label="batches">
          <table className="list">
            <thead>
              <tr>
                <th scope="col">Status</th>
                <th scope="col">Workflow</th>
                <th scope="col">Batch</th>
                <th scope="col">Started</th>
                <NumberHeader>Rows</NumberHeader>
                <th scope="col">Progress</th>
              </tr>
            </thead>
            <tbody>
              {found.data.items.map((batch) => (
                <tr key={batch.id}>
                  <td>
                    <Status status={batch.status} small />
                  </td>
                  <td className="strong">{oneLine(batch.workflow)}</td>
                  <td className="mono">
                    <a href={`#/batches/${batch.id}`}>{batch.id}</a>
                  </td>
                  <td>{dateTime(batch.created)}</td>
                  <td className="number">{count(batch.rows)}</td>
                  <td>
                    <Progress batch={batch} />
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

interface ResultRow {
  row: number;
  run: string;
  status: string;
}

function One({ id }: { id: string }) {
  const found = useLoad<Batch>((signal) => get(`api/batches/${id}`, signal), `batch-${id}`, 2000);
  const rows = useLoad<ResultRow[]>(
    async () =>
      (await getText(`api/batches/${id}/results`))
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as ResultRow),
    `batch-rows-${id}`,
    5000,
  );
  const [problem, setProblem] = useState("");
  const batch = found.data;
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <p className="crumb">
        <a href="#/batches">Batches</a>
      </p>
      <div className="page-head">
        <h1 className="mono">{id}</h1>
        {batch && <Status status={batch.status} />}
        <span className="grow" />
        {batch?.status === "running" && (
          <button
            type="button"
            className="button danger"
            onClick={() => {
              post(`api/batches/${id}/cancel`, {}).then(found.reload, (failure: unknown) => setProblem(errorWords(failure)));
            }}
          >
            Cancel
          </button>
        )}
      </div>
      {problem && <p className="error">{problem}</p>}
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {batch && (
        <>
          <Progress batch={batch} />
          <p className="soft">
            {Object.entries(batch.counts)
              .filter(([, number]) => number > 0)
              .map(([name, number]) => `${count(number)} ${wordsOf(name).word}`)
              .join(", ")}
          </p>
        </>
      )}
      {rows.data && rows.data.length > 0 && (
        <table className="list">
          <thead>
            <tr>
              <NumberHeader>Row</NumberHeader>
              <th scope="col">Status</th>
              <th scope="col">Run</th>
            </tr>
          </thead>
          <tbody>
            {rows.data.slice(0, 500).map((row) => (
              <tr key={row.row}>
                <td className="number">{count(row.row)}</td>
                <td>
                  <Status status={row.status} small />
                </td>
                <td className="mono">
                  <a href={`#/runs/${row.run}`}>{row.run}</a>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {rows.data && rows.data.length > 500 && <p className="soft">and {count(rows.data.length - 500)} more rows; GET /api/batches/{id}/results has them all</p>}
    </main>
  );
}
