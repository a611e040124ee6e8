import { useState } from "react";
import { plural } from "../lib/format";
import { oneLine, visible } from "../lib/visible";
import type { Claim } from "../model/types";
import { Icon } from "../parts/Icon";
import { Evidence } from "../parts/Source";
import { Score, Status } from "../parts/Status";
import { Text, Value } from "../parts/Value";
import { useRun } from "./context";

export type ClaimState = "supported" | "person" | "unsupported" | "removed";

export function claimState(claim: Claim): ClaimState {
  if (claim.dropped) return "removed";
  if (claim.unsupported) return "unsupported";
  return claim.person ? "person" : "supported";
}

export const CLAIM_WORDS: Record<ClaimState, { icon: string; word: string; tone: string }> = {
  supported: { icon: "check", word: "supported", tone: "good" },
  person: { icon: "pen", word: "given by a person", tone: "person" },
  unsupported: { icon: "question", word: "not supported", tone: "doubt" },
  removed: { icon: "withheld", word: "removed", tone: "withheld" },
};

export function ClaimBadge({ state }: { state: ClaimState }) {
  const { icon, word, tone } = CLAIM_WORDS[state];
  return (
    <span className={`status tone-${tone}`}>
      <Icon name={icon} size={14} />
      {word}
    </span>
  );
}

/** One part of the output: its value, and why it may be believed, or why not. */
export function ClaimCard({ claim, open }: { claim: Claim; open: boolean }) {
  const { texts, select } = useRun();
  const [shown, setShown] = useState(open);
  const state = claimState(claim);
  const evidence = claim.evidence ?? [];
  const verdicts = claim.verdicts ?? [];
  const why = claim.unsupported || claim.person || "";
  const has = evidence.length > 0 || verdicts.length > 0 || (claim.nodes?.length ?? 0) > 0;
  return (
    <section className={`claim is-${state}`} aria-label={`claim ${claim.path || "the output"}`}>
      <header>
        <h3 className="mono">{oneLine(claim.path || "output")}</h3>
        <span className="grow" />
        {claim.score != null && state === "supported" && <Score value={claim.score} />}
        <ClaimBadge state={state} />
      </header>
      <div className="claim-value">{typeof claim.value === "string" ? <Text text={claim.value} most={600} /> : <Value value={claim.value} open={1} />}</div>
      {why && <p className={state === "person" ? "soft" : "why"}>{visible(why)}</p>}
      {has && (
        <>
          <button type="button" className="unfold" aria-expanded={shown} onClick={() => setShown(!shown)}>
            <Icon name="chevron" size={12} />
            {shown ? "Why" : summary(claim)}
          </button>
          {shown && (
            <div className="claim-body">
              <Evidence items={evidence} texts={texts} />
              {verdicts.length > 0 && (
                <ul className="verdicts">
                  {verdicts.map((one, index) => (
                    <li key={index} className="verdict">
                      <div className="verdict-head">
                        <Status status={one.outcome} small />
                        <code>{oneLine(one.check)}</code>
                        <Score value={one.score} />
                        <button type="button" className="link mono" onClick={() => select(one.node)}>
                          {oneLine(one.node, 60)}
                        </button>
                      </div>
                      {one.reason && <p className="verdict-reason">{visible(one.reason)}</p>}
                    </li>
                  ))}
                </ul>
              )}
              {claim.nodes && claim.nodes.length > 0 && (
                <p className="soft said-by">
                  stated by{" "}
                  {claim.nodes.slice(0, 12).map((node) => (
                    <button key={node} type="button" className="link mono" onClick={() => select(node)}>
                      {oneLine(node, 60)}
                    </button>
                  ))}
                  {claim.nodes.length > 12 && ` and ${plural(claim.nodes.length - 12, "more node")}`}
                </p>
              )}
            </div>
          )}
        </>
      )}
    </section>
  );
}

function summary(claim: Claim): string {
  const places = claim.evidence?.length ?? 0;
  const checks = new Set(claim.verdicts?.map((one) => one.check));
  const parts = [places ? plural(places, "piece of evidence", "pieces of evidence") : "", checks.size ? plural(checks.size, "check") : ""].filter(Boolean);
  return parts.length ? parts.join(" · ") : "Where it comes from";
}
