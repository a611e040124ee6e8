/** The graph of a workflow: the edges follow from the names that expressions read. */

import type { GraphSpec, Json, NodeSpec } from "./types";

export type SpecKind = "agent" | "tool" | "call" | "first_of" | "loop" | "plan" | "verify" | "ask" | "node";

const KINDS: SpecKind[] = ["agent", "tool", "call", "first_of", "loop", "plan", "verify", "ask"];

export function specKind(spec: NodeSpec | undefined): SpecKind {
  return KINDS.find((kind) => spec?.[kind] !== undefined) ?? "node";
}

/** What a node calls, in words. */
export function calleeOf(spec: NodeSpec | undefined): string {
  if (!spec) return "";
  if (typeof spec.agent === "string") return spec.agent;
  if (spec.agent) return "one of several agents";
  if (spec.tool) return spec.tool;
  if (typeof spec.call === "string") return spec.call;
  return "";
}

/** The names of other nodes that a node reads, without those that only its own body has. */
export function readsOf(spec: NodeSpec, names: ReadonlySet<string>): Set<string> {
  const found = new Set<string>(spec.after?.filter((name) => names.has(name)));
  const inner = new Set<string>();
  const body = spec.loop ?? (typeof spec.call === "object" ? spec.call : null);
  if (body) for (const name of Object.keys(body.nodes)) inner.add(name);
  const visit = (value: unknown): void => {
    if (typeof value === "string") {
      for (const name of namesIn(value)) if (names.has(name) && !inner.has(name)) found.add(name);
    } else if (Array.isArray(value)) value.forEach(visit);
    else if (value !== null && typeof value === "object") Object.values(value).forEach(visit);
  };
  for (const [key, value] of Object.entries(spec)) if (!["as", "agent", "tool", "checks", "otherwise"].includes(key)) visit(value);
  if (spec.agent && typeof spec.agent === "object") visit(spec.agent.by);
  return found;
}

/** The names in the expressions of a template: `${…}` without texts in quotes and without fields. */
export function namesIn(template: string): string[] {
  const found: string[] = [];
  for (const expression of expressionsIn(template)) {
    const plain = expression.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/g, " ");
    for (const match of plain.matchAll(/(?<![\w.])[a-zA-Z_]\w*/g)) found.push(match[0]);
  }
  return found;
}

function expressionsIn(template: string): string[] {
  const found: string[] = [];
  for (let at = template.indexOf("${"); at >= 0; at = template.indexOf("${", at + 1)) {
    let depth = 1;
    let end = at + 2;
    let quote = "";
    for (; end < template.length && depth > 0; end++) {
      const char = template[end];
      if (quote) {
        if (char === "\\") end++;
        else if (char === quote) quote = "";
      } else if (char === '"' || char === "'") quote = char;
      else if (char === "{") depth++;
      else if (char === "}") depth--;
    }
    found.push(template.slice(at + 2, end - 1));
  }
  return found;
}

export interface GraphEdge {
  from: string;
  to: string;
}

/** The edges of a graph; `input` and `output` are nodes of it. */
export function edgesOf(graph: { nodes: Record<string, NodeSpec>; output?: Json | undefined; input?: unknown }): GraphEdge[] {
  const names = new Set(Object.keys(graph.nodes));
  const edges: GraphEdge[] = [];
  for (const [name, spec] of Object.entries(graph.nodes)) {
    const reads = readsOf(spec, names);
    reads.delete(name);
    for (const from of reads) edges.push({ from, to: name });
    if (reads.size === 0 && graph.input) edges.push({ from: "input", to: name });
  }
  const ends = new Set<string>();
  const visit = (value: unknown): void => {
    if (typeof value === "string") for (const name of namesIn(value)) if (names.has(name)) ends.add(name);
    if (Array.isArray(value)) value.forEach(visit);
    else if (value !== null && typeof value === "object") Object.values(value).forEach(visit);
  };
  visit(graph.output);
  for (const name of ends) edges.push({ from: name, to: "output" });
  return edges;
}

export function mainGraph(workflows: Record<string, GraphSpec | null>): GraphSpec | null {
  return workflows[""] ?? null;
}
