/** The time axis of a run. Long gaps in which nothing works, such as a wait for a person, are compressed. */

import type { RunFold } from "../model/fold";

export interface Piece {
  from: number;
  to: number;
  /** Share of the width, 0 to 1. */
  left: number;
  right: number;
  gap: boolean;
}

export interface TimeScale {
  begin: number;
  end: number;
  pieces: Piece[];
  /** A time as a share of the width, 0 to 1. */
  at: (time: number) => number;
  timeAt: (share: number) => number;
}

const GAP_SHARE = 0.05;

export function timeScale(fold: RunFold, now: number | null): TimeScale {
  const begin = fold.begin;
  const last = fold.finished ?? Math.max(fold.lastAt, now ?? 0);
  const end = Math.max(last, begin + 0.001);
  const busy: [number, number][] = [];
  for (const node of fold.nodes.values())
    for (const attempt of node.attempts)
      busy.push([attempt.started, attempt.judged ?? attempt.finished ?? (fold.finished === null ? end : attempt.started)]);
  for (const event of fold.log) busy.push([event.at, event.at]);
  busy.sort((a, b) => a[0] - b[0]);
  const gaps: [number, number][] = [];
  let reached = begin;
  for (const [from, to] of busy) {
    if (from > reached) gaps.push([reached, Math.min(from, end)]);
    reached = Math.max(reached, to);
  }
  if (end > reached) gaps.push([reached, end]);
  const total = end - begin;
  const active = total - gaps.reduce((sum, [from, to]) => sum + to - from, 0);
  const least = Math.max(1, active * 0.5);
  const long = gaps.filter(([from, to]) => to - from > least);
  const rest = total - long.reduce((sum, [from, to]) => sum + to - from, 0);
  const room = 1 - long.length * GAP_SHARE;
  if (long.length === 0 || long.length > 8 || rest <= 0) return fromPieces(begin, end, [{ from: begin, to: end, left: 0, right: 1, gap: false }]);
  const pieces: Piece[] = [];
  let at = begin;
  let left = 0;
  const push = (to: number, gap: boolean): void => {
    if (to <= at) return;
    const width = gap ? GAP_SHARE : (room * (to - at)) / rest;
    pieces.push({ from: at, to, left, right: left + width, gap });
    at = to;
    left += width;
  };
  for (const [from, to] of long) {
    push(from, false);
    push(to, true);
  }
  push(end, false);
  return fromPieces(begin, end, pieces);
}

function fromPieces(begin: number, end: number, pieces: Piece[]): TimeScale {
  const at = (time: number): number => {
    if (time <= begin) return 0;
    for (const piece of pieces)
      if (time <= piece.to) return piece.left + ((time - piece.from) / (piece.to - piece.from)) * (piece.right - piece.left);
    return 1;
  };
  const timeAt = (share: number): number => {
    for (const piece of pieces)
      if (share <= piece.right)
        return piece.from + (Math.max(0, share - piece.left) / (piece.right - piece.left)) * (piece.to - piece.from);
    return end;
  };
  return { begin, end, pieces, at, timeAt };
}

/** Round times for the labels of the axis, as seconds since the begin. */
export function ticks(scale: TimeScale, width: number): { share: number; seconds: number }[] {
  const found: { share: number; seconds: number }[] = [];
  for (const piece of scale.pieces) {
    if (piece.gap) continue;
    const pixels = (piece.right - piece.left) * width;
    const span = piece.to - piece.from;
    const most = Math.max(1, Math.floor(pixels / 90));
    const step = niceStep(span / most);
    const first = Math.ceil((piece.from - scale.begin) / step - 1e-9) * step;
    for (let seconds = first; seconds <= piece.to - scale.begin + 1e-9; seconds += step) {
      const share = scale.at(scale.begin + seconds);
      if (share * width > width - 44) break;
      if (found.length === 0 || (share - (found.at(-1)?.share ?? 0)) * width > 60) found.push({ share, seconds });
    }
  }
  return found;
}

function niceStep(raw: number): number {
  for (const unit of [0.001, 0.01, 0.1, 1, 10])
    for (const factor of [1, 2, 5]) if (unit * factor >= raw) return unit * factor;
  for (const step of [60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400]) if (step >= raw) return step;
  return Math.ceil(raw / 86400) * 86400;
}
