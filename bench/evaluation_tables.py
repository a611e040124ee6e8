"""The tables of `bench.evaluate`: one for each evaluation in the agent's card, and one line for each metric in the
README, between markers.

A page is rewritten completely or not at all, and writing the same results twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from orchestra.learn.evaluation.config import Evaluation
from orchestra.learn.evaluation.evaluation import CANDIDATE, INCUMBENT, UNTUNED, caption
from orchestra.learn.evaluation.metrics import is_lower_better

Marks: TypeAlias = tuple[str, str]
CARD_MARKS: Marks = "<!-- evaluation -->", "<!-- end:evaluation -->"
PAGE_MARKS: Marks = "<!-- begin:evaluations -->", "<!-- end:evaluations -->"
ARMS = {CANDIDATE: "what it had before its last promotion", UNTUNED: "its untuned base"}
HEAD = ("agent", "data", "rows", "measure", "floor", "untuned base", "the agent, 95 %", "goal", "met", "seconds a row")


@dataclass(frozen=True)
class Measured:
    """One evaluation of an agent, with the result of `orchestra learn evaluate --json`."""

    agent: str
    name: str
    plan: Evaluation
    report: Mapping[str, Any]
    stamp: str
    """Day, machine, digests: what the results are valid for."""
    command: str = ""
    """The command that repeats it; `orchestra learn evaluate` by default."""

    @property
    def arms(self) -> dict[str, Mapping[str, Any]]:
        """Returns the arms by name."""
        return {arm["arm"]: arm for arm in self.report["arms"]}

    @property
    def seconds_a_row(self) -> float:
        """Returns seconds per row of the agent, with concurrent rows."""
        return float(self.arms[INCUMBENT]["seconds"]) / max(1, int(self.report["rows"]))

    @property
    def seed(self) -> int:
        """Returns the seed of the sample and of the intervals."""
        return self.plan.rows.seed if self.plan.rows else 0


def rate(seconds: float) -> str:
    """Returns seconds per row as tables have it."""
    return f"{seconds:.4f}" if seconds < 0.01 else f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.3f}"


def reached(figure: Mapping[str, float] | None, goal: float, *, less: bool = False) -> str:
    """Returns whether a result reaches its goal, as a word; uncertain if the goal is in its interval."""
    if figure is None:
        return "no"
    met = figure["value"] <= goal if less else figure["value"] >= goal
    unsure = figure["low"] <= goal < figure["high"] if less else figure["low"] < goal <= figure["high"]
    return f"{'yes' if met else 'no'}{', not surely' * unsure}"


def _shown(figure: Mapping[str, float] | None) -> str:
    return "-" if figure is None else f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def card_section(one: Measured) -> str:
    """Returns the section of an evaluation in a card: date and method, then one line for each arm."""
    metrics, rows = list(one.plan.metrics), int(one.report["rows"])
    head = ["", *metrics, "answered", "tokens in, out a row", "seconds a row"]
    lines = [_line(head), f"|{'---|' * len(head)}"]
    for name, figures in one.plan.floors.items():
        lines.append(
            _line(
                [
                    f"floor: {name}",
                    *(f"{figures[m]:.3f}" if m in figures else "" for m in metrics),
                    "",
                    "",
                    "measured elsewhere",
                ]
            )
        )
    for name, arm in one.arms.items():
        count = max(1, int(arm["rows"]))
        spent = (
            f"{arm['prompt_tokens'] / count:.0f}, {arm['output_tokens'] / count:.0f}" if arm["prompt_tokens"] else ""
        )
        took = rate(arm["seconds"] / count) if arm["seconds"] else ""
        figures_of = [_shown(arm["metrics"][metric]) for metric in metrics]
        shown = (one.agent if name == INCUMBENT else ARMS.get(name, name)) + (
            "" if count == rows else f", {count} rows"
        )
        lines.append(_line([shown, *figures_of, f"{arm['answered']:.3f}", spent, took]))
    if one.plan.goals:
        lines.append(
            _line(
                ["the goal", *(f"{one.plan.goals[m]:.3f}" if m in one.plan.goals else "" for m in metrics), "", "", ""]
            )
        )
    data = f": {one.plan.data}" if one.plan.data else ""
    groups = int(one.report.get("groups", 0))
    together = f" of {groups:,} groups" if 0 < groups < rows else ""
    return (
        f"`{one.name}`{data}. {rows:,} rows{together}, seed {one.seed}; {one.stamp}. {caption(rows, groups)}\n\n"
        f"    $ {one.command or f'orchestra learn evaluate {one.agent} --data DATA --evaluation {one.name}'}\n\n"
        + "\n".join(lines)
        + "\n"
    )


def card_with(text: str, measured: Sequence[Measured]) -> str:
    """Returns a card with the tables of its evaluations between its markers, or at its end without markers."""
    return between(text, CARD_MARKS, "\n" + "\n".join(map(card_section, measured)) + "\n", heading="**Evaluation**\n\n")


def page_lines(one: Measured) -> list[str]:
    """Returns the lines of an evaluation in the README: its first metric, those with a goal, and accepted and wrong."""
    arms, own = one.arms, one.arms[INCUMBENT]["metrics"]
    floors = {
        name: {m: f and f["value"] for m, f in arm["metrics"].items()}
        for name, arm in arms.items()
        if name.startswith("floor")
    }
    floors.update({name: dict(figures) for name, figures in one.plan.floors.items()})
    first = next(iter(one.plan.metrics))
    lines = []
    for metric, measure in one.plan.metrics.items():
        less = is_lower_better(measure)
        if metric != first and metric not in one.plan.goals and not less:
            continue
        rivals = [figures[metric] for figures in floors.values() if figures.get(metric) is not None]
        if less and floors:  # abstaining always minimises it, so the baseline that is best at the first metric is shown
            best = max(floors.values(), key=lambda figures: figures.get(first) or float("-inf"))
            rivals = [best[metric]] if best.get(metric) is not None else []
        untuned = arms[UNTUNED]["metrics"].get(metric) if UNTUNED in arms else None
        goal, figure = one.plan.goals.get(metric), own[metric]
        met = "" if goal is None else reached(figure, goal, less=less)
        lines.append(
            _line(
                [
                    one.agent,
                    one.name,
                    f"{one.report['rows']:,}",
                    metric,
                    f"{max(rivals):.3f}" if rivals else "",
                    f"{untuned['value']:.3f}" if untuned else "",
                    _shown(figure),
                    "" if goal is None else f"{'at most ' if less else ''}{goal:g}",
                    met,
                    rate(one.seconds_a_row) if metric == first else "",
                ]
            )
        )
    return lines


def page_with(text: str, measured: Sequence[Measured], known: Iterable[str], marks: Marks = PAGE_MARKS) -> str:
    """Returns a page whose table has the lines of these evaluations, and previous lines of agents in `known`."""
    lines: dict[str, list[str]] = {}
    for line in old_lines(text, marks):
        lines.setdefault(line.split("|")[1].strip(), []).append(line)
    fresh: dict[str, list[str]] = {}
    for one in measured:
        fresh.setdefault(one.agent, []).extend(page_lines(one))
    lines = {name: fresh.get(name, lines.get(name, [])) for name in sorted({*fresh, *known})}
    table = [_line(HEAD), f"|{'---|' * len(HEAD)}", *(line for group in lines.values() for line in group)]
    return between(text, marks, "\n" + "\n".join(table) + "\n\n")


def old_lines(text: str, marks: Marks = PAGE_MARKS) -> list[str]:
    """Returns the lines of the table of a page, without its head."""
    found = re.search(re.escape(marks[0]) + r"\n(.*?)" + re.escape(marks[1]), text, re.DOTALL)
    return [line for line in found[1].splitlines() if line.startswith("| ")][1:] if found else []


def rates_of(text: str) -> dict[tuple[str, str], float]:
    """Returns seconds per row by agent and evaluation, from the table of a page."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in old_lines(text)]
    return {
        (row[0], row[1]): float(row[-1]) for row in cells if len(row) == len(HEAD) and re.fullmatch(r"[\d.]+", row[-1])
    }


def between(text: str, marks: Marks, body: str, heading: str = "") -> str:
    """Returns a text with new content between its markers; missing markers are added at the end under the heading."""
    begin, end = marks
    if begin not in text or end not in text:
        return f"{text.rstrip()}\n\n{heading}{begin}\n{body}{end}\n"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{body}{end}{rest.partition(end)[2]}"
