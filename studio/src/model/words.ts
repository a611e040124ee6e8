import type { NodeStatus } from "./fold";

export interface StatusWords {
  icon: string;
  word: string;
  tone: "good" | "bad" | "doubt" | "withheld" | "live" | "quiet" | "person";
}

/** A status as an icon and a word; the colour only repeats it. */
export const STATUS: Record<string, StatusWords> = {
  done: { icon: "check", word: "done", tone: "good" },
  value: { icon: "check", word: "done", tone: "good" },
  given: { icon: "pen", word: "by a person", tone: "person" },
  fallback: { icon: "turn", word: "fallback", tone: "doubt" },
  skipped: { icon: "minus", word: "skipped", tone: "quiet" },
  abstained: { icon: "withheld", word: "withheld", tone: "withheld" },
  failed: { icon: "cross", word: "failed", tone: "bad" },
  running: { icon: "dot", word: "running", tone: "live" },
  waiting: { icon: "question", word: "waiting", tone: "doubt" },
  interrupted: { icon: "pause", word: "interrupted", tone: "quiet" },
  pending: { icon: "ring", word: "not started", tone: "quiet" },
  budget: { icon: "cross", word: "budget used up", tone: "bad" },
  cancelled: { icon: "stop", word: "cancelled", tone: "quiet" },
  pass: { icon: "check", word: "pass", tone: "good" },
  fail: { icon: "cross", word: "fail", tone: "bad" },
  unknown: { icon: "tilde", word: "undecided", tone: "doubt" },
};

export function wordsOf(status: string): StatusWords {
  return STATUS[status] ?? { icon: "dot", word: status, tone: "quiet" };
}

/** Statuses in the order in which counts of a map are shown. */
export const COUNTED: NodeStatus[] = [
  "done",
  "given",
  "fallback",
  "abstained",
  "failed",
  "skipped",
  "waiting",
  "running",
  "interrupted",
  "pending",
];

/** What a status of a run means, in one sentence. */
export const RUN_MEANING: Record<string, string> = {
  running: "The run is working.",
  waiting: "The run waits for an answer of a person. It needs no process meanwhile.",
  interrupted: "The process of the run has ended before the run did. Resume it with: orchestra runs resume RUN",
  done: "The run has an output.",
  failed: "The run has no output, because a node failed.",
  abstained: "The output is withheld: the checks did not accept what it would rest on.",
  budget: "The run has no output, because its budget was used up.",
  cancelled: "Somebody cancelled the run.",
};

export const CHECK_MEANING: Record<string, string> = {
  schema: "The value has the declared type.",
  quote: "The quoted words occur in the evidence, letter for letter.",
  numbers: "Each number and date of the value occurs in the evidence.",
  recompute: "The expression gives the stated result.",
  format: "Codes, accounts and dates are valid.",
  confidence: "The model was sure enough of its answer.",
  support: "Each part of the value is covered by the evidence.",
  entailment: "Another model finds that the evidence supports the claim.",
  rederive: "Another agent finds the same answer without seeing this one.",
  agree: "Most of several samples give the same answer.",
  tool: "A tool of this project accepts the value.",
};

export function checkMeaning(check: string): string {
  return CHECK_MEANING[check.replace(/\(.*/, "")] ?? "";
}
