import { useMemo, useState } from "react";
import { errorWords, get, post } from "../api";
import { useLoad } from "../lib/load";
import { oneLine, visible } from "../lib/visible";
import type { Json } from "../model/types";
import { initialValue, JsonField, SchemaForm } from "../parts/SchemaForm";
import { Empty, Fault, Loading } from "../parts/States";
import { go } from "../route";
import { useMay, type Page, type RunAnswer, type WorkflowDetail, type WorkflowItem } from "./server";

export function Start({ name }: { name: string }) {
  return name ? <StartOne key={name} name={name} /> : <Workflows />;
}

function Workflows() {
  const found = useLoad<Page<WorkflowItem>>((signal) => get("api/workflows", signal), "workflows");
  const [text, setText] = useState("");
  const items = (found.data?.items ?? []).filter((one) => `${one.name} ${one.description}`.toLowerCase().includes(text.toLowerCase())).sort((a, b) => Number(b.own) - Number(a.own) || a.name.localeCompare(b.name));
  return (
    <main className="page" id="content" tabIndex={-1}>
      <div className="page-head">
        <h1>New run</h1>
        <span className="grow" />
        <input type="search" aria-label="find a workflow" placeholder="find a workflow" value={text} onChange={(event) => setText(event.target.value)} />
      </div>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="workflows" />}
      {found.data && items.length === 0 && <Empty title="No workflow here">{text ? "Change the words." : "A workflow is a file in the folder workflows/ of the project. orchestra init makes an example."}</Empty>}
      <ul className="cards">
        {items.map((one) => (
          <li key={one.name}>
            <a className={`card${one.error ? " broken" : ""}`} href={`#/start/${encodeURIComponent(one.name)}`}>
              <span className="card-head">
                <strong>{oneLine(one.name)}</strong>
                <span className="chip">{one.own ? "of this project" : "packaged"}</span>
              </span>
              <span>{one.error ? oneLine(one.error, 240) : visible(one.description)}</span>
              <span className="mono soft">
                {Object.entries(one.inputs)
                  .map(([input, type]) => `${input}: ${type}`)
                  .join(", ")}
              </span>
            </a>
          </li>
        ))}
      </ul>
    </main>
  );
}

function StartOne({ name }: { name: string }) {
  const found = useLoad<WorkflowDetail>((signal) => get(`api/workflows/${encodeURIComponent(name)}`, signal), `workflow-${name}`);
  return (
    <main className="page" id="content" tabIndex={-1}>
      <p className="crumb">
        <a href="#/start">Workflows</a>
      </p>
      <h1>{oneLine(name)}</h1>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="the workflow" />}
      {found.data && <StartForm workflow={found.data} />}
    </main>
  );
}

function StartForm({ workflow }: { workflow: WorkflowDetail }) {
  const may = useMay("run");
  const [inputs, setInputs] = useState(() => initialValue({ ...workflow.input_schema }, workflow.input_schema) as { [key: string]: Json });
  const [asJson, setAsJson] = useState(false);
  const [label, setLabel] = useState("");
  const [tags, setTags] = useState("");
  const [tokens, setTokens] = useState("");
  const [sending, setSending] = useState(false);
  const [error, setError] = useState<unknown>(null);
  // One key for each set of inputs: a second click, or a repeated request, makes no second run.
  // eslint-disable-next-line
  const key = useMemo(() => crypto.randomUUID?.() ?? String(Math.random()), [inputs, label, tags, tokens, error]);
  const submit = async (): Promise<void> => {
    setSending(true);
    setError(null);
    try {
      const options: { [key: string]: Json } = {};
      if (label) options.label = label;
      const pairs = tags
        .split(/[,\s]+/)
        .filter(Boolean)
        .map((one) => one.split("=", 2));
      if (pairs.length > 0) options.tags = Object.fromEntries(pairs.map(([tag, value]) => [tag ?? "", value ?? ""]));
      if (tokens) options.budget = { tokens: Number(tokens) };
      const made = await post<RunAnswer>("api/runs", { workflow: workflow.name, inputs, mode: "background", options }, key);
      go(`/runs/${made.id}`);
    } catch (failure) {
      setError(failure);
      setSending(false);
    }
  };
  return (
    <>
      {workflow.description && <p className="lead">{visible(workflow.description)}</p>}
      <p className="soft">
        {[workflow.asks && "asks a person", workflow.effects && "has effects outside", workflow.agents.length > 0 && `agents: ${workflow.agents.join(", ")}`, workflow.tools.length > 0 && `tools: ${workflow.tools.join(", ")}`].filter(Boolean).join(" · ")}
      </p>
      {workflow.error && <p className="error">{visible(workflow.error)}</p>}
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <div className="form-row">
          <h2>Inputs</h2>
          <span className="grow" />
          <button type="button" className="link" onClick={() => setAsJson(!asJson)}>
            {asJson ? "as a form" : "as JSON"}
          </button>
        </div>
        {asJson ? (
          <>
            <label htmlFor="inputs-json" className="hidden">
              inputs as JSON
            </label>
            <JsonField id="inputs-json" rows={14} value={inputs} change={(value) => value !== null && typeof value === "object" && !Array.isArray(value) && setInputs(value)} />
          </>
        ) : (
          <SchemaForm schema={workflow.input_schema} value={inputs} change={setInputs} />
        )}
        <details className="plain">
          <summary>Options</summary>
          <div className="stack">
            <div className="field">
              <label htmlFor="label">label of the inputs</label>
              <select id="label" value={label} onChange={(event) => setLabel(event.target.value)}>
                <option value="">that of the workflow</option>
                <option>public</option>
                <option>internal</option>
                <option>restricted</option>
              </select>
            </div>
            <div className="field">
              <label htmlFor="tags">tags</label>
              <input id="tags" value={tags} placeholder="customer=42, release=7" onChange={(event) => setTags(event.target.value)} />
            </div>
            <div className="field">
              <label htmlFor="tokens">at most, in tokens</label>
              <input id="tokens" type="number" min={1} value={tokens} onChange={(event) => setTokens(event.target.value)} />
            </div>
          </div>
        </details>
        {error ? (
          <p className="error" role="alert">
            {errorWords(error)}
          </p>
        ) : null}
        <div className="form-row">
          <button type="submit" className="button primary" disabled={sending || !may}>
            {sending ? "starting…" : "Run"}
          </button>
          {!may && <span className="soft">Your key may not start runs. Ask for one with the scope run.</span>}
        </div>
      </form>
    </>
  );
}
