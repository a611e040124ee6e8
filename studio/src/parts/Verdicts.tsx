import { oneLine, visible } from "../lib/visible";
import { checkMeaning } from "../model/words";
import type { Verdict } from "../model/types";
import { Score, Status } from "./Status";

/** Each check of a value: its verdict as a word, its score and its reason. */
export function Verdicts({ verdicts }: { verdicts: Verdict[] }) {
  return (
    <ul className="verdicts">
      {verdicts.map((one, index) => (
        <VerdictLine key={index} verdict={one} />
      ))}
    </ul>
  );
}

function VerdictLine({ verdict }: { verdict: Verdict }) {
  const meaning = checkMeaning(verdict.check);
  return (
    <li className="verdict">
      <div className="verdict-head">
        <Status status={verdict.outcome} small />
        <code>{oneLine(verdict.check)}</code>
        <Score value={verdict.score} />
        {verdict.deterministic === false && <span className="chip">by a model</span>}
      </div>
      {verdict.reason ? (
        <p className="verdict-reason">{visible(verdict.reason)}</p>
      ) : (
        meaning && <p className="verdict-reason soft">{verdict.outcome === "pass" ? meaning : `Checked: ${meaning}`}</p>
      )}
      {verdict.dropped?.map((part, index) => (
        <p className="verdict-reason" key={index}>
          removed: <q>{visible(part.text)}</q> — {visible(part.reason)}
        </p>
      ))}
      {verdict.parts && verdict.parts.length > 0 && <Verdicts verdicts={verdict.parts} />}
    </li>
  );
}
