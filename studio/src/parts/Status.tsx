import { wordsOf } from "../model/words";
import { Icon } from "./Icon";

export function Status({ status, small = false }: { status: string; small?: boolean }) {
  const { icon, word, tone } = wordsOf(status);
  return (
    <span className={`status tone-${tone}${small ? " small" : ""}`} data-status={status}>
      <Icon name={icon} size={small ? 12 : 14} />
      {word}
    </span>
  );
}

/** A score as a number and a bar. */
export function Score({ value }: { value: number | null | undefined }) {
  if (value === null || value === undefined) return null;
  return (
    <span className="score">
      <span className="score-bar" aria-hidden="true">
        <span style={{ width: `${Math.max(0, Math.min(1, value)) * 100}%` }} />
      </span>
      {value.toFixed(2)}
    </span>
  );
}
