/** The nodes of a run, folded from its events: the same rules as `orchestra/journal/history.py`. */

import { lastStep, parentPath } from "./paths";
import type {
  AttemptFinished,
  Json,
  Outcome,
  OverrideSource,
  PlanDraft,
  QuestionAnswered,
  QuestionAsked,
  RunEvent,
  RunStarted,
  Usage,
  Verdict,
} from "./types";

export interface Attempt {
  number: number;
  name: string;
  started: number;
  finished: number | null;
  value: Json | undefined;
  error: string;
  reason: string;
  hint: string;
  frames: string[];
  usage: Usage;
  confidence: number | null;
  server: string;
  model: string;
  sent: string;
  received: string;
  verdicts: Verdict[];
  /** The decision of the checks; null without checks, or before they end. */
  accepted: boolean | null;
  judged: number | null;
  score: number | null;
  rejection: string;
  guarantee: string;
  reusedFrom: string;
  tier: number;
  escalationReason: string;
  skippedChecks: string;
  retryReason: string;
}

export type NodeKind = "call" | "each" | "loop" | "turn" | "check" | "block" | "node";
export type NodeStatus =
  | "done"
  | "given"
  | "fallback"
  | "skipped"
  | "abstained"
  | "failed"
  | "running"
  | "waiting"
  | "interrupted"
  | "pending";

export interface RunNode {
  path: string;
  label: string;
  depth: number;
  started: number;
  finished: number | null;
  attempts: Attempt[];
  outcome: Outcome | null;
  originalOutcome: Outcome | null;
  unansweredReason: string;
  overriddenBy: OverrideSource | null;
  elements: number | null;
  isLoop: boolean;
  retryPlanned: boolean;
  choiceReason: string;
  question: QuestionAsked | null;
  questionOpen: boolean;
  answer: QuestionAnswered | null;
  correction: QuestionAnswered | null;
  children: RunNode[];
  parent: RunNode | null;
  usage: Required<Usage>;
  /** The calls of models; `usage.calls` also counts those of tools. */
  modelCalls: number;
  /** Counts of the statuses of the elements of a map; kept up to date by the fold. */
  drafts: { at: number; draft: PlanDraft; turn: number }[];
  turns: number;
}

const NO_USAGE: Required<Usage> = {
  prompt_tokens: 0,
  cached_tokens: 0,
  output_tokens: 0,
  calls: 0,
  seconds: 0,
  resends: 0,
  money: 0,
  estimated_tokens: 0,
};
const USAGE_KEYS = Object.keys(NO_USAGE) as (keyof Usage)[];

function addUsage(target: Required<Usage>, more: Usage): void {
  for (const key of USAGE_KEYS) target[key] += more[key] ?? 0;
}

function emptyAttempt(number: number, started: number): Attempt {
  return {
    number,
    name: "",
    started,
    finished: null,
    value: undefined,
    error: "",
    reason: "",
    hint: "",
    frames: [],
    usage: {},
    confidence: null,
    server: "",
    model: "",
    sent: "",
    received: "",
    verdicts: [],
    accepted: null,
    judged: null,
    score: null,
    rejection: "",
    guarantee: "",
    reusedFrom: "",
    tier: 0,
    escalationReason: "",
    skippedChecks: "",
    retryReason: "",
  };
}

/** A run so far. `add` takes the events in order; an event that is already there is ignored. */
export class RunFold {
  readonly nodes = new Map<string, RunNode>();
  readonly roots: RunNode[] = [];
  readonly usage: Required<Usage> = { ...NO_USAGE };
  modelCalls = 0;
  readonly log: RunEvent[] = [];
  start: RunStarted | null = null;
  seq = 0;
  lastAt = 0;
  finished: number | null = null;
  outcome: Outcome | null = null;
  endStatus = "";
  cancelledBy: string | null = null;
  /** Grows with each added event; a key for memoised views. */
  version = 0;
  private readonly turnStarts = new Map<string, number>();
  private readonly openQuestions = new Map<string, QuestionAsked>();
  private readonly notes: RunEvent[] = [];

