/** The parts of an output that have no value, and why. */

import { reasonOf, type RunFold, type RunNode } from "./fold";
import type { GraphSpec, Json } from "./types";

export interface MissingPart {
  /** The part of the output; empty for the whole. */
  path: string;
  /** What was not found or not done, in the words of the reply. */
  what: string;
  /** The node that should have given it, if it is known. */
  node: string;
  /** Why that node has no value. */
  why: string;
}

const MOST = 50;
const DEPTH = 4;
const REFERENCE = /^\s*\$\{\s*([A-Za-z_]\w*)/;

/** Whether a value says nothing: null, an empty text, or an object or a reply without any value. */
export function isEmpty(value: Json): boolean {
  if (value === null || value === "") return true;
  if (typeof value !== "object") return false;
  if (Array.isArray(value)) return value.length > 0 && value.every(isEmpty);
  if (isReply(value)) return isEmpty(value.text ?? null);
  const parts = Object.values(value);
  return parts.length > 0 && parts.every(isEmpty);
}

/** What an output lacks, at most 50 parts. */
export function missingParts(value: Json, graph: GraphSpec | null, fold: RunFold): MissingPart[] {
  const found: MissingPart[] = [];
  collect(value, graph?.output, "", DEPTH, fold, found);
  return found.slice(0, MOST);
}

/** A reply of a tool: a text, and what was not found. */
function isReply(value: { [key: string]: Json }): boolean {
  return "text" in value && Array.isArray(value.missing);
}

function collect(value: Json, template: Json | undefined, path: string, depth: number, fold: RunFold, found: MissingPart[]): void {
  if (found.length >= MOST || depth < 0) return;
  const node = nodeOf(template, fold);
  if (value === null) {
    found.push({ path, what: "", node: node?.path ?? "", why: node ? reasonOf(node) : "" });
    return;
  }
  if (typeof value !== "object") return;
  if (!Array.isArray(value) && isReply(value)) {
    const words = (value.missing as Json[]).filter((one) => typeof one === "string");
    for (const what of words) found.push({ path, what, node: node?.path ?? "", why: "" });
    if (value.text === null && words.length === 0) found.push({ path, what: "", node: node?.path ?? "", why: "" });
    return;
  }
  for (const [key, part] of Object.entries(value)) {
    const inside = template !== null && typeof template === "object" ? (template as { [key: string]: Json })[key] : template;
    collect(part, inside, Array.isArray(value) ? `${path}[${key}]` : path ? `${path}.${key}` : key, depth - 1, fold, found);
  }
}

function nodeOf(template: Json | undefined, fold: RunFold): RunNode | null {
  const name = typeof template === "string" ? REFERENCE.exec(template)?.[1] : undefined;
  return name === undefined ? null : (fold.nodes.get(name) ?? null);
}
