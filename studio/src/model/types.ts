/** The JSON of runs, as `orchestra/app/run_record.py` and `orchestra/core/events.py` write it. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Usage {
  prompt_tokens?: number;
  cached_tokens?: number;
  output_tokens?: number;
  calls?: number;
  seconds?: number;
  resends?: number;
  money?: number;
  estimated_tokens?: number;
}

export interface EvidenceItem {
  check: string;
  quote: string;
  source?: string;
  start?: number | null;
  end?: number | null;
  field?: string;
}

export interface DroppedPart {
  steps: (string | number)[];
  text: string;
  reason: string;
  score?: number | null;
}

export interface Verdict {
  check: string;
  outcome: "pass" | "fail" | "unknown" | string;
  score: number;
  reason?: string;
  deterministic?: boolean;
  evidence?: EvidenceItem[];
  parts?: Verdict[];
  dropped?: DroppedPart[];
}

export type Outcome =
  | { type: "value"; value: Json; score?: number | null; evidence?: EvidenceItem[] }
  | { type: "skipped"; reason: string; origin?: string }
  | { type: "abstained"; reason: string; origin?: string; score?: number | null }
  | { type: "failed"; code: string; reason: string; origin?: string; hint?: string };

export interface OverrideSource {
  by?: string;
  run?: string;
}

export interface PlanDraft {
  graph: GraphSpec | null;
  lines?: string[];
  rejections?: [string, string, string, string][];
  repaired_lines?: number;
  version?: number;
  plan?: GraphSpec | null;
  failed_calls?: [string, string][];
  carried_values?: Record<string, string>;
  used_effects?: string[];
  escalated?: boolean;
  sample?: number;
  sampled_plans?: string[][];
  agreement?: number | null;
  reused_from?: string;
  saved_usage?: Usage;
  warning?: string;
}

export interface CheckPriority {
  uncertainty: number;
  influence: number;
  expected_tokens: number;
  max_tokens: number;
  skip_reason?: string;
}

interface EventBase {
  seq: number;
  at: number;
}

export interface RunStarted extends EventBase {
  type: "run_started";
  run: string;
  workflow: string;
  graph: string;
  inputs: Json;
  label?: string;
  versions?: Record<string, string>;
  parent?: string;
  options?: { [key: string]: Json };
  tiers?: string[];
  overrides?: Record<string, { value: Json; source?: OverrideSource }> | null;
  plan_only?: boolean;
}

export interface QuestionAsked extends EventBase {
  type: "question_asked";
  node: string;
  question: string;
  schema: { [key: string]: Json };
  question_digest: string;
  options?: string[];
  kind?: "answer" | "effect" | "acceptance";
  withheld?: {
    value: Json;
    reason?: string;
    verdicts?: Verdict[];
    evidence?: { text: string; source?: string }[];
    tiers?: string;
  } | null;
  due?: number;
  result_schema?: { [key: string]: Json } | null;
}

export interface AttemptFinished extends EventBase {
  type: "attempt_finished";
  node: string;
  attempt: number;
  name?: string;
  value?: Json;
  error?: string;
  reason?: string;
  hint?: string;
  frames?: string[];
  retryable?: boolean;
  permanent?: boolean;
  usage?: Usage;
  confidence?: number | null;
  server?: string;
  model?: string;
  sent?: string;
  received?: string;
  final?: boolean;
  memo_key?: string;
  reused_from?: string;
  outbox?: boolean;
  overridden_by?: OverrideSource | null;
}

export interface AttemptStarted extends EventBase {
  type: "attempt_started";
  node: string;
  attempt: number;
  name?: string;
  escalated?: boolean;
  tier?: number;
  reserved?: number;
  escalation_reason?: string;
}

export interface OutputJudged extends EventBase {
  type: "output_judged";
  node: string;
  attempt: number;
  verdicts: Verdict[];
  accepted: boolean;
  score?: number | null;
  reason?: string;
  guarantee?: string;
  skipped_checks?: CheckPriority | null;
}

export interface QuestionAnswered extends EventBase {
  type: "question_answered";
  node: string;
  value: Json;
  by?: string;
  message_number?: number;
  decline_reason?: string;
  call_happened?: boolean;
}

export type RunEvent =
  | RunStarted
  | (EventBase & { type: "run_resumed"; epoch: number; by?: string; idle_seconds?: number })
  | (EventBase & { type: "map_expanded"; node: string; count: number })
  | (EventBase & { type: "turn_started"; node: string; turn: number; draft?: PlanDraft | null; choice_reason?: string })
  | AttemptStarted
  | AttemptFinished
  | (EventBase & {
      type: "checks_started";
      node: string;
      attempt: number;
      round: number;
      check: string;
      questions: { agent: string; inputs: { [key: string]: Json }; sample?: number }[];
      verdicts?: Verdict[];
      priority?: CheckPriority | null;
    })
  | OutputJudged
  | (EventBase & { type: "retry_planned"; node: string; attempt: number; due: number; reason?: string })
  | (EventBase & {
      type: "node_finished";
      node: string;
      outcome: Outcome;
      original_outcome?: Outcome | null;
      overridden_by?: OverrideSource | null;
    })
  | QuestionAsked
  | QuestionAnswered
  | (EventBase & { type: "inbox_message_rejected"; message_number: number; reason: string; node?: string })
  | (EventBase & { type: "tokens_counted"; node: string; prompt_tokens: number })
  | (EventBase & { type: "cancel_requested"; by?: string; message_number?: number })
  | (EventBase & { type: "run_finished"; status: string; outcome: Outcome; usage?: Usage });

/** A node of a workflow file. */
export interface NodeSpec {
  agent?: string | { by: string; of: Record<string, string>; otherwise?: string };
  tool?: string;
  call?: string | { nodes: Record<string, NodeSpec>; output: Json };
  loop?: { nodes: Record<string, NodeSpec>; output: Json; at_most: number; until: string };
  plan?: Json;
  verify?: Json;
  ask?: string;
  first_of?: Json[];
  when?: string;
  each?: string;
  as?: string;
  with?: Record<string, Json>;
  checks?: string[];
  against?: Json;
  otherwise?: string[];
  after?: string[];
  [key: string]: unknown;
}

