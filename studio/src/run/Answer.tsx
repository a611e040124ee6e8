import { useMemo } from "react";
import { dateTime, percent, plural, score } from "../lib/format";
import { oneLine, visible } from "../lib/visible";
import { reasonOf, statusOf, type RunFold, type RunNode } from "../model/fold";
import { isEmpty } from "../model/missing";
import type { CertificateSummary, Json, Outcome, RunEvent } from "../model/types";
import { RUN_MEANING } from "../model/words";
import { Fact } from "../parts/Fact";
import { Icon } from "../parts/Icon";
import { Status } from "../parts/Status";
import { Value } from "../parts/Value";
import { claimState, ClaimCard } from "./Claims";
import { useRun } from "./context";
import { Missing } from "./Missing";
import { QuestionCard } from "./Question";
import { Usage } from "./Usage";

/** What a run answers, and what each part of the answer rests on. */
export function Answer({ version, status }: { version: number; status: string }) {
  const { record, fold, select } = useRun();
  const outcome = fold.outcome;
  const questions = fold.questions;
  const withheld = useMemo(() => withheldParts(fold), [fold, version]);
  return (
    <div className="answer">
      {questions.map((question) => (
        <QuestionCard key={question.seq} question={question} />
      ))}
      {outcome === null ? (
        questions.length === 0 && <p className="notice">{RUN_MEANING[status]?.replace("RUN", record.run) ?? "The run has no output yet."}</p>
      ) : outcome.type === "value" ? (
        <ValueAnswer />
      ) : (
        <NoAnswer outcome={outcome} status={status} />
      )}
      {record.certificates.length > 0 && (
        <section aria-labelledby="guarantees">
          <h2 id="guarantees">Guarantees</h2>
          {record.certificates.slice(0, 50).map((one) => (
            <Guarantee key={one.node} {...one} />
          ))}
        </section>
      )}
      {withheld.length > 0 && (
        <section aria-labelledby="withheld">
          <h2 id="withheld">
            Withheld and rejected <span className="soft">{withheld.length}</span>
          </h2>
          <ul className="withheld-list">
            {withheld.slice(0, 100).map((one, index) => (
              <li key={index}>
                <button type="button" className="withheld-item" onClick={() => select(one.path)}>
                  <span className="withheld-head">
                    <Status status={one.status} small />
                    <span className="mono">{oneLine(one.path, 60)}</span>
                    <span className="soft">{one.what}</span>
                  </span>
                  <span className="withheld-why">{visible(one.why)}</span>
                </button>
              </li>
            ))}
          </ul>
          {withheld.length > 100 && <p className="soft">and {plural(withheld.length - 100, "more")}; the timeline has them all</p>}
        </section>
      )}
      <Usage />
      <Inputs inputs={fold.start?.inputs ?? null} />
      <Happened external={fold.external} />
      <Digests />
    </div>
  );
}

function ValueAnswer() {
  const { record, fold } = useRun();
  const outcome = fold.outcome;
  if (outcome?.type !== "value") return null;
  const claims = [...record.claims, ...record.dropped.map((one) => ({ ...one, dropped: true }))];
  const states = record.claims.map(claimState);
  const supported = states.filter((one) => one === "supported").length;
  const person = states.filter((one) => one === "person").length;
  const unsupported = states.filter((one) => one === "unsupported").length;
  return (
    <>
      <Missing value={outcome.value} />
      {(record.dropped.length > 0 || !isEmpty(outcome.value)) && (
        <section aria-labelledby="why">
          <h2 id="why">Why this answer may be believed</h2>
          {record.claims.length === 0 ? (
            <p className="notice">The output claims nothing, so there is nothing to support.</p>
          ) : (
            <>
              <div className="meter" role="img" aria-label={`${supported} supported, ${person} given by a person, ${unsupported} not supported`}>
                <span className="tone-good" style={{ flexGrow: supported }} />
                <span className="tone-person" style={{ flexGrow: person }} />
                <span className="tone-doubt" style={{ flexGrow: unsupported }} />
              </div>
              <p className="meter-words">
                <strong>
                  {supported} of {plural(record.claims.length, "value")}
                </strong>{" "}
                supported by evidence and checks
                {person > 0 && <>; {person} given by a person</>}
                {unsupported > 0 && (
                  <>
                    ; <strong className="tone-doubt ink">{unsupported} not supported</strong>
                  </>
                )}
                {record.confidence !== null && <span className="soft"> · confidence {score(record.confidence)}</span>}
              </p>
            </>
          )}
          {claims.slice(0, 200).map((claim, index) => (
            <ClaimCard key={`${claim.path}-${index}`} claim={claim} open={index < 1 && claims.length <= 20} />
          ))}
          {claims.length > 200 && <p className="soft">and {plural(claims.length - 200, "more value")}; orchestra runs show {record.run} --json has them all</p>}
        </section>
      )}
      <details className="plain">
        <summary>The output as one value</summary>
        <Value value={outcome.value} />
      </details>
    </>
  );
}

function NoAnswer({ outcome, status }: { outcome: Exclude<Outcome, { type: "value" }>; status: string }) {
  const { select, fold } = useRun();
  const origin = "origin" in outcome && outcome.origin && fold.nodes.has(outcome.origin) ? outcome.origin : "";
  const withheld = status === "abstained";
  return (
    <section className={`no-answer tone-${withheld ? "withheld" : status === "cancelled" ? "quiet" : "bad"}`} aria-labelledby="no-answer">
      <h2 id="no-answer">
        <Icon name={withheld ? "withheld" : "cross"} size={20} />
        {withheld ? "The answer is withheld" : status === "cancelled" ? "The run was cancelled" : "There is no answer"}
      </h2>
      <p className="no-answer-why">
        {outcome.type === "failed" && outcome.code && <code>{outcome.code}</code>} {visible(outcome.reason)}
      </p>
      {"hint" in outcome && outcome.hint && <p>{visible(outcome.hint)}</p>}
      {withheld && <p className="soft">This is a valid result: nothing that the run found was supported well enough to be given out.</p>}
      {origin && (
        <button type="button" className="button" onClick={() => select(origin)}>
          See where it began: <span className="mono">{oneLine(origin, 60)}</span>
        </button>
      )}
    </section>
  );
}

