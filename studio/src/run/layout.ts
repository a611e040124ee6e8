/** Boxes and arrows of a run's graph: each scope laid out by dagre, bodies inside their nodes. */

import dagre from "@dagrejs/dagre";
import type { RunFold } from "../model/fold";
import { edgesOf, specKind } from "../model/graph";
import { bodyOf } from "../model/texts";
import type { GraphSpec, NodeSpec } from "../model/types";

export interface Box {
  id: string;
  /** The path of the node in the run; for ends `input` and `output`. */
  path: string;
  name: string;
  kind: "node" | "group" | "input" | "output";
  spec: NodeSpec | undefined;
  parent: string | null;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Arrow {
  id: string;
  from: string;
  to: string;
  /** Where the arrow bends, relative to its parent. */
  points: { x: number; y: number }[];
  parent: string | null;
}

export interface Layout {
  boxes: Box[];
  arrows: Arrow[];
  width: number;
  height: number;
}

export const NODE_WIDTH = 236;
export const NODE_HEIGHT = 74;
const END_WIDTH = 78;
const END_HEIGHT = 30;
const HEAD = 76;
const PAD = 16;

export function layoutGraph(
  fold: RunFold,
  workflows: Record<string, GraphSpec | null>,
  graph: GraphSpec,
  open: (path: string, size: number) => boolean,
  direction: "LR" | "TB",
): Layout {
  return layoutScope(fold, workflows, graph, "", null, open, direction, 0);
}

/** The prefix of the paths inside a node: its last turn or version, or the node itself. */
function innerPrefix(fold: RunFold, spec: NodeSpec, path: string): string {
  const node = fold.nodes.get(path);
  if (spec.loop) return `${path}#${Math.max(1, node?.turns ?? 1)}/`;
  if (spec.plan !== undefined) {
    const version = node?.drafts.at(-1)?.draft.version;
    return version ? `${path}@${version}/` : `${path}/`;
  }
  return `${path}/`;
}

function layoutScope(
  fold: RunFold,
  workflows: Record<string, GraphSpec | null>,
  graph: { nodes: Record<string, NodeSpec>; output?: GraphSpec["output"] | undefined; input?: unknown },
  prefix: string,
  parent: string | null,
  open: (path: string, size: number) => boolean,
  direction: "LR" | "TB",
  depth: number,
): Layout {
  const sheet = new dagre.graphlib.Graph();
  sheet.setGraph({ rankdir: direction, nodesep: direction === "LR" ? 22 : 26, ranksep: direction === "LR" ? 46 : 38, marginx: 0, marginy: 0 });
  sheet.setDefaultEdgeLabel(() => ({}));
  const inner = new Map<string, Layout>();
  const top = parent === null;
  const edges = edgesOf(graph).filter((edge) => top || (edge.from !== "input" && edge.to !== "output"));
  const id = (name: string): string => (name === "input" || name === "output" ? `${prefix}:${name}` : prefix + name);
  for (const [name, spec] of Object.entries(graph.nodes)) {
    const path = prefix + name;
    const body = spec.each ? null : bodyOf(spec, workflows, fold, path);
    const size = body ? Object.keys(body.nodes).length : 0;
    if (body && size > 0 && depth < 6 && open(path, size)) {
      const made = layoutScope(fold, workflows, body, innerPrefix(fold, spec, path), path, open, direction, depth + 1);
      inner.set(path, made);
      sheet.setNode(path, { width: Math.max(NODE_WIDTH, made.width + 2 * PAD), height: made.height + HEAD + PAD });
    } else sheet.setNode(path, { width: NODE_WIDTH, height: NODE_HEIGHT });
  }
  if (top) {
    if (edges.some((edge) => edge.from === "input")) sheet.setNode(id("input"), { width: END_WIDTH, height: END_HEIGHT });
    if (edges.some((edge) => edge.to === "output")) sheet.setNode(id("output"), { width: END_WIDTH, height: END_HEIGHT });
  }
  for (const edge of edges) if (sheet.hasNode(id(edge.from)) && sheet.hasNode(id(edge.to))) sheet.setEdge(id(edge.from), id(edge.to));
  dagre.layout(sheet);
  const boxes: Box[] = [];
  const arrows: Arrow[] = sheet.edges().map((edge) => ({ id: `${edge.v}→${edge.w}`, from: edge.v, to: edge.w, points: (sheet.edge(edge) as { points?: { x: number; y: number }[] }).points ?? [], parent }));
  for (const name of sheet.nodes()) {
    const placed = sheet.node(name);
    const made = inner.get(name);
    const spec = graph.nodes[name.slice(prefix.length)];
    const end = name === `${prefix}:input` ? "input" : name === `${prefix}:output` ? "output" : null;
    boxes.push({
      id: name,
      path: end ?? name,
      name: end ?? name.slice(prefix.length),
      kind: end ?? (made ? "group" : "node"),
      spec,
      parent,
      x: (placed.x ?? 0) - placed.width / 2,
      y: (placed.y ?? 0) - placed.height / 2,
      width: placed.width,
      height: placed.height,
    });
    if (made) {
      const shift = (placed.width - made.width) / 2;
      for (const box of made.boxes) boxes.push(box.parent === name ? { ...box, x: box.x + shift, y: box.y + HEAD } : box);
      arrows.push(...made.arrows.map((arrow) => (arrow.parent === name ? { ...arrow, points: arrow.points.map((point) => ({ x: point.x + shift, y: point.y + HEAD })) } : arrow)));
    }
  }
  const { width = 0, height = 0 } = sheet.graph();
  return { boxes, arrows, width: Math.max(width, 0), height: Math.max(height, 0) };
}

export function kindIcon(spec: NodeSpec | undefined): string {
  if (spec?.each) return "map";
  const kind = specKind(spec);
  return { agent: "agent", tool: "tool", call: "call", first_of: "branch", loop: "loop", plan: "plan", verify: "shield", ask: "question", node: "dot" }[kind];
}
