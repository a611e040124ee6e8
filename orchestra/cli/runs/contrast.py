"""Contrast: runs as they were beside runs as they would be, as text, as JSON, and as Markdown for a pull request."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.app.whatif import Rehearsal, Side, Stop, Verdict
from orchestra.cli.exit_codes import as_data
from orchestra.cli.output import console, say, seconds, table
from orchestra.cli.run.result_view import as_text
from orchestra.core.errors import OrchestraError
from orchestra.core.events import NOTHING, Usage
from orchestra.core.outcomes import Outcome, Value
from orchestra.core.untrusted_text import counted, shortened, visible

SHOWN = 20
"""Nodes that are shown side by side; JSON has all."""
LONG = 400
"""Characters of a value that are shown."""
SAID: dict[Verdict, str] = {
    "same": "the same",
    "changed": "another",
    "withheld": "withheld now",
    "answered": "answered now",
    "failed": "fails now",
    "stopped": "stops before it",
    "refused": "would be refused",
}


@dataclass(frozen=True, slots=True)
class Lost:
    """A run that could not be gone through, and why."""

    run: str
    error: OrchestraError


@dataclass(frozen=True, slots=True)
class Contrast:
    """What became of some runs."""

    agents: Sequence[tuple[str, str]]
    """Who was asked otherwise, and who instead; empty for everything as it is today."""
    found: Sequence[Rehearsal]
    lost: Sequence[Lost]

    @property
    def same(self) -> bool:
        """Whether every answer is what it was."""
        return not self.lost and all(one.verdict == "same" for one in self.found)

    @property
    def whole(self) -> list[Rehearsal]:
        """The runs that come to their ends: what the figures are about."""
        return [one for one in self.found if not one.stops]

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many answers become what."""
        return Counter(one.verdict for one in self.found)

    @property
    def title(self) -> str:
        """What is otherwise."""
        said = (f"{other} instead of {agent}" if other != agent else other for agent, other in self.agents)
        return "; ".join(said) or "everything as it is today"

    @property
    def told(self) -> str:
        """What becomes of the answers, in one line."""
        return ", ".join(f"{count:,} {SAID[verdict]}" for verdict, count in self.verdicts.most_common()) + (
            f", {len(self.lost):,} cannot be gone through" if self.lost else ""
        )

    @property
    def effort(self) -> str:
        """What it took to find out."""
        recalled, anew = sum(one.recalled for one in self.found), sum(one.anew for one in self.found)
        spent = sum((one.spent for one in self.found), NOTHING)
        return (
            f"{counted(recalled, 'call')} recalled, {anew:,} made anew:"
            f" {spent.prompt_tokens:,} tokens in, {spent.output_tokens:,} out, {seconds(spent.seconds)}"
        )

    def figures(self) -> list[tuple[str, str, str]]:
        """Answers, acceptance and cost, then and now, of the runs that come to their ends."""
        before, after = [one.before for one in self.whole], [one.after for one in self.whole]
        spent = [sum((side.usage for side in sides), NOTHING) for sides in (before, after)]
        then = sum(isinstance(side.outcome, Value) for side in before)
        now = sum(isinstance(one.after.outcome, Value) and one.verdict != "refused" for one in self.whole)
        rows = [("answers", f"{then:,}", f"{now:,}")]
        if any(side.judged for side in (*before, *after)):
            rows.append(("accepted", _share(before), _share(after)))
        for name, of in _COSTS.items():
            if any(of(usage) not in ("0", "0.00 s", "0.000000") for usage in spent):
                rows.append((name, of(spent[0]), of(spent[1])))
        return rows


_COSTS: dict[str, Callable[[Usage], str]] = {
    "tokens in": lambda usage: f"{usage.prompt_tokens:,}",
    "tokens out": lambda usage: f"{usage.output_tokens:,}",
    "time": lambda usage: seconds(usage.seconds),
    "money": lambda usage: f"{usage.money:.6f}",
}


def _share(sides: Sequence[Side]) -> str:
    return f"{sum(side.accepted for side in sides):,} of {sum(side.judged for side in sides):,}"


def show(found: Contrast) -> None:
    """Prints it for a person."""
    say(visible(f"{found.title}: {found.told}"), style="bold")
    say()
    rows = [(one.run, one.workflow, SAID[one.verdict], ", ".join(change.node for change in one.changed)) for one in found.found]
    rows += [(one.run, "", "cannot be gone through", one.error.message) for one in found.lost]
    console().print(table(("run", "workflow", "its answer", "nodes that come to something else"), rows))
    for one in found.found:
        for stop in one.stops:
            say(visible(f"\n{one.run} stops at {stop.node}: {_why(stop)}"), style="yellow")
            say(visible(f"  {_cut(as_text(stop.inputs))}"), style="dim")
        if one.lost:
            say(visible(f"\n{one.run} is not followed to its end by today's engine: {one.lost}"), style="yellow")
        for node in one.uncovered:
            say(visible(f"\n{one.run}, {node.node}: {node.said}"), style="yellow")
        if one.altered or one.unsure:
            say(visible(f"\n{one.run}: {_written(one)}"), style="yellow")
        if one.late:
            say(visible(f"\n{one.run}: {_late(one)}"), style="yellow")
    changes = [(one, change) for one in found.found for change in one.changed]
    for one, change in changes[:SHOWN]:
        say(visible(f"\n{change.node} of run {one.run}"), style="bold")
        say(visible(f"  then  {_cell(change.before)}"), style="red")
        say(visible(f"  now   {_cell(change.after)}"), style="green")
    if len(changes) > SHOWN:
        say(f"\nand {len(changes) - SHOWN:,} more; --json has them", style="dim")
    say()
    if found.whole:
        console().print(table(("", "then", "now"), found.figures(), right=(1, 2)))
    say(_about(found), style="dim")