interface WithheldPart {
  path: string;
  status: string;
  what: string;
  why: string;
}

function withheldParts(fold: RunFold): WithheldPart[] {
  const found: WithheldPart[] = [];
  const over = fold.finished !== null;
  const add = (node: RunNode): void => {
    const outcome = node.outcome;
    if (outcome?.type === "abstained" || outcome?.type === "failed") {
      if (!outcome.origin || outcome.origin === node.path || !fold.nodes.has(outcome.origin)) found.push({ path: node.path, status: statusOf(node, over), what: node.attempts.length > 1 ? `after ${plural(node.attempts.length, "attempt")}` : "", why: reasonOf(node) });
      return;
    }
    if (node.originalOutcome) found.push({ path: node.path, status: "fallback", what: "", why: reasonOf(node) });
    for (const attempt of node.attempts) {
      if (attempt.accepted === false) found.push({ path: node.path, status: "abstained", what: `attempt ${attempt.number}`, why: attempt.rejection });
      else if (attempt.error) found.push({ path: node.path, status: "failed", what: `attempt ${attempt.number}`, why: `${attempt.error}: ${attempt.reason}` });
    }
  };
  for (const node of fold.nodes.values()) add(node);
  const rank = (one: WithheldPart): number => (one.what.startsWith("attempt") ? 1 : 0);
  return found.sort((a, b) => rank(a) - rank(b));
}

function Guarantee({ node, guarantee, summary }: { node: string; guarantee: string; summary: CertificateSummary | null }) {
  const { select } = useRun();
  return (
    <section className="claim certificate">
      <header>
        <Icon name="shield" />
        <h3 className="mono">
          <button type="button" className="link mono" onClick={() => select(node)}>
            {oneLine(node, 60)}
          </button>
        </h3>
      </header>
      <p>{visible(guarantee)}</p>
      <CertificateFigures summary={summary} />
    </section>
  );
}

export function CertificateFigures({ summary }: { summary: CertificateSummary | null }) {
  if (summary === null) return <p className="soft">Its certificate is missing or unreadable.</p>;
  const { alpha, delta, threshold, coverage } = summary;
  return (
    <>
      <dl className="facts">
        {alpha != null && <Fact name="at most wrong" value={percent(alpha)} />}
        {delta != null && <Fact name="with confidence" value={percent(1 - delta)} />}
        {threshold != null && <Fact name="from a score of" value={threshold.toPrecision(4)} />}
        {coverage != null && <Fact name="accepts" value={percent(coverage)} />}
      </dl>
      <details className="plain">
        <summary>The certificate</summary>
        <Value value={summary as { [key: string]: Json }} open={2} />
      </details>
    </>
  );
}

function Inputs({ inputs }: { inputs: Json }) {
  const entries = inputs !== null && typeof inputs === "object" && !Array.isArray(inputs) ? Object.entries(inputs) : [["input", inputs] as [string, Json]];
  return (
    <section aria-labelledby="inputs">
      <h2 id="inputs">Inputs</h2>
      {entries.length === 0 && <p className="soft">no inputs</p>}
      <dl className="inputs">
        {entries.map(([name, value]) => (
          <div key={name}>
            <dt className="mono">{oneLine(name)}</dt>
            <dd>
              <Value value={value} open={0} />
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function Happened({ external }: { external: readonly RunEvent[] }) {
  if (external.length === 0) return null;
  const words = (event: RunEvent): string => {
    switch (event.type) {
      case "run_resumed":
        return `resumed${event.by ? ` by ${event.by}` : ""}`;
      case "question_answered":
        return `${event.node}: ${event.decline_reason ? `declined by ${event.by || "a person"}: ${event.decline_reason}` : `answered by ${event.by || "a person"}`}`;
      case "cancel_requested":
        return `cancelled${event.by ? ` by ${event.by}` : ""}`;
      case "inbox_message_rejected":
        return `an answer was rejected: ${event.reason}`;
      default:
        return event.type;
    }
  };
  return (
    <section aria-labelledby="happened">
      <h2 id="happened">From outside</h2>
      <ul className="log">
        {external.slice(-50).map((event) => (
          <li key={event.seq}>
            <time className="soft mono">{dateTime(event.at)}</time> {visible(words(event))}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Digests() {
  const { fold, record } = useRun();
  const start = fold.start;
  if (!start) return null;
  const entries = [["workflow", start.graph], ...Object.entries(start.versions ?? {})] as [string, string][];
  return (
    <details className="plain">
      <summary>What ran: {plural(entries.length, "digest")}</summary>
      <table className="plain-table">
        <tbody>
          {record.tiers.length > 0 && (
            <tr>
              <th scope="row">models</th>
              <td>{record.tiers.map((tier) => `${tier.name}: ${plural(tier.calls, "call")}, ${tier.accepted} accepted`).join("; ")}</td>
            </tr>
          )}
          {entries.map(([name, digest]) => (
            <tr key={name}>
              <th scope="row" className="mono">
                {oneLine(name)}
              </th>
              <td className="mono">{digest}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
