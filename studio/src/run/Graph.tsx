import { Background, BaseEdge, Controls, Handle, Position, ReactFlow, ReactFlowProvider, useReactFlow, type Edge, type EdgeProps, type Node, type NodeProps } from "@xyflow/react";
import { memo, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { duration, plural } from "../lib/format";
import { oneLine, shorten } from "../lib/visible";
import { countElements, reasonOf, statusOf, type NodeStatus, type RunNode } from "../model/fold";
import { calleeOf, mainGraph, specKind } from "../model/graph";
import { COUNTED, wordsOf } from "../model/words";
import { Icon } from "../parts/Icon";
import { Status } from "../parts/Status";
import { useRun } from "./context";
import { kindIcon, layoutGraph, type Arrow, type Box } from "./layout";

interface NodeData extends Record<string, unknown> {
  box: Box;
  node: RunNode | undefined;
  status: NodeStatus;
  /** Changes with everything that is shown, so that unchanged nodes are not drawn again. */
  stamp: string;
  counts: [NodeStatus, number][] | null;
  seconds: number | null;
  direction: "LR" | "TB";
  selected: boolean;
  openable: boolean;
  toggle: (path: string) => void;
}
type FlowNode = Node<NodeData>;

export function MapBar({ counts, total }: { counts: [NodeStatus, number][]; total: number }) {
  return (
    <span className="map-bar" aria-hidden="true">
      {counts.map(([status, number]) => (
        <span key={status} className={`fill tone-${wordsOf(status).tone}${status === "pending" ? " pending" : ""}`} style={{ flexGrow: number / Math.max(1, total) }} />
      ))}
    </span>
  );
}

export function countWords(counts: [NodeStatus, number][]): string {
  return counts.map(([status, number]) => `${number.toLocaleString("en-GB")} ${wordsOf(status).word}`).join(", ");
}

function checksOf(node: RunNode | undefined) {
  return node?.attempts.at(-1)?.verdicts ?? [];
}

const RunNodeBox = memo(
  function RunNodeBox({ data }: NodeProps<FlowNode>) {
    const { box, node, status, counts, seconds, direction, openable, toggle } = data;
    const target = direction === "LR" ? Position.Left : Position.Top;
    const source = direction === "LR" ? Position.Right : Position.Bottom;
    if (box.kind === "input" || box.kind === "output")
      return (
        <div className={`end-box ${box.kind}`}>
          {box.kind === "output" && <Handle type="target" position={target} isConnectable={false} />}
          {box.kind === "output" && status !== "pending" ? <Icon name={wordsOf(status).icon} size={13} /> : null}
          {box.kind}
          {box.kind === "input" && <Handle type="source" position={source} isConnectable={false} />}
        </div>
      );
    const verdicts = checksOf(node);
    const attempts = node?.attempts.length ?? 0;
    const larger = node?.attempts.some((one) => one.tier > 0);
    const { tone } = wordsOf(status);
    return (
      <div className={`node-box tone-${tone} status-${status}${data.selected ? " chosen" : ""}${box.kind === "group" ? " group" : ""}`}>
        <Handle type="target" position={target} isConnectable={false} />
        <div className="node-head">
          <Icon name={kindIcon(box.spec)} size={14} />
          <span className="node-name">{oneLine(box.name, 40)}</span>
          {openable && (
            <button
              type="button"
              className="node-open"
              aria-label={`${box.kind === "group" ? "fold" : "unfold"} ${box.name}`}
              aria-expanded={box.kind === "group"}
              onClick={(event) => {
                event.stopPropagation();
                toggle(box.path);
              }}
            >
              <Icon name={box.kind === "group" ? "minus" : "chevron"} size={12} />
            </button>
          )}
        </div>
        <div className="node-callee">{oneLine(calleeOf(box.spec) || kindWord(box), 40)}</div>
        <div className="node-foot">
          {counts ? (
            <>
              <MapBar counts={counts} total={node?.elements ?? 0} />
              <span className="node-count">{plural(node?.elements ?? 0, "element")}</span>
            </>
          ) : (
            <Status status={status} small />
          )}
          {verdicts.length > 0 && (
            <span className="node-checks">
              {verdicts.map((one, index) => (
                <span key={index} className={`check-dot tone-${wordsOf(one.outcome).tone}`} title={`${one.check}: ${wordsOf(one.outcome).word}`}>
                  <Icon name={wordsOf(one.outcome).icon} size={11} />
                </span>
              ))}
            </span>
          )}
          <span className="node-facts">
            {larger && (
              <span className="chip up" title="a larger model was called">
                larger
              </span>
            )}
            {attempts > 1 && (
              <span className="chip" title={plural(attempts, "attempt")}>
                ×{attempts}
              </span>
            )}
            {seconds !== null && <span>{duration(seconds)}</span>}
          </span>
        </div>
        <Handle type="source" position={source} isConnectable={false} />
      </div>
    );
  },
  (before, after) => before.data.stamp === after.data.stamp,
);

function kindWord(box: Box): string {
  const spec = box.spec;
  switch (specKind(spec)) {
    case "ask":
      return "asks a person";
    case "first_of":
      return "the first with a value";
    case "plan":
      return "planned by the router";
    case "loop":
      return "loop";
    case "verify":
      return "checks a value";
    case "call":
      return "block";
    default:
      return "";
  }
}

const NODE_TYPES = { run: RunNodeBox };

type BentEdge = Edge<{ points: { x: number; y: number }[]; direction: "LR" | "TB" }>;

/** An arrow along the bends of the layout, which lead it around the nodes in between. */
function Bent({ id, sourceX, sourceY, targetX, targetY, data, markerEnd }: EdgeProps<BentEdge>) {
  const across = data?.direction === "LR";
  const inner = (data?.points ?? []).slice(1, -1);
  const stops = [{ x: sourceX, y: sourceY }, ...inner, { x: targetX, y: targetY }];
  let path = `M${stops[0]!.x},${stops[0]!.y}`;
  for (let at = 1; at < stops.length; at++) {
    const from = stops[at - 1]!;
    const to = stops[at]!;
    const half = across ? (to.x - from.x) / 2 : (to.y - from.y) / 2;
    path += across ? ` C${from.x + half},${from.y} ${to.x - half},${to.y} ${to.x},${to.y}` : ` C${from.x},${from.y + half} ${to.x},${to.y - half} ${to.x},${to.y}`;
  }
  return <BaseEdge id={id} path={path} {...(markerEnd ? { markerEnd } : {})} />;
}

const EDGE_TYPES = { bent: Bent };

export function RunGraph(props: { selected: string | null; cursor: number | null; version: number }) {
  return (
    <ReactFlowProvider>
      <Inner {...props} />
    </ReactFlowProvider>
  );
}

const MANY = 60;

function Inner({ selected, cursor, version }: { selected: string | null; cursor: number | null; version: number }) {
  const { record, fold, select, over } = useRun();
  const flow = useReactFlow();
  const area = useRef<HTMLDivElement>(null);
  const [toggled, setToggled] = useState<ReadonlySet<string>>(new Set());
  const [size, setSize] = useState({ width: 0, height: 0 });
  const graph = mainGraph(record.workflows);
  const direction: "LR" | "TB" = size.width > 0 && size.width < 560 ? "TB" : "LR";
  const toggle = useCallback((path: string) => {
    setToggled((known) => {
      const next = new Set(known);
      if (!next.delete(path)) next.add(path);
      return next;
    });
  }, []);
  // The layout depends on the plans and turns, not on each event.
  const shape = [...fold.nodes.values()]
    .filter((node) => node.drafts.length > 0 || node.turns > 0)
    .map((node) => `${node.path}:${node.turns}:${node.drafts.length}`)
    .join("|");
  const layout = useMemo(() => {
    if (!graph) return null;
    let room = MANY - Object.keys(graph.nodes).length;
    return layoutGraph(
      fold,
      record.workflows,
      graph,
      (path, inside) => {
        const byDefault = inside <= room;
        const shown = toggled.has(path) ? !byDefault : byDefault;
        if (shown) room -= inside;
        return shown;
      },
      direction,
    );
    // eslint-disable-next-line
  }, [fold, record.workflows, graph, toggled, direction, shape]);

  // A box that looks as before stays the same object, so that it is not drawn again.
  const drawn = useRef(new Map<string, FlowNode>());
  const nodes = useMemo<FlowNode[]>(() => {
    if (!layout) return [];
    const before = drawn.current;
    const after = new Map<string, FlowNode>();
    drawn.current = after;
    const keep = (made: FlowNode): FlowNode => {
      const known = before.get(made.id);
      const kept = known && known.data.stamp === made.data.stamp && known.data.box === made.data.box ? known : made;
      after.set(made.id, kept);
      return kept;
    };
    return layout.boxes.map((box) => {
      const node = fold.nodes.get(box.path);
      const end = box.kind === "output" ? outputStatus(fold.endStatus, cursor !== null && cursor < fold.end) : null;
      const status: NodeStatus = end ?? (node ? statusOf(node, over, cursor) : "pending");
      const counts = node && node.elements !== null ? [...countElements(node, over, cursor)].sort((a, b) => COUNTED.indexOf(a[0]) - COUNTED.indexOf(b[0])) : null;
      const seconds = node && node.finished !== null && (cursor === null || node.finished <= cursor) ? node.finished - node.started : null;
      const chosen = selected === box.path;
      const openable = !box.spec?.each && !!(box.spec?.loop || typeof box.spec?.call === "object" || (typeof box.spec?.call === "string" && record.workflows[box.spec.call]) || box.spec?.plan !== undefined);
      const reason = node ? reasonOf(node) : "";
      const label = `${box.name}: ${wordsOf(status).word}${counts ? `, ${countWords(counts)}` : ""}${reason ? `, ${shorten(reason, 120)}` : ""}`;
      const stamp = [label, box.id, box.kind, box.width, box.height, status, seconds, chosen, direction, node?.attempts.length, node?.attempts.at(-1)?.verdicts.length, counts?.map((one) => one.join(":")).join()].join("|");
      return keep({
        id: box.id,
        type: "run",
        position: { x: box.x, y: box.y },
        ...(box.parent !== null ? { parentId: box.parent } : {}),
        width: box.width,
        height: box.height,
        data: { box, node, status, stamp, counts, seconds, direction, selected: chosen, openable, toggle },
        ariaLabel: label,
        className: box.kind === "group" ? "is-group" : "",
        focusable: true,
        zIndex: box.kind === "group" ? 0 : 1,
      });
    });
    // eslint-disable-next-line
  }, [layout, version, cursor, selected, over, direction]);

  const edges = useMemo<Edge[]>(() => {
    if (!layout) return [];
    const places = new Map(layout.boxes.map((box) => [box.id, box]));
    const absolute = (arrow: Arrow): { x: number; y: number }[] => {
      let [x, y] = [0, 0];
      for (let box = arrow.parent === null ? undefined : places.get(arrow.parent); box; box = box.parent === null ? undefined : places.get(box.parent)) {
        x += box.x;
        y += box.y;
      }
      return arrow.points.map((point) => ({ x: point.x + x, y: point.y + y }));
    };
    return layout.arrows.map((arrow) => {
      const from = fold.nodes.get(arrow.from);
      const reached = arrow.from.endsWith(":input") || (from?.finished != null && (cursor === null || from.finished <= cursor));
      return { id: arrow.id, source: arrow.from, target: arrow.to, type: "bent", data: { points: absolute(arrow), direction }, className: reached ? "reached" : "", focusable: false, selectable: false };
    });
    // eslint-disable-next-line
  }, [layout, version, cursor, direction]);

  useEffect(() => {
    const element = area.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setSize({ width: element.clientWidth, height: element.clientHeight }));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const structure = layout?.boxes.map((box) => box.id).join("|") ?? "";
  useEffect(() => {
    if (size.width === 0 || !layout) return;
    const frame = requestAnimationFrame(() => {
      const zoom = Math.min(size.width / (layout.width + 48), size.height / (layout.height + 48));
      if (zoom >= 0.55 || layout.boxes.length > 200) void flow.fitView({ padding: 0.06, maxZoom: 1, minZoom: 0.08 });
      else {
        // Readable from the beginning of the graph, rather than all of it too small to read.
        const scale = Math.max(0.62, Math.min(1, size.height / (layout.height + 48)));
        void flow.setViewport(
          direction === "LR"
            ? { x: 24, y: Math.max(16, (size.height - layout.height * scale) / 2), zoom: scale }
            : { x: Math.max(8, (size.width - layout.width * scale) / 2), y: 16, zoom: scale },
        );
      }
    });
    return () => cancelAnimationFrame(frame);
    // eslint-disable-next-line
  }, [structure, size.width, size.height, direction]);

  const choose = (box: Box): void => select(box.kind === "input" || box.kind === "output" ? null : box.path);
  if (!graph) return <p className="empty">The workflow of this run is not stored, so there is no graph. The timeline below has its nodes.</p>;
  return (
    <div
      className="graph"
      ref={area}
      role="group"
      aria-label="graph of the run; tab moves between its nodes, enter opens one"
      onKeyDown={(event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        const id = (event.target as HTMLElement).closest<HTMLElement>(".react-flow__node")?.dataset.id;
        const box = layout?.boxes.find((one) => one.id === id);
        if (box && (event.target as HTMLElement).classList.contains("react-flow__node")) {
          event.preventDefault();
          choose(box);
        }
      }}
    >
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={NODE_TYPES}
        onNodeClick={(_, node) => choose(node.data.box)}
        nodesDraggable={false}
        nodesConnectable={false}
        edgesFocusable={false}
        edgeTypes={EDGE_TYPES}
        nodesFocusable
        elementsSelectable={false}
        disableKeyboardA11y={false}
        onlyRenderVisibleElements={nodes.length > 150}
        minZoom={0.06}
        maxZoom={1.6}
        zoomOnDoubleClick={false}
        preventScrolling
        proOptions={{ hideAttribution: true }}
      >
        <Background gap={22} size={1} />
        <Controls showInteractive={false} position="bottom-right" />
      </ReactFlow>
    </div>
  );
}

function outputStatus(end: string, before: boolean): NodeStatus {
  if (before || !end) return "pending";
  return end === "done" ? "done" : end === "abstained" ? "abstained" : end === "cancelled" ? "interrupted" : "failed";
}