  get begin(): number {
    return this.start?.at ?? 0;
  }

  get end(): number {
    return this.finished ?? this.lastAt;
  }

  get questions(): QuestionAsked[] {
    return this.finished === null ? [...this.openQuestions.values()].sort((a, b) => a.seq - b.seq) : [];
  }

  /** Resumptions, answers, rejected messages and cancel requests. */
  get external(): readonly RunEvent[] {
    return this.notes;
  }

  addAll(events: Iterable<RunEvent>): void {
    for (const event of events) this.add(event);
  }

  add(event: RunEvent): void {
    if (event.seq <= this.seq) return;
    this.seq = event.seq;
    this.lastAt = Math.max(this.lastAt, event.at);
    this.version += 1;
    this.log.push(event);
    switch (event.type) {
      case "run_started":
        this.start = event;
        break;
      case "run_finished":
        this.finished = event.at;
        this.outcome = event.outcome;
        this.endStatus = event.status;
        this.openQuestions.clear();
        break;
      case "cancel_requested":
        this.cancelledBy = event.by ?? "";
        this.notes.push(event);
        break;
      case "run_resumed":
      case "inbox_message_rejected":
        this.notes.push(event);
        break;
      case "turn_started":
        this.startTurn(event);
        break;
      case "checks_started":
        this.node(`${event.node}?${event.round}`, event.at);
        break;
      case "map_expanded":
        this.node(event.node, event.at).elements = event.count;
        break;
      case "node_finished":
        this.finish(event);
        break;
      case "retry_planned": {
        const node = this.node(event.node, event.at);
        node.retryPlanned = true;
        const last = node.attempts.at(-1);
        if (last) last.retryReason = event.reason ?? "";
        break;
      }
      case "attempt_started": {
        const node = this.node(event.node, event.at);
        node.retryPlanned = false;
        const attempt = this.attempt(node, event.attempt, event.at);
        attempt.name = event.name ?? "";
        attempt.started = event.at;
        attempt.tier = event.tier ?? (event.escalated ? 1 : 0);
        attempt.escalationReason = event.escalation_reason ?? "";
        break;
      }
      case "attempt_finished":
        this.finishAttempt(event);
        break;
      case "output_judged": {
        const attempt = this.attempt(this.node(event.node, event.at), event.attempt, event.at);
        attempt.verdicts = event.verdicts;
        attempt.accepted = event.accepted;
        attempt.judged = event.at;
        attempt.score = event.score ?? null;
        attempt.rejection = event.accepted ? "" : (event.reason ?? "");
        attempt.guarantee = event.guarantee ?? "";
        attempt.skippedChecks = event.skipped_checks?.skip_reason ?? "";
        break;
      }
      case "question_asked": {
        const node = this.node(event.node, event.at);
        node.question = event;
        node.questionOpen = true;
        this.openQuestions.set(event.node, event);
        break;
      }
      case "question_answered": {
        const node = this.node(event.node, event.at);
        const asked = this.openQuestions.get(event.node);
        this.openQuestions.delete(event.node);
        node.questionOpen = false;
        node.answer = event;
        if (asked?.kind === "acceptance" && !event.decline_reason) node.correction = event;
        if (event.decline_reason)
          node.unansweredReason = `${event.by || "a person"} declined to answer: ${event.decline_reason}`;
        this.notes.push(event);
        break;
      }
      case "tokens_counted":
        break;
    }
  }

  private startTurn(event: Extract<RunEvent, { type: "turn_started" }>): void {
    const { node: path, draft } = event;
    if (draft)
      for (const asked of [...this.openQuestions.keys()])
        if (asked.startsWith(`${path}@`) && !asked.startsWith(`${path}@${draft.version ?? 0}/`)) {
          this.openQuestions.delete(asked);
          const node = this.nodes.get(asked);
          if (node) node.questionOpen = false;
        }
    const node = this.node(path, event.at);
    if (event.choice_reason) node.choiceReason = event.choice_reason;
    node.turns = Math.max(node.turns, event.turn);
    if (draft) node.drafts.push({ at: event.at, draft, turn: event.turn });
    this.turnStarts.set(`${path}#${event.turn}`, event.at);
    if (draft?.version) {
      const version = `${path}@${draft.version}`;
      if (!this.turnStarts.has(version)) this.turnStarts.set(version, event.at);
    }
  }