def _about(found: Contrast) -> str:
    left = len(found.found) - len(found.whole)
    whole = len(found.whole)
    ends = f"{whole:,} run{'s come to their ends' if whole != 1 else ' comes to its end'}; " if left or found.lost else ""
    return ends + found.effort


def _written(one: Rehearsal) -> str:
    altered = f"the code of {', '.join(one.altered)} has changed: called anew" if one.altered else ""
    unsure = f"whether the code of {', '.join(one.unsure)} has changed is not on record" if one.unsure else ""
    return "; ".join(filter(None, (altered, unsure)))


def _late(one: Rehearsal) -> str:
    where = ", ".join(node or "the run" for node in one.late)
    return f"time was up then at {where}; recalled calls take none, so this may come out otherwise though nothing is"


def _why(stop: Stop) -> str:
    if stop.name == "a person":
        return "a person would be asked, and was not asked this"
    return f"{stop.name} has effects, and would be called with other inputs"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "nothing"
    return _cut(as_text(outcome.value) if isinstance(outcome, Value) else f"{type(outcome).__name__.lower()}: {outcome.reason}")


def _cut(text: str) -> str:
    return shortened(" ".join(text.split()), LONG)


def as_markdown(found: Contrast) -> str:
    """It as a comment on a pull request. What models and users wrote stands in code, where it can name nobody and link nowhere."""
    lines = [f"### What if: {_code(found.title)}", "", f"{len(found.found) + len(found.lost):,} runs: {found.told}.", ""]
    lines += ["| | then | now |", "|---|---:|---:|", *(f"| {name} | {then} | {now} |" for name, then, now in found.figures()), ""]
    lines += [_about(found), ""]
    different = [one for one in found.found if one.verdict != "same" or one.changed]
    if different or found.lost:
        lines += ["| run | its answer | nodes that come to something else |", "|---|---|---|"]
    for one in different:
        nodes = ", ".join(_code(change.node) for change in one.changed)
        stops = "; ".join(f"{_code(stop.node)}: {_code(_why(stop))}" for stop in one.stops)
        lines.append(f"| {_code(one.run)} | {SAID[one.verdict]} | {'; '.join(part for part in (nodes, stops) if part)} |")
    late = [f"- {_code(one.run)}, {_code(node.node)}: {_code(node.said)}" for one in found.found for node in one.uncovered]
    late += [f"- {_code(one.run)}: {_code(_written(one))}" for one in found.found if one.altered or one.unsure]
    late += [f"- {_code(one.run)}: {_code(_late(one))}" for one in found.found if one.late]
    lines += [f"| {_code(one.run)} | cannot be gone through | {_code(one.error.message)} |" for one in found.lost]
    lines += ["", *late] if late else []
    changes = [(one, change) for one in found.found for change in one.changed]
    if changes:
        lines += ["", f"<details><summary>{min(len(changes), SHOWN)} of {len(changes):,} nodes, then and now</summary>", ""]
        for one, change in changes[:SHOWN]:
            text = f"- {visible(_cell(change.before))}\n+ {visible(_cell(change.after))}"
            fence = "`" * max(3, _ticks(text) + 1)
            lines += [f"{_code(change.node)} of {_code(one.run)}", "", f"{fence}diff", text, fence, ""]
        lines.append("</details>")
    return "\n".join(lines).rstrip()


def _ticks(text: str) -> int:
    """The longest row of backticks."""
    return max((len(found) for found in re.findall("`+", text)), default=0)


def _code(text: str) -> str:
    """A text as code within a line, or a cell of a table."""
    text = _cut(visible(text, keep="")).replace("|", "\\|")
    fence = "`" * (_ticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def data(found: Contrast) -> dict[str, Any]:
    """It as plain JSON."""
    return {
        "agents": [{"agent": agent, "instead": said} for agent, said in found.agents],
        "verdicts": dict(found.verdicts),
        "same": found.same,
        "runs": [_run(one) for one in found.found],
        "lost": [{"run": one.run, "error": as_data(one.error)} for one in found.lost],
        "recalled": sum(one.recalled for one in found.found),
        "anew": sum(one.anew for one in found.found),
        "spent": sum((one.spent for one in found.found), NOTHING),
    }


def _run(one: Rehearsal) -> dict[str, Any]:
    return {
        "run": one.run,
        "workflow": one.workflow,
        "verdict": one.verdict,
        "before": _side(one.before),
        "after": _side(one.after),
        "changed": [{"node": change.node, "before": change.before, "after": change.after} for change in one.changed],
        "stops": [{"node": stop.node, "name": stop.name, "inputs": stop.inputs} for stop in one.stops],
        "recalled": one.recalled,
        "anew": one.anew,
        "spent": one.spent,
        "lost": one.lost or None,
        "late": one.late,
        "altered": one.altered,
        "unsure": one.unsure,
        "uncovered": [{"node": node.node, "agent": node.agent, "code": node.code, "why": node.why} for node in one.uncovered],
    }


def _side(side: Side) -> dict[str, Any]:
    return {"status": side.status, "outcome": side.outcome, "usage": side.usage, "judged": side.judged, "accepted": side.accepted}
