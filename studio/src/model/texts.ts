/** The texts of a run by address, and the places of quoted words in them, as `orchestra/app/claims/locations.py` finds them. */

import { sliceCharacters, unitIndex } from "../lib/visible";
import type { RunFold, RunNode } from "./fold";
import { nodeName, scopeOf } from "./paths";
import type { EvidenceItem, Json, NodeSpec } from "./types";

export interface RunText {
  where: string;
  text: string;
  name: string;
}

export interface Mark {
  /** UTF-16 positions. */
  start: number;
  end: number;
  checks: string[];
}

const MAX_TEXTS = 20_000;

export class RunTexts {
  readonly all: RunText[] = [];
  private readonly byAddress = new Map<string, RunText>();
  private readonly tables = new Map<string, string[][]>();

  constructor(fold: RunFold) {
    if (fold.start) this.collect("input", fold.start.inputs);
    for (const node of fold.nodes.values())
      if (node.attempts.length > 0 && node.outcome?.type === "value") this.collect(node.path, node.outcome.value);
  }

  get(where: string): RunText | undefined {
    return this.byAddress.get(where);
  }

  table(where: string): string[][] | undefined {
    return this.tables.get(where.replace(/\[\d+\]\[\d+\]$/, ""));
  }

  /** The text that has the words at this place, or else the first that has them. */
  locate(item: EvidenceItem): { text: RunText; start: number; end: number } | null {
    const candidates = item.source ? this.all.filter((one) => one.name === item.source) : this.all;
    if (item.start != null && item.end != null)
      for (const text of candidates)
        if (sliceCharacters(text.text, item.start, item.end) === item.quote)
          return { text, start: unitIndex(text.text, item.start), end: unitIndex(text.text, item.end) };
    for (const text of candidates) {
      const at = item.quote ? text.text.indexOf(item.quote) : -1;
      if (at >= 0) return { text, start: at, end: at + item.quote.length };
    }
    return null;
  }

  private collect(where: string, value: Json): void {
    if (this.all.length >= MAX_TEXTS) return;
    if (typeof value === "string") {
      if (value) this.push({ where, text: value, name: "" });
    } else if (Array.isArray(value)) {
      if (isTable(value)) this.tables.set(where, value);
      else value.forEach((one, index) => this.collect(`${where}[${index}]`, one));
    } else if (value !== null && typeof value === "object") {
      if ("quote" in value && "start" in value) return; // a citation
      const { text, source } = value;
      const isText = typeof text === "string" && text !== "";
      if (isText) this.push({ where: `${where}.text`, text, name: typeof source === "string" ? source : "" });
      for (const [key, one] of Object.entries(value))
        if (!(isText && (key === "text" || key === "source"))) this.collect(`${where}.${key}`, one);
    }
  }

  private push(text: RunText): void {
    this.all.push(text);
    if (!this.byAddress.has(text.where)) this.byAddress.set(text.where, text);
  }
}

function isTable(value: Json[]): value is string[][] {
  return (
    value.length > 0 &&
    value.every((row) => Array.isArray(row) && row.every((cell) => typeof cell === "string")) &&
    (value[0] as Json[]).length > 1
  );
}

/** Overlapping marks are merged, so that a text can be cut at their borders. */
export function mergeMarks(marks: Mark[]): Mark[] {
  const sorted = marks.filter((one) => one.end > one.start).sort((a, b) => a.start - b.start || b.end - a.end);
  const merged: Mark[] = [];
  for (const mark of sorted) {
    const last = merged.at(-1);
    if (last && mark.start < last.end) {
      last.end = Math.max(last.end, mark.end);
      last.checks = [...new Set([...last.checks, ...mark.checks])];
    } else merged.push({ ...mark });
  }
  return merged;
}