  private finish(event: Extract<RunEvent, { type: "node_finished" }>): void {
    const node = this.node(event.node, event.at);
    node.originalOutcome = event.original_outcome ?? null;
    node.overriddenBy =
      event.overridden_by ??
      (node.originalOutcome === null && event.outcome.type === "value" ? node.overriddenBy : null);
    if (this.openQuestions.size > 0 && this.closeQuestions(node)) node.unansweredReason = "no answer in time";
    if (event.outcome.type !== "value") node.unansweredReason = "";
    this.settle(node, event.outcome, event.at);
  }

  private settle(node: RunNode, outcome: Outcome, at: number): void {
    node.outcome = outcome;
    node.finished = at;
    node.retryPlanned = false;
  }

  private closeQuestions(node: RunNode): boolean {
    let closed = false;
    const own = this.openQuestions.get(node.path);
    if (own) {
      this.openQuestions.delete(node.path);
      node.questionOpen = false;
      closed = (own.kind ?? "answer") === "answer";
    }
    for (const child of node.children) if (child.outcome === null && this.closeQuestions(child)) closed = true;
    return closed;
  }

  private finishAttempt(event: AttemptFinished): void {
    const node = this.node(event.node, event.at);
    const attempt = this.attempt(node, event.attempt, event.at);
    attempt.name ||= event.name ?? "";
    attempt.finished = event.at;
    attempt.value = event.error ? undefined : (event.value ?? null);
    attempt.error = event.error ?? "";
    attempt.reason = event.reason ?? "";
    attempt.hint = event.hint ?? "";
    attempt.frames = event.frames ?? [];
    attempt.usage = event.usage ?? {};
    attempt.confidence = event.confidence ?? null;
    attempt.server = event.server ?? "";
    attempt.model = event.model ?? "";
    attempt.sent = event.sent ?? "";
    attempt.received = event.received ?? "";
    attempt.reusedFrom = event.reused_from ?? "";
    node.overriddenBy = event.overridden_by ?? null;
    addUsage(this.usage, attempt.usage);
    const modelCalls = attempt.model === "" ? 0 : (attempt.usage.calls ?? 0);
    this.modelCalls += modelCalls;
    for (let one: RunNode | null = node; one; one = one.parent) {
      addUsage(one.usage, attempt.usage);
      one.modelCalls += modelCalls;
    }
    if (event.final)
      this.settle(node, { type: "value", value: event.value ?? null, score: event.confidence ?? null }, event.at);
  }

  private attempt(node: RunNode, number: number, at: number): Attempt {
    const known = node.attempts.find((one) => one.number === number);
    if (known) return known;
    const made = emptyAttempt(number, at);
    node.attempts.push(made);
    node.attempts.sort((a, b) => a.number - b.number);
    return made;
  }

  private node(path: string, at: number): RunNode {
    const known = this.nodes.get(path);
    if (known) return known;
    const above = parentPath(path);
    const parent = above ? this.node(above, at) : null;
    const made: RunNode = {
      path,
      label: parent ? lastStep(path) : path,
      depth: parent ? parent.depth + 1 : 0,
      started: this.turnStarts.get(path) ?? at,
      finished: null,
      attempts: [],
      outcome: null,
      originalOutcome: null,
      unansweredReason: "",
      overriddenBy: null,
      elements: null,
      isLoop: false,
      retryPlanned: false,
      choiceReason: "",
      question: null,
      questionOpen: false,
      answer: null,
      correction: null,
      children: [],
      parent,
      usage: { ...NO_USAGE },
      modelCalls: 0,
      drafts: [],
      turns: 0,
    };
    if (parent && this.turnStarts.has(path)) parent.isLoop = true;
    this.nodes.set(path, made);
    (parent ? parent.children : this.roots).push(made);
    return made;
  }
}

