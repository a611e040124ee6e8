import { useState } from "react";
import { get } from "../api";
import { useLoad } from "../lib/load";
import { oneLine, visible } from "../lib/visible";
import type { Json } from "../model/types";
import { Empty, Fault, Loading } from "../parts/States";
import { Value } from "../parts/Value";
import type { Page, Schema } from "./server";

interface AgentItem {
  name: string;
  kind: string;
  description: string;
  label: string;
  inputs: Record<string, string>;
  output: string;
  model: string | null;
  adapter: string | null;
  checks: string[];
  digest: string;
  error: string;
}

interface AgentDetail extends AgentItem {
  input_schema: Schema;
  output_schema: Schema;
  template: string;
  card: string;
  evaluation: Json;
  members: string[];
  tools: string[];
}

export function Agents({ name }: { name: string }) {
  return name ? <Agent key={name} name={name} /> : <List />;
}

function List() {
  const found = useLoad<Page<AgentItem>>((signal) => get("api/agents", signal), "agents");
  const [text, setText] = useState("");
  const items = (found.data?.items ?? []).filter((one) => `${one.name} ${one.description} ${one.kind}`.toLowerCase().includes(text.toLowerCase()));
  return (
    <main className="page wide" id="content" tabIndex={-1}>
      <div className="page-head">
        <h1>Agents</h1>
        <span className="grow" />
        <input type="search" aria-label="find an agent" placeholder="find an agent" value={text} onChange={(event) => setText(event.target.value)} />
      </div>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="agents" />}
      {found.data && items.length === 0 && <Empty title="No agent here">{text ? "Change the words." : "An agent is a folder below agents/ of the project."}</Empty>}
      {items.length > 0 && (
        <div className="scroll-x" tabIndex={0} role="region" aria-label="agents">
          <table className="list">
            <thead>
              <tr>
                <th scope="col">Agent</th>
                <th scope="col">Kind</th>
                <th scope="col">What it does</th>
                <th scope="col">Model</th>
                <th scope="col">Checks</th>
              </tr>
            </thead>
            <tbody>
              {items.map((one) => (
                <tr key={one.name}>
                  <td>
                    <a className="strong" href={`#/agents/${encodeURIComponent(one.name)}`}>
                      {oneLine(one.name)}
                    </a>
                  </td>
                  <td>{one.kind}</td>
                  <td className="wrap">{one.error ? <span className="ink tone-bad">{oneLine(one.error, 240)}</span> : visible(one.description)}</td>
                  <td className="mono soft">{[one.model, one.adapter].filter(Boolean).join(" + ")}</td>
                  <td className="mono soft">{one.checks.join(", ")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </main>
  );
}

function Agent({ name }: { name: string }) {
  const found = useLoad<AgentDetail>((signal) => get(`api/agents/${encodeURIComponent(name)}`, signal), `agent-${name}`);
  const agent = found.data;
  return (
    <main className="page" id="content" tabIndex={-1}>
      <p className="crumb">
        <a href="#/agents">Agents</a>
      </p>
      <h1>{oneLine(name)}</h1>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="the agent" />}
      {agent && (
        <div className="stack">
          <p className="lead">{visible(agent.description)}</p>
          <dl className="facts">
            {(
              [
                ["kind", agent.kind],
                ["model", agent.model ?? ""],
                ["adapter", agent.adapter ?? ""],
                ["label", agent.label],
                ["checks", agent.checks.join(", ")],
                ["tools", agent.tools.join(", ")],
                ["members", agent.members.join(", ")],
                ["digest", agent.digest.slice(0, 12)],
              ] as const
            )
              .filter(([, value]) => value)
              .map(([label, value]) => (
                <div className="fact" key={label}>
                  <dt>{label}</dt>
                  <dd className="mono">{visible(value)}</dd>
                </div>
              ))}
          </dl>
          <section>
            <h2>Evaluation</h2>
            {agent.evaluation ? <Value value={agent.evaluation} open={2} /> : <p className="notice">No evaluation is stored with this agent. orchestra eval {name} --data FILE makes one.</p>}
          </section>
          {agent.template && (
            <section>
              <h2>Prompt</h2>
              <pre className="raw boxed">{visible(agent.template)}</pre>
            </section>
          )}
          <details className="plain">
            <summary>Input and output</summary>
            <Value value={{ input: agent.input_schema as Json, output: agent.output_schema as Json }} open={2} />
          </details>
          {agent.card && (
            <details className="plain">
              <summary>Card</summary>
              <pre className="raw boxed">{visible(agent.card)}</pre>
            </details>
          )}
        </div>
      )}
    </main>
  );
}
