/** The HTTP interface of `orchestra serve`, at the place where this page comes from. */

import type { CertificateSummary, Claim, GraphSpec, Json, RunEvent, RunRecord } from "./model/types";

export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string;
  readonly pointer: string;

  constructor(status: number, code: string, message: string, hint: string, pointer = "") {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
    this.pointer = pointer;
  }
}

/** An error in words, with what to do next. */
export function errorWords(error: unknown): string {
  if (error instanceof ApiError) return [error.code && `${error.code}: ${error.message}`, !error.code && error.message, error.hint].filter(Boolean).join(" — ");
  return error instanceof Error ? error.message : String(error);
}

const KEY = "orchestra-key";

export function getKey(): string {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function setKey(key: string): void {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Without storage the key lasts as long as the page.
  }
}

function headers(extra: Record<string, string> = {}): Record<string, string> {
  const key = getKey();
  return { ...extra, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

/** Addresses are relative, so that the studio also works below a prefix. */
function address(path: string): string {
  return new URL(path.replace(/^\//, ""), document.baseURI.replace(/[#?].*$/, "")).href;
}

async function problem(response: Response): Promise<ApiError> {
  try {
    const body = (await response.json()) as { code?: string; detail?: string; title?: string; hint?: string; pointer?: string };
    return new ApiError(response.status, body.code ?? "", body.detail ?? body.title ?? response.statusText, body.hint ?? "", body.pointer ?? "");
  } catch {
    return new ApiError(response.status, "", `The server answered ${response.status} ${response.statusText}`, "Look into the log of orchestra serve.");
  }
}

async function send(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address(path), { ...init, cache: "no-store" });
  } catch (failure) {
    if (failure instanceof DOMException && failure.name === "AbortError") throw failure;
    throw new ApiError(0, "", "The server cannot be reached.", "Check that orchestra serve runs; this page tries again by itself.");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, { headers: headers({ Accept: "application/json" }), ...(signal ? { signal } : {}) });
  return (await response.json()) as T;
}

export async function post<T>(path: string, body: Json | object, key?: string): Promise<T> {
  const response = await send(path, { method: "POST", headers: headers({ "Content-Type": "application/json", ...(key ? { "Idempotency-Key": key } : {}) }), body: JSON.stringify(body) });
  const text = await response.text();
  return (text ? JSON.parse(text) : null) as T;
}

export async function remove(path: string): Promise<void> {
  await send(path, { method: "DELETE", headers: headers({ "Content-Type": "application/json" }) });
}

export async function patch<T>(path: string, body: Json | object): Promise<T> {
  const response = await send(path, { method: "PATCH", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body) });
  return (await response.json()) as T;
}

export async function getText(path: string): Promise<string> {
  const response = await send(path, { headers: headers() });
  return new TextDecoder("utf-8").decode(await response.arrayBuffer());
}

interface AnswerBody {
  workflow: string;
  status: string;
  label: string;
  tags: Record<string, string>;
  confidence: number | null;
  claims: Claim[];
  dropped: Claim[];
  guarantees: { node: string; guarantee: string; certificate: CertificateSummary | null }[];
  questions: { seq: number }[];
}

const EVENTS_PAGE = 10_000;
/** Parts of workflows by digest: the same bytes for ever. */
const stored = new Map<string, Promise<unknown>>();

function loadStored<T>(run: string, digest: string): Promise<T | null> {
  const known = stored.get(digest);
  if (known) return known as Promise<T | null>;
  const loading = getText(`api/runs/${encodeURIComponent(run)}/blobs/${digest}`).then(
    (text) => JSON.parse(text) as T,
    (failure: unknown) => {
      if (failure instanceof ApiError && failure.status === 404) return null;
      stored.delete(digest);
      throw failure;
    },
  );
  stored.set(digest, loading);
  return loading;
}

/** All that the page of a run shows: its events, its stored workflows, and its answer with the claims. */
export async function loadRecord(run: string, signal?: AbortSignal): Promise<RunRecord> {
  const base = `api/runs/${encodeURIComponent(run)}`;
  const answer = await get<AnswerBody>(`${base}/answer`, signal);
  const events: RunEvent[] = [];
  for (;;) {
    const page = await get<{ items: RunEvent[] }>(`${base}/events?after=${events.at(-1)?.seq ?? 0}&limit=${EVENTS_PAGE}`, signal);
    events.push(...page.items);
    if (page.items.length < EVENTS_PAGE) break;
  }
  const start = events[0]?.type === "run_started" ? events[0] : null;
  const workflows: RunRecord["workflows"] = {};
  const cards: RunRecord["cards"] = {};
  const parts: Promise<void>[] = [];
  if (start?.graph) parts.push(loadStored<GraphSpec>(run, start.graph).then((graph) => void (workflows[""] = graph)));
  for (const [name, digest] of Object.entries(start?.versions ?? {})) {
    const [kind = "", ...rest] = name.split("/");
    if (kind === "workflow") parts.push(loadStored<GraphSpec>(run, digest).then((graph) => void (workflows[rest.join("/")] = graph)));
    if (kind === "card") parts.push(loadStored<{ prompt?: string }>(run, digest).then((card) => void (cards[rest.join("/")] = card)));
  }
  await Promise.all(parts);
  return {
    format: "orchestra/run-record/v1",
    run,
    workflow: answer.workflow,
    status: answer.status,
    seq: events.at(-1)?.seq ?? 0,
    label: answer.label,
    tags: answer.tags,
    confidence: answer.confidence,
    holder: "",
    open_questions: answer.questions.map((one) => one.seq),
    workflows,
    cards,
    claims: answer.claims,
    dropped: answer.dropped,
    certificates: answer.guarantees.map((one) => ({ node: one.node, guarantee: one.guarantee, summary: one.certificate })),
    tiers: [],
    events,
  };
}

/** The events of a run after `seq`, as they are recorded. Connects again after a fault; ends with the run. */
export async function followEvents(run: string, seq: number, onEvents: (events: RunEvent[]) => void, onState: (state: "live" | "lost") => void, signal: AbortSignal): Promise<void> {
  let last = seq;
  let wait = 500;
  while (!signal.aborted) {
    try {
      const response = await send(`api/runs/${encodeURIComponent(run)}/events?mode=events&after=${last}`, { headers: headers({ Accept: "text/event-stream", ...(last ? { "Last-Event-ID": String(last) } : {}) }), signal });
      if (response.status === 204 || !response.body) return;
      onState("live");
      wait = 500;
      let ended = false;
      for await (const events of readStream(response.body)) {
        const fresh = events.filter((event) => event.seq > last);
        for (const event of fresh) {
          last = Math.max(last, event.seq);
          ended ||= event.type === "run_finished";
        }
        if (fresh.length > 0) onEvents(fresh);
        if (ended) return;
      }
    } catch (failure) {
      if (signal.aborted) return;
      if (failure instanceof ApiError && [401, 403, 404].includes(failure.status)) throw failure;
    }
    onState("lost");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 10_000);
  }
}

/** The events of each chunk of an event stream together, so that a fast run is drawn once for many events. */
async function* readStream(body: ReadableStream<Uint8Array>): AsyncGenerator<RunEvent[]> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true }).replace(/\r\n?/g, "\n");
    const blocks = rest.split("\n\n");
    rest = blocks.pop() ?? "";
    const events: RunEvent[] = [];
    for (const block of blocks) {
      const data = block
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).replace(/^ /, ""))
        .join("\n");
      if (!data) continue;
      const event = JSON.parse(data) as RunEvent;
      if (typeof event.seq === "number" && typeof event.type === "string" && typeof event.at === "number") events.push(event);
    }
    yield events;
  }
}