export interface GraphSpec {
  name?: string;
  description?: string;
  input?: Record<string, Json>;
  output?: Json;
  nodes: Record<string, NodeSpec>;
  budget?: { tokens?: number; seconds?: number; calls?: number; money?: number };
}

export interface TextSpan {
  kind: "span";
  quote: string;
  source?: string;
  start?: number | null;
  end?: number | null;
  where?: string;
}
export interface TableCell {
  kind: "cell";
  text: string;
  row: number;
  column: number;
  row_heading?: string;
  column_heading?: string;
  where?: string;
}
export interface Computation {
  kind: "computation";
  expression: string;
  result: string;
  operands?: { text: string; places?: (TextSpan | TableCell)[] }[];
}
export type Support = TextSpan | TableCell | Computation;

export interface Claim {
  path: string;
  value: Json;
  nodes?: string[];
  evidence?: Support[];
  verdicts?: { node: string; check: string; outcome: string; score: number; reason?: string }[];
  score?: number | null;
  unsupported?: string;
  person?: string;
  dropped?: boolean;
}

export interface CertificateSummary {
  guarantee?: string;
  alpha?: number;
  delta?: number | null;
  threshold?: number;
  coverage?: number;
  [key: string]: Json | undefined;
}

export interface RunRecord {
  format: string;
  run: string;
  workflow: string;
  status: string;
  seq: number;
  label: string;
  tags: Record<string, string>;
  confidence: number | null;
  holder: string;
  open_questions: number[];
  workflows: Record<string, GraphSpec | null>;
  cards: Record<string, { settings?: { [key: string]: Json }; prompt?: string } | null>;
  claims: Claim[];
  dropped: Claim[];
  certificates: { node: string; guarantee: string; summary: CertificateSummary | null }[];
  tiers: { name: string; calls: number; accepted: number; skipped: Record<string, number>; usage: Usage }[];
  events: RunEvent[];
  blobs?: Record<string, { text: string; size: number }> | null;
  blobs_left_out?: number;
}
