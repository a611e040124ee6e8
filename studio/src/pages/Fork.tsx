import { useId, useMemo, useState } from "react";
import { errorWords, loadRecord, post } from "../api";
import { useLoad } from "../lib/load";
import { oneLine } from "../lib/visible";
import { RunFold } from "../model/fold";
import type { Json, RunRecord } from "../model/types";
import { JsonField } from "../parts/SchemaForm";
import { Fault, Loading } from "../parts/States";
import { go, type Route } from "../route";
import type { RunAnswer } from "./server";

/** Makes a run again with other values or inputs; only what depends on them runs. */
export function Fork({ run, route }: { run: string; route: Route }) {
  const found = useLoad<RunRecord>((signal) => loadRecord(run, signal), `fork-${run}`);
  return (
    <main className="page" id="content" tabIndex={-1}>
      <p className="crumb">
        <a href={`#/runs/${run}`}>Run {run}</a>
      </p>
      <h1>Fork</h1>
      <p className="lead">A fork is a new run. It takes over every result that does not depend on what you change, and calls models only for the rest. This run stays as it is.</p>
      {found.error ? <Fault error={found.error} retry={found.reload} /> : null}
      {found.loading && <Loading what="the run" />}
      {found.data && <ForkForm record={found.data} node={route.query.get("node") ?? ""} />}
    </main>
  );
}

function ForkForm({ record, node }: { record: RunRecord; node: string }) {
  const fold = useMemo(() => {
    const made = new RunFold();
    made.addAll(record.events);
    return made;
  }, [record]);
  const names = useMemo(() => fold.roots.filter((one) => !/[[#@?]/.test(one.label)).map((one) => one.path), [fold]);
  const [chosen, setChosen] = useState(names.includes(node) ? node : names.find((one) => node.startsWith(one)) ?? "");
  const current = fold.nodes.get(chosen)?.outcome;
  const [value, setValue] = useState<Json | undefined>(undefined);
  const [inputs, setInputs] = useState<{ [key: string]: Json }>({});
  const [prompts, setPrompts] = useState<{ [agent: string]: string }>({});
  const [again, setAgain] = useState(false);
  const [by, setBy] = useState("");
  const [sending, setSending] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const id = useId();
  const given = fold.start?.inputs;
  const entries = given !== null && typeof given === "object" && !Array.isArray(given) ? Object.entries(given as { [key: string]: Json }) : [];
  const agent = fold.nodes.get(chosen)?.attempts[0]?.name ?? "";
  const prompt = record.cards[agent]?.prompt;
  const send = async (): Promise<void> => {
    setSending(true);
    setError(null);
    try {
      const values: { [key: string]: Json } = chosen && value !== undefined ? { [chosen]: value } : {};
      const made = await post<RunAnswer>(`api/runs/${encodeURIComponent(record.run)}/fork`, { values, prompts, inputs, again, by, mode: "background" });
      go(`/runs/${made.id}`);
    } catch (failure) {
      setError(failure);
      setSending(false);
    }
  };
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <section className="box">
        <h2>The value or the prompt of a node</h2>
        <div className="field">
          <label htmlFor={`${id}-node`}>node</label>
          <select
            id={`${id}-node`}
            value={chosen}
            onChange={(event) => {
              setChosen(event.target.value);
              setValue(undefined);
            }}
          >
            <option value="">none</option>
            {names.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </div>
        {chosen && (
          <>
            <div className="field">
              <label htmlFor={`${id}-value`}>its value in the fork, as JSON</label>
              <JsonField key={chosen} id={`${id}-value`} rows={6} value={current?.type === "value" ? current.value : undefined} change={(next) => setValue(next)} />
              <p className="soft">{value === undefined ? "Unchanged: the node runs, or its result is taken over." : "A person gives this value: no check accepts it, and the fork says so."}</p>
            </div>
            {prompt && (
              <details className="plain" open={agent in prompts}>
                <summary>
                  The prompt of <span className="mono">{oneLine(agent)}</span> {agent in prompts && <span className="chip up">changed</span>}
                </summary>
                <div className="field">
                  <label htmlFor={`${id}-prompt`}>its prompt in the fork</label>
                  <textarea
                    id={`${id}-prompt`}
                    className="mono"
                    rows={12}
                    spellCheck={false}
                    value={prompts[agent] ?? prompt}
                    onChange={(event) => {
                      const rest = { ...prompts };
                      delete rest[agent];
                      setPrompts(event.target.value === prompt ? rest : { ...rest, [agent]: event.target.value });
                    }}
                  />
                  <p className="soft">The fork calls this agent again, with this prompt in each of its nodes. To keep the prompt, write it to agents/{agent}/prompt.md of the project.</p>
                </div>
              </details>
            )}
          </>
        )}
      </section>
      {entries.length > 0 && (
        <section className="box">
          <h2>Inputs</h2>
          {entries.map(([name, old]) => (
            <details className="plain" key={name}>
              <summary>
                <span className="mono">{oneLine(name)}</span> {name in inputs && <span className="chip up">changed</span>}
              </summary>
              <label htmlFor={`${id}-i-${name}`} className="hidden">
                {name} as JSON
              </label>
              <JsonField
                id={`${id}-i-${name}`}
                rows={6}
                value={old}
                change={(next) => {
                  const rest = { ...inputs };
                  if (next === undefined || JSON.stringify(next) === JSON.stringify(old)) delete rest[name];
                  else rest[name] = next;
                  setInputs(rest);
                }}
              />
            </details>
          ))}
        </section>
      )}
      <label className="check">
        <input type="checkbox" checked={again} onChange={(event) => setAgain(event.target.checked)} /> repeat calls with effects, such as a payment or a message
      </label>
      <div className="field">
        <label htmlFor={`${id}-by`}>your name</label>
        <input id={`${id}-by`} value={by} autoComplete="name" onChange={(event) => setBy(event.target.value)} />
      </div>
      {error ? (
        <p className="error" role="alert">
          {errorWords(error)}
        </p>
      ) : null}
      <div className="form-row">
        <button type="submit" className="button primary" disabled={sending}>
          {sending ? "starting…" : "Fork"}
        </button>
      </div>
    </form>
  );
}
