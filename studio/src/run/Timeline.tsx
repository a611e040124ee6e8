import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { clock, count, duration, plural } from "../lib/format";
import { oneLine, shorten } from "../lib/visible";
import { countElements, endOf, kindOf, labelOf, reasonOf, statusOf, type Attempt, type NodeStatus, type RunNode } from "../model/fold";
import { COUNTED, wordsOf } from "../model/words";
import { Icon } from "../parts/Icon";
import { Status } from "../parts/Status";
import { VirtualList, type VirtualListHandle } from "../parts/VirtualList";
import { useRun } from "./context";
import { countWords, MapBar } from "./Graph";
import { ticks, type TimeScale } from "./scale";

const ROW = 28;

interface Row {
  node: RunNode;
  depth: number;
  open: boolean;
  folds: boolean;
}

/** Whether the parts of a node are shown at first. */
function openAtFirst(node: RunNode): boolean {
  if (node.elements !== null) return node.elements <= 8;
  const kind = kindOf(node);
  return kind !== "call" && kind !== "check" && node.children.length <= 12;
}

export function Timeline({
  selected,
  cursor,
  setCursor,
  scale,
  version,
  live,
}: {
  selected: string | null;
  cursor: number | null;
  setCursor: (time: number | null) => void;
  scale: TimeScale;
  version: number;
  live: boolean;
}) {
  const { fold, select, over } = useRun();
  const [toggled, setToggled] = useState<ReadonlySet<string>>(new Set());
  const [only, setOnly] = useState<"all" | "trouble">("all");
  const list = useRef<VirtualListHandle>(null);
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(600);

  const rows = useMemo(() => {
    const found: Row[] = [];
    const trouble = (node: RunNode): boolean =>
      ["abstained", "failed", "waiting", "interrupted", "fallback"].includes(statusOf(node, over)) ||
      node.attempts.some((one) => one.accepted === false || one.error) ||
      node.children.some(trouble);
    const visit = (nodes: RunNode[], depth: number): void => {
      for (const node of nodes) {
        if (only === "trouble" && !trouble(node)) continue;
        const folds = node.children.length > 0;
        const open = folds && (toggled.has(node.path) ? !openAtFirst(node) : openAtFirst(node));
        found.push({ node, depth, open, folds });
        if (open) visit(node.elements !== null ? [...node.children].sort(byIndex) : node.children, depth + 1);
      }
    };
    visit(fold.roots, 0);
    return found;
    // eslint-disable-next-line
  }, [fold, version, toggled, only, over]);

  const toggle = useCallback((path: string, open?: boolean) => {
    setToggled((known) => {
      const next = new Set(known);
      const node = fold.nodes.get(path);
      if (!node) return known;
      const now = known.has(path) ? !openAtFirst(node) : openAtFirst(node);
      if (open === now) return known;
      if (!next.delete(path)) next.add(path);
      return next;
    });
  }, [fold]);

  // The row of a node that was chosen elsewhere is shown, with the nodes around it unfolded.
  useEffect(() => {
    if (selected === null) return;
    for (let one = fold.nodes.get(selected)?.parent; one; one = one.parent) toggle(one.path, true);
    // eslint-disable-next-line
  }, [selected]);
  const index = rows.findIndex((row) => row.node.path === selected);
  useEffect(() => {
    if (index >= 0) list.current?.show(index);
  }, [index]);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setWidth(Math.max(120, element.clientWidth)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const onKey = (event: React.KeyboardEvent): void => {
    const row = rows[index];
    const go = (to: number): void => {
      const next = rows[Math.max(0, Math.min(rows.length - 1, to))];
      if (next) select(next.node.path);
    };
    if (event.key === "ArrowDown") go(index + 1);
    else if (event.key === "ArrowUp") go(index < 0 ? 0 : index - 1);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(rows.length - 1);
    else if (event.key === "PageDown") go(index + 10);
    else if (event.key === "PageUp") go(index - 10);
    else if (event.key === "ArrowRight" && row?.folds) {
      if (row.open) go(index + 1);
      else toggle(row.node.path, true);
    } else if (event.key === "ArrowLeft" && row) {
      if (row.open) toggle(row.node.path, false);
      else if (row.node.parent) select(row.node.parent.path);
    } else if (event.key === "Escape") select(null);
    else return;
    event.preventDefault();
  };

  return (
    <section className="timeline" aria-label="timeline">
      <div className="timeline-head">
        <div className="timeline-title">
          <h2>Timeline</h2>
          <label className="filter">
            <input type="checkbox" checked={only === "trouble"} onChange={(event) => setOnly(event.target.checked ? "trouble" : "all")} />
            withheld, failed or retried only
          </label>
        </div>
        <Axis scale={scale} width={width} cursor={cursor} setCursor={setCursor} live={live} box={box} />
      </div>
      {rows.length === 0 ? (
        <p className="empty">{only === "trouble" ? "Nothing was withheld, failed or retried." : "No node has started yet."}</p>
      ) : (
        <VirtualList
          className="timeline-rows"
          count={rows.length}
          rowHeight={ROW}
          handle={list}
          role="tree"
          tabIndex={0}
          aria-label={`nodes of the run, ${count(rows.length)} shown; arrow keys move, right unfolds`}
          aria-activedescendant={index >= 0 ? rowId(rows[index]!.node.path) : undefined}
          onKeyDown={onKey}
          render={(at, style) => {
            const row = rows[at]!;
            return (
              <TimelineRow
                key={row.node.path}
                row={row}
                style={style}
                scale={scale}
                cursor={cursor}
                chosen={row.node.path === selected}
                over={over}
                choose={select}
                toggle={toggle}
                position={at + 1}
                total={rows.length}
              />
            );
          }}
        >
          <div className="bars-back" aria-hidden="true">
            {scale.pieces
              .filter((piece) => piece.gap)
              .map((piece) => (
                <span key={piece.from} className="gap" style={{ left: `${piece.left * 100}%`, width: `${(piece.right - piece.left) * 100}%` }} />
              ))}
            {cursor !== null && <span className="cursor" style={{ left: `${scale.at(cursor) * 100}%` }} />}
          </div>
        </VirtualList>
      )}
    </section>
  );
}

function byIndex(a: RunNode, b: RunNode): number {
  return Number(/\d+/.exec(a.label)?.[0] ?? 0) - Number(/\d+/.exec(b.label)?.[0] ?? 0);
}

export function rowId(path: string): string {
  return `row-${path.replace(/[^\w-]/g, (char) => `_${char.charCodeAt(0)}`)}`;
}

function TimelineRow({
  row,
  style,
  scale,
  cursor,
  chosen,
  over,
  choose,
  toggle,
  position,
  total,
}: {
  row: Row;
  style: React.CSSProperties;
  scale: TimeScale;
  cursor: number | null;
  chosen: boolean;
  over: boolean;
  choose: (path: string) => void;
  toggle: (path: string) => void;
  position: number;
  total: number;
}) {
  const { node, depth, open, folds } = row;
  const status = statusOf(node, over, cursor);
  const counts = node.elements !== null ? [...countElements(node, over, cursor)].sort((a, b) => COUNTED.indexOf(a[0]) - COUNTED.indexOf(b[0])) : null;
  const name = node.attempts.at(-1)?.name ?? "";
  const end = endOf(node);
  const seconds = end === null ? null : end - node.started;
  const reason = reasonOf(node);
  return (
    <div
      id={rowId(node.path)}
      role="treeitem"
      aria-level={depth + 1}
      aria-posinset={position}
      aria-setsize={total}
      aria-selected={chosen}
      {...(folds ? { "aria-expanded": open } : {})}
      aria-label={`${node.path}: ${wordsOf(status).word}${counts ? `, ${countWords(counts)}` : ""}${seconds !== null ? `, ${duration(seconds)}` : ""}${reason ? `, ${shorten(reason, 100)}` : ""}`}
      className={`row${chosen ? " chosen" : ""}${status === "pending" ? " pending" : ""}`}
      style={style}
      onClick={() => choose(node.path)}
    >
      <div className="row-name" style={{ paddingLeft: 6 + Math.min(depth, 10) * 14 }}>
        {folds ? (
          <span
            className={`fold${open ? " open" : ""}`}
            aria-hidden="true"
            onClick={(event) => {
              event.stopPropagation();
              toggle(node.path);
            }}
          >
            <Icon name="chevron" size={12} />
          </span>
        ) : (
          <span className="fold" aria-hidden="true" />
        )}
        <span className={`row-status tone-${wordsOf(status).tone}`}>
          <Icon name={wordsOf(status).icon} size={13} />
        </span>
        <span className={`row-label${/^[#@?]/.test(node.label) ? " soft" : " mono"}`}>{oneLine(labelOf(node), 60)}</span>
        <span className="row-callee">{counts ? plural(node.elements ?? 0, "element") : oneLine(name, 40)}</span>
      </div>
      <div className="row-bars">
        <Bars node={node} status={status} counts={counts} scale={scale} over={over} />
      </div>
      <div className="row-word">
        {counts ? <span className="soft">{counts.filter(([one]) => one !== "done").map(([one, number]) => `${count(number)} ${wordsOf(one).word}`).slice(0, 2).join(", ") || "all done"}</span> : <Status status={status} small />}
      </div>
      <div className="row-time">{seconds !== null && (cursor === null || (end ?? 0) <= cursor) ? duration(seconds) : ""}</div>
    </div>
  );
}

function attemptTone(attempt: Attempt): string {
  if (attempt.error) return "bad";
  if (attempt.accepted === false) return "withheld";
  if (attempt.finished === null) return "live";
  return "good";
}

function Bars({ node, status, counts, scale, over }: { node: RunNode; status: NodeStatus; counts: [NodeStatus, number][] | null; scale: TimeScale; over: boolean }) {
  const open = over ? node.started : scale.end;
  const place = (from: number, to: number): React.CSSProperties => {
    const left = scale.at(from);
    return { left: `${left * 100}%`, width: `max(3px, ${(scale.at(Math.max(from, to)) - left) * 100}%)` };
  };
  if (counts) {
    const end = node.finished ?? Math.max(node.started, open);
    return (
      <span className="bar map" style={place(node.started, end)}>
        <MapBar counts={counts} total={node.elements ?? 0} />
      </span>
    );
  }
  if (node.attempts.length === 0) {
    const end = endOf(node) ?? (status === "interrupted" ? node.started : open);
    const tone = node.questionOpen || node.question ? "doubt wait" : `${wordsOf(status).tone} frame`;
    return <span className={`bar tone-${tone}`} style={place(node.started, end)} />;
  }
  return (
    <>
      {node.question && <span className="bar tone-doubt wait" style={place(node.question.at, node.answer?.at ?? node.finished ?? open)} />}
      {node.attempts.map((attempt) => {
        const end = attempt.finished ?? (over ? attempt.started : scale.end);
        return (
          <span key={attempt.number}>
            <span
              className={`bar tone-${attemptTone(attempt)}${attempt.tier ? " larger" : ""}${attempt.finished === null && !over ? " live" : ""}`}
              style={place(attempt.started, end)}
              title={`attempt ${attempt.number}: ${duration(end - attempt.started)}${attempt.model ? `, ${attempt.model}` : ""}`}
            />
            {attempt.judged !== null && attempt.finished !== null && attempt.judged - attempt.finished > 0.002 && <span className="bar tone-quiet checks" style={place(attempt.finished, attempt.judged)} title={`checks: ${duration(attempt.judged - attempt.finished)}`} />}
          </span>
        );
      })}
    </>
  );
}

function Axis({ scale, width, cursor, setCursor, live, box }: { scale: TimeScale; width: number; cursor: number | null; setCursor: (time: number | null) => void; live: boolean; box: React.RefObject<HTMLDivElement | null> }) {
  const drag = useRef(false);
  const move = (x: number): void => {
    const element = box.current;
    if (!element) return;
    const bounds = element.getBoundingClientRect();
    const share = (x - bounds.left) / bounds.width;
    setCursor(share >= 0.995 ? null : scale.timeAt(Math.max(0, Math.min(1, share))));
  };
  const total = scale.end - scale.begin;
  const at = cursor ?? scale.end;
  const step = (by: number): void => {
    const share = Math.max(0, Math.min(1, scale.at(at) + by));
    setCursor(share >= 1 ? null : scale.timeAt(share));
  };
  return (
    <div
      className="axis"
      ref={box}
      role="slider"
      tabIndex={0}
      aria-label="moment that is shown"
      aria-valuemin={0}
      aria-valuemax={Math.round(total * 1000)}
      aria-valuenow={Math.round((at - scale.begin) * 1000)}
      aria-valuetext={cursor === null ? (live ? "now" : "the end of the run") : `${duration(at - scale.begin)} after the start`}
      title="drag to see the run at another moment"
      onPointerDown={(event) => {
        drag.current = true;
        event.currentTarget.setPointerCapture(event.pointerId);
        move(event.clientX);
      }}
      onPointerMove={(event) => drag.current && move(event.clientX)}
      onPointerUp={() => (drag.current = false)}
      onKeyDown={(event) => {
        if (event.key === "ArrowLeft") step(event.shiftKey ? -0.1 : -0.01);
        else if (event.key === "ArrowRight") step(event.shiftKey ? 0.1 : 0.01);
        else if (event.key === "Home") setCursor(scale.begin);
        else if (event.key === "End" || event.key === "Escape") setCursor(null);
        else return;
        event.preventDefault();
      }}
    >
      {ticks(scale, width).map((tick) => (
        <span key={tick.seconds} className="tick" style={{ left: `${tick.share * 100}%` }}>
          {tick.seconds === 0 ? clock(scale.begin) : `+${duration(tick.seconds)}`}
        </span>
      ))}
      {scale.pieces
        .filter((piece) => piece.gap)
        .map((piece) => (
          <span key={piece.from} className="gap-mark" style={{ left: `${piece.left * 100}%`, width: `${(piece.right - piece.left) * 100}%` }} title={`${duration(piece.to - piece.from)} without work`}>
            ⋯
          </span>
        ))}
      {cursor !== null && <span className="thumb" style={{ left: `${scale.at(cursor) * 100}%` }} />}
    </div>
  );
}
