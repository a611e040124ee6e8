import { createContext, useContext } from "react";
import type { BlobLoader } from "../parts/Exchange";
import type { RunFold } from "../model/fold";
import type { RunTexts } from "../model/texts";
import type { Json, QuestionAsked, RunRecord } from "../model/types";

export interface RunActions {
  answer(question: QuestionAsked, answer: { value?: Json; decline_reason?: string; call_happened?: boolean; by: string }): Promise<void>;
  fork(node: string): void;
}

export interface RunData {
  record: RunRecord;
  fold: RunFold;
  texts: RunTexts;
  load: BlobLoader;
  /** Null in an exported file, which cannot change anything. */
  actions: RunActions | null;
  select: (path: string | null) => void;
  over: boolean;
}

export const RunContext = createContext<RunData | null>(null);

export function useRun(): RunData {
  const run = useContext(RunContext);
  if (!run) throw new Error("a part of a run outside of a run");
  return run;
}
