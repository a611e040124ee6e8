import { useState } from "react";
import { count } from "../lib/format";
import { unitIndex, visible } from "../lib/visible";
import { mergeMarks, type Mark, type RunText, type RunTexts } from "../model/texts";
import type { Computation, EvidenceItem, Support, TableCell, TextSpan } from "../model/types";

const ROOM = 260;

export function sourceName(text: RunText): string {
  return text.name || text.where;
}

/** A source with the words that an evidence points to. Of a long one only the surroundings of the words are shown. */
export function Source({ text, marks, title }: { text: RunText; marks: Mark[]; title?: string }) {
  const [whole, setWhole] = useState(false);
  const merged = mergeMarks(marks.map((one) => ({ ...one })));
  const first = merged[0];
  const last = merged.at(-1);
  const long = text.text.length > 4 * ROOM;
  const begin = whole || !long ? 0 : Math.max(0, (first?.start ?? 0) - ROOM);
  const end = whole || !long ? text.text.length : Math.min(text.text.length, (last?.end ?? 3 * ROOM) + ROOM);
  const parts: React.ReactNode[] = [];
  let at = begin;
  for (const mark of merged) {
    if (mark.end <= begin || mark.start >= end) continue;
    parts.push(visible(text.text.slice(at, mark.start)));
    parts.push(
      <mark key={mark.start} title={mark.checks.length ? `evidence of ${mark.checks.join(", ")}` : undefined}>
        {visible(text.text.slice(mark.start, mark.end))}
      </mark>,
    );
    at = mark.end;
  }
  parts.push(visible(text.text.slice(at, end)));
  return (
    <figure className="source">
      <figcaption>
        <span className="source-name">{visible(title ?? sourceName(text))}</span>
        {text.name && <span className="soft mono"> {visible(text.where)}</span>}
      </figcaption>
      <blockquote>
        {begin > 0 && "…"}
        {parts}
        {end < text.text.length && "…"}
      </blockquote>
      {long && (
        <button type="button" className="link" onClick={() => setWhole(!whole)}>
          {whole ? "show the surroundings only" : `show the whole text, ${count(text.text.length)} characters`}
        </button>
      )}
    </figure>
  );
}

/** The evidence of a claim: spans by their source, cells in their table, computations with their operands. */
export function Evidence({ items, texts }: { items: Support[]; texts: RunTexts }) {
  const spans = new Map<string, { text: RunText; marks: Mark[] }>();
  const rest: React.ReactNode[] = [];
  items.forEach((item, index) => {
    if (item.kind === "span") {
      const place = placeSpan(item, texts);
      if (!place) {
        rest.push(
          <figure className="source" key={index}>
            <figcaption>
              <span className="source-name">{visible(item.source || "a text that this run does not hold")}</span>
            </figcaption>
            <blockquote>
              <mark>{visible(item.quote)}</mark>
            </blockquote>
          </figure>,
        );
        return;
      }
      const known = spans.get(place.text.where) ?? { text: place.text, marks: [] };
      known.marks.push({ start: place.start, end: place.end, checks: [] });
      spans.set(place.text.where, known);
    } else if (item.kind === "cell") rest.push(<CellEvidence key={index} cell={item} texts={texts} />);
    else rest.push(<ComputationEvidence key={index} item={item} texts={texts} />);
  });
  return (
    <>
      {[...spans.values()].map(({ text, marks }) => (
        <Source key={text.where} text={text} marks={marks} />
      ))}
      {rest}
    </>
  );
}

function placeSpan(span: TextSpan, texts: RunTexts): { text: RunText; start: number; end: number } | null {
  const text = span.where ? texts.get(span.where) : undefined;
  if (text && span.start != null && span.end != null)
    return { text, start: unitIndex(text.text, span.start), end: unitIndex(text.text, span.end) };
  const found = texts.locate({ check: "", ...span } as EvidenceItem);
  return found && { text: found.text, start: found.start, end: found.end };
}

function CellEvidence({ cell, texts }: { cell: TableCell; texts: RunTexts }) {
  const table = texts.table(cell.where ?? "") ?? [];
  const rows = [0, ...[cell.row - 1, cell.row, cell.row + 1].filter((row) => row > 0 && row < table.length)];
  const named = [cell.row_heading, cell.column_heading].filter(Boolean).join(", ");
  return (
    <figure className="source">
      <figcaption>
        <span className="source-name">{visible(named || "a table")}</span>
        <span className="soft">
          {" "}
          row {cell.row}, column {cell.column}
        </span>
      </figcaption>
      {table.length > 0 ? (
        <div className="scroll-x" tabIndex={0} role="region" aria-label="table with the cited cell">
          <table className="cells">
            <tbody>
              {[...new Set(rows)].map((row) => (
                <tr key={row}>
                  {table[row]?.map((text, column) =>
                    row === 0 ? (
                      <th key={column} scope="col">
                        {visible(text)}
                      </th>
                    ) : (
                      <td key={column}>{row === cell.row && column === cell.column ? <mark>{visible(text)}</mark> : visible(text)}</td>
                    ),
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <blockquote>
          <mark>{visible(cell.text)}</mark>
        </blockquote>
      )}
    </figure>
  );
}

function ComputationEvidence({ item, texts }: { item: Computation; texts: RunTexts }) {
  return (
    <figure className="source">
      <figcaption>
        <span className="source-name">computed</span>
      </figcaption>
      <blockquote className="mono">
        {visible(item.expression)} = <mark>{visible(item.result)}</mark>
      </blockquote>
      {item.operands?.map((operand, index) => (
        <div className="operand" key={index}>
          <code>{visible(operand.text)}</code>{" "}
          {operand.places?.length ? (
            <Evidence items={operand.places} texts={texts} />
          ) : (
            <span className="soft">a constant, or a number without a known place</span>
          )}
        </div>
      ))}
    </figure>
  );
}
