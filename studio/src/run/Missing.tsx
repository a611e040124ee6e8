import { plural } from "../lib/format";
import { oneLine, visible } from "../lib/visible";
import { isEmpty, missingParts, type MissingPart } from "../model/missing";
import type { Json } from "../model/types";
import { Icon } from "../parts/Icon";
import { useRun } from "./context";

/** What an output lacks, and why; nothing for an output that lacks nothing. */
export function Missing({ value }: { value: Json }) {
  const { record, fold, select } = useRun();
  const empty = isEmpty(value);
  const parts = missingParts(value, record.workflows[""] ?? null, fold);
  if (!empty && parts.length === 0) return null;
  return (
    <section className="no-answer tone-withheld" aria-labelledby="missing">
      <h2 id="missing">
        <Icon name="withheld" size={20} />
        {empty ? "No answer was found" : `${plural(parts.length, "part")} of the answer ${parts.length === 1 ? "is" : "are"} missing`}
      </h2>
      {empty && <p className="no-answer-why">The run has ended without an error, and its output has no value.</p>}
      <ul className="missing-list">
        {parts.map((part, index) => (
          <li key={index}>
            {part.path && <span className="mono">{oneLine(part.path, 60)}: </span>}
            {visible(wordsOf(part))}
            {part.node && (
              <>
                {" "}
                <button type="button" className="link" onClick={() => select(part.node)}>
                  see {oneLine(part.node, 40)}
                </button>
              </>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

function wordsOf(part: MissingPart): string {
  if (part.what) return `not found: ${part.what}`;
  if (part.why) return part.why;
  return part.node ? `${part.node} found nothing: its value is null` : "its value is null";
}
