"""The table of an evaluation: right, wrong and no answer by kind, world, words, skills; latency, tokens, CPU time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from bench.requests.scoring import Score
from bench.requests.systems import Answer
from bench.requests.worlds import Request

SPLITS_OF_TABLE: Sequence[tuple[str, Callable[[Request], Iterable[str]]]] = (
    ("kind", lambda request: (request.kind,)),
    ("world", lambda request: (request.world,)),
    ("words", lambda request: (f"{request.words} words",)),
    ("skills", lambda request: ("two or more skills" if len(request.needs) > 1 else "one skill",)),
    ("needs", lambda request: request.needs),
    ("answer", lambda request: ("answerable" if request.answerable else "unanswerable",)),
    ("language", lambda request: (request.language,)),
)


@dataclass(frozen=True)
class Row:
    """A request, its answer and its verdict."""

    request: Request
    answer: Answer
    score: Score
    seconds: float
    cpu_seconds: float

    def as_data(self) -> dict[str, object]:
        """Returns the row for JSON lines."""
        request, answer = self.request, self.answer
        return {
            "id": request.id,
            "world": request.world,
            "kind": request.kind,
            "words": request.words,
            "needs": list(request.needs),
            "language": request.language,
            "answerable": request.answerable,
            "request": request.request,
            "verdict": self.score.verdict,
            "missing": list(self.score.missing),
            "stated": list(self.score.stated),
            "status": answer.status,
            "answer": answer.text,
            "reason": answer.reason,
            "steps": list(answer.steps),
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
            "calls": answer.calls,
        }


def write_report(rows: Sequence[Row], title: str, stamp: str) -> str:
    """Returns the Markdown of an evaluation."""
    lines = [
        f"# {title}",
        "",
        f"{stamp}. Seconds are the median and the 90th percentile; tokens, calls and CPU seconds are means.",
        "",
        "| | requests | right | wrong | no answer | seconds | prompt tokens | output tokens | calls | CPU seconds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        _line("all", rows, with_cost=True),
        "",
    ]
    for name, parts_of in SPLITS_OF_TABLE:
        groups: dict[str, list[Row]] = {}
        for row in rows:
            for part in parts_of(row.request):
                groups.setdefault(part, []).append(row)
        lines += [f"| {name} | requests | right | wrong | no answer | seconds |", "|---|--:|--:|--:|--:|--:|"]
        lines += [_line(part, groups[part]) for part in sorted(groups)]
        lines.append("")
    return "\n".join(lines)


def _line(name: str, rows: Sequence[Row], *, with_cost: bool = False) -> str:
    total = len(rows)
    counts = [sum(row.score.verdict == verdict for row in rows) for verdict in ("right", "wrong", "no answer")]
    shares = [f"{count} ({count / total:.0%})" if total else "0" for count in counts]
    seconds = sorted(row.seconds for row in rows)
    ninth = quantiles(seconds, n=10, method="inclusive")[-1] if total > 1 else seconds[0] if seconds else 0.0
    cells = [name, str(total), *shares, f"{median(seconds):.2f} / {ninth:.2f}" if seconds else "–"]
    if with_cost and total:
        answers = [row.answer for row in rows]
        cells += [
            f"{sum(one.prompt_tokens for one in answers) / total:.0f}",
            f"{sum(one.output_tokens for one in answers) / total:.0f}",
            f"{sum(one.calls for one in answers) / total:.1f}",
            f"{sum(row.cpu_seconds for row in rows) / total:.1f}",
        ]
    return f"| {' | '.join(cells)} |"
