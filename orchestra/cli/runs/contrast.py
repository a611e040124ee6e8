"""Contrast: runs as they were beside runs as they would be, as text, as JSON, and as Markdown for a pull request."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.app.whatif import StoppedNode, WhatifResult, WhatifRun, WhatifVerdict
from orchestra.cli.exit_codes import error_data
from orchestra.cli.output import format_duration, make_console, make_table, print_text
from orchestra.cli.run.result_view import format_value
from orchestra.core.errors import OrchestraError
from orchestra.core.events import NO_USAGE, Usage
from orchestra.core.outcomes import Outcome, ValueOutcome
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten

MAX_NODES_SHOWN = 20
"""Nodes that are shown side by side; JSON has all."""
MAX_VALUE_LENGTH = 400
"""Characters of a value that are shown."""
VERDICT_TEXTS: dict[WhatifVerdict, str] = {
    "same": "the same",
    "changed": "another",
    "withheld": "withheld now",
    "answered": "answered now",
    "failed": "fails now",
    "stopped": "stops before it",
    "refused": "would be refused",
}


@dataclass(frozen=True, slots=True)
class UnreplayableRun:
    """A run that could not be gone through, and why."""

    run: str
    error: OrchestraError


@dataclass(frozen=True, slots=True)
class WhatIfReport:
    """What became of some runs."""

    agents: Sequence[tuple[str, str]]
    """Who was asked otherwise, and who instead; empty for everything as it is today."""
    rehearsals: Sequence[WhatifResult]
    failures: Sequence[UnreplayableRun]

    @property
    def is_unchanged(self) -> bool:
        """Whether every answer is what it was."""
        return not self.failures and all(one.verdict == "same" for one in self.rehearsals)

    @property
    def completed(self) -> list[WhatifResult]:
        """The runs that come to their ends: what the figures are about."""
        return [one for one in self.rehearsals if not one.stops]

    @property
    def verdict_counts(self) -> Counter[WhatifVerdict]:
        """How many answers become what."""
        return Counter(one.verdict for one in self.rehearsals)

    @property
    def title(self) -> str:
        """What is otherwise."""
        said = (f"{other} instead of {agent}" if other != agent else other for agent, other in self.agents)
        return "; ".join(said) or "everything as it is today"

    @property
    def summary(self) -> str:
        """What becomes of the answers, in one line."""
        return ", ".join(
            f"{count:,} {VERDICT_TEXTS[verdict]}" for verdict, count in self.verdict_counts.most_common()
        ) + (f", {len(self.failures):,} cannot be gone through" if self.failures else "")

    @property
    def effort(self) -> str:
        """What it took to find out."""
        recalled, anew = (
            sum(one.recalled_calls for one in self.rehearsals),
            sum(one.new_calls for one in self.rehearsals),
        )
        spent = sum((one.new_usage for one in self.rehearsals), NO_USAGE)
        return (
            f"{pluralize(recalled, 'call')} recalled, {anew:,} made anew:"
            f" {spent.prompt_tokens:,} tokens in, {spent.output_tokens:,} out, {format_duration(spent.seconds)}"
        )

    def figures(self) -> list[tuple[str, str, str]]:
        """Answers, acceptance and cost, then and now, of the runs that come to their ends."""
        before, after = [one.before for one in self.completed], [one.after for one in self.completed]
        spent = [sum((side.usage for side in sides), NO_USAGE) for sides in (before, after)]
        then = sum(isinstance(side.outcome, ValueOutcome) for side in before)
        now = sum(isinstance(one.after.outcome, ValueOutcome) and one.verdict != "refused" for one in self.completed)
        rows = [("answers", f"{then:,}", f"{now:,}")]
        if any(side.judged_nodes for side in (*before, *after)):
            rows.append(("accepted", _accepted_share(before), _accepted_share(after)))
        for name, of in _COSTS.items():
            if any(of(usage) not in ("0", "0.00 s", "0.000000") for usage in spent):
                rows.append((name, of(spent[0]), of(spent[1])))
        return rows


_COSTS: dict[str, Callable[[Usage], str]] = {
    "tokens in": lambda usage: f"{usage.prompt_tokens:,}",
    "tokens out": lambda usage: f"{usage.output_tokens:,}",
    "time": lambda usage: format_duration(usage.seconds),
    "money": lambda usage: f"{usage.money:.6f}",
}


def _accepted_share(sides: Sequence[WhatifRun]) -> str:
    return f"{sum(side.accepted_nodes for side in sides):,} of {sum(side.judged_nodes for side in sides):,}"


def show_report(report: WhatIfReport) -> None:
    """Prints it for a person."""
    print_text(escape_invisible(f"{report.title}: {report.summary}"), style="bold")
    print_text()
    rows = [
        (one.run, one.workflow, VERDICT_TEXTS[one.verdict], ", ".join(change.node for change in one.differences))
        for one in report.rehearsals
    ]
    rows += [(one.run, "", "cannot be gone through", one.error.message) for one in report.failures]
    make_console().print(make_table(("run", "workflow", "its answer", "nodes that come to something else"), rows))
    for one in report.rehearsals:
        for stop in one.stops:
            print_text(escape_invisible(f"\n{one.run} stops at {stop.node}: {_stop_reason(stop)}"), style="yellow")
            print_text(escape_invisible(f"  {_shorten(format_value(stop.inputs))}"), style="dim")
        if one.replay_gap:
            print_text(
                escape_invisible(f"\n{one.run} is not followed to its end by today's engine: {one.replay_gap}"),
                style="yellow",
            )
        for node in one.uncertified:
            print_text(escape_invisible(f"\n{one.run}, {node.node}: {node.message}"), style="yellow")
        if one.changed_tools or one.unknown_tools:
            print_text(escape_invisible(f"\n{one.run}: {_code_change_note(one)}"), style="yellow")
        if one.timed_out:
            print_text(escape_invisible(f"\n{one.run}: {_timeout_note(one)}"), style="yellow")
    changes = [(one, change) for one in report.rehearsals for change in one.differences]
    for one, change in changes[:MAX_NODES_SHOWN]:
        print_text(escape_invisible(f"\n{change.node} of run {one.run}"), style="bold")
        print_text(escape_invisible(f"  then  {_format_outcome(change.before)}"), style="red")
        print_text(escape_invisible(f"  now   {_format_outcome(change.after)}"), style="green")
    if len(changes) > MAX_NODES_SHOWN:
        print_text(f"\nand {len(changes) - MAX_NODES_SHOWN:,} more; --json has them", style="dim")
    print_text()
    if report.completed:
        make_console().print(make_table(("", "then", "now"), report.figures(), right=(1, 2)))
    print_text(_footer(report), style="dim")


def _footer(report: WhatIfReport) -> str:
    left = len(report.rehearsals) - len(report.completed)
    whole = len(report.completed)
    ends = (
        f"{whole:,} run{'s come to their ends' if whole != 1 else ' comes to its end'}; "
        if left or report.failures
        else ""
    )
    return ends + report.effort


def _code_change_note(one: WhatifResult) -> str:
    altered = f"the code of {', '.join(one.changed_tools)} has changed: called anew" if one.changed_tools else ""
    unsure = (
        f"whether the code of {', '.join(one.unknown_tools)} has changed is not on record" if one.unknown_tools else ""
    )
    return "; ".join(filter(None, (altered, unsure)))


def _timeout_note(one: WhatifResult) -> str:
    where = ", ".join(node or "the run" for node in one.timed_out)
    return f"time was up then at {where}; recalled calls take none, so this may come out otherwise though nothing is"


def _stop_reason(stop: StoppedNode) -> str:
    if stop.name == "a person":
        return "a person would be asked, and was not asked this"
    return f"{stop.name} has effects, and would be called with other inputs"


def _format_outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "nothing"
    return _shorten(
        format_value(outcome.value)
        if isinstance(outcome, ValueOutcome)
        else f"{type(outcome).__name__.lower()}: {outcome.reason}"
    )


def _shorten(text: str) -> str:
    return shorten(" ".join(text.split()), MAX_VALUE_LENGTH)


def as_markdown(report: WhatIfReport) -> str:
    """It as a comment on a pull request. What models and users wrote stands in code, where it can name nobody and link nowhere."""
    lines = [
        f"### What if: {_inline_code(report.title)}",
        "",
        f"{len(report.rehearsals) + len(report.failures):,} runs: {report.summary}.",
        "",
    ]
    lines += [
        "| | then | now |",
        "|---|---:|---:|",
        *(f"| {name} | {then} | {now} |" for name, then, now in report.figures()),
        "",
    ]
    lines += [_footer(report), ""]
    different = [one for one in report.rehearsals if one.verdict != "same" or one.differences]
    if different or report.failures:
        lines += ["| run | its answer | nodes that come to something else |", "|---|---|---|"]
    for one in different:
        nodes = ", ".join(_inline_code(change.node) for change in one.differences)
        stops = "; ".join(f"{_inline_code(stop.node)}: {_inline_code(_stop_reason(stop))}" for stop in one.stops)
        lines.append(
            f"| {_inline_code(one.run)} | {VERDICT_TEXTS[one.verdict]} | {'; '.join(part for part in (nodes, stops) if part)} |"
        )
    late = [
        f"- {_inline_code(one.run)}, {_inline_code(node.node)}: {_inline_code(node.message)}"
        for one in report.rehearsals
        for node in one.uncertified
    ]
    late += [
        f"- {_inline_code(one.run)}: {_inline_code(_code_change_note(one))}"
        for one in report.rehearsals
        if one.changed_tools or one.unknown_tools
    ]
    late += [
        f"- {_inline_code(one.run)}: {_inline_code(_timeout_note(one))}" for one in report.rehearsals if one.timed_out
    ]
    lines += [
        f"| {_inline_code(one.run)} | cannot be gone through | {_inline_code(one.error.message)} |"
        for one in report.failures
    ]
    lines += ["", *late] if late else []
    changes = [(one, change) for one in report.rehearsals for change in one.differences]
    if changes:
        lines += [
            "",
            f"<details><summary>{min(len(changes), MAX_NODES_SHOWN)} of {len(changes):,} nodes, then and now</summary>",
            "",
        ]
        for one, change in changes[:MAX_NODES_SHOWN]:
            text = f"- {escape_invisible(_format_outcome(change.before))}\n+ {escape_invisible(_format_outcome(change.after))}"
            fence = "`" * max(3, _longest_backticks(text) + 1)
            lines += [f"{_inline_code(change.node)} of {_inline_code(one.run)}", "", f"{fence}diff", text, fence, ""]
        lines.append("</details>")
    return "\n".join(lines).rstrip()


def _longest_backticks(text: str) -> int:
    """The longest row of backticks."""
    return max((len(found) for found in re.findall("`+", text)), default=0)


def _inline_code(text: str) -> str:
    """A text as code within a line, or a cell of a table."""
    text = _shorten(escape_invisible(text, keep="")).replace("|", "\\|")
    fence = "`" * (_longest_backticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def as_data(report: WhatIfReport) -> dict[str, Any]:
    """It as plain JSON."""
    return {
        "agents": [{"agent": agent, "instead": said} for agent, said in report.agents],
        "verdicts": dict(report.verdict_counts),
        "same": report.is_unchanged,
        "runs": [_run_data(one) for one in report.rehearsals],
        "lost": [{"run": one.run, "error": error_data(one.error)} for one in report.failures],
        "recalled": sum(one.recalled_calls for one in report.rehearsals),
        "anew": sum(one.new_calls for one in report.rehearsals),
        "spent": sum((one.new_usage for one in report.rehearsals), NO_USAGE),
    }


def _run_data(one: WhatifResult) -> dict[str, Any]:
    return {
        "run": one.run,
        "workflow": one.workflow,
        "verdict": one.verdict,
        "before": _side_data(one.before),
        "after": _side_data(one.after),
        "changed": [
            {"node": change.node, "before": change.before, "after": change.after} for change in one.differences
        ],
        "stops": [{"node": stop.node, "name": stop.name, "inputs": stop.inputs} for stop in one.stops],
        "recalled": one.recalled_calls,
        "anew": one.new_calls,
        "spent": one.new_usage,
        "lost": one.replay_gap or None,
        "late": one.timed_out,
        "altered": one.changed_tools,
        "unsure": one.unknown_tools,
        "uncovered": [
            {"node": node.node, "agent": node.agent, "code": node.code, "why": node.reason} for node in one.uncertified
        ],
    }


def _side_data(side: WhatifRun) -> dict[str, Any]:
    return {
        "status": side.status,
        "outcome": side.outcome,
        "usage": side.usage,
        "judged": side.judged_nodes,
        "accepted": side.accepted_nodes,
    }