export function kindOf(node: RunNode): NodeKind {
  if (node.elements !== null) return "each";
  if (node.isLoop) return "loop";
  if (node.attempts.length > 0) return "call";
  if (/^[#@]/.test(node.label)) return "turn";
  if (node.label.startsWith("?")) return "check";
  return node.children.length > 0 ? "block" : "node";
}

/** The status of a node at a time; `at` null is now. `over` states that the run has ended. */
export function statusOf(node: RunNode, over: boolean, at: number | null = null): NodeStatus {
  if (at !== null && node.started > at) return "pending";
  if (node.outcome !== null && (at === null || node.finished === null || node.finished <= at)) {
    if (node.originalOutcome !== null) return "fallback";
    if (node.outcome.type === "value") return node.overriddenBy || isFromPerson(node) ? "given" : "done";
    return node.outcome.type;
  }
  if (at !== null && node.finished !== null) return "running";
  const kind = kindOf(node);
  if ((kind === "turn" || kind === "check") && node.children.length > 0 && node.children.every((one) => one.outcome))
    return node.children.every((one) => one.outcome?.type === "value") ? "done" : "failed";
  const ended = over || hasOutcomeAbove(node);
  if (ended && at === null) return "interrupted";
  return node.retryPlanned || node.questionOpen ? "waiting" : "running";
}

/** Whether the value is the answer of a person: to a question of the workflow, or in the place of a rejected value. */
function isFromPerson(node: RunNode): boolean {
  if (node.correction) return true;
  return node.attempts.length === 0 && node.answer !== null && !node.answer.decline_reason && (node.question?.kind ?? "answer") === "answer";
}

/** When a node ended: a turn ends with the last of its nodes. */
export function endOf(node: RunNode): number | null {
  if (node.finished !== null) return node.finished;
  const kind = kindOf(node);
  if ((kind !== "turn" && kind !== "check") || node.children.length === 0) return null;
  let end = node.started;
  for (const child of node.children) {
    const own = endOf(child);
    if (own === null) return null;
    end = Math.max(end, own);
  }
  return end;
}

/** A label in words: turns, versions and rounds of checks are numbered. */
export function labelOf(node: RunNode): string {
  const found = /^([#@?])(\d+)$/.exec(node.label);
  if (!found) return node.label;
  const plan = (node.parent?.drafts.length ?? 0) > 0;
  return `${{ "#": plan ? "turn of the router" : "turn", "@": "plan, version", "?": "calls of checks, round" }[found[1] as "#" | "@" | "?"]} ${found[2]}`;
}

function hasOutcomeAbove(node: RunNode): boolean {
  for (let one = node.parent; one; one = one.parent) if (one.outcome) return true;
  return false;
}

/** Why a node has no value of its own, in words; empty if it has one. */
export function reasonOf(node: RunNode): string {
  const outcome = node.originalOutcome ?? node.outcome;
  if (outcome === null) {
    const last = node.attempts.at(-1);
    return last?.error ? `${last.error}: ${last.reason}` : "";
  }
  if (outcome.type === "value") return "";
  return outcome.type === "failed" ? `${outcome.code}: ${outcome.reason}` : outcome.reason;
}

/** The statuses of the elements of a map, counted. */
export function countElements(node: RunNode, over: boolean, at: number | null): Map<NodeStatus, number> {
  const counts = new Map<NodeStatus, number>();
  for (const child of node.children) {
    const status = statusOf(child, over, at);
    counts.set(status, (counts.get(status) ?? 0) + 1);
  }
  const rest = (node.elements ?? 0) - node.children.length;
  if (rest > 0) counts.set("pending", (counts.get("pending") ?? 0) + rest);
  return counts;
}