/** The texts that the checks of a node compare its value with: those of simple references in `against`. */
export function evidenceTexts(fold: RunFold, node: RunNode, spec: NodeSpec | undefined): RunText[] {
  const found: RunText[] = [];
  const given = spec?.against === undefined ? [] : Array.isArray(spec.against) ? spec.against : [spec.against];
  for (const one of given) {
    if (typeof one !== "string") continue;
    const reference = /^\$\{\s*([a-zA-Z_]\w*)((?:\.\w+|\[\d+\])*)\s*\}$/.exec(one);
    if (!reference) continue;
    const value = resolveName(fold, node, spec, reference[1] ?? "");
    if (value) flatten(followSteps(value.value, reference[2] ?? ""), value.where + (reference[2] ?? ""), found);
  }
  return found;
}

function resolveName(
  fold: RunFold,
  node: RunNode,
  spec: NodeSpec | undefined,
  name: string,
): { value: Json | undefined; where: string } | null {
  if (name === "input" && scopeOf(node.path) === "") return { value: fold.start?.inputs, where: "input" };
  if (spec?.each && name === (spec.as ?? "item")) {
    const index = /\[(\d+)\]$/.exec(node.path);
    const list = /^\$\{\s*([a-zA-Z_]\w*)((?:\.\w+|\[\d+\])*)\s*\}$/.exec(spec.each);
    if (!index || !list) return null;
    const steps = `${list[2] ?? ""}[${index[1]}]`;
    const of = resolveName(fold, node, undefined, list[1] ?? "");
    return of && { value: followSteps(of.value, steps), where: of.where + steps };
  }
  const other = fold.nodes.get(scopeOf(node.path) + name);
  if (other?.outcome?.type === "value") return { value: other.outcome.value, where: other.path };
  return null;
}

function followSteps(value: Json | undefined, steps: string): Json | undefined {
  let here: Json | undefined = value;
  for (const [, key, index] of steps.matchAll(/\.(\w+)|\[(\d+)\]/g)) {
    if (key !== undefined && here !== null && typeof here === "object" && !Array.isArray(here)) here = here[key];
    else if (index !== undefined && Array.isArray(here)) here = here[Number(index)];
    else return undefined;
  }
  return here;
}

function flatten(value: Json | undefined, where: string, found: RunText[]): void {
  if (found.length >= 50 || value === undefined || value === null) return;
  if (typeof value === "string") found.push({ where, text: value, name: "" });
  else if (Array.isArray(value)) value.forEach((one, index) => flatten(one, `${where}[${index}]`, found));
  else if (typeof value === "object") {
    const { text, source } = value;
    if (typeof text === "string")
      found.push({ where: `${where}.text`, text, name: typeof source === "string" ? source : "" });
    else for (const [key, one] of Object.entries(value)) flatten(one, `${where}.${key}`, found);
  }
}

/** The node of a workflow file behind a path, found through bodies, called workflows and plans. */
export function specOf(workflows: Record<string, { nodes: Record<string, NodeSpec> } | null>, fold: RunFold, path: string) {
  let graph: { nodes: Record<string, NodeSpec> } | null = workflows[""] ?? null;
  let here = "";
  let spec: NodeSpec | undefined;
  for (const step of path.split("/")) {
    const name = nodeName(step);
    if (spec) graph = bodyOf(spec, workflows, fold, here);
    here = here ? `${here}/${step}` : step;
    spec = graph?.nodes[name];
    if (!spec) return undefined;
  }
  return spec;
}

/** The nodes inside a node: of a block, a loop, a called workflow or the last plan. */
export function bodyOf(
  spec: NodeSpec,
  workflows: Record<string, { nodes: Record<string, NodeSpec> } | null>,
  fold: RunFold,
  path: string,
): { nodes: Record<string, NodeSpec>; output?: Json } | null {
  if (spec.loop) return spec.loop;
  if (typeof spec.call === "object") return spec.call;
  if (typeof spec.call === "string") return workflows[spec.call] ?? null;
  if (spec.plan !== undefined) {
    const drafts = fold.nodes.get(path.replace(/@\d+$/, ""))?.drafts ?? [];
    for (let at = drafts.length - 1; at >= 0; at--) {
      const draft = drafts[at]?.draft;
      if (draft?.plan) return draft.plan;
      // In the turn after the last line, the workflow of the turn is the plan itself.
      if (draft?.graph && /^return\b/.test(draft.lines?.at(-1) ?? "")) return draft.graph;
    }
    return null;
  }
  return null;
}
