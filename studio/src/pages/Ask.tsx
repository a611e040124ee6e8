import { useState } from "react";
import { errorWords, post } from "../api";
import type { Json } from "../model/types";
import { Documents } from "../parts/SchemaForm";
import { go } from "../route";
import { useMay, type RunAnswer } from "./server";

/** A request in words: the router plans steps for it, and the run's page shows the plan grow. */
export function Ask() {
  const may = useMay("run");
  const [request, setRequest] = useState("");
  const [documents, setDocuments] = useState<Json[]>([]);
  const [only, setOnly] = useState("");
  const [sending, setSending] = useState("");
  const [error, setError] = useState<unknown>(null);
  const send = async (route: "ask" | "plan"): Promise<void> => {
    setSending(route);
    setError(null);
    try {
      const skills = only.split(/[\s,]+/).filter(Boolean);
      const values: { [key: string]: Json } = documents.length > 0 ? { documents } : {};
      const made = await post<RunAnswer>(`api/${route}`, { request, values, mode: "background", ...(skills.length > 0 ? { plan: { only: skills } } : {}) });
      go(`/runs/${made.id}`);
    } catch (failure) {
      setError(failure);
      setSending("");
    }
  };
  return (
    <main className="page" id="content" tabIndex={-1}>
      <h1>Ask</h1>
      <p className="lead">The router writes a plan of typed steps for your request. You see it grow, and each step runs as soon as its line is accepted.</p>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void send("ask");
        }}
      >
        <div className="field">
          <label htmlFor="request">Your request</label>
          <textarea id="request" rows={4} value={request} required placeholder="When was the tower opened?" onChange={(event) => setRequest(event.target.value)} />
        </div>
        <div className="field">
          <label htmlFor="documents">Documents that the answer may rest on</label>
          <Documents id="documents" value={documents} change={(value) => setDocuments(Array.isArray(value) ? value : [])} />
        </div>
        <details className="plain">
          <summary>Options</summary>
          <div className="field">
            <label htmlFor="only">use only these agents, tools and workflows</label>
            <input id="only" className="mono" value={only} placeholder="all without effects" onChange={(event) => setOnly(event.target.value)} />
          </div>
        </details>
        {error ? (
          <p className="error" role="alert">
            {errorWords(error)}
          </p>
        ) : null}
        <div className="form-row">
          <button type="submit" className="button primary" disabled={!may || !request.trim() || sending !== ""}>
            {sending === "ask" ? "starting…" : "Ask"}
          </button>
          <button type="button" className="button" disabled={!may || !request.trim() || sending !== ""} onClick={() => void send("plan")}>
            {sending === "plan" ? "starting…" : "Plan only"}
          </button>
          {!may && <span className="soft">Your key may not start runs. Ask for one with the scope run.</span>}
        </div>
      </form>
    </main>
  );
}
